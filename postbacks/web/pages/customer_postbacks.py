"""Pages of a customer's postbacks: what the filter bar finds of one account, one postback, and sending again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

from postbacks import history
from postbacks.accounts import known_account
from postbacks.broker.client import client
from postbacks.errors import (
    BrokerError,
    HistoryError,
    InvalidQuery,
    PostbacksError,
    UnknownPostback,
)
from postbacks.history.csv_rows import cell
from postbacks.history.strip import strip
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.reasons import forgotten_words
from postbacks.ledger.record import iso
from postbacks.operate import look_up, resend_one
from postbacks.operate.resend import RESENT_FROM
from postbacks.urls import bare
from postbacks.web import filterbar
from postbacks.web.addresses import path_to
from postbacks.web.asking import clock_ms, read_bar
from postbacks.web.customers import words
from postbacks.web.customers.veil import Veil, veil_of
from postbacks.web.documents import highlighted
from postbacks.web.facts import soon_for_customer
from postbacks.web.forms import read_form
from postbacks.web.lifeline import diagram, posts_of, steps_of
from postbacks.web.live import live
from postbacks.web.mistakes import customers_words, status_of
from postbacks.web.pages.postbacks import (
    ROWS,
    ROWS_FRESH_S,
    STRIP_FRESH_S,
    TIMES_OFFERED,
    Row,
    draw,
    find,
    rows_of,
    send_csv,
)
from postbacks.web.pages.selection import ids_of
from postbacks.web.reading import act, in_thread, reading_of, shared
from postbacks.web.render import render, text, url
from postbacks.web.security.links import for_customers, link_of
from postbacks.web.security.roles import SUPPORT_RESENDS_MAX
from postbacks.web.zones import name_of, written, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import tzinfo

    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history import Page, Postback
    from postbacks.ledger.record import Record
    from postbacks.operate import Found
    from postbacks.operate.links import Link
    from postbacks.settings import Settings
    from postbacks.web.filterbar import Bar

ADDRESS: Final = "/customer/postbacks"
#: States that a click chooses.
STATES_OFFERED: Final = (states.DELIVERED, states.DEAD, states.WAITING, states.PARKED, states.SKIPPED)
#: Filters with what their value is.
FILTERS: Final = {name: filterbar.FILTERS[name] for name in filterbar.CUSTOMERS if name in filterbar.FILTERS} | {
    "state": ", ".join(
        f"{state} ({words.STATES[state]})" if state != words.STATES[state] else state
        for state in (states.DELIVERED, states.DEAD, states.WAITING, states.SENDING, states.PARKED, states.SKIPPED,
                      states.CANCELLED)
    )
}  # fmt: skip
FLAGS: Final = {name: filterbar.FLAGS[name] for name in filterbar.CUSTOMERS if name in filterbar.FLAGS}
#: Postbacks of a file, the newest.
CSV_MAX: Final = 10_000
#: Columns of the file: the names of docs/receiving.md and of the pages.
COLUMNS: Final = (
    "id",
    "state",
    "why",
    "origin",
    "code",
    "accepted",
    "ended",
    "posts",
    "status",
    "elapsed_ms",
    "url",
)
#: Postbacks that are sent again at a time.
RESENDS_MAX: Final = SUPPORT_RESENDS_MAX
_UNKNOWN: Final = "There is no such postback of yours."


# -- the list --------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Rows of a page."""

    page: Page
    rows: tuple[Row, ...]


def bar_of(typed: str, zone: tzinfo, account: str) -> Bar:
    """Parse the filter bar of a customer: whatever it says, it finds what is of this account.

    Raises:
        InvalidQuery: names the word that cannot be.
    """
    bar = read_bar(typed, zone, filterbar.CUSTOMERS)
    return replace(bar, query=replace(bar.query, account=account))


def read_rows(bar: Bar, cursor: str) -> Rows:
    """Search."""
    found = history.search(replace(bar.query, limit=ROWS, cursor=cursor))
    return Rows(found, rows_of(found.postbacks, why_of))


def why_of(postback: Postback) -> str:
    """Say why a postback of a search was not delivered."""
    return words.why(postback.state, postback.reason, postback.origin, postback.outcome, postback.status)


@for_customers()
async def page(request: Request) -> Response:
    """List what the filter bar finds."""
    typed, cursor = request.query_params.get("q", "").strip(), request.query_params.get("cursor", "")
    zone, account = zone_of(request), link_of(request).account
    if postback_id := filterbar.id_of(typed):
        return RedirectResponse(path_to("customer", "postbacks", postback_id), 303)
    offered: dict[str, Any] = {"filters": FILTERS, "flags": FLAGS, "options": _completions("")}
    try:
        bar = await in_thread(request, bar_of, typed, zone, account)
        key = ("customer postbacks", account, bar.text, name_of(zone), cursor)
        counting = shared(request, (*key[:4], "strip"), STRIP_FRESH_S, strip, bar.query)
        rows, drawn = await asyncio.gather(
            shared(request, key, ROWS_FRESH_S, read_rows, bar, cursor), soon_for_customer(request, counting)
        )
    except (InvalidQuery, HistoryError) as error:
        guesses = filterbar.guesses(typed) if isinstance(error, InvalidQuery) else []
        guesses = [guess for guess in guesses if not guess.startswith("account:")]
        if guess := await in_thread(request, find, guesses, lambda bar: bar_of(bar, zone, account)):
            return RedirectResponse(url(ADDRESS, q=guess), 303)
        return render(
            request, "customer_postbacks.html", status=status_of(error), q=typed, mistake=customers_words(error),
            guesses=guesses, cursor="", **offered,
        )  # fmt: skip
    return live(
        request, "customer_postbacks.html", "customer_postbacks_live.html", q=bar.text, mistake="", bar=bar, words=bar.chosen,
        found=rows, strip=drawn,
        chart=draw(bar, drawn.value, zone, ADDRESS, words.STATES) if drawn.value and drawn.value.parts else "",
        cursor=cursor, times={title: bar.timed(times) for title, times in TIMES_OFFERED.items()}, states=STATES_OFFERED, names=words.STATES, csv_max=CSV_MAX, resends_max=RESENDS_MAX, **offered,
    )  # fmt: skip


@for_customers()
async def complete(request: Request) -> Response:
    """Offer what the last word of the bar may become."""
    options = _completions(request.query_params.get("q", ""))
    return HTMLResponse(text(request, "options.html", options=options))


def _completions(typed: str) -> list[str]:
    return filterbar.completions(typed, {}, names=filterbar.CUSTOMERS)


@for_customers()
async def as_csv(request: Request) -> Response:
    """Send all that the filter bar finds as comma-separated values."""
    typed, account = request.query_params.get("q", ""), link_of(request).account
    bar = await in_thread(request, bar_of, typed, zone_of(request), account)
    return await send_csv(request, bar.query, COLUMNS, _rows, CSV_MAX)


def _rows(postbacks: Sequence[Postback]) -> list[list[str]]:
    return [_cells(postback) for postback in postbacks]


def _cells(postback: Postback) -> list[str]:
    values = (
        postback.id, words.state_words(postback.state), why_of(postback), postback.origin, postback.code,
        iso(postback.accepted_ms), iso(postback.ended_ms), postback.attempts, postback.status, postback.elapsed_ms,
        bare(postback.url) if postback.url else "",
    )  # fmt: skip
    return [cell("" if value is None else value) for value in values]


# -- one postback ----------------------------------------------------------------------------------


class View(NamedTuple):
    """Facts of the page of a postback: as it was found, masked; the veil over its texts; the broker's time."""

    found: Found
    veil: Veil
    now_ms: int


def read(postback_id: str, account: str, settings: Settings) -> View:
    """Read a postback of an account.

    Raises:
        UnknownPostback: nobody has it, or it is another account's: nobody can tell which.
        HistoryError, BrokerError: as ``look_up``.
    """
    found = look_up(postback_id, settings)
    if found.record is None or found.record.account != account:
        raise UnknownPostback(_UNKNOWN)
    now_ms = clock_ms()
    return View(
        found, veil_of(known_account(account), settings, now_ms, *_urls(postback_id, account)), now_ms
    )


def _urls(postback_id: str, account: str) -> set[str]:
    """Return the URLs that a postback went to, as they are: what was found of it is masked."""
    try:
        record = Ledger(client()).find(postback_id)
    except BrokerError:
        record = None
    records = [record] if record else [copy.record for copy in history.copies_of(postback_id).copies]
    return {record.url for record in records if record.account == account and record.url}


@for_customers()
async def one(request: Request) -> Response:
    """Show a postback, masked."""
    postback_id, link = request.path_params["postback_id"], link_of(request)
    view = await in_thread(request, read, postback_id, link.account, reading_of(request).settings)
    record, veil, zone = view.found.record, view.veil, zone_of(request)
    assert record is not None
    explanation = view.found.explanation
    copy = view.found.copy
    no_document = bool(forgotten_words(record) or (copy and copy.no_document) or not record.xml)
    is_final = record.state in states.FINAL_STATES
    posts = [
        (post, words.outcome_words(post.attempt.outcome, post.attempt.status), words.detail_words(post.attempt, veil),
         veil.text(post.attempt.excerpt))
        for post in posts_of(record)
    ]  # fmt: skip
    last = record.attempts[-1] if record.attempts else None
    is_failed = last is not None and last.outcome != "delivered" and record.state != states.DELIVERED
    return live(
        request,
        "customer_postback.html",
        "customer_postback_live.html",
        record=record,
        state=words.state_words(record.state),
        why=words.why_record(record),
        causes=[] if is_final or explanation is None else words.cause_words(explanation.causes, _clock(zone)),
        advice=words.advice_of(last.outcome, last.status) if last and is_failed else "",
        target=bare(record.url) if record.url else "",
        chart=diagram(steps_of(record), view.now_ms, lambda ms: written(ms, zone, "%H:%M:%S"), words.STATES),
        posts=posts,
        document=highlighted(record.xml) if record.xml else "",
        is_final=is_final,
        may_resend=link.may_resend and record.state in RESENT_FROM and not no_document,
        done=request.query_params.get("done") == "resent",
    )


def _clock(zone: tzinfo) -> Any:
    return lambda moment: f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


# -- sending again ---------------------------------------------------------------------------------


class Chosen(NamedTuple):
    """Postbacks that are to be sent again.

    Attributes:
        records: those of the account that can be.
        left_out: how many of those that were named are none of it, or cannot be.
        is_too_many: True where the filter finds more than are sent at a time.
    """

    records: tuple[Record, ...]
    left_out: int
    is_too_many: bool = False


def choose(account: str, ids: Iterable[str], bar: Bar | None) -> Chosen:
    """Choose postbacks by their ids, or all that a filter finds, as ids: nothing joins them later.

    Args:
        account: whose they must be.
        ids: that were named.
        bar: filter of the account; None for the ids alone.
    """
    named = list(dict.fromkeys(ids))
    if bar is not None:
        wanted = RESENT_FROM if bar.query.state is None else {bar.query.state} & RESENT_FROM
        named = ids_of(bar.query, sorted(wanted), RESENDS_MAX)
    if len(named) > RESENDS_MAX:
        return Chosen((), 0, is_too_many=True)
    records = tuple(record for each in named if (record := _own(each, account)) is not None)
    return Chosen(records, len(named) - len(records))


def _own(postback_id: str, account: str) -> Record | None:
    """Find a postback of an account that can be sent again; None of all others, which are as if they were not."""
    record = Ledger(client()).find(postback_id)
    if record is None:
        copies = history.copies_of(postback_id).copies
        record = copies[0].record if copies and not copies[0].no_document else None
    if record is None or record.account != account or record.state not in RESENT_FROM:
        return None
    return None if record.is_stub or forgotten_words(record) else record


@for_customers(may_resend=True)
async def preview(request: Request) -> Response:
    """Say what would be sent again, and ask."""
    fields, link = await read_form(request), link_of(request)
    typed, ids = fields.get("q", ""), fields.getlist("id")
    bar = (
        await in_thread(request, bar_of, typed, zone_of(request), link.account) if fields.get("all") else None
    )
    if bar is None and not ids:
        raise HTTPException(400, "Nothing is selected: check postbacks, or all that match.")
    chosen = await in_thread(request, choose, link.account, ids, bar)
    return render(
        request, "customer_resend.html", chosen=chosen, q=typed, names=words.STATES, resends_max=RESENDS_MAX, sent=None,
    )  # fmt: skip


@for_customers(may_resend=True)
async def resend(request: Request) -> Response:
    """Send again what was chosen by its ids."""
    fields, link = await read_form(request), link_of(request)
    ids = list(dict.fromkeys(fields.getlist("id")))
    if not 0 < len(ids) <= RESENDS_MAX:
        raise HTTPException(400, f"Select 1 to {RESENDS_MAX} postbacks.")
    sent = await act(request, _resend, link, ids)
    if len(ids) == 1 and sent:
        return RedirectResponse(url(path_to("customer", "postbacks", ids[0]), done="resent"), 303)
    chosen = Chosen((), len(ids) - sent)
    return render(
        request, "customer_resend.html", chosen=chosen, q=fields.get("q", ""), names=words.STATES, resends_max=RESENDS_MAX,
        sent=sent,
    )  # fmt: skip


def _resend(link: Link, ids: list[str]) -> int:
    """Send postbacks of a link's account again; return how many of them wait for it now.

    Raises:
        BrokerError: the broker cannot be used.
    """
    sent = 0
    for postback_id in ids:
        if _own(postback_id, link.account) is None:
            continue
        try:
            resend_one(postback_id, by=link.actor, why="by a customer's link")
        except BrokerError:
            raise
        except PostbacksError:  # it has ended otherwise meanwhile, or has nowhere to go
            continue
        sent += 1
    return sent


routes = [
    Route(ADDRESS, page),
    Route(f"{ADDRESS}.csv", as_csv),
    Route("/customer/filter", complete),
    Route("/customer/resend", preview, methods=["POST"]),
    Route("/customer/resend/start", resend, methods=["POST"]),
    Route(f"{ADDRESS}/{{postback_id:path}}", one),
]
