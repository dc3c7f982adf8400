"""Selections of ``resend`` and ``cancel``: ids, standard input or filters; what is said of them, and asked, before a job."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import (
    Option,
    add_row,
    check_id,
    confirm,
    counted,
    is_cut,
    json_option,
    make_table,
    print_json,
    say,
    show_counts,
    stack_columns,
    stderr_console,
    table_lines,
)
from postbacks.operate.jobs.job import TYPED_ABOVE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postbacks.history.query import Query
    from postbacks.operate.jobs.job import Preview

#: Ids on the command line that are acted upon at once, with a sentence each; more become a job.
FEW: Final = 20
#: What a job does, as a question says it: before and behind the number.
QUESTIONS: Final = {"resend": ("Send", " again"), "cancel": ("Cancel", "")}

#: Where a context says that its ids came from standard input.
_PIPED: Final = "postbacks.ids_piped"

_job: Final = partial(click.option, cls=Option, section="The job")


def _ids(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Check ids; read them from standard input, one a line, where ``-`` stands for them. Each is taken once."""
    if "-" in values:
        if len(values) > 1:
            raise click.UsageError("- stands for ids on standard input, one a line: give it alone.")
        ctx.meta[_PIPED] = True
        stdin = getattr(
            sys.stdin, "buffer", None
        )  # None in a program that was started without standard input
        lines = [] if stdin is None else stdin.read().decode("utf-8", "backslashreplace").splitlines()
        values = tuple(filter(None, map(str.strip, lines)))
        if not values:
            say("Standard input has no id: nothing is done.")
            ctx.exit()
    for value in values:
        check_id(ctx, param, value)
    return tuple(dict.fromkeys(values))


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ids and the options of a job."""
    options = (
        click.argument("ids", metavar="[ID]...", nargs=-1, callback=_ids),
        _job("--dry-run", is_flag=True, help="Say how many, of whom, and show some; do nothing."),
        _job("--yes", is_flag=True, help="Do not ask."),
        _job(
            "--wait",
            is_flag=True,
            help="Wait for its end, or until it is paused, where there is no terminal.",
        ),
        _job(
            "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="At most so many a second."
        ),
        _job("--why", default="", metavar="TEXT", help="For the journal, and for whoever looks at it."),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def are_for_now(
    kind: str, ids: Sequence[str], query: Query, *, dry_run: bool, yes: bool, rate: float | None
) -> bool:
    """Tell whether ids are acted upon now, without a job: a few that were typed, or all where there is no history; ask first.

    Raises:
        click.UsageError: they are many, and there is no terminal to ask at.
        click.Abort: they are many, and the answer is no.
    """
    from postbacks.operate.jobs.job import filters_of
    from postbacks.settings import load

    is_many, is_piped = len(ids) > FEW, click.get_current_context().meta.get(_PIPED, False)
    if filters_of(query) or dry_run or rate or (load().history_url and (is_many or is_piped)):
        return False
    if is_many and not yes:
        ask_for(kind, len(ids))
    return True


def ask_for(kind: str, total: int) -> None:
    """Ask before a job: for a yes, or for the number where it is large.

    Raises:
        click.UsageError: there is no terminal to ask at.
        click.Abort: the answer is no, or another number.
    """
    verb, again = QUESTIONS[kind]
    if total <= TYPED_ABOVE:
        confirm(f"{verb} {counted(total)}{again}?")
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: say --yes.")
    question = f"{verb} {counted(total)}{again}? Type the number to go on"
    typed = click.prompt(question, prompt_suffix=": ", default="", show_default=False, err=True)
    if typed.strip().replace(",", "") != str(total):
        raise click.Abort


def begin_job(
    kind: str,
    query: Query,
    ids: Sequence[str] = (),
    *,
    dry_run: bool,
    yes: bool,
    wait: bool,
    rate: float | None,
    why: str,
    as_json: bool,
) -> None:
    """Say what a job would do, ask, begin it, and follow it where somebody looks."""
    from postbacks.broker.client import client
    from postbacks.cli.progress import follow_started
    from postbacks.history.status import doubt
    from postbacks.operate.jobs.preview import preview
    from postbacks.operate.jobs.requests import start

    filters = None if ids and query.state is None else query
    shown = preview(kind, filters, ids=ids)
    if words := doubt(client()):
        say(words)
    if shown.total and shown.names_known:
        say("Receivers may drop an id that they know, and each postback keeps its own.")
    if dry_run or not yes or not shown.total:
        say_preview(shown, None if ids else query, has_sample=dry_run, as_json=as_json)
    if dry_run:
        if as_json:
            print_json(public_preview(shown))
        if shown.total:
            verb = "sent again" if kind == "resend" else "cancelled"
            say(f"{counted(shown.total)} would be {verb}.")
        return
    if not shown.total:
        if as_json:
            print_json(public_preview(shown))
        return
    if not yes:
        ask_for(kind, shown.total)
    follow_started(start(kind, filters, ids=ids, rate=rate, why=why), wait=wait, as_json=as_json)


def say_preview(preview: Preview, query: Query | None, *, has_sample: bool, as_json: bool) -> None:
    """Say how many a job would move, of whom and which of them; or why there is none."""
    from postbacks.cli.search import say_recorded

    if preview.left_out:
        words = f"nobody knows them, or they are not {_either(preview.states)}"
        say(f"{preview.left_out:,} of the ids are left out: {words}.")
    if not preview.total:
        say(_why_none(preview.kind, query))
        say_recorded(preview.recorded_ms)
    elif not as_json:
        show_counts(Counter(preview.accounts), as_json=False)
        if has_sample:
            _say_sample(preview)


def _say_sample(preview: Preview) -> None:
    from postbacks.cli.search import cells
    from postbacks.cli.sources import History

    table = make_table("accepted", "id", "account", "event", "state", "why", whole=("id",))
    for postback in preview.sample:
        accepted, postback_id, account, event, state, _, why, _ = cells(postback, History().why(postback))
        add_row(table, accepted, postback_id, account, event, state, why)
    more = preview.total > len(preview.sample)
    say("Some of them, the newest first:" if more else "They are:")
    console = stderr_console()
    if console.is_terminal and is_cut(table, console.width, is_any=True):
        console.print(stack_columns(table, ((0, 1), (2, 3), (4, 5))))
        return
    for line in table_lines(table):
        say(line)


def _why_none(kind: str, query: Query | None) -> str:
    """Say why a filter leaves nothing to move, and what to try."""
    from postbacks import history
    from postbacks.cli.sources import History
    from postbacks.operate.jobs.job import MOVED_FROM

    states = _either(MOVED_FROM[kind])
    if query is None:
        return "None of the ids can be taken: `postbacks show ID` says what one is."
    if query.state is None and (count := history.count(query).postbacks):
        noun = "postback fits, and it is not" if count == 1 else "postbacks fit, and none of them is"
        return f"{count:,} {noun} {states}: `{command_of('list', query)}` shows {'it' if count == 1 else 'them'}."
    return f"Nothing fits: {History().why_empty(query)}"


def _either(words: Sequence[str]) -> str:
    """Return words as "waiting, parked or held"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def public_preview(preview: Preview) -> dict[str, Any]:
    """Return a preview as ``--dry-run --json`` prints it."""
    return {
        "kind": preview.kind,
        "total": preview.total,
        "accounts": preview.accounts,
        "left_out": preview.left_out,
        "sample": [postback.to_public_dict() for postback in preview.sample],
    }


def command_of(name: str, query: Query) -> str:
    """Return the command line that chooses what a query chooses, its times in UTC."""
    from postbacks.cli.filters import flag_of
    from postbacks.ledger.record import iso
    from postbacks.operate.jobs.job import filters_of

    words = ["postbacks", name]
    for field, value in filters_of(query).items():
        if value is True:
            words.append(flag_of(field))
            continue
        text = iso(value) if field in {"since_ms", "until_ms"} else value
        words += [flag_of(field), f"{text}ms" if field == "slower_than_ms" else str(text)]
    return shlex.join(words)
