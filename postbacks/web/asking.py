"""Clock of what people ask for, and the filter bar by it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.web import filterbar

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import tzinfo

    from postbacks.web.filterbar import Bar


def broker_ms() -> int:
    """Return the broker's time.

    Raises:
        BrokerError: it cannot be asked.
    """
    with broker_errors():
        return now_ms(client())


def clock_ms() -> int:
    """Return the broker's time, by which postbacks are accepted, or this machine's where the broker is away."""
    try:
        return broker_ms()
    except BrokerError:
        return time.time_ns() // 1_000_000


def read_bar(typed: str, zone: tzinfo, names: Collection[str] = filterbar.ALL) -> Bar:
    """Parse the filter bar by the broker's clock, which is asked once.

    Raises:
        InvalidQuery: names the word that cannot be.
    """
    known: list[int] = []

    def clock() -> int:
        if not known:
            known.append(clock_ms())
        return known[0]

    return filterbar.parse(typed, now_ms=clock, zone=zone, names=names)
