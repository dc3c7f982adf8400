"""``postbacks resend``: send a postback again by its id, or all dead ones that match."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import click

from postbacks.cli.base import (
    Command,
    age,
    check_id,
    confirm,
    json_option,
    print_json,
    say,
    show_counts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Begins of reasons that --all-dead leaves unless --reason asks for them: postbacks that killed processes, and those
#: whose id another postback has.
_BY_REASON: Final = ("poison", "id_taken")


@click.command(
    cls=Command,
    examples=(
        "postbacks resend 7c0e1f3a-…",
        "postbacks resend --all-dead --account acme",
        "postbacks resend --all-dead --since 2h --dry-run",
        "postbacks resend --all-dead --reason poison",
    ),
)
@click.argument("postback_id", metavar="[ID]", required=False, callback=check_id)
@click.option("--all-dead", is_flag=True, help="Send all dead postbacks that the other options select.")
@click.option("--account", metavar="NAME", help="With --all-dead: only postbacks of this account.")
@click.option(
    "--reason", metavar="WORD", help="With --all-dead: only those dead for this reason (refused, poison)."
)
@click.option(
    "--since",
    callback=age,
    metavar="AGE",
    help="With --all-dead: only those dead for less: 90s, 30m, 2h or 1d.",
)
@click.option("--dry-run", is_flag=True, help="With --all-dead: count them and send nothing.")
@click.option("--yes", is_flag=True, help="With --all-dead: do not ask.")
@json_option
def resend(
    postback_id: str | None,
    *,
    all_dead: bool,
    account: str | None,
    reason: str | None,
    since: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send dead or skipped postbacks again.

    Give the ID of a dead or skipped postback, or --all-dead. One that has left the broker is put back from the history,
    by its ID. Each is sent with the same id and bytes to its account's
    present URL, and may be resent five times more. Its attempts so far stay in the ledger. Many of them queue behind
    those that wait already, within each account's limits.

    --all-dead first shows how many each account has, and asks. It leaves those of unknown accounts, and two kinds that
    only --reason selects: poison (they killed processes; each is tried alone) and id_taken (another postback has their
    id).
    """
    if all_dead == bool(postback_id):
        raise click.UsageError("Give the ID of a postback, or --all-dead.")
    if postback_id:
        if account or reason or since or dry_run or yes:
            raise click.UsageError("--account, --reason, --since, --dry-run and --yes go with --all-dead.")
        _resend_one(postback_id, as_json=as_json)
        return
    _resend_all(account, reason, since, dry_run=dry_run, yes=yes, as_json=as_json)


def _resend_one(postback_id: str, *, as_json: bool) -> None:
    from postbacks.operate.resend import resend as send_again

    resent = send_again(postback_id)
    if as_json:
        print_json({"sent_again": 1, "left": 0})
    words = ", from the history: the broker did not have it any more" if resent.from_history else ""
    say(f"Postback {resent.record.id} waits to be sent again{words}.")
    if resent.doubt:
        say(resent.doubt)


def _resend_all(
    account: str | None,
    reason: str | None,
    since_s: float | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from postbacks.broker.client import client
    from postbacks.ledger.ledger import Ledger
    from postbacks.queue.actions import resend as send_again

    dead = Ledger(client()).dead(within_s=since_s, account=account, reason=reason)
    stubs = [postback for postback in dead if postback.is_stub]
    dead = [postback for postback in dead if not postback.is_stub]
    chosen = [postback for postback in dead if reason or not postback.reason.startswith(_BY_REASON)]
    known = _known({postback.account for postback in chosen})
    known.add("")  # of a message that only a newer version could read
    sendable = [postback for postback in chosen if postback.own_url or postback.account in known]
    unknown, left = len(chosen) - len(sendable), len(dead) - len(chosen)
    if dry_run or not yes:
        show_counts(Counter(postback.account for postback in sendable), as_json=as_json)
    if unknown:
        say(f"{unknown:,} of accounts that are not known stay dead: set the accounts first.")
    if left:
        say(f"{left:,} stay dead that only --reason poison or --reason id_taken selects.")
    if stubs:
        say(
            f"{len(stubs):,} stay dead as their documents were not kept: the application must send them again."
        )
    left += len(stubs)
    if dry_run:
        if as_json:
            print_json({"would_send": len(sendable), "left": unknown + left})
        say(f"{len(sendable):,} dead postbacks would be sent again.")
        return
    if sendable and not yes:
        confirm(f"Send {len(sendable):,} dead postbacks again?")
    states = [send_again(postback.id) for postback in sendable]
    refused = states.count("dead")
    if as_json:
        print_json({"sent_again": len(sendable) - refused, "left": refused + unknown + left})
    say(
        f"{len(sendable) - refused:,} dead postbacks wait to be sent again."
        if dead or stubs
        else "No such postback is dead."
    )
    if refused:
        say(f"{refused:,} have nothing to send and stay dead (`postbacks list --dead` says why).")


def _known(names: Iterable[str]) -> set[str]:
    """Return the names of those accounts that the store has."""
    from postbacks.accounts import find_accounts, store

    return set(find_accounts(store(), sorted(filter(None, names))))
