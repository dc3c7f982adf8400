"""Which postbacks are shown: all up to a rate, above it a share that every process reckons alike.

A postback is shown from its first event to its last, or not at all. So what counts is the share that was
in force when it was taken in: whoever takes in writes each change with the broker's time, and everybody
else looks up the share of the postback's ``created_ms``. Shares are halves of halves and the choice goes
by a hash of the id, so that what is shown at a small share is shown at every larger one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

_HASH_BITS: Final = 32
#: Seconds of the rate that may be shown at once after a quiet time: a burst is not sampled.
BURST_S: Final = 4
#: Least of a share: a postback in a million.
LEVEL_MAX: Final = 20


def is_shown(postback_id: str, level: int) -> bool:
    """Whether a postback is one of the share ``1 / 2 ** level``."""
    return level <= 0 or crc32(postback_id.encode()) >> (_HASH_BITS - level) == 0


def is_in_share(postback_id: str, share: float) -> bool:
    """Whether a postback is one of a share between 0 and 1."""
    return crc32(postback_id.encode()) < share * (1 << _HASH_BITS)


@dataclass(frozen=True, slots=True)
class Meter:
    """How much may be shown now, and the level in force.

    Attributes:
        level: postbacks are shown with a share of ``1 / 2 ** level``.
        room: postbacks that may be shown at once.
        at_ms: when that was so, on the broker's clock.
    """

    level: int = 0
    room: float = 0.0
    at_ms: int = 0

    def after(self, count: int, now_ms: int, per_s: int) -> Meter:
        """The meter once ``count`` more postbacks were taken in; they are shown at its level.

        The level rises until the share of them fits into the room. It falls by one while half of the
        room is free, and to 0 when all of it is.
        """
        whole = float(BURST_S * per_s)
        passed_s = max(0, now_ms - self.at_ms) / 1000
        room = min(whole, self.room + passed_s * per_s)
        level = self.level
        if room >= whole:
            level = 0
        elif room >= whole / 2:
            level = max(0, level - 1)
        while level < LEVEL_MAX and count / 2**level > max(room, 1.0):
            level += 1
        return Meter(level, max(0.0, room - count / 2**level), now_ms)


class Levels:
    """The levels that have been in force: ``(since ms, level)`` pairs."""

    def __init__(self, changes: Sequence[tuple[int, int]] = ()) -> None:
        ordered = sorted(changes)
        self._since = [since_ms for since_ms, _ in ordered]
        self._levels = [level for _, level in ordered]

    def at(self, ms: int) -> int:
        """The level at a time; 0 before the first change that is known."""
        at = bisect_right(self._since, ms)
        return self._levels[at - 1] if at else 0
