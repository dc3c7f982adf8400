"""Facts that several pages show, read once for all who look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from postbacks.broker.client import client_for
from postbacks.errors import BrokerError, PostbacksError
from postbacks.monitor import health, snapshot
from postbacks.web.live import is_live
from postbacks.web.mistakes import CUSTOMERS_WORDS
from postbacks.web.reading import reading_of, shared

if TYPE_CHECKING:
    from starlette.requests import Request

    from postbacks.monitor.health import Health
    from postbacks.monitor.snapshot import Snapshot
    from postbacks.settings import Settings

T = TypeVar("T")

#: Seconds for which a snapshot is shown to others who look, too.
FRESH_S = 2.0
#: Seconds that a page waits for what its live part can bring.
PATIENCE_S = 0.06
PENDING: Final = "Being counted: it comes in a moment."
#: Seconds that a snapshot goes over accounts.
_WITHIN_S = 1.5


class System(NamedTuple):
    """System as it is now.

    Attributes:
        health: the judgement of ``postbacks health``.
        now: the snapshot; None where the broker does not answer.
    """

    health: Health
    now: Snapshot | None


class Fact(NamedTuple, Generic[T]):
    """Part of a page that the rest does without.

    Attributes:
        value: None where it cannot be had.
        trouble: why: a sentence; empty where it can.
        is_pending: being read; the live part will have it.
    """

    value: T | None
    trouble: str = ""
    is_pending: bool = False


async def system(request: Request) -> System:
    """Return the system as it is now, or was ``FRESH_S`` ago."""
    return await shared(request, "system", FRESH_S, _read, reading_of(request).settings)


def _read(settings: Settings) -> System:
    try:
        client = client_for(settings.broker_url, settings.broker_timeout_s)
        now = snapshot.read(client, settings, within_s=_WITHIN_S)
    except BrokerError as error:
        return System(health.without_broker(error), None)
    return System(health.of_snapshot(now, settings), now)


async def soon(request: Request, reading: Awaitable[T]) -> Fact[T]:
    """Wait for a part of a page for a moment, as what it counts may take longer; the live part waits until it is there."""
    if is_live(request):
        return await fact(reading)
    part = asyncio.ensure_future(fact(reading))
    done, _ = await asyncio.wait({part}, timeout=PATIENCE_S)
    return part.result() if done else Fact(None, PENDING, is_pending=True)


async def soon_for_customer(request: Request, reading: Awaitable[T]) -> Fact[T]:
    """Wait as ``soon`` does; why something cannot be had is said in a customer's words, as ours name paths and settings."""
    part = await soon(request, reading)
    return part if part.is_pending or part.value is not None else Fact(None, CUSTOMERS_WORDS[503])


async def fact(reading: Awaitable[T]) -> Fact[T]:
    """Wait for a part of a page; where it cannot be had, say why."""
    try:
        return Fact(await reading)
    except PostbacksError as error:
        return Fact(None, str(error))
