"""Page of opt-outs: those that are not delivered, by their age against the limit, and how it went of late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.routing import Route

from postbacks.history.days import DAY_MS
from postbacks.history.engine import reader
from postbacks.history.opt_outs import Undelivered, late, oldest
from postbacks.history.proofs import age_ms
from postbacks.history.query import Query
from postbacks.history.statistics import stats
from postbacks.history.transactions import reading
from postbacks.history.words import why
from postbacks.operate import paused_accounts
from postbacks.web import charts
from postbacks.web.asking import broker_ms, clock_ms
from postbacks.web.facts import soon
from postbacks.web.live import live
from postbacks.web.reading import reading_of, shared, shared_stale
from postbacks.web.render import lasting, steady_now_ms
from postbacks.web.security.roles import needs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.query import Postback
    from postbacks.history.statistics import StatRow
    from postbacks.settings import Settings

#: Seconds for which what was read is shown to others who look.
FRESH_S: Final = 2.0
#: Seconds for which counts of a day are, and are while the next ones are made.
DAY_FRESH_S: Final = 5.0
DAY_STALE_S: Final = 30.0
#: Opt-outs that are read, and of them those that are shown: the oldest.
READ_MAX: Final = 1000
SHOWN_MAX: Final = 100
#: Ends of the chart's columns, in parts of the limit; what is older is the last one.
_COLUMNS: Final = (0.25, 0.5, 0.75, 1, 2, 4, 16)


class Facts(NamedTuple):
    """Facts of the page.

    Attributes:
        undelivered: the oldest first, each with its age.
        late: those that are past the limit.
        now_ms: the broker's clock, to the minute.
        paused: accounts that are paused.
    """

    undelivered: list[tuple[Postback, int]]
    late: Undelivered
    now_ms: int
    paused: frozenset[str]


@needs("viewer")
async def page(request: Request) -> Response:
    """Show opt-outs."""
    settings = reading_of(request).settings
    counting = shared_stale(request, "opt-outs of a day", DAY_FRESH_S, DAY_STALE_S, read_day)
    facts, day = await asyncio.gather(
        shared(request, "opt-outs", FRESH_S, read, settings), soon(request, counting)
    )
    limit_ms = int(settings.opt_out_late_s * 1000)
    return live(
        request,
        "opt_outs.html",
        "opt_outs_live.html",
        facts=facts,
        day=day,
        limit_ms=limit_ms,
        chart=_chart([age for _, age in facts.undelivered], limit_ms),
        why=why,
        shown_max=SHOWN_MAX,
        read_max=READ_MAX,
    )


def read(settings: Settings) -> Facts:
    """Read the facts."""
    present_ms = broker_ms()
    undelivered = oldest(READ_MAX)
    with reading(reader()) as connection:
        overdue = late(connection, settings.opt_out_late_s)
    ages = [age_ms(postback, steady_now_ms(postback.accepted_ms, present_ms)) for postback in undelivered]
    return Facts(
        list(zip(undelivered, ages, strict=True)),
        overdue,
        steady_now_ms(overdue.oldest_ms or 0, present_ms),
        frozenset(paused_accounts()),
    )


def read_day() -> StatRow:
    """Count what became of the opt-outs of the last 24 hours."""
    return stats(Query(opt_outs=True, since_ms=clock_ms() - DAY_MS), "hour").total


def _chart(ages_ms: Sequence[int], limit_ms: int) -> Markup | None:
    """Draw how many are how old, beside the limit."""
    if not ages_ms:
        return None
    bars, along, begin_ms = [], [], 0
    for end in (*_COLUMNS, None):
        end_ms = None if end is None else int(end * limit_ms)
        count = sum(begin_ms <= age < (end_ms or age + 1) for age in ages_ms)
        span = (
            f"{lasting(begin_ms)} and more" if end_ms is None else f"{lasting(begin_ms)} to {lasting(end_ms)}"
        )
        is_late = begin_ms >= limit_ms
        bars.append(charts.Bar(f"{span}: {count:,}", {"bad" if is_late else "calm": count}))
        along.append("older" if end_ms is None else f"to {lasting(end_ms)}")
        begin_ms = end_ms or begin_ms
    label = f"Opt-outs by their age; the limit is {lasting(limit_ms)}"
    return charts.bars(label, bars, fewest=0, along=along)


routes = [Route("/opt-outs", page)]
