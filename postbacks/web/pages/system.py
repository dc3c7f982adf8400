"""Page of the system: workers, ticks, the broker's memory, versions, and how far back the history sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.routing import Route

from postbacks.broker.client import client as broker_client
from postbacks.broker.errors import broker_errors
from postbacks.broker.versions import read_versions
from postbacks.history import status
from postbacks.web.facts import fact, system
from postbacks.web.live import live
from postbacks.web.reading import reading_of, shared
from postbacks.web.security.roles import needs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.status import Status
    from postbacks.settings import Settings

#: Seconds for which what was read is shown to others who look.
FRESH_S: Final = 2.0
#: Seconds for which the size of the database is shown.
STORE_FRESH_S: Final = 30.0


class Broker(NamedTuple):
    """Server of the broker, and who works on it.

    Attributes:
        name: of the server, with its version.
        uptime_ms: for how long it runs.
        versions: of postbacks at work -> what each does.
    """

    name: str
    uptime_ms: int
    versions: Mapping[str, set[str]]


@needs("viewer")
async def page(request: Request) -> Response:
    """Show the system."""
    settings = reading_of(request).settings
    state = await system(request)
    broker = await fact(shared(request, "broker", FRESH_S, read_broker))
    history = await shared(request, "history-status", STORE_FRESH_S, read_history, settings)
    return live(
        request,
        "system.html",
        "system_live.html",
        health=state.health,
        now=state.now,
        broker=broker,
        history=history,
        settings=settings,
    )


def read_broker() -> Broker:
    """Read which server the broker is, and which versions work on it."""
    client: Any = broker_client()
    with broker_errors():
        info = client.info("server")
    name = info.get("server_name") or ("valkey" if "valkey_version" in info else "redis")
    version = info.get("valkey_version") or info.get("redis_version") or ""
    uptime_ms = int(info.get("uptime_in_seconds") or 0) * 1000
    return Broker(f"{name} {version}".strip(), uptime_ms, read_versions(client))


def read_history(settings: Settings) -> Status:
    """Read how the history stands; what cannot be asked says so in its part."""
    return status.read(broker_client(), settings)


routes = [Route("/system", page)]
