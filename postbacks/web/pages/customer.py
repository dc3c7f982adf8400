"""Pages of a customer beside the postbacks: the address that opens them, the receiver's health, a ping, the URL's history."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from postbacks import keys
from postbacks.accounts import find_account
from postbacks.broker.client import client_for
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError, HistoryError, PostbacksError
from postbacks.history import tries
from postbacks.history.days import DAY_MS
from postbacks.history.engine import reader
from postbacks.history.transactions import reading
from postbacks.logs import EventLog
from postbacks.operate import journal_entries
from postbacks.operate.account_health import first_try_rate, read_account
from postbacks.ping.steps import Step, steps_of
from postbacks.ping.target import Pinged, ping_account
from postbacks.urls import bare, endpoint_of
from postbacks.web.customers import words
from postbacks.web.customers.veil import Veil, veil_of
from postbacks.web.facts import soon_for_customer
from postbacks.web.live import live
from postbacks.web.pages import accounts, zone
from postbacks.web.reading import act, in_thread, reading_of, shared
from postbacks.web.render import render
from postbacks.web.security import links, proxy
from postbacks.web.security.links import for_customers, link_of, links_of
from postbacks.web.security.origin import leading_on
from postbacks.web.security.roles import public
from postbacks.web.tries import strip
from postbacks.web.zones import zone_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.tries import Try
    from postbacks.operate.account_health import AccountHealth
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds for which what was read of an account is shown to others who look.
FRESH_S: Final = 5.0
#: POSTs that are shown beside each other.
TRIES_MAX: Final = 60
#: Changes of accounts that are looked through for changes of URLs, and how many of these are shown.
CHANGES_READ: Final = 500
CHANGES_MAX: Final = 100
#: Seconds between two pings of an account by its links; while one is under way none begins.
PING_EVERY_S: Final = 10
_PING_MOST_S: Final = 180
#: Pings of customers at a time in this process: the threads are everybody's.
PINGS_MAX: Final = 2

_FIRST_PAGE: Final = "/customer/"
_LATER: Final = "Too many addresses that are no link of ours: wait {} s before the next one."
_NO_PING: Final = "No test can be sent to you at present: ask whoever gave you the link."
_PING_LATER: Final = f"Your receiver was pinged just now: try again in {PING_EVERY_S} seconds."


# -- the address -----------------------------------------------------------------------------------


@public
async def opened(request: Request) -> Response:
    """Begin a visit by the address of a link, and lead to its first page, whose address has no token."""
    links_here, settings = links_of(request), reading_of(request).settings
    address = proxy.address_of(request.scope, settings)
    ticket = await in_thread(request, links_here.read, request.path_params["token"])
    if ticket is None:
        # A right one never waits: nobody guesses a signature, and whoever shares an address with one who tries comes in.
        wait_s = links_here.slowing.attempt(address, address)
        log.warning("web.link_refused", address=address)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise HTTPException(429, _LATER.format(seconds), {"Retry-After": str(seconds)})
        raise HTTPException(403, links.NO_LINK)
    link = await links.open_link(request, ticket)
    log.info("web.link_opened", link=link.id, account=link.account, address=address)
    response: Response = RedirectResponse(_FIRST_PAGE, 303)
    if request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
        response = leading_on(_FIRST_PAGE)
    links_here.set_cookie(MutableHeaders(raw=response.raw_headers), request.scope, ticket)
    return response


@public
async def begin(_request: Request) -> Response:
    """Lead to the first page."""
    return RedirectResponse(_FIRST_PAGE, 303)


# -- health ----------------------------------------------------------------------------------------


class Facts(NamedTuple):
    """Facts of the first page.

    Attributes:
        health: of the account.
        tries: its latest POSTs to the URLs that it has now, the oldest first.
    """

    health: AccountHealth
    tries: tuple[Try, ...]

    @property
    def failed(self) -> Try | None:
        """Latest POST, where it failed."""
        return self.tries[-1] if self.tries and not self.tries[-1].is_delivered else None


@for_customers()
async def health(request: Request) -> Response:
    """Show how the receiver does."""
    name, settings = link_of(request).account, reading_of(request).settings
    counted = await soon_for_customer(request, accounts.day_of(request, name, FRESH_S))
    facts = await shared(request, ("customer", name), FRESH_S, read, name)
    failed = facts.failed
    return live(
        request,
        "customer.html",
        "customer_live.html",
        health=facts.health,
        account=facts.health.account,
        counted=counted,
        total=counted.value.total if counted.value else None,
        rate=first_try_rate(counted.value.total) if counted.value else None,
        chart=accounts.draw(counted.value, facts.health.now_ms, zone_of(request), words.STATES["dead"])
        if counted.value
        else "",
        failed=failed,
        failed_words=words.outcome_words(failed.outcome, failed.status) if failed else "",
        advice=words.advice_of(failed.outcome, failed.status) if failed else "",
        strip=strip(facts.tries, zone_of(request), _words, "customer", "postbacks"),
        groups=words.GROUPS,
        urls=_urls(facts.health),
        settings=settings,
    )


def read(name: str) -> Facts:
    """Read the facts of an account, and nothing of others that share its endpoint; without a history, what the broker knows."""
    account = read_account(name)
    endpoints = dict.fromkeys(map(endpoint_of, account.account.urls() if account.account else ()))
    found: list[Try] = []
    with suppress(HistoryError), reading(reader()) as connection:  # how it is now, the broker knows
        for endpoint in endpoints:
            place = tries.place_of(connection, endpoint, [name])
            if place is not None:
                since_ms = account.now_ms - DAY_MS
                found += tries.latest(connection, place, since_ms, account.now_ms, TRIES_MAX)
    return Facts(account, tuple(sorted(found)[-TRIES_MAX:]))


def _words(one: Try) -> str:
    return f"{words.outcome_words(one.outcome, one.status)},"


def _urls(account: AccountHealth) -> dict[str, str]:
    """Return what goes where, as it may be shown."""
    if account.account is None:
        return {}
    urls = {field: getattr(account.account, field) for field in words.URLS}
    return {words.URLS[field]: bare(url) for field, url in urls.items() if url}


# -- ping ------------------------------------------------------------------------------------------


#: Pings of customers that are under way in this process.
_pings = threading.Semaphore(PINGS_MAX)


@for_customers()
async def ping(request: Request) -> Response:
    """Send a test postback, and say what is to be mended."""
    link, settings = link_of(request), reading_of(request).settings
    pinged = await act(request, _ping, link.account, settings)
    log.info("web.link_pinged", link=link.id, account=link.account)
    veil = await in_thread(request, _veil, link.account, settings, pinged)
    probe, advice = pinged.probe, pinged.advice
    return render(
        request,
        "customer_ping.html",
        probe=probe,
        target=bare(pinged.target.url),
        verdict=veil.text(words.for_developer(advice.verdict)),
        todo=veil.text(words.for_developer(advice.todo)) if advice.todo else "",
        noticed=[veil.text(words.for_developer(note)) for note in advice.noticed],
        steps=_steps(pinged, veil, settings),
        excerpt=veil.text(probe.raw_outcome.excerpt.strip()),
    )


def _ping(name: str, settings: Settings) -> Pinged:
    """Ping an account, unless another ping of a customer has just been; it is counted until its POST has ended.

    Raises:
        HTTPException: it cannot be now (429), or not at all (400).
    """
    later = HTTPException(429, _PING_LATER, {"Retry-After": str(PING_EVERY_S)})
    client = client_for(settings.broker_url, settings.broker_timeout_s)
    if not _pings.acquire(blocking=False):
        raise later
    try:
        with broker_errors():
            is_free = client.set(keys.WEB_PINGED + name, 1, nx=True, ex=_PING_MOST_S)
        if not is_free:
            raise later
        try:
            return ping_account(name)
        except BrokerError:
            raise
        except PostbacksError:
            raise HTTPException(400, _NO_PING) from None
        finally:
            with suppress(PostbacksError), broker_errors():
                client.set(keys.WEB_PINGED + name, 1, ex=PING_EVERY_S)
    finally:
        _pings.release()


def _veil(name: str, settings: Settings, pinged: Pinged) -> Veil:
    account = find_account(name)
    return veil_of(account, settings, pinged.target.now_ms, pinged.target.url)


def _steps(pinged: Pinged, veil: Veil, settings: Settings) -> list[Step]:
    """Return the steps of a ping without what is ours: of a proxy its address."""
    steps = steps_of(pinged.probe)
    if settings.proxy_url:
        steps = [
            step._replace(words="connected") if step.name == "TCP" and step.reached else step
            for step in steps
        ]
    return [step._replace(words=veil.text(words.for_developer(step.words))) for step in steps]


# -- the URL's history -----------------------------------------------------------------------------


class Change(NamedTuple):
    """Change of a URL.

    Attributes:
        at_ms: when.
        what: goes there.
        before: the URL before, as it may be shown; empty for none.
        after: the URL from then on; empty for none.
        is_hidden: True where what has changed is not shown: its user, password or query.
    """

    at_ms: int
    what: str
    before: str
    after: str
    is_hidden: bool = False


@for_customers()
async def urls(request: Request) -> Response:
    """Show where postbacks go, and where they went."""
    name = link_of(request).account
    current, changes = await shared(request, ("customer urls", name), FRESH_S, read_urls, name)
    return render(
        request, "customer_urls.html", current=current, changes=changes, settings=reading_of(request).settings
    )


def read_urls(name: str) -> tuple[dict[str, str], list[Change] | None]:
    """Read what goes where now, and the changes of it, the newest first; None where the history cannot be asked."""
    account = find_account(name)
    current = {} if account is None else {words.URLS[field]: getattr(account, field) for field in words.URLS}
    shown = {what: bare(url) for what, url in current.items() if url}
    try:
        entries = journal_entries(account=name, action="account", limit=CHANGES_READ)
    except HistoryError:
        return shown, None
    changes = [
        change
        for entry in entries
        for field in words.URLS
        if (change := _change(entry.at_ms, field, (entry.details.get("changed") or {}).get(field)))
    ]
    return shown, changes[:CHANGES_MAX]


def _change(at_ms: int, field: str, values: Any) -> Change | None:
    """Read a change of the journal, which has URLs without passwords and values of queries."""
    if not isinstance(values, list) or len(values) != 2:
        return None
    before, after = (bare(str(value)) if value and "://" in str(value) else "" for value in values)
    if values[1] and not after:  # the words of difference.py for one that looks the same
        return Change(at_ms, words.URLS[field], before, before, is_hidden=True)
    return Change(at_ms, words.URLS[field], before, after, is_hidden=bool(before) and before == after)


# -- the zone --------------------------------------------------------------------------------------


@for_customers()
async def set_zone(request: Request) -> Response:
    """List the zones, or set one."""
    return zone.show(request)


routes = [
    Route("/c/{token}", opened),
    Route("/customer", begin),
    Route("/customer/", health),
    Route("/customer/ping", ping, methods=["POST"]),
    Route("/customer/urls", urls),
    Route("/customer/zone", set_zone),
]
