"""Page *Postbacks*: what the filter bar finds, when it was accepted, and the same as CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from starlette.responses import HTMLResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route

from postbacks import history
from postbacks.accounts import redis_accounts
from postbacks.errors import AccountsUnavailable, BrokerError, HistoryError, InvalidQuery
from postbacks.history import csv_rows
from postbacks.history.days import DAY_MS
from postbacks.history.filters import known_names
from postbacks.history.listing import PAGE
from postbacks.history.persons import person_of, records_of
from postbacks.history.proofs import ProofRow, proof_of
from postbacks.history.query import LIMIT_MAX
from postbacks.history.strip import Strip, strip
from postbacks.history.times import of_ms, shown
from postbacks.history.words import why, why_empty
from postbacks.ledger import states
from postbacks.operate import paused_accounts
from postbacks.privacy import masker
from postbacks.web import charts, filterbar
from postbacks.web.addresses import path_to
from postbacks.web.asking import clock_ms, read_bar
from postbacks.web.facts import soon
from postbacks.web.live import live
from postbacks.web.mistakes import status_of
from postbacks.web.reading import in_thread, shared
from postbacks.web.render import render, text, url
from postbacks.web.security.roles import needs
from postbacks.web.zones import name_of, written, zone_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from datetime import tzinfo

    from markupsafe import Markup
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history import Page, Postback, Query
    from postbacks.queue.pauses import Pause
    from postbacks.web.filterbar import Bar

#: Postbacks of a page.
ROWS: Final = 50
#: Seconds for which rows, and the count with its strip, are shown to others who ask for the same.
ROWS_FRESH_S: Final = 1.5
STRIP_FRESH_S: Final = 5.0
#: Seconds for which names of accounts and hosts are offered.
NAMES_FRESH_S: Final = 10.0
#: Names of the history that are offered at most.
NAMES_MAX: Final = 5000
#: Times that a click chooses: title -> filters. "today" and "yesterday" are those of the zone that the page shows.
TIMES_OFFERED: Final = {
    "1h": {"since": "1h"},
    "today": {"since": "today"},
    "yesterday": {"since": "yesterday", "until": "yesterday"},
    "7d": {"since": "7d"},
}
#: States that a click chooses.
STATES_OFFERED: Final = (
    states.DELIVERED,
    states.DEAD,
    states.WAITING,
    states.PARKED,
    states.SKIPPED,
    states.CANCELLED,
)
#: Mark of the style sheet -> states that it stands for in the strip.
MARKS: Final = {
    "good": (states.DELIVERED,),
    "bad": (states.DEAD,),
    "late": (states.WAITING, states.HELD, states.SENDING, states.PARKED),
}
_MINUTE_MS: Final = 60_000


class Row(NamedTuple):
    """Row of the list.

    Attributes:
        postback: as the search has found it.
        why: it was not delivered, in words.
        person: whom it is about, masked.
    """

    postback: Postback
    why: str
    person: str


class Rows(NamedTuple):
    """Rows of a page, why there are none, and the pauses of the account that the bar names."""

    page: Page
    rows: tuple[Row, ...]
    why_empty: str
    pauses: tuple[Pause, ...] = ()


def read_rows(bar: Bar, cursor: str) -> Rows:
    """Search."""
    query = replace(bar.query, limit=ROWS, cursor=cursor)
    page = history.search(query)
    rows = rows_of(page.postbacks, why)
    return Rows(page, rows, "" if rows else why_empty(query), _pauses(query.account))


def rows_of(postbacks: Sequence[Postback], why_of: Callable[[Postback], str]) -> tuple[Row, ...]:
    """Make the rows of postbacks; a customer reads another reason than we do."""
    mask, records = masker(), records_of(postbacks)
    return tuple(
        Row(postback, why_of(postback), person_of(record, mask) if record else "")
        for postback, record in zip(postbacks, records, strict=True)
    )


def _pauses(account: str | None) -> tuple[Pause, ...]:
    """Read the pause of an account, which says why its rows wait; nothing while the broker cannot be asked."""
    if not account:
        return ()
    try:
        return tuple(paused_accounts(names=[account]).values())
    except BrokerError:
        return ()


def find(guesses: Iterable[str], parse: Callable[[str], Bar]) -> str:
    """Return the first of bars, as ``filterbar.guesses`` has them, that finds a postback; empty for none."""
    for guess in guesses:
        with suppress(InvalidQuery, HistoryError):
            if history.search(replace(parse(guess).query, limit=1)).postbacks:
                return guess
    return ""


def draw(
    bar: Bar,
    drawn: Strip,
    zone: tzinfo,
    address: str = "/postbacks",
    names: Mapping[str, str] = MappingProxyType({}),
) -> Markup:
    """Draw the strip of time; each part leads to itself alone.

    Args:
        bar: that it is of.
        drawn: the strip.
        zone: of its times.
        address: of the page.
        names: state -> its other name, where it has one.
    """
    columns = []
    for part in drawn.parts:
        parts = {mark: sum(part.states.get(state, 0) for state in of_it) for mark, of_it in MARKS.items()}
        parts["calm"] = part.total - sum(parts.values())
        counts = ", ".join(
            f"{number:,} {names.get(state, state)}" for state, number in sorted(part.states.items())
        )
        title = f"{shown(of_ms(part.since_ms, zone))} on: {counts or 'none'}"
        is_narrower = part.total and len(drawn.parts) > 1
        href = url(address, q=bar.narrowed(part.since_ms, part.until_ms)) if is_narrower else ""
        columns.append(charts.Bar(title, parts, href))
    label = f"{drawn.postbacks:,} postbacks by the time of their acceptance"
    return charts.bars(label, columns, fewest=0, along=_clocks(drawn, zone))


def _clocks(drawn: Strip, zone: tzinfo) -> list[str]:
    """Return the times at the begin, in the middle and at the end of a strip."""
    parts = drawn.parts
    begin_ms, end_ms = parts[0].since_ms, parts[-1].until_ms
    form = (
        "%m-%d %H:%M"
        if end_ms - begin_ms > DAY_MS / 2
        else "%H:%M:%S"
        if end_ms - begin_ms < _MINUTE_MS
        else "%H:%M"
    )
    return [written(ms, zone, form) for ms in (begin_ms, (begin_ms + end_ms) // 2, end_ms)]


@needs("viewer")
async def page(request: Request) -> Response:
    """List what the filter bar finds."""
    typed, cursor = request.query_params.get("q", "").strip(), request.query_params.get("cursor", "")
    zone = zone_of(request)
    if postback_id := filterbar.id_of(typed):
        return RedirectResponse(path_to("postbacks", postback_id), 303)
    try:
        bar = await in_thread(request, read_bar, typed, zone)
        key = ("postbacks", bar.text, name_of(zone), cursor)
        # The same words are another time a second later, and the same page all the same.
        counting = shared(request, (*key[:3], "strip"), STRIP_FRESH_S, strip, bar.query)
        rows, drawn = await asyncio.gather(
            shared(request, key, ROWS_FRESH_S, read_rows, bar, cursor), soon(request, counting)
        )
    except InvalidQuery as error:
        guesses = filterbar.guesses(typed)
        if guess := await in_thread(request, find, guesses, lambda bar: read_bar(bar, zone)):
            return RedirectResponse(url("/postbacks", q=guess), 303)
        return _without_rows(request, typed, error, guesses)
    except HistoryError as error:  # the bar stays: fewer postbacks may be asked for
        return _without_rows(request, typed, error)
    return live(
        request, "postbacks.html", "postbacks_live.html", q=bar.text, mistake="", bar=bar, words=bar.chosen, found=rows,
        strip=drawn, chart=draw(bar, drawn.value, zone) if drawn.value and drawn.value.parts else "", cursor=cursor, filters=filterbar.FILTERS,
        flags=filterbar.FLAGS, options=filterbar.completions("", {}), states=STATES_OFFERED, csv_max=LIMIT_MAX,
        times={title: bar.timed(times) for title, times in TIMES_OFFERED.items()},
    )  # fmt: skip


def _without_rows(request: Request, typed: str, error: Exception, guesses: Sequence[str] = ()) -> Response:
    """Show the bar and why nothing is listed."""
    return render(
        request, "postbacks.html", status=status_of(error), q=typed, mistake=str(error), guesses=guesses,
        filters=filterbar.FILTERS, flags=filterbar.FLAGS, found=None, cursor="", options=filterbar.completions("", {}),
    )  # fmt: skip


# -- completion ------------------------------------------------------------------------------------


def read_names() -> Mapping[str, list[str]]:
    """Read what filters may name: accounts of the store, and accounts and hosts of the history, as far as these can be asked."""
    names: dict[str, set[str]] = {"account": set(), "host": set()}
    with suppress(BrokerError, AccountsUnavailable):
        names["account"] |= {account.name for account in redis_accounts().all()}
    with suppress(HistoryError):
        for name, values in known_names(NAMES_MAX).items():
            names[name] |= set(values)
    return {name: sorted(values) for name, values in names.items()}


@needs("viewer")
async def complete(request: Request) -> Response:
    """Offer what the last word of the bar may become, as options of its list."""
    typed = request.query_params.get("q", "")
    names: Mapping[str, list[str]] = {}
    if filterbar.asks_for(typed)[0] in {"account", "host"}:
        names = await shared(request, "filter names", NAMES_FRESH_S, read_names)
    return HTMLResponse(text(request, "options.html", options=filterbar.completions(typed, names)))


# -- CSV -------------------------------------------------------------------------------------------

#: Makes the lines of some postbacks.
CsvRows: TypeAlias = "Callable[[Sequence[Postback]], list[list[str]]]"


class CsvPart(NamedTuple):
    """Lines of a page of a search, how many postbacks they are of, and the cursor of the next one."""

    text: str
    postbacks: int
    next: str


def read_csv(query: Query, most: int, rows_of: CsvRows) -> CsvPart:
    """Search, and write lines of at most so many postbacks."""
    found = history.search(query)
    postbacks = found.postbacks[:most]
    return CsvPart(_csv(rows_of(postbacks)), len(postbacks), found.next)


def proof_rows(postbacks: Sequence[Postback]) -> list[list[str]]:
    """Write each attempt of opt-outs, as the proof of the command line has them."""
    proof = proof_of(postbacks, clock_ms(), masker())
    return [[csv_rows.cell("" if value is None else value) for value in row] for row in proof]


def plain_rows(postbacks: Sequence[Postback]) -> list[list[str]]:
    """Write a line for each postback."""
    return [csv_rows.row(postback) for postback in postbacks]


@needs("viewer")
async def as_csv(request: Request) -> Response:
    """Send all that the filter bar finds as comma-separated values, page by page; of opt-outs each attempt, as a proof."""
    bar = await in_thread(request, read_bar, request.query_params.get("q", ""), zone_of(request))
    if bar.query.opt_outs:
        return await send_csv(request, bar.query, ProofRow._fields, proof_rows, LIMIT_MAX)
    return await send_csv(request, bar.query, csv_rows.COLUMNS, plain_rows, LIMIT_MAX)


async def send_csv(
    request: Request, query: Query, columns: Sequence[str], rows_of: CsvRows, most: int
) -> StreamingResponse:
    """Send what a query finds as comma-separated values, page by page.

    Args:
        request: of whoever asks.
        query: whose size of a page is of no account.
        columns: of the first line.
        rows_of: makes the lines of some postbacks.
        most: postbacks at most, the newest.
    """
    query = replace(query, limit=min(PAGE, most))
    first = await in_thread(request, read_csv, query, most, rows_of)

    async def lines() -> AsyncIterator[str]:
        yield _csv([columns])
        part, left = first, most
        while True:
            yield part.text
            left -= part.postbacks
            if not part.next or left <= 0:
                return
            part = await in_thread(request, read_csv, replace(query, cursor=part.next), left, rows_of)

    headers = {"Content-Disposition": 'attachment; filename="postbacks.csv"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue()


routes = [
    Route("/postbacks", page),
    Route("/postbacks.csv", as_csv),
    Route("/filter", complete),
]
