"""Page of the system: workers, ticks, the broker's memory, versions, and how far back the history sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.routing import Route

from postbacks.broker.client import client
from postbacks.broker.errors import broker_errors
from postbacks.broker.versions import read_versions
from postbacks.history import status
from postbacks.monitor import snapshot
from postbacks.web.live import live
from postbacks.web.reading import reading_of, shared
from postbacks.web.security.roles import needs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.monitor.snapshot import Snapshot
    from postbacks.settings import Settings

#: Seconds for which what was read is shown to others who look.
FRESH_S: Final = 2.0
#: Seconds for which the size of the database is shown.
STORE_FRESH_S: Final = 30.0


class System(NamedTuple):
    """Facts of the page.

    Attributes:
        now: the broker and the processes.
        versions: of postbacks at work -> what each does.
        broker: name and version of the broker.
        uptime_ms: since when the broker runs.
    """

    now: Snapshot
    versions: Mapping[str, set[str]]
    broker: str
    uptime_ms: int


@needs("viewer")
async def page(request: Request) -> Response:
    """Show the system."""
    settings = reading_of(request).settings
    system = await shared(request, "system", FRESH_S, read, settings)
    history = await shared(request, "history status", STORE_FRESH_S, status.read, client(), settings)
    return live(
        request,
        "system.html",
        "system_live.html",
        system=system,
        now=system.now,
        history=history,
        settings=settings,
    )


def read(settings: Settings) -> System:
    """Read the facts."""
    broker: Any = client()
    now = snapshot.read(broker, settings)
    with broker_errors():
        info = broker.info("server")
    name = info.get("server_name") or ("valkey" if "valkey_version" in info else "redis")
    version = info.get("valkey_version") or info.get("redis_version") or ""
    return System(
        now,
        read_versions(broker),
        f"{name} {version}".strip(),
        int(info.get("uptime_in_seconds") or 0) * 1000,
    )


routes = [Route("/system", page)]
