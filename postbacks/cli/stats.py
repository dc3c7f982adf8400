"""``postbacks stats``: what became of postbacks, by account, event, host or hour."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from postbacks.cli.base import (
    Command,
    Option,
    add_row,
    is_cut,
    make_table,
    print_json,
    print_table,
    say,
    stack_columns,
)
from postbacks.cli.filters import history_filters

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from postbacks.history.query import Query
    from postbacks.history.statistics import StatRow

#: Window where no time is given.
DEFAULT_MS: Final = 24 * 3_600_000
#: Rows of a table; --json has all.
ROWS_MAX: Final = 50
#: Characters of the longest bar.
_BAR: Final = 16
#: Headings of numbers.
_NUMBERS: Final = ("accepted", "sent", "first", "later", "dead", "open", "other", "p50", "p95", "oldest open")

#: Columns that stand above each other in a narrow terminal: the bar is the last one.
_STACKS: Final = ((0, 11), (1, 2), (3, 4), (5, 7), (6, 10), (8, 9))


@click.command(
    cls=Command,
    examples=(
        "postbacks stats --by account",
        "postbacks stats --by hour --account acme --since 2d",
        "postbacks stats --by host --code N202 --json",
    ),
)
@click.option(
    "--by",
    cls=Option,
    section="What is printed",
    type=click.Choice(["account", "code", "host", "hour"]),
    default="account",
    show_default=True,
    help="A row each of these.",
)
@click.option(
    "--json",
    "as_json",
    cls=Option,
    section="What is printed",
    is_flag=True,
    help="Print one JSON object a line.",
)
@history_filters
def stats(query: Query, by: str, *, as_json: bool) -> None:
    """Count what became of postbacks, and how fast they were answered.

    Of those accepted in the last 24 hours, or in the time that is given: how many were sent, delivered by the first
    POST and by a later one, how many are dead and still open; median (p50) and 95th percentile (p95) of the time to the
    latest answer; and the age of the oldest that is still open. Bars show the delivered in green, the dead in red and all
    others in yellow.
    """
    from postbacks.cli.search import say_recorded
    from postbacks.history import stats as count
    from postbacks.history.times import of_ms, shown

    if query.since_ms is None:
        until_ms = query.until_ms or time.time_ns() // 1_000_000
        query = replace(query, since_ms=max(0, until_ms - DEFAULT_MS) // 1000 * 1000)
        say(f"Accepted from {shown(of_ms(query.since_ms or 0))} on: 24 hours, as no --since is given.")
    counted = count(query, by)
    if as_json:
        for row in counted.rows:
            print_json(row.to_public_dict())
    elif counted.rows:
        _print_rows(counted.rows, counted.total, by)
    if not counted.rows:
        say("No postback was accepted in this time that fits.")
    _say_late_opt_outs()
    say_recorded(counted.recorded_ms)


def _say_late_opt_outs() -> None:
    """Say how many opt-outs are not delivered in time, of all accounts and whenever they were accepted; nothing of none."""
    from postbacks.history.engine import reader
    from postbacks.history.opt_outs import late
    from postbacks.history.times import length
    from postbacks.history.transactions import reading
    from postbacks.settings import load

    with reading(reader()) as connection:
        opt_outs = late(connection, load().opt_out_late_s)
    if opt_outs.oldest_ms is not None:
        age = length(max(0, time.time_ns() // 1_000_000 - opt_outs.oldest_ms))
        verb = "opt-out is" if opt_outs.postbacks == 1 else "opt-outs are"
        say(
            f"{opt_outs.postbacks:,} {verb} not delivered in time, the oldest for {age}: "
            "`postbacks list --opt-outs --undelivered`."
        )


def _print_rows(rows: tuple[StatRow, ...], total: StatRow, by: str) -> None:
    table = make_table(by, *_NUMBERS, "", right=_NUMBERS, whole=(by, *_NUMBERS, ""))
    most = max(row.postbacks for row in rows)
    shown_rows = rows[-ROWS_MAX:] if by == "hour" else rows[:ROWS_MAX]
    for row in shown_rows:
        add_row(table, _key(row, by), *_numbers(row), _bar(row, most))
    if len(rows) > 1:
        add_row(table, total.key, *_numbers(total), "")
    print_table(_fitted(table))
    if left := len(rows) - len(shown_rows):
        say(f"{left:,} more rows are not shown: --json prints all.")


def _fitted(table: Table) -> Table:
    """Return a table that a terminal has room for: its figures in pairs, a key and its bar, where one line is too long."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal or not is_cut(table, console.width, is_any=True):
        return table
    stacked = stack_columns(table, _STACKS)
    stacked.columns[0].no_wrap = False
    return table if is_cut(stacked, console.width) else stacked


def _key(row: StatRow, by: str) -> str:
    if by == "hour":
        # With its offset: where clocks are put back, an hour comes twice.
        return datetime.fromisoformat(row.key).astimezone().isoformat(" ", "minutes")
    return row.key or "(none)"


def _numbers(row: StatRow) -> list[str]:
    from postbacks.history.times import length

    counts = (row.postbacks, row.sent, row.first, row.later, row.dead, row.open, row.other)
    answers = ("" if ms is None else f"{ms:,} ms" for ms in (row.p50_ms, row.p95_ms))
    oldest = row.oldest_open_ms
    age = "" if oldest is None else length(max(0, time.time_ns() // 1_000_000 - oldest))
    return [*(f"{count:,}" for count in counts), *answers, age]


def _bar(row: StatRow, most: int) -> Text:
    """Draw a row's postbacks as a bar, as long as their share of the longest; whatever there are any of has a character."""
    from rich.text import Text

    bar = Text()
    delivered = row.first + row.later
    for count, colour in (
        (delivered, "green"),
        (row.postbacks - delivered - row.dead, "yellow"),
        (row.dead, "red"),
    ):
        if count:
            bar.append("█" * max(1, round(_BAR * count / most)), style=colour)
    return bar
