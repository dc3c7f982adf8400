"""Memory of the broker: bytes used, and its limit."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.broker.errors import broker_errors

if TYPE_CHECKING:
    import redis

#: Share of the limit from which on the broker is taken for full: from 1 on it refuses messages.
FULL_FROM: Final = 0.98
#: Seconds for which the broker's memory is taken to be the same.
ASK_EVERY_S: Final = 10
#: Share of the limit from which on the broker is asked each time.
ASK_ALWAYS_FROM: Final = 0.8


class Memory(NamedTuple):
    """Bytes that the broker uses, as it counts them for its limit.

    Attributes:
        used: bytes used.
        limit: its ``maxmemory``, else the machine's memory; 0 where it does not say.
    """

    used: int
    limit: int

    @property
    def share(self) -> float:
        """Share of the limit that is used; 0 where the limit is not known."""
        return self.used / self.limit if self.limit else 0.0

    def over(self, share: float) -> int:
        """Return how many bytes are used past a share of the limit; 0 where none are."""
        return max(0, self.used - int(self.limit * share)) if self.limit else 0


def read(client: redis.Redis) -> Memory:
    """Ask the broker. Raises BrokerError where it cannot be asked."""
    with broker_errors():
        info = client.info("memory")
    limit = int(info.get("maxmemory") or 0) or int(info.get("total_system_memory") or 0)
    return Memory(int(info.get("used_memory") or 0) - int(info.get("mem_not_counted_for_evict") or 0), limit)


def recent(client: redis.Redis) -> Memory:
    """Return the reading of this period; a new one where there is little memory left."""
    memory = _of_period(client, int(time.monotonic() // ASK_EVERY_S))
    return read(client) if memory.share >= ASK_ALWAYS_FROM else memory


def limit_of(client: redis.Redis) -> int:
    """Return the broker's limit as read in this period; 0 where it does not say."""
    return _of_period(client, int(time.monotonic() // ASK_EVERY_S)).limit


@lru_cache(maxsize=8)
def _of_period(client: redis.Redis, _period: int) -> Memory:
    return read(client)
