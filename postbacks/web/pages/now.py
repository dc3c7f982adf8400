"""Page *Now*: how it is, in one sentence and a few figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.routing import Route

from postbacks.monitor.health import Health, judge
from postbacks.web.live import live
from postbacks.web.reading import reading_of, shared
from postbacks.web.security.roles import needs

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.settings import Settings

#: Seconds for which what was read is shown to others who look.
FRESH_S = 2.0


class Now(NamedTuple):
    """Facts of the page."""

    health: Health


def read(settings: Settings) -> Now:
    """Read the facts."""
    return Now(judge(settings))


@needs("viewer")
async def page(request: Request) -> Response:
    """Show how it is."""
    now = await shared(request, "now", FRESH_S, read, reading_of(request).settings)
    return live(request, "now.html", "now_live.html", now=now)


routes = [Route("/", page)]
