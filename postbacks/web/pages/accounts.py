"""Pages of accounts: all of them with their health, and one with its limits, its backlog and its changes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from postbacks.history.days import DayByAccount, DayOfAccount
from postbacks.history.schema import HOUR_MS
from postbacks.ledger.record import iso
from postbacks.names import check_name
from postbacks.operate import all_incidents, journal_entries, open_links, pause_account, resume_account
from postbacks.operate.account_health import OFF, WELL, all_accounts, first_try_rate, read_account
from postbacks.operate.journal_words import details_words
from postbacks.ping.steps import steps_of
from postbacks.ping.target import ping_account
from postbacks.urls import redacted
from postbacks.web import charts
from postbacks.web.actions import done, end_of
from postbacks.web.addresses import own_path
from postbacks.web.asking import clock_ms
from postbacks.web.facts import fact, soon
from postbacks.web.forms import read_account_form, read_form
from postbacks.web.live import live
from postbacks.web.reading import act, reading_of, shared, shared_stale
from postbacks.web.render import render
from postbacks.web.security.roles import needs
from postbacks.web.zones import written, zone_of

if TYPE_CHECKING:
    from datetime import tzinfo

    from markupsafe import Markup
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.days import AccountCounts
    from postbacks.history.statistics import StatRow, Stats
    from postbacks.ledger.journal import Entry
    from postbacks.operate.incidents import Incident
    from postbacks.queue.pauses import Pause

#: Accounts of a page.
LIMIT: Final = 200
#: Counts by which accounts are ordered, the most first -> their title.
ORDERS: Final = {"postbacks": "Postbacks, 24 h", "dead": "Dead", "open": "Open"}
#: Seconds for which what was read is shown to others who look, and for which counts of a day of all accounts are.
FRESH_S: Final = 2.0
DAY_FRESH_S: Final = 10.0
#: Seconds for which counts of a day are shown while the next ones are made.
DAY_STALE_S: Final = 30.0
#: Hours of the chart of an account: the 24 that have ended, and the present one.
HOURS: Final = 25
HOUR_LABELS: Final = ("24 h ago", "18 h", "12 h", "6 h", "now")
#: Changes of an account that its page shows.
CHANGES_MAX: Final = 20


@needs("viewer")
async def every(request: Request) -> Response:
    """List accounts, those first that are not well, or these alone."""
    words, ill_only = request.query_params.get("q", "").strip(), request.query_params.get("ill") == "1"
    day = reading_of(request).kept("day", DayByAccount)
    counted = await soon(request, shared_stale(request, "day", DAY_FRESH_S, DAY_STALE_S, read_day, day))
    active = tuple(counted.value or ())
    rows = await shared(request, ("accounts", active), FRESH_S, all_accounts, active)
    by = request.query_params.get("by", "")
    rows = sorted(rows, key=lambda row: (row.state in {WELL, OFF}, row.name))
    if by in ORDERS and (day_of := counted.value):
        rows.sort(key=lambda row: getattr(day_of[row.name], by) if row.name in day_of else 0, reverse=True)
    found = [
        row
        for row in rows
        if words.lower() in row.name.lower() and not (ill_only and row.state in {WELL, OFF})
    ]
    return live(
        request,
        "accounts.html",
        "accounts_live.html",
        rows=found[:LIMIT],
        found=len(found),
        total=len(rows),
        words=words,
        ill_only=ill_only,
        by=by,
        orders=ORDERS,
        rate=first_try_rate,
        counted=counted,
    )


def read_day(day: DayByAccount) -> dict[str, AccountCounts]:
    """Count the last 24 hours by account."""
    return day.read(clock_ms())


@needs("viewer")
async def one(request: Request) -> Response:
    """Show an account."""
    name = check_name(request.path_params["name"])
    counted = await soon(request, day_of(request, name))
    health = await shared(request, ("account", name), FRESH_S, read_account, name)
    return live(
        request,
        "account.html",
        "account_live.html",
        health=health,
        account=health.account,
        incidents=await fact(shared(request, ("incidents", name), FRESH_S, read_incidents, name)),
        changes=await fact(shared(request, ("changes", name), FRESH_S, read_changes, name)),
        links=await fact(shared(request, ("links", name), FRESH_S, open_links, name)),
        counted=counted,
        total=counted.value.total if counted.value else None,
        rate=first_try_rate(counted.value.total) if counted.value else None,
        chart=draw(counted.value, health.now_ms, zone_of(request)) if counted.value else "",
        shown_url=redacted,
    )


async def day_of(request: Request, name: str, fresh_s: float = FRESH_S) -> Stats:
    """Count the last 24 hours of an account by the hour."""
    day = reading_of(request).kept(("day", name), partial(DayOfAccount, name))
    return await shared_stale(request, ("day", name), fresh_s, DAY_STALE_S, lambda: day.read(clock_ms()))


def read_incidents(name: str) -> list[Incident]:
    """Read the open incidents that name an account."""
    return [incident for incident in all_incidents(open_only=True) if name in incident.accounts]


def read_changes(name: str) -> list[tuple[Entry, str]]:
    """Read changes of an account from the journal, each with its details in words."""
    entries = journal_entries(account=name, limit=CHANGES_MAX)
    return [(entry, details_words(entry.details)) for entry in entries]


def draw(day: Stats, now_ms: int, zone: tzinfo, dead: str = "dead") -> Markup:
    """Draw what became of the postbacks of each of the last 24 hours; a customer calls a dead one otherwise."""
    by_begin = {row.key: row for row in day.rows}
    this_hour = now_ms // HOUR_MS
    begins_ms = [(this_hour - back) * HOUR_MS for back in reversed(range(HOURS))]
    bars = [_bar(begin_ms, by_begin.get(str(iso(begin_ms))), zone, dead) for begin_ms in begins_ms]
    label = "Postbacks by the hour of their acceptance, of the last 24 hours"
    return charts.bars(label, bars, fewest=0, along=HOUR_LABELS)


def _bar(begin_ms: int, row: StatRow | None, zone: tzinfo, dead: str) -> charts.Bar:
    hour = written(begin_ms, zone, "%Y-%m-%d %H:%M")
    if row is None:
        return charts.Bar(f"{hour}: none", {})
    words = (
        f"{hour}: {row.first:,} delivered at first, {row.later:,} later, {row.dead:,} {dead}, {row.open:,} open, "
        f"{row.other:,} otherwise"
    )
    return charts.Bar(
        words, {"good": row.first, "late": row.later, "bad": row.dead, "calm": row.open + row.other}
    )


@needs("operator")
async def pause(request: Request) -> Response:
    """Let an account stand still."""
    name, fields, viewer = await read_account_form(request)

    def run() -> Pause:
        until_ms = end_of(fields.get("until", ""), zone_of(request))
        return pause_account(name, until_ms=until_ms, reason=fields.get("why", ""), by=viewer.name)

    return await done(request, _back(fields.get("back", ""), name), run)


@needs("operator")
async def resume(request: Request) -> Response:
    """Let an account go on."""
    name, fields, viewer = await read_account_form(request)
    address = _back(fields.get("back", ""), name)
    return await done(request, address, resume_account, name, why=fields.get("why", ""), by=viewer.name)


@needs("support")
async def ping(request: Request) -> Response:
    """Send an account a test postback, and say what its receiver's developers should mend."""
    name, fields = check_name(request.path_params["name"]), await read_form(request)
    pinged = await act(request, ping_account, name)
    return render(
        request,
        "ping.html",
        name=name,
        back=_back(fields.get("back", ""), name),
        pinged=pinged,
        steps=steps_of(pinged.probe),
        shown_url=redacted(pinged.target.url),
        excerpt=pinged.probe.raw_outcome.excerpt.strip(),
    )


def _back(address: str, name: str) -> str:
    """Return the page that a form was on: the account's where it names none."""
    return own_path(address) if address else f"/accounts/{name}"


routes = [
    Route("/accounts", every),
    Route("/accounts/{name}", one),
    Route("/accounts/{name}/pause", pause, methods=["POST"]),
    Route("/accounts/{name}/resume", resume, methods=["POST"]),
    Route("/accounts/{name}/ping", ping, methods=["POST"]),
]
