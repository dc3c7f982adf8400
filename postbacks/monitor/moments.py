"""Times within sentences: durations, and moments, written in UTC and put into the zone of whoever reads them elsewhere."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

#: Size of a unit in ms, its name, and those of the part of it that is told beside it.
_UNITS: Final = ((86_400_000, "d", 3_600_000, "h"), (3_600_000, "h", 60_000, "min"))
#: Seconds up to which a time to the second is told without its date.
_CLOCK_ALONE_S: Final = 43_200
_DAY: Final = timedelta(days=1)
_DAYS: Final = {"yesterday": -1, "tomorrow": 1}
#: Moment of either form, as it stands in a sentence.
_MOMENT: Final = re.compile(
    r"\b(?:(?P<day>yesterday|tomorrow|\d{4}-\d\d-\d\d) )?(?P<clock>\d\d:\d\d)(?P<second>:\d\d)? UTC\b",
    re.ASCII,
)


def duration(ms: int) -> str:
    """Put a duration into words: 45 s, 7 min, 2 h 5 min, 3 d 1 h."""
    for size_ms, name, part_ms, part in _UNITS:
        if ms >= size_ms:
            rest = ms % size_ms // part_ms
            return f"{ms // size_ms} {name}" + (f" {rest} {part}" if rest else "")
    return f"{ms // 60_000} min" if ms >= 60_000 else f"{max(0, ms) // 1000} s"


def minute(ms: int, now_ms: int, zone: tzinfo = UTC) -> str:
    """Put a time into words, as short as it is clear: 14:31 UTC, yesterday 14:31 UTC, 2026-11-24 14:31 UTC."""
    at, now = (datetime.fromtimestamp(at_ms / 1000, zone) for at_ms in (ms, now_ms))
    days = (at.date() - now.date()) // _DAY
    day = {0: "", -1: "yesterday ", 1: "tomorrow "}.get(days, f"{at:%Y-%m-%d} ")
    return f"{day}{at:%H:%M %Z}"


def second(ms: int, now_ms: int, zone: tzinfo = UTC) -> str:
    """Put a time into words to the second, with its date where it is half a day away or farther."""
    form = "%H:%M:%S %Z" if abs(ms - now_ms) / 1000 < _CLOCK_ALONE_S else "%Y-%m-%d %H:%M:%S %Z"
    return f"{datetime.fromtimestamp(ms / 1000, zone):{form}}"


def in_zone(sentence: str, written_ms: int, now_ms: int, zone: tzinfo) -> str:
    """Return a sentence with its moments in another zone.

    Args:
        sentence: as it was written.
        written_ms: when it was written: its days are told from then.
        now_ms: from when days are told in what is returned.
        zone: of whoever reads it.
    """

    def there(match: re.Match[str]) -> str:
        try:
            ms = _read(match, datetime.fromtimestamp(written_ms / 1000, UTC))
            return second(ms, now_ms, zone) if match["second"] else minute(ms, now_ms, zone)
        except (ValueError, OverflowError):  # no time of ours: somebody's words
            return match.group()

    return _MOMENT.sub(there, sentence)


def _read(match: re.Match[str], written: datetime) -> int:
    """Read a moment back, in ms."""
    clock = time.fromisoformat(match["clock"] + (match["second"] or ""))
    day = match["day"] or ""
    on = date.fromisoformat(day) if day[:1].isdigit() else written.date() + _DAYS.get(day, 0) * _DAY
    at = datetime.combine(on, clock, UTC)
    if match["second"] and not day:  # the nearest one
        at += round((written - at) / _DAY) * _DAY
    return int(at.timestamp()) * 1000
