"""Page *Now*: how it is, in one sentence and a few figures, and what stands wrong."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.routing import Route

from postbacks.history import Query
from postbacks.history.statistics import Minute, by_minute
from postbacks.operate import all_incidents, all_jobs
from postbacks.web import charts
from postbacks.web.facts import fact, soon, system
from postbacks.web.live import live
from postbacks.web.reading import shared, shared_stale
from postbacks.web.security.roles import needs
from postbacks.web.zones import written, zone_of

if TYPE_CHECKING:
    from datetime import tzinfo

    from markupsafe import Markup
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.monitor.snapshot import Snapshot
    from postbacks.operate import Job

_MINUTE_MS: Final = 60_000
#: Minutes that are shown, and that are counted at a time.
_MINUTES: Final = 60
_PART: Final = 10
#: Seconds for which counts of the latest two parts are shown, of those before them, and of any while the next are made.
_LATEST_S: Final = 4.0
_BEFORE_S: Final = 60.0
_STALE_S: Final = 600.0
#: Seconds for which incidents and jobs are.
_FRESH_S: Final = 2.0
#: Incidents and jobs that are shown here; their pages have all.
_SHOWN_MAX: Final = 20


class Group(NamedTuple):
    """Postbacks of one group that wait.

    Attributes:
        name: of the group.
        waiting: in all of its lanes.
        failing: of them those of lanes whose last POST failed.
        oldest_s: age of the longest waiting one of the other lanes.
        oldest_lane: its lane.
        failing_oldest_s: age of the longest waiting one of the failing lanes.
        longest_failing_lane: the longest of them.
    """

    name: str
    waiting: int
    failing: int
    oldest_s: float
    oldest_lane: str
    failing_oldest_s: float
    longest_failing_lane: str


class Hour(NamedTuple):
    """Last hour.

    Attributes:
        chart: of its minutes.
        first: delivered by the first POST.
        later: delivered by a later one.
        dead: given up.
        open: neither yet.
    """

    chart: Markup
    first: int
    later: int
    dead: int
    open: int


@needs("viewer")
async def page(request: Request) -> Response:
    """Show how it is."""
    state = await system(request)
    hour = await soon(request, _hour(request))
    incidents = await fact(
        shared(request, "open-incidents", _FRESH_S, all_incidents, open_only=True, limit=_SHOWN_MAX + 1)
    )
    jobs = await fact(shared(request, "unended-jobs", _FRESH_S, _unended_jobs))
    return live(
        request,
        "now.html",
        "now_live.html",
        health=state.health,
        now=state.now,
        groups=_groups(state.now) if state.now else [],
        hour=hour,
        incidents=incidents,
        jobs=jobs,
        shown_max=_SHOWN_MAX,
    )


async def _hour(request: Request) -> Hour:
    """Count the last hour in parts of ten minutes beside each other; the latest two more often than those before them."""
    this_minute = int(time.time() * 1000) // _MINUTE_MS
    last = this_minute // _PART
    parts = await asyncio.gather(
        *(
            shared_stale(
                request,
                ("minutes", part),
                _LATEST_S if part >= last - 1 else _BEFORE_S,
                _STALE_S,
                by_minute,
                Query(since_ms=part * _PART * _MINUTE_MS, until_ms=(part + 1) * _PART * _MINUTE_MS),
            )
            for part in range((this_minute - _MINUTES + 1) // _PART, last + 1)
        )
    )
    return _drawn([minute for part in parts for minute in part], this_minute, zone_of(request))


def _drawn(minutes: list[Minute], this_minute: int, zone: tzinfo) -> Hour:
    by_begin = {minute.at_ms: minute for minute in minutes}
    begins = [(this_minute - back) * _MINUTE_MS for back in reversed(range(_MINUTES))]
    all_of_them = [by_begin.get(begin, Minute(begin, 0, 0, 0, 0, 0)) for begin in begins]
    first, later, dead = (
        sum(getattr(minute, name) for minute in all_of_them) for name in ("first", "later", "dead")
    )
    is_open = sum(minute.open for minute in all_of_them)
    label = (
        f"The last hour by the minute of acceptance: {first:,} delivered, {later:,} late, {dead:,} failed, "
        f"{is_open:,} open."
    )
    quarters = (*all_of_them[:: _MINUTES // 4], all_of_them[-1])
    return Hour(
        chart=charts.bars(
            label,
            [_bar(minute, zone) for minute in all_of_them],
            along=[_clock(minute, zone) for minute in quarters],
        ),
        first=first,
        later=later,
        dead=dead,
        open=is_open,
    )


def _bar(minute: Minute, zone: tzinfo) -> charts.Bar:
    at = _clock(minute, zone)
    rest = minute.open + minute.other
    title = f"{at}: {minute.first:,} delivered, {minute.later:,} late, {minute.dead:,} failed, {rest:,} open"
    return charts.Bar(title, {"good": minute.first, "late": minute.later, "bad": minute.dead, "calm": rest})


def _clock(minute: Minute, zone: tzinfo) -> str:
    return written(minute.at_ms, zone, "%H:%M")


def _unended_jobs() -> list[Job]:
    return [job for job in all_jobs() if job.is_unended]


def _groups(now: Snapshot) -> list[Group]:
    """Join what waits in failing lanes and in others, by group."""
    calm = {part.group: part for part in now.waiting if not part.failing}
    failing = {part.group: part for part in now.waiting if part.failing}
    return [
        Group(
            name,
            part.count + failing[name].count,
            failing[name].count,
            part.oldest_s,
            part.oldest_lane,
            failing[name].oldest_s,
            failing[name].longest_lane,
        )
        for name, part in calm.items()
    ]


routes = [Route("/", page)]
