"""The broker's clock: the one clock that all processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import redis


def to_ms(time: tuple[int, int]) -> int:
    """Turn the reply of ``TIME``, seconds and microseconds, into ms since the epoch."""
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def now_ms(client: redis.Redis) -> int:
    """Ask the broker for the time, in ms since the epoch."""
    return to_ms(client.time())
