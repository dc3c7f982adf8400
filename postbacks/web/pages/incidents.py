"""Pages of incidents: which stand, and of one what has failed, what to do, and what happens next."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.routing import Route

from postbacks.errors import InvalidQuery
from postbacks.history import Query, count
from postbacks.operate import (
    all_incidents,
    mute_incident,
    read_incident,
    unmute_incident,
)
from postbacks.operate.incidents import words
from postbacks.operate.incidents.evidence import evidence
from postbacks.operate.incidents.remedy import resend_query
from postbacks.operate.incidents.store import NOTICE_WORDS, PENDING_STATE
from postbacks.web import tries
from postbacks.web.actions import done, end_of
from postbacks.web.filterbar import bar_of
from postbacks.web.forms import read_form
from postbacks.web.live import live
from postbacks.web.reading import reading_of, shared
from postbacks.web.security.roles import needs, viewer_of
from postbacks.web.zones import zone_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.tries import Try
    from postbacks.operate.incidents.evidence import Evidence
    from postbacks.operate.incidents.store import Incident, Notice
    from postbacks.settings import Settings

#: Incidents of a page.
LIMIT: Final = 100
#: Seconds for which what was read is shown to others who look.
FRESH_S: Final = 2.0


class Facts(NamedTuple):
    """Facts of the page of an incident.

    Attributes:
        incident: as it stands.
        notices: what was told of it.
        evidence: what is known of its POSTs.
        dead: how many died of it and are dead still; 0 where it is open, or none did.
        bar: filter bar that finds them; empty where none died, or it is open.
        open_bar: filter bar of what the one account of an incident that is open has not got; empty for none.
    """

    incident: Incident
    notices: list[Notice]
    evidence: Evidence
    dead: int
    bar: str
    open_bar: str


class Next(NamedTuple):
    """Event to come.

    Attributes:
        words: what it is.
        at_ms: when; None where the words say so, or that is not known.
        of_oldest: True where it is about the oldest postback that waits.
    """

    words: str
    at_ms: int | None = None
    of_oldest: bool = False


@needs("viewer")
async def every(request: Request) -> Response:
    """List incidents, those that are open first."""
    open_only = request.query_params.get("open") == "1"
    found = await shared(
        request, ("incidents", open_only), FRESH_S, all_incidents, open_only=open_only, limit=LIMIT
    )
    return live(
        request,
        "incidents.html",
        "incidents_live.html",
        incidents=found,
        open_only=open_only,
        limit=LIMIT,
        now_ms=_now_ms(),
    )


@needs("viewer")
async def one(request: Request) -> Response:
    """Show an incident."""
    number = _number(request)
    facts = await shared(request, ("incident", number), FRESH_S, read, number, reading_of(request).settings)
    now_ms = _now_ms()
    return live(
        request,
        "incident.html",
        "incident_live.html",
        facts=facts,
        incident=facts.incident,
        state=facts.incident.state(now_ms),
        strip=tries.strip(facts.evidence.tries, zone_of(request), _words, "postbacks"),
        next=_next(facts, now_ms),
        notice_words=NOTICE_WORDS,
    )


def read(number: int, settings: Settings) -> Facts:
    """Read the facts of an incident."""
    incident, notices = read_incident(number)
    query = None if incident.is_open else resend_query(incident)
    dead = count(query).postbacks if query else 0
    bar = bar_of(query) if query else ""
    return Facts(incident, notices, evidence(incident, settings), dead, bar, _open_bar(incident))


def _open_bar(incident: Incident) -> str:
    if not incident.is_open or len(incident.accounts) != 1 or incident.figures.get("accounts", 1) != 1:
        return ""
    return bar_of(Query(account=incident.accounts[0], undelivered=True, since_ms=incident.began_ms))


def _words(one_try: Try) -> str:
    return f"answer {one_try.status}" if one_try.status else one_try.outcome.replace("_", " ")


def _next(facts: Facts, now_ms: int) -> list[Next]:
    """Say what happens next, the soonest first where times are known."""
    incident = facts.incident
    events = [Next(sentence, of_oldest=True) for sentence in facts.evidence.causes]
    if first_dies := incident.figures.get("first_dies"):
        dies_ms = int(datetime.fromisoformat(str(first_dies)).timestamp() * 1000)
        events.append(Next("the first postback dies, if nothing changes", dies_ms))
    if incident.is_muted(now_ms):
        events.append(Next("it is told again, if it is open by then", incident.muted_until_ms))
    events += [
        Next(f"the notice of its change ({notice.change.replace('_', ' ')}) is tried again", notice.next_ms)
        for notice in facts.notices
        if notice.state == PENDING_STATE
    ]
    if incident.is_open:
        events.append(Next(f"it ends {words.quiet(incident.course)}"))
    return events


@needs("operator")
async def mute(request: Request) -> Response:
    """Let nothing be told of an incident until a time."""
    number, fields, viewer = _number(request), await read_form(request), viewer_of(request)

    def run() -> Incident:
        until_ms = end_of(fields.get("until", ""), zone_of(request))
        if until_ms is None:
            raise InvalidQuery("A mute needs its end: 2h, 18:00, tomorrow or a date.")
        return mute_incident(number, until_ms=until_ms, reason=fields.get("why", ""), by=viewer.name)

    return await done(request, f"/incidents/{number}", run)


@needs("operator")
async def unmute(request: Request) -> Response:
    """Let an incident be told again."""
    number, fields, viewer = _number(request), await read_form(request), viewer_of(request)
    address = f"/incidents/{number}"
    return await done(request, address, unmute_incident, number, why=fields.get("why", ""), by=viewer.name)


def _number(request: Request) -> int:
    number: int = request.path_params["number"]
    if not 0 < number < 2**31:
        raise HTTPException(404)
    return number


def _now_ms() -> int:
    return int(time.time() * 1000)


routes = [
    Route("/incidents", every),
    Route("/incidents/{number:int}", one),
    Route("/incidents/{number:int}/mute", mute, methods=["POST"]),
    Route("/incidents/{number:int}/unmute", unmute, methods=["POST"]),
]
