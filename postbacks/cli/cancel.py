"""``postbacks cancel``: cancel postbacks that wait or are parked, by their ids or by what chooses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import Command, counted, print_json, say
from postbacks.cli.filters import history_filters
from postbacks.cli.selection import FEW, are_for_now, begin_job, job_options
from postbacks.cli.sources import SWITCH_ON
from postbacks.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.history.query import Query

#: State of a postback after its cancel -> the sentence that says so.
_WORDS: Final = {
    "cancelled": "Postback {} is cancelled.",
    "held": "Postback {} is held by a worker, which does not send it any more.",
    "remembered": "The ledger has no postback {} yet; it is not sent should it come.",
    "sending": "Postback {} is being sent at this moment; should that fail, it is not sent again.",
}


@click.command(
    cls=Command,
    examples=(
        "postbacks cancel 7c0e1f3a-…",
        "postbacks cancel --account acme --code N202 --since 2h --dry-run",
        "postbacks cancel --account acme --state parked --why 'they have the list by mail'",
        "postbacks list --host hooks.example --state waiting --limit 1000 -o id | postbacks cancel - --yes",
    ),
)
@history_filters
@job_options
def cancel(ids: tuple[str, ...], query: Query, *, as_json: bool, **job: Any) -> None:
    """Cancel postbacks that wait, are held or are parked: by their IDs, by - (ids on standard input), or by options.

    A cancelled postback is not sent; `postbacks resend ID --state cancelled` takes it back. One whose POST is open
    at this moment is not sent again should that fail.

    Up to 20 IDs that you type are cancelled at once. All else is a job of the process that runs history (`postbacks history run`):
    it says how many and of whom, asks, and goes on though this command ends. See `postbacks jobs`.
    """
    from postbacks.operate.jobs.job import filters_of
    from postbacks.settings import load

    filters = filters_of(query)
    if ids:
        if filters.keys() - {"state"}:
            raise click.UsageError("Give ids, or options that choose, not both; --state alone goes with ids.")
        if are_for_now("cancel", ids, query, dry_run=job["dry_run"], yes=job["yes"], rate=job["rate"]):
            _cancel_each(ids, why=job["why"], as_json=as_json)
            return
    elif not filters:
        raise click.UsageError(
            "Give the ID of a postback, - for ids on standard input, or an option that chooses, such as --account acme."
        )
    if not load().history_url:
        raise InvalidQuery(f"Without a history postbacks are cancelled by their ids alone: {SWITCH_ON}.")
    begin_job("cancel", query, ids, as_json=as_json, **job)


def _cancel_each(ids: Sequence[str], *, why: str, as_json: bool) -> None:
    """Cancel postbacks at once, by their ids; say of each what became of it where they are few."""
    from postbacks.operate.cancel import NOT_SENT
    from postbacks.operate.cancel import cancel as cancel_one

    left = 0
    for postback_id in ids:
        state = cancel_one(postback_id, why=why)
        sentence = _WORDS.get(state, f"Postback {{}} is {state} already.").format(postback_id)
        left += state not in NOT_SENT
        if len(ids) == 1 and left and not as_json:
            raise click.ClickException(sentence)
        if len(ids) <= FEW or (state not in NOT_SENT and left <= FEW):
            say(sentence)
    if as_json:
        print_json({"cancelled": len(ids) - left, "left": left})
    if len(ids) > FEW:
        say(f"{counted(len(ids) - left)} {'is' if len(ids) - left == 1 else 'are'} cancelled.")
    if left:
        raise click.ClickException(f"{left:,} of {len(ids):,} are not cancelled.")
