"""Rates as people write them: ``50/s``, ``30/min``."""

from __future__ import annotations

import re
from typing import Final

from postbacks.errors import InvalidAccount
from postbacks.printable import quoted

_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)/(s|min)\Z", re.ASCII)
_PERIOD_US: Final = {"s": 1_000_000, "min": 60_000_000}
#: Interval of the lowest rate, a POST a minute.
MAX_INTERVAL_US: Final = 60_000_000
#: Interval of the highest rate, 10,000 POSTs a second, which is more than one broker carries.
MIN_INTERVAL_US: Final = 100


def interval_us(rate: str) -> int:
    """Compute the microseconds between two POSTs at a rate such as ``50/s`` or ``30/min``.

    Raises:
        InvalidAccount: says what a rate may be.
    """
    match = _RATE.match(rate)
    interval = _PERIOD_US[match[2]] / float(match[1]) if match and float(match[1]) else 0
    if not MIN_INTERVAL_US <= interval <= MAX_INTERVAL_US:
        raise InvalidAccount(
            f"{quoted(rate)} is no rate: a number and /s or /min (50/s, 30/min), from 1/min to 10000/s."
        )
    return round(interval)
