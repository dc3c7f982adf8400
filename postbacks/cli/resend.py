"""``postbacks resend``: send postbacks again, by their ids or by what chooses them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import Command, Option, counted, print_json, say, show_counts
from postbacks.cli.filters import flag_of, history_filters
from postbacks.cli.selection import FEW, are_for_now, ask_for, begin_job, job_options
from postbacks.cli.sources import SWITCH_ON
from postbacks.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.history.query import Query
    from postbacks.operate.direct import DeadSelection

#: Filters that the broker alone can choose dead postbacks by.
_OF_BROKER: Final = frozenset({"account", "reason", "since_ms"})


@click.command(
    cls=Command,
    examples=(
        "postbacks resend 7c0e1f3a-…",
        "postbacks resend --account acme --between 14:00 15:00 --dry-run",
        "postbacks resend --account acme --dead --code N202 --why 'their gateway was down'",
        "postbacks list --dead --status 503 --limit 1000 -o id | postbacks resend - --yes",
        "postbacks resend --all-dead --account acme",
        "postbacks resend --all-dead --since 2h --dry-run",
        "postbacks resend --all-dead --reason poison",
    ),
)
@click.option(
    "--all-dead",
    cls=Option,
    section="Which postbacks",
    is_flag=True,
    help="All that died, as the broker has them: with --account, --reason and --since, times of their end.",
)
@history_filters
@job_options
def resend(ids: tuple[str, ...], query: Query, *, all_dead: bool, as_json: bool, **job: Any) -> None:
    """Send postbacks again: by their IDs, by - (ids on standard input), or by options that choose.

    Dead and skipped ones, unless --state names delivered, cancelled or forgotten: receivers may drop an id that they know.
    Each keeps its id and bytes and goes to its account's present URL, behind what waits already, and may be resent five times
    more. One that has left the broker is put back from the history.

    Up to 20 IDs that you type are sent at once. All else is a job of the process that runs history (`postbacks history
    run`): it says how many and of whom, asks, and goes on though this command ends. Of each account 50 go first; if
    they all fail, its part pauses. See `postbacks jobs`.

    --all-dead works without a history, too. It leaves those of unknown accounts, and two kinds that only --reason
    selects: poison (they killed processes; each is tried alone) and id_taken (another postback has their id).
    """
    from postbacks.operate.jobs.job import filters_of
    from postbacks.settings import load

    filters = filters_of(query)
    if ids:
        if all_dead or filters.keys() - {"state"}:
            raise click.UsageError("Give ids, or options that choose, not both; --state alone goes with ids.")
        if are_for_now("resend", ids, query, dry_run=job["dry_run"], yes=job["yes"], rate=job["rate"]):
            _resend_each(ids, why=job["why"], as_json=as_json)
            return
        begin_job("resend", query, ids, as_json=as_json, **job)
    elif all_dead:
        if others := filters.keys() - _OF_BROKER:
            raise click.UsageError(
                f"--all-dead goes with --account, --reason and --since alone: with {', '.join(map(flag_of, sorted(others)))} "
                "say --dead, which asks the history."
            )
        _resend_all_dead(query, as_json=as_json, **job)
    elif not filters:
        raise click.UsageError(
            "Give the ID of a postback, - for ids on standard input, or an option that chooses, such as --account acme --dead."
        )
    elif load().history_url:
        begin_job("resend", query, as_json=as_json, **job)
    elif query.state == "dead" and filters.keys() <= {"state", *_OF_BROKER}:
        _resend_all_dead(query, as_json=as_json, **job)
    else:
        raise InvalidQuery(
            f"Without a history only the dead can be chosen, by --dead, --account, --reason and --since: {SWITCH_ON}."
        )


def _resend_each(ids: Sequence[str], *, why: str, as_json: bool) -> None:
    """Send postbacks again at once, by their ids; say of each what became of it where they are few."""
    from postbacks.errors import PostbacksError, UnknownPostback
    from postbacks.operate.resend import resend as send_again

    refused = 0
    for postback_id in ids:
        try:
            resent = send_again(postback_id, why=why)
        except PostbacksError as error:
            # A broker or a history that cannot be used is none for the next id either.
            if len(ids) == 1 or type(error) not in {PostbacksError, UnknownPostback}:
                raise
            refused += 1
            if refused <= FEW:
                say(str(error))
            continue
        if len(ids) <= FEW:
            words = ", from the history: the broker did not have it any more" if resent.from_history else ""
            say(f"Postback {resent.record.id} waits to be sent again{words}.")
        if resent.doubt:
            say(resent.doubt)
    if as_json:
        print_json({"sent_again": len(ids) - refused, "left": refused})
    if len(ids) > FEW:
        say(_wait_words(len(ids) - refused, "postback"))
    if refused:
        raise click.ClickException(f"{refused:,} of {len(ids):,} are not sent again.")


def _resend_all_dead(
    query: Query, *, dry_run: bool, yes: bool, wait: bool, rate: float | None, why: str, as_json: bool
) -> None:
    """Send what the broker has of the dead again: as a job where there is a history, else at once."""
    from postbacks.broker.client import client
    from postbacks.cli.progress import follow_started
    from postbacks.operate.direct import resend_dead, select_dead
    from postbacks.operate.jobs.requests import start
    from postbacks.operate.jobs.status import feed_is_on
    from postbacks.settings import load

    dead = select_dead(account=query.account, reason=query.reason, since_s=_age_s(query.since_ms))
    count, left = len(dead.ids), dead.unknown + dead.by_reason + dead.stubs
    if dry_run or not yes:
        show_counts(Counter(dead.accounts), as_json=as_json)
    _say_left(dead)
    if dry_run:
        if as_json:
            print_json({"would_send": count, "left": left})
        say(f"{counted(count, 'dead postback')} would be sent again.")
        return
    if count and not yes:
        ask_for("resend", count)
    if count and load().history_url and feed_is_on(client()):
        job = start("resend", ids=dead.ids, rate=rate, why=why)
        follow_started(job, wait=wait, as_json=as_json)
        return
    if rate:
        raise click.UsageError("--rate is of a job, which a history moves: see docs/history.md.")
    sent = resend_dead(dead, why=why)
    if as_json:
        print_json({"sent_again": sent, "left": count - sent + left})
    say(_wait_words(sent, "dead postback") if count or left else "No such postback is dead.")
    if refused := count - sent:
        say(f"{refused:,} have nothing to send and stay dead (`postbacks list --dead` says why).")


def _wait_words(count: int, noun: str) -> str:
    return f"{counted(count, noun)} {'waits' if count == 1 else 'wait'} to be sent again."


def _say_left(dead: DeadSelection) -> None:
    """Say which dead postbacks stay as they are."""
    if dead.unknown:
        say(f"{dead.unknown:,} of accounts that are not known stay dead: set the accounts first.")
    if dead.by_reason:
        say(f"{dead.by_reason:,} stay dead that only --reason poison or --reason id_taken selects.")
    if dead.stubs:
        say(
            f"{dead.stubs:,} stay dead as their documents were not kept: the application must send them again."
        )


def _age_s(since_ms: int | None) -> float | None:
    """Return how long ago a time was, on the broker's clock."""
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors

    if since_ms is None:
        return None
    with broker_errors():
        return (now_ms(client()) - since_ms) / 1000
