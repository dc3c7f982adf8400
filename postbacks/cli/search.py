"""``postbacks list``: find postbacks in the history, or among those that the broker alone has."""

from __future__ import annotations

import csv
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

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
    state_text,
)
from postbacks.cli.filters import history_filters
from postbacks.cli.persons import Persons
from postbacks.cli.reveal import reveal_options
from postbacks.cli.sources import Ended, History, ask
from postbacks.history.csv_rows import COLUMNS, cell
from postbacks.history.query import LIMIT_MAX
from postbacks.ledger.states import FINAL_STATES
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.table import Table

    from postbacks.history.follow import Follower
    from postbacks.history.query import Count, Page, Postback, Query

#: Age of what history has last read from which on somebody should look after it.
_BEHIND_MS: Final = 10_000
#: Headings of the table.
HEADINGS: Final = ("accepted", "id", "account", "event", "state", "attempts", "why", "ended")
#: Columns of a terminal from which on a row of the table fits into one line, and what a person needs beside them.
_WIDE: Final = 150
_PERSON_WIDE: Final = 17
#: Least widths of the same columns in lines that come one by one, and of the person's.
_WIDTHS: Final = (25, 36, 12, 13, 9, 2, 20, 14, 1)
#: Name of the column of ``--person``, the last one, and of its field in ``--json``.
_PERSON: Final = "person"

_printed: Final = partial(click.option, cls=Option, section="What is printed")


@click.command(
    "list",
    cls=Command,
    examples=(
        "postbacks list --account acme --since 2h",
        "postbacks list --number '+1 555 231 0137'",
        "postbacks list --dead --code N202 --between 14:00 15:00",
        "postbacks list --state parked --count",
        "postbacks list --dead --limit 50 --json",
        "postbacks list --account acme --follow",
        "postbacks list --account acme --person",
        "postbacks list --opt-outs --undelivered",
        "postbacks list --opt-outs --since 30d --csv",
    ),
)
@history_filters
@_printed(
    "--limit",
    default=20,
    show_default=True,
    type=click.IntRange(1, LIMIT_MAX),
    metavar="N",
    help="At most so many, up to 100,000.",
)
@_printed("--cursor", metavar="TEXT", help="Go on behind a page: stderr says the cursor of the next one.")
@_printed("--count", is_flag=True, help="Print their exact number alone.")
@_printed("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_printed("--csv", "as_csv", is_flag=True, help="Print comma-separated values with a header line.")
@_printed("-o", "output", type=click.Choice(["id"]), metavar="id", help="Print ids alone, one a line.")
@_printed("--person", is_flag=True, help="Also whom each is about: the number or address, masked.")
@_printed("--follow", is_flag=True, help="Go on with what comes and what ends, until Ctrl-C.")
@reveal_options
def list_(
    query: Query,
    *,
    limit: int,
    cursor: str | None,
    count: bool,
    as_json: bool,
    as_csv: bool,
    output: str | None,
    person: bool,
    follow: bool,
    reveal: str | None,
) -> None:
    """List postbacks, the newest first.

    All options that choose must fit. Only data goes to stdout; stderr says how many were found, how the next page is
    reached, and until when the history is recorded: about 3 s ago at most.

    --person adds the number or e-mail address that each is about, of a pass its REFERENCEVALUE: masked, or with --reveal as it
    is. It is empty where the document is kept no more. --csv of --opt-outs is a proof: a row an attempt, with the person.

    Without a history (POSTBACKS_HISTORY_URL) the broker's list of postbacks that have ended is searched, by --account,
    --state, --reason and the time of the end: those that are done (delivered, skipped, cancelled), or the dead with --dead.
    """
    forms = {"--json": as_json, "--csv": as_csv, "-o": output, "--count": count}
    chosen = [flag for flag, given in forms.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} are different forms of one answer: choose one.")
    if count and (follow or cursor):
        raise click.UsageError("--count is of all that fit at this moment: leave --follow and --cursor out.")
    form = chosen[0] if chosen else ""
    if person and form in {"-o", "--count"}:
        raise click.UsageError(
            f"--person is a column of the table, --json and --csv: leave it or {form} out."
        )
    if reveal is not None and not (person or (query.opt_outs and as_csv)):
        raise click.UsageError(
            "--reveal shows the numbers and addresses of --person and of --opt-outs --csv: add --person, or leave it out."
        )
    query = replace(query, limit=limit, cursor=cursor or "")
    persons = Persons(query, reveal) if person or (query.opt_outs and as_csv) else None
    if count:
        source, number = ask(query, lambda source: (source, source.count(query)))
        click.echo(number.postbacks)
        if source.has_unfinished:
            _say_recorded_of(query, number, unfinished=False)
    elif follow:
        _follow(query, form, persons)
    else:
        _print_pages(*ask(query, lambda source: _begun(source, query)), form, persons)


def _printer(query: Query, form: str, source: History | Ended, persons: Persons | None) -> Printer:
    if not query.opt_outs:
        return Printer(form, source, persons)
    from postbacks.cli.opt_outs import OptOutPrinter, ProofPrinter

    if persons and form == "--csv":
        return ProofPrinter(source, persons)
    return OptOutPrinter(form, source, persons)


def _follow(query: Query, form: str, persons: Persons | None) -> None:
    from postbacks.broker.client import client
    from postbacks.cli.follow import follow
    from postbacks.history.follow import Follower

    if query.cursor or query.until_ms is not None:
        raise click.UsageError("--follow goes on from now: leave --cursor, --until and --between out.")
    if query.state not in {None, *FINAL_STATES}:
        raise click.UsageError(
            f"--follow shows what comes and what ends, and {query.state} is neither: leave --state out, or ask "
            f"for {', '.join(sorted(FINAL_STATES))}."
        )

    def begun(source: History | Ended) -> tuple[History | Ended, Follower, list[Postback]]:
        follower = Follower(client(), query, source.pages, has_unfinished=source.has_unfinished)
        return source, follower, follower.begin()

    source, follower, latest = ask(query, begun)
    follow(follower, latest, _printer(query, form, source, persons))


def _begun(source: History | Ended, query: Query) -> tuple[Query, History | Ended, Iterator[Page]]:
    """Read the first page of a query, whose errors come before anything is printed, and return all pages."""
    pages = source.pages(query)
    first = list(islice(pages, 1))
    return query, source, chain(first, pages)


def _print_pages(
    query: Query, source: History | Ended, pages: Iterator[Page], form: str, persons: Persons | None
) -> None:
    """Print pages, each when it is read, and say what was found."""
    printer = _printer(query, form, source, persons)
    found, page, unfinished, waits = 0, None, False, set[str]()
    for page in pages:
        printer.print(page.postbacks)
        found += len(page.postbacks)
        unfinished = unfinished or any(postback.ended_ms is None for postback in page.postbacks)
        waits |= {postback.account for postback in page.postbacks if postback.ended_ms is None}
    if found:
        older = f"; for older ones add --cursor {page.next}" if page and page.next else ""
        say(f"{found:,} {'postback' if found == 1 else 'postbacks'}{older}.")
    else:
        say(source.why_empty(query))
    if page is not None and source.has_unfinished:
        _say_recorded_of(query, page, unfinished=unfinished)
    if waits:
        _say_paused(sorted(waits))


def _say_paused(accounts: list[str]) -> None:
    """Say which of these accounts, of which something waits, are paused; nothing where the broker does not answer."""
    from postbacks.cli.pauses import pause_words
    from postbacks.errors import BrokerError
    from postbacks.operate import paused_accounts

    with suppress(BrokerError):
        for pause in paused_accounts(names=accounts).values():
            say(f"Account {pause.account} is paused {pause_words(pause)}.")


def _say_recorded_of(query: Query, answer: Page | Count, *, unfinished: bool) -> None:
    """Say until when the history is recorded; a state that the broker alone knows is always one of it."""
    read_ms = answer.read_ms or _asked_ms(query)
    say_recorded(
        answer.recorded_ms,
        read_ms,
        unfinished=unfinished or query.state not in {None, *FINAL_STATES, "forgotten"},
    )


def _asked_ms(query: Query) -> int | None:
    """Return the broker's time where a state was asked for that it alone knows; None where it does not answer.

    A search that met nothing unfinished in the history has asked the broker nothing.
    """
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.errors import BrokerError
    from postbacks.history.filters import LIVE_STATES

    if query.state not in LIVE_STATES:
        return None
    try:
        with broker_errors():
            return now_ms(client())
    except BrokerError:
        return None


def say_recorded(recorded_ms: int | None, read_ms: int | None = None, *, unfinished: bool = False) -> None:
    """Say until when the history is recorded, and at which time states of unfinished postbacks were read."""
    from postbacks.history.times import length, of_ms, shown

    if recorded_ms is None:
        say("The history has recorded nothing yet: is `postbacks history run` running?")
        return
    words = f"The history is recorded until {shown(of_ms(recorded_ms // 1000 * 1000))}"
    behind_ms = time.time_ns() // 1_000_000 - recorded_ms
    if behind_ms > _BEHIND_MS:
        words += f", {length(behind_ms)} ago (`postbacks history status` says why)"
    if read_ms is not None:
        words += (
            f"; what is unfinished is as the broker had it at {shown(of_ms(read_ms // 1000 * 1000))[11:]}"
        )
    elif unfinished:
        words += "; the broker does not answer, and what is unfinished may have ended since"
    say(f"{words}.")


class Printer:
    """Printer of postbacks in the form that was asked for; nothing of a page stays in memory.

    Args:
        form: ``--json``, ``--csv`` or ``-o``; empty for a table.
        source: of what is printed.
        persons: of what is printed, for a column of their own; None for none.

    Attributes:
        columns: of ``--csv``.
        headings: of the table.
    """

    columns: tuple[str, ...] = COLUMNS
    headings: tuple[str, ...] = HEADINGS

    def __init__(self, form: str, source: History | Ended, persons: Persons | None = None) -> None:
        self._form = form
        self._source = source
        self._persons = persons
        if persons:
            self.columns += (_PERSON,)
            self.headings += (_PERSON,)
        if form == "--csv":
            self._print_csv([self.columns])

    def print(self, postbacks: Sequence[Postback]) -> None:
        """Print postbacks, each on a line of its own but in a table."""
        if self._form:
            self._print_data(postbacks)
        elif rows := self._rows(postbacks):
            print_table(_table(self.headings, rows))

    def print_lines(self, postbacks: Sequence[Postback]) -> None:
        """Print postbacks as they come: in place of a table's rows lines whose columns keep their width."""
        if self._form:
            self._print_data(postbacks)
            return
        for row in self._rows(postbacks):
            line = zip(row, _WIDTHS, strict=False)
            click.echo(" ".join(f"{printable(text):{width}}" for text, width in line).rstrip())

    def _rows(self, postbacks: Sequence[Postback]) -> list[tuple[object, ...]]:
        """Return the rows of the table."""
        rows = list(map(self._cells, postbacks))
        if not self._persons:
            return rows
        return [(*row, person) for row, person in zip(rows, self._persons.read(postbacks), strict=True)]

    def _objects(self, postbacks: Sequence[Postback]) -> Iterable[dict[str, Any]]:
        """Return the objects of ``--json``; what is empty is left out."""
        objects = map(self._public_dict, postbacks)
        if not self._persons:
            return objects
        return (
            shown | ({_PERSON: person} if person else {})
            for shown, person in zip(objects, self._persons.read(postbacks), strict=True)
        )

    def _cells(self, postback: Postback) -> tuple[object, ...]:
        """Return the cells of a row of the table, in the order of ``headings``, without the person."""
        return cells(postback, self._source.why(postback))

    def _public_dict(self, postback: Postback) -> dict[str, Any]:
        """Return the object of ``--json``, without the person."""
        return postback.to_public_dict()

    def _csv_rows(self, postbacks: Sequence[Postback]) -> Iterable[dict[str, Any]]:
        """Return rows of ``--csv`` by the names of ``columns``; what is left out is empty."""
        return self._objects(postbacks)

    def _print_data(self, postbacks: Sequence[Postback]) -> None:
        if self._form == "--csv":
            rows = self._csv_rows(postbacks)
            self._print_csv([cell(row.get(column, "")) for column in self.columns] for row in rows)
        elif self._form == "--json":
            for shown in self._objects(postbacks):
                print_json(shown)
        else:
            for postback in postbacks:
                click.echo(postback.id)

    @staticmethod
    def _print_csv(rows: Iterable[Sequence[object]]) -> None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        sys.stdout.flush()


def cells(postback: Postback, why: str) -> tuple[object, ...]:
    """Return the cells of a postback's row, times in the machine's zone."""
    from postbacks.history.times import of_ms

    accepted, ended = (
        "" if ms is None else of_ms(ms).isoformat(" ", "seconds")
        for ms in (postback.accepted_ms, postback.ended_ms)
    )
    return (
        accepted,
        postback.id,
        postback.account,
        f"{postback.origin} {postback.code}".strip(),
        state_text(postback.state),
        postback.attempts,
        why,
        ended[11:] if ended[:10] == accepted[:10] else ended,
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return rows as a table: a line each, or three where a terminal is too narrow for one."""
    from rich.console import Console

    table = make_table(*headings, right=("attempts",), whole=("accepted", "id", "state"))
    for row in rows:
        add_row(table, *row)
    console = Console()
    person = range(len(HEADINGS), len(headings))
    if not console.is_terminal or console.width >= _WIDE + _PERSON_WIDE * len(person):
        return table
    stacked = stack_columns(table, ((0, 7, 4), (1, 6, *person), (2, 3, 5)))
    return table if is_cut(stacked, console.width) else stacked
