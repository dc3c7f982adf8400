"""Rates as people write them: ``50/s``, ``30/min``."""

from __future__ import annotations

import re
from typing import Final

from postbacks.catalogue.problems import quoted
from postbacks.errors import InvalidAccount

_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)/(s|min)\Z", re.ASCII)
_PERIOD_US: Final = {"s": 1_000_000, "min": 60_000_000}
#: A POST a minute: what waits for its rate is looked at again within seconds of a change all the same.
MAX_INTERVAL_US: Final = 60_000_000
#: 10,000 POSTs a second, more than one broker carries.
MIN_INTERVAL_US: Final = 100


def interval_us(rate: str) -> int:
    """Microseconds between two POSTs at a rate such as ``50/s`` or ``30/min``.

    Raises:
        InvalidAccount: says what a rate may be.
    """
    found = _RATE.match(rate)
    interval = _PERIOD_US[found[2]] / float(found[1]) if found and float(found[1]) else 0
    if not MIN_INTERVAL_US <= interval <= MAX_INTERVAL_US:
        raise InvalidAccount(
            f"{quoted(rate)} is no rate: a number and /s or /min (50/s, 30/min), from 1/min to 10000/s."
        )
    return round(interval)
