"""Overlap of signing secrets: the time for which the older ones go on signing beside a new one."""

from __future__ import annotations

import re
from typing import Final

from postbacks.errors import InvalidAccount

#: Overlap where nobody says otherwise.
OVERLAP: Final = "24h"
LONGEST_OVERLAP_S: Final = 90 * 86_400
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")


def read_overlap(text: str) -> int:
    """Read an overlap, a number of seconds or a number with a unit (s, m, h, d); return seconds.

    Raises:
        InvalidAccount: it is none, or too long.
    """
    match = _DURATION.fullmatch(text)
    length_s = int(match[1]) * _UNITS_S[match[2] or "s"] if match else LONGEST_OVERLAP_S + 1
    if length_s > LONGEST_OVERLAP_S:
        raise InvalidAccount(f"{text!r} is no duration: 0, 90s, 30m, 24h or 7d, at most 90d.")
    return length_s


#: The same in seconds.
OVERLAP_S: Final = read_overlap(OVERLAP)
