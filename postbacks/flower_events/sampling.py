"""Sampling of task events: all up to a rate, above it the failures and a share of the rest.

Two choices, of which neither asks the broker:

* **The share goes by the id**, so that every process chooses the same postbacks. It is exact.
* **The rate is measured by each worker for itself**, so it is about right. A postback that is not of the share is
  therefore published by one process alone, the one that makes its POST, which remembers it until the POST has ended.
"""

from __future__ import annotations

import time
from typing import Final
from zlib import crc32

#: Seconds of the rate that are shown at once after a quiet time: a tick a second makes bursts.
BURST_S: Final = 4
#: Postbacks whose POST is open and that Flower was shown; of more than that the oldest ends are not shown.
REMEMBERED_MAX: Final = 20_000
#: Numbers that a meter keeps.
METER_NUMBERS: Final = 3

_HASHES: Final = 1 << 32


def is_in_share(postback_id: str, share: float) -> bool:
    """True if a postback is of the share, by the hash of its id; a larger share holds every smaller one."""
    return crc32(postback_id.encode()) < share * _HASHES


class RateMeter:
    """Measures a stream of postbacks against a rate, with bursts of ``BURST_S`` seconds of it.

    Once the stream is above the rate it counts as above until half of a burst would fit again, so that at a steady
    rate it is shown either whole or not.

    Args:
        numbers: postbacks that fill the burst, when that was, and 1 while the stream is above the rate. Processes that
            share them share the rate; without a lock, as a count that is lost makes no difference.
    """

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers

    @property
    def is_above(self) -> bool:
        """True while the stream is above the rate."""
        return bool(self._numbers[2])

    def admits(self, count: int, per_s: int, now_s: float) -> bool:
        """Count postbacks of the stream; returns whether it stays within the rate."""
        filled, at_s, was_above = self._numbers
        burst = float(BURST_S * per_s)
        filled = max(0.0, filled - (now_s - at_s) * per_s)
        is_above = filled + count > burst or bool(was_above and filled > burst / 2)
        self._numbers[0], self._numbers[1], self._numbers[2] = (
            min(burst, filled + count),
            now_s,
            float(is_above),
        )
        return not is_above


class Sampler:
    """Chooses the postbacks whose events are published.

    Args:
        numbers: of two meters, shared by the worker's processes.

    Attributes:
        left_out: events that were not chosen.
    """

    def __init__(self, numbers: memoryview[float]) -> None:
        self._others = RateMeter(numbers[:METER_NUMBERS])
        self._failures = RateMeter(numbers[METER_NUMBERS : 2 * METER_NUMBERS])
        self._remembered: dict[str, None] = {}  # REMEMBERED_MAX
        self.left_out = 0
        self._share = 1.0
        self._per_s = 1

    def configure(self, share: float, per_s: int) -> None:
        """Set the share and the rate."""
        self._share, self._per_s = share, per_s

    def is_in_share(self, postback_id: str) -> bool:
        """True if every process publishes this postback."""
        return is_in_share(postback_id, self._share)

    def admits(self, count: int, *, are_failures: bool = False) -> bool:
        """Count postbacks that are not of the share; returns whether the rate lets them be published."""
        meter = self._failures if are_failures else self._others
        return meter.admits(count, self._per_s, time.monotonic())

    def remember(self, postback_id: str) -> None:
        """Remember a postback outside the share whose begin is published."""
        self._remembered[postback_id] = None
        if len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]

    def forget(self, postback_id: str) -> bool:
        """Forget a postback whose POST has ended; returns whether it was remembered."""
        return self._remembered.pop(postback_id, self) is None

    def are_above(self) -> tuple[bool, bool]:
        """Return whether the failures, and whether the others, are above the rate."""
        return self._failures.is_above, self._others.is_above
