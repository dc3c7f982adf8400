"""``postbacks jobs`` and ``job``: look at resends and cancels of many postbacks, and pause, resume or stop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import (
    Command,
    Group,
    add_row,
    counted,
    json_option,
    make_table,
    print_json,
    print_table,
    say,
    stack_columns,
    why_option,
)
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from postbacks.operate.jobs.job import Job, Part

#: Accounts' parts that ``job show`` prints; ``--json`` prints all.
_PARTS_SHOWN: Final = 20

#: Columns of a terminal from which on a row of the table of jobs fits into one line.
_WIDE: Final = 150


@click.command(cls=Command, examples=("postbacks jobs", "postbacks jobs --json"))
@json_option
def jobs(as_json: bool) -> None:
    """List resends and cancels of many postbacks, the latest first: those that go on, and those that ended lately.

    "moved" counts what was put back or cancelled; "left alone" what was in another state by then, in flight, forgotten or
    without a document. `postbacks job show ID` has them apart.
    """
    from postbacks.operate.jobs.status import all_jobs

    known = all_jobs()
    if as_json:
        for job in known:
            print_json(job.to_public_dict())
    elif known:
        print_table(_table_of_jobs(known))
    else:
        say("There is no job: `postbacks resend --help` says how one begins.")


def _table_of_jobs(known: list[Job]) -> Table:
    from rich.console import Console

    from postbacks.history.times import of_ms

    numbers = ("moved", "delivered", "failed", "left alone")
    headings = ("job", "what", "state", "by", "asked", "why", *numbers)
    table = make_table(*headings, right=numbers, whole=("job", "what", "state", "asked", *numbers))
    for job in known:
        counts = job.counts
        is_resend = job.kind == "resend"
        add_row(
            table,
            job.id,
            job.kind,
            job.state,
            job.by,
            of_ms(job.asked_ms).isoformat(" ", "minutes"),
            job.why,
            "" if job.total is None else f"{counts.moved:,} of {job.total:,}",
            f"{counts.delivered:,}" if is_resend else "",
            f"{counts.failed:,}" if is_resend else "",
            f"{counts.done - counts.moved:,}",
        )
    console = Console()
    if not console.is_terminal or console.width >= _WIDE:
        return table
    return stack_columns(table, ((0, 1), (2, 3), (4, 5), (6, 9), (7, 8)))


@click.group("job", cls=Group, examples=("postbacks job show 7c0e1f3a", "postbacks job stop 7c0e1f3a"))
def job() -> None:
    """Look at one job, or pause, resume or stop it.

    A job is a resend or a cancel of many postbacks, which the process that runs history moves: see `postbacks resend`.
    """


@job.command(cls=Command, examples=("postbacks job show 7c0e1f3a", "postbacks job show 7c0e1f3a --json"))
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Show a job: who asked for it and why, what it chose, how far it is, and each account's part."""
    from postbacks.operate.jobs.status import read

    shown = read(job_id)
    if as_json:
        print_json(shown.to_public_dict() | {"parts": [part.to_public_dict() for part in shown.parts]})
        return
    for label, text in _lines(shown):
        if text:
            click.echo(f"{label:13}{printable(text)}")
    if shown.parts:
        click.echo()
        print_table(_table_of_parts(shown))
    if len(shown.parts) > _PARTS_SHOWN:
        say(f"and {len(shown.parts) - _PARTS_SHOWN:,} accounts more, which --json has.")


def _lines(job: Job) -> list[tuple[str, str]]:
    from postbacks.cli.selection import command_of
    from postbacks.operate.jobs.words import outcome

    chosen = f"{job.ids:,} ids, given one by one" if job.ids else ""
    if job.query is not None and not job.ids:
        chosen = command_of(job.kind, job.query)
    elif job.query is not None and job.query.state:
        chosen += f", of those {job.query.state}"
    state = job.state
    if job.paused_by:
        state += f" by {job.paused_by}"
    if job.ended_ms is not None:
        state += f" at {_time(job.ended_ms)}"
    moved, *others = outcome(job, has_parts=job.is_unended) or [""]
    return [
        ("job", job.id),
        ("state", state),
        # The parts that have paused themselves say so below.
        ("note", "" if job.state == "paused" and not job.paused_by else job.note),
        ("waits", job.waits),
        ("what", f"{job.kind} of {_set_words(job)}"),
        ("chosen by", chosen),
        ("asked", f"{_time(job.asked_ms)} by {job.by}"),
        ("why", job.why),
        ("so far" if job.is_unended else "outcome", moved),
        *(("", sentence) for sentence in others),
        ("pace", _pace(job) if job.is_unended else ""),
    ]


def _set_words(job: Job) -> str:
    """Say how large a job's set is."""
    if job.total is not None:
        return counted(job.total)
    return "a set that is being chosen" if job.is_unended else "a set that was never chosen"


def _pace(job: Job) -> str:
    """Say how fast a job moves, how fast it may, and how long it takes from here."""
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.history.times import length
    from postbacks.operate.jobs.words import pace

    with broker_errors():
        now = pace(job, now_ms(client()))
    words = now and f"{now.per_s:,.0f}/s since its begin, {length(now.left_ms)} left"
    return "; ".join(filter(None, (words, f"at most {job.rate:,g}/s" if job.rate else "")))


def _table_of_parts(job: Job) -> Table:
    numbers = ("moved", "delivered", "failed", "waiting", "left alone")
    table = make_table("account", *numbers, "", right=numbers, whole=numbers)

    def rank(part: Part) -> tuple[bool, int]:
        return not part.is_paused, -part.total

    for part in sorted(job.parts, key=rank)[:_PARTS_SHOWN]:
        counts = part.counts
        add_row(
            table,
            part.account,
            f"{counts.moved:,} of {part.total:,}",
            f"{counts.delivered:,}",
            f"{counts.failed:,}",
            f"{part.waiting:,}",
            f"{counts.done - counts.moved:,}",
            "paused" if part.is_paused and job.is_unended else "",
        )
    return table


def _change(name: str, help_text: str, words: str) -> None:
    """Add a command that changes a job.

    Args:
        name: of the command, and of the action in ``operate.jobs.requests``.
        help_text: of the command.
        words: what is said afterwards, with the job's fields.
    """

    @why_option
    @json_option
    def change(job_id: str, *, why: str, as_json: bool) -> None:
        from postbacks.operate.jobs import requests
        from postbacks.operate.jobs.status import read

        before = read(job_id)  # a job that goes on may have moved the rest a moment later
        changed: Job = getattr(requests, name)(job_id, why=why)
        if as_json:
            print_json(changed.to_public_dict())
        left = before.left if name == "resume" else changed.left
        say(words.format(id=changed.id, left=left, waiting=changed.waiting))

    change.__doc__ = help_text
    argument: Callable[..., Any] = click.argument("job_id", metavar="ID")
    job.command(name, cls=Command, examples=(f"postbacks job {name} 7c0e1f3a",))(argument(change))


_change(
    "pause",
    "Pause a job: what it has moved goes on, nothing more is moved.",
    "Job {id} is paused with {left:,} to go; `postbacks job resume {id}` goes on.",
)
_change(
    "resume",
    "Resume a paused job, and each account's part that has paused itself: 50 of each go first again.",
    "Job {id} goes on with {left:,}.",
)
_change(
    "stop",
    "Stop a job for good: what it has moved goes on, the rest stays as it is, and another job may choose it.",
    "Job {id} is stopped; {left:,} stay as they are.",
)


def _time(ms: int) -> str:
    from postbacks.history.times import of_ms, shown

    return shown(of_ms(ms // 1000 * 1000))
