"""``postbacks resend``: send dead postbacks again, one by its id or all that match."""

from __future__ import annotations

import re
from typing import Final

import click

from postbacks.cli.base import Command, check_id, json_option, note, print_json

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _age(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Check a length of time, a number and s, m, h or d; returns seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no length of time: 90s, 30m, 2h or 1d.", ctx, param)
    return float(found[1]) * _UNITS_S[found[2]]


@click.command(
    cls=Command,
    examples=(
        "postbacks resend 7c0e1f3a-…",
        "postbacks resend --all-dead --account acme",
        "postbacks resend --all-dead --since 2h --dry-run",
    ),
)
@click.argument("postback_id", metavar="[ID]", required=False, callback=check_id)
@click.option("--all-dead", is_flag=True, help="All that were given up, as far as the other options allow.")
@click.option("--account", metavar="NAME", help="With --all-dead: of this account alone.")
@click.option(
    "--reason", metavar="WORD", help="With --all-dead: dead for this reason alone (refused, poison)."
)
@click.option(
    "--since", callback=_age, metavar="AGE", help="With --all-dead: given up within 90s, 30m, 2h or 1d."
)
@click.option("--dry-run", is_flag=True, help="With --all-dead: count them and send nothing.")
@json_option
def resend(
    postback_id: str | None,
    *,
    all_dead: bool,
    account: str | None,
    reason: str | None,
    since: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send dead postbacks again.

    Each is sent with the same id and bytes, and may be resent five times more. Its attempts so far stay in the ledger.
    Where there are many, they queue behind what waits already, as fast as each account's limits allow.
    """
    if all_dead == bool(postback_id):
        raise click.UsageError("Give the ID of one, or --all-dead.")
    if postback_id:
        if account or reason or since or dry_run:
            raise click.UsageError("--account, --reason, --since and --dry-run go with --all-dead.")
        _resend_one(postback_id, as_json=as_json)
        return
    _resend_all(account, reason, since, dry_run=dry_run, as_json=as_json)


def _resend_one(postback_id: str, *, as_json: bool) -> None:
    from postbacks.broker import client
    from postbacks.cli.ledger import reason_words
    from postbacks.ledger.ledger import Ledger
    from postbacks.tasks import resend as send_again

    record = Ledger(client()).get(postback_id)
    if record.state != "dead":
        raise click.ClickException(
            f"Postback {record.id} is {record.state}; only a dead one can be sent again."
        )
    if send_again(record.id) == "dead":
        raise click.ClickException(f"Postback {record.id} has no URL to be sent to: {reason_words(record)}.")
    if as_json:
        print_json({"sent_again": 1, "left": 0})
    note(f"Postback {record.id} waits to be sent again.")


def _resend_all(
    account: str | None, reason: str | None, since_s: float | None, *, dry_run: bool, as_json: bool
) -> None:
    from postbacks.broker import client
    from postbacks.ledger.ledger import Ledger
    from postbacks.tasks import resend as send_again

    found = Ledger(client()).dead_ids(within_s=since_s, account=account, reason=reason)
    if dry_run:
        if as_json:
            print_json({"would_send": len(found)})
        note(f"{len(found):,} dead postbacks would be sent again.")
        return
    states = [send_again(one) for one in found]
    left = states.count("dead")
    if as_json:
        print_json({"sent_again": len(found) - left, "left": left})
    note(
        f"{len(found) - left:,} dead postbacks wait to be sent again."
        if found
        else "No such postback is dead."
    )
    if left:
        note(f"{left:,} have no URL to be sent to and stay dead (`postbacks list --dead` says why).")
