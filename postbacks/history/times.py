"""Times that people type: ages, times of day, dates and ISO times, resolved to a window and echoed with their zone.

A window begins with its first moment and ends before its last one, in ms since the epoch. What names no zone is in the
machine's. A date stands for its whole day: as a beginning for the midnight before it, as an end for the one after it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from postbacks.errors import InvalidQuery
from postbacks.printable import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d|w)", re.ASCII)
_TIME: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|today|yesterday|tomorrow)?"
    r"(?:(?(date)(?:T|\s+)|)(?P<time>\d{1,2}:\d\d(?::\d\d(?:\.\d{1,6})?)?))?"
    r"\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d|[A-Za-z][\w+-]*(?:/[\w+-]+)+)?",
    re.ASCII,
)
_EXAMPLES: Final = "2h, 14:00, yesterday, 2026-11-28, '2026-11-28 14:00' or 2026-11-28T14:00+01:00"
_EXAMPLES_AHEAD: Final = "2h, 18:00, tomorrow, 2027-01-31, '2027-01-31 18:00' or 2027-01-31T18:00+01:00"
#: Words for a day, and how many days it is from today.
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
#: Longest window of two times of day that goes over midnight; a longer one was typed the wrong way round.
_OVER_MIDNIGHT_MAX: Final = timedelta(hours=12)


class Window(NamedTuple):
    """Times between which something happened.

    Attributes:
        since: its first moment, in the zone in which it was typed; None for none.
        until: the moment before which it ends; None for none.
    """

    since: datetime | None
    until: datetime | None

    @property
    def since_ms(self) -> int | None:
        """Return the first moment in ms since the epoch."""
        return None if self.since is None else to_ms(self.since)

    @property
    def until_ms(self) -> int | None:
        """Return the end in ms since the epoch."""
        return None if self.until is None else to_ms(self.until)

    def words(self) -> str:
        """Say from when to when, with zone; empty for a window without bounds."""
        if self.since is None:
            return "" if self.until is None else f"before {shown(self.until)}"
        if self.until is None:
            return f"from {shown(self.since)} on"
        end = shown(self.until)
        return f"from {shown(self.since)} to {end[11:] if self.until.date() == self.since.date() else end}"


class _Typed(NamedTuple):
    """A time as it was typed: with day alone, with time of day alone, or with both."""

    text: str
    day: str
    at: time | None
    zone: tzinfo | None


def to_ms(moment: datetime) -> int:
    """Turn a moment into ms since the epoch, exactly."""
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def of_ms(ms: int, zone: tzinfo | None = None) -> datetime:
    """Return a moment in a zone, by default the machine's."""
    moment = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)).astimezone(zone)
    # With the offset alone: Python compares moments of one zone without it, so that 02:30 and the second 02:30 are equal.
    return moment.replace(tzinfo=timezone(moment.utcoffset() or timedelta()), fold=0)


def shown(moment: datetime) -> str:
    """Return a moment for people: to the second, or to the ms where it has some, with the offset of its zone."""
    return moment.isoformat(" ", "milliseconds" if moment.microsecond else "seconds")


def length(ms: int) -> str:
    """Return a length of time for people, in the largest unit of which there are two."""
    units = {"days": 86_400_000, "h": 3_600_000, "min": 60_000}
    unit, unit_ms = next(((unit, size) for unit, size in units.items() if ms >= 2 * size), ("s", 1000))
    return f"{ms // unit_ms} {unit}"


def duration_ms(text: str) -> int:
    """Parse a length of time: 500ms, 2s, 1.5s, 30m, 2h, 1d or 1w.

    Raises:
        InvalidQuery: it is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidQuery(f"{quoted(text)} is no length of time: try 500ms, 2s, 30m or 2h.")
    return round(float(match[1]) * _UNITS_MS[match[2]])


def window(
    since: str | None, until: str | None, now_ms: Callable[[], int], zone: tzinfo | None = None
) -> Window:
    """Resolve a window as it was typed.

    * ``2h`` is so long ago, to the second.
    * A time of day is today's, or yesterday's where today's is still ahead. As an end it belongs to its beginning, where
      that has a time of day as well: it is the first such time after it, at most twelve hours over midnight.
    * A time that the zone has twice (clocks are put back) begins with the first and ends with the second; one that it
      skips is the moment at which the clocks were put forward.

    Args:
        since: its beginning as it was typed.
        until: its end.
        now_ms: asked for the present time where a bound depends on it.
        zone: of what names none; None for the machine's.

    Raises:
        InvalidQuery: a time cannot be read, or they lie the wrong way round; says what to type.
    """
    begin, typed = (None, None) if since is None else _resolve(since, now_ms, zone, is_end=False)
    end = None if until is None else _resolve(until, now_ms, zone, is_end=True, begin=typed, after=begin)[0]
    for typed_text, moment in ((since, begin), (until, end)):
        if moment is not None and to_ms(moment) < 0:
            raise InvalidQuery(
                f"{quoted(typed_text)} lies before 1970, and so before any postback: try {_EXAMPLES}."
            )
    if begin is not None and end is not None and begin >= end:
        raise InvalidQuery(
            f"No time lies between {shown(begin)} and {shown(end)}: name the earlier one first, as in --between 14:00 15:00."
        )
    return Window(begin, end)


def ahead(text: str, now_ms: Callable[[], int]) -> datetime:
    """Resolve a time to come as it was typed: ``2h`` is in so long, a time of day the next such one, a date ends its day.

    Args:
        text: as it was typed.
        now_ms: asked for the present time.

    Raises:
        InvalidQuery: it cannot be read, or has passed; says what to type.
    """
    present_ms = now_ms()
    try:
        if _DURATION.fullmatch(text.strip()):
            moment = of_ms(-(-(present_ms + duration_ms(text)) // 1000) * 1000)
        else:
            typed = _parse(text)
            today = of_ms(present_ms, typed.zone).date()
            named = _DAYS.get(typed.day or "today")
            day = date.fromisoformat(typed.day) if named is None else today + timedelta(days=named)
            moment = _on(day, typed, is_end=True)
            if not typed.day and to_ms(moment) <= present_ms:
                moment = _on(day + timedelta(days=1), typed, is_end=True)
    except (ValueError, OverflowError, OSError):
        raise InvalidQuery(f"{quoted(text)} is no time to come: try {_EXAMPLES_AHEAD}.") from None
    if to_ms(moment) <= present_ms:
        raise InvalidQuery(f"{quoted(text)} is {shown(moment)}, which has passed: try {_EXAMPLES_AHEAD}.")
    return moment


def _resolve(
    text: str,
    now_ms: Callable[[], int],
    zone: tzinfo | None,
    *,
    is_end: bool,
    begin: _Typed | None = None,
    after: datetime | None = None,
) -> tuple[datetime, _Typed | None]:
    """Resolve one bound; ``begin`` and ``after`` are the beginning of the window that it ends, typed and resolved."""
    try:
        if text.strip() == "now" or _DURATION.fullmatch(text.strip()):
            age_ms = 0 if text.strip() == "now" else duration_ms(text)
            return of_ms(max(0, now_ms() - age_ms) // 1000 * 1000, zone), None
        typed = _parse(text)
        if not typed.day and begin is not None and begin.at is not None and after is not None:
            return _end_of(after, begin, typed), typed
        typed = typed._replace(zone=typed.zone or zone)
        if typed.day and typed.day not in _DAYS:
            return _on(date.fromisoformat(typed.day), typed, is_end=is_end), typed
        present = of_ms(now_ms(), typed.zone)
        if typed.day:
            day = present.date() + timedelta(days=_DAYS[typed.day])
            return _on(day, typed, is_end=is_end), typed
        moment = _on(present.date(), typed, is_end=is_end)
        return (
            moment if moment <= present else _on(present.date() - timedelta(days=1), typed, is_end=is_end)
        ), typed
    except (ValueError, OverflowError, OSError):
        raise InvalidQuery(f"{quoted(text)} is no time: try {_EXAMPLES}.") from None


def _parse(text: str) -> _Typed:
    match = _TIME.fullmatch(text.strip())
    if match is None or not (match["date"] or match["time"]):
        raise ValueError(text)
    at = None
    if match["time"]:
        hour, minute, *second = match["time"].split(":")
        whole, _, fraction = (second[0] if second else "0").partition(".")
        at = time(int(hour), int(minute), int(whole), int(fraction.ljust(6, "0")) // 1000 * 1000)
    return _Typed(text, match["date"] or "", at, _zone(match["zone"]))


def _zone(name: str | None) -> tzinfo | None:
    """Return the zone of a name or an offset; None, which is the machine's, where none was typed."""
    if name is None:
        return None
    if name in {"Z", "UTC"}:
        return UTC
    if name[0] in "+-":
        offset = timedelta(hours=int(name[1:3]), minutes=int(name[-2:]))
        return timezone(offset if name[0] == "+" else -offset)
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        raise InvalidQuery(
            f"{quoted(name)} is no time zone of this machine: try Europe/Berlin, UTC or an offset as +01:00."
        ) from None


def _on(day: date, typed: _Typed, *, is_end: bool) -> datetime:
    """Return a time of day on a day; without a time of day the midnight that begins the day, or the one that ends it."""
    if typed.at is None:
        return _moment(datetime.combine(day + timedelta(days=is_end), time()), typed.zone, is_end=is_end)
    return _moment(datetime.combine(day, typed.at), typed.zone, is_end=is_end)


def _end_of(begin: datetime, typed_begin: _Typed, typed: _Typed) -> datetime:
    """Return the first such time of day after the beginning of a window, in the zone of the end or else in its own."""
    typed = typed._replace(zone=typed.zone or typed_begin.zone)
    begin = begin.astimezone(typed.zone)
    end = _on(begin.date(), typed, is_end=True)
    if end > begin:
        return end
    end = _on(begin.date() + timedelta(days=1), typed, is_end=True)
    if end - begin > _OVER_MIDNIGHT_MAX:
        raise InvalidQuery(
            f"{quoted(typed_begin.text)} to {quoted(typed.text)} lies the wrong way round: name the earlier one first, "
            "as in --between 14:00 15:00, or the days as well."
        )
    return end


def _moment(local: datetime, zone: tzinfo | None, *, is_end: bool) -> datetime:
    """Return the moment at which clocks of the zone show a time; see ``window`` for what they show twice or never."""
    first, second = (round(local.replace(tzinfo=zone, fold=fold).timestamp() * 1000) for fold in (0, 1))
    if first <= second:
        return of_ms(second if is_end else first, zone)
    # Skipped: read by the offsets before and after the jump it stands behind and ahead of it.
    low, high = second, first
    offset = of_ms(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if of_ms(middle, zone).utcoffset() == offset else (low, middle)
    return of_ms(high, zone)
