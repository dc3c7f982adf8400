"""Time zone in which a viewer sees times: UTC, or the one that a cookie names."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, available_timezones

if TYPE_CHECKING:
    from starlette.requests import Request

COOKIE: Final = "postbacks-zone"
UTC_NAME: Final = "UTC"
#: End of a time that needs no zone, or names its own: 2h, now, Z, UTC, +01:00, Europe/Berlin.
_NEEDS_NO_ZONE: Final = re.compile(r"(\d(ms|s|m|h|d|w)|now|Z|UTC|[+-]\d\d:?\d\d|[A-Za-z]/\S+)\Z", re.ASCII)


def zone_of(request: Request) -> tzinfo:
    """Return the zone that the viewer has chosen; UTC without one."""
    name = request.cookies.get(COOKIE, "")
    return ZoneInfo(name) if name in names() and name != UTC_NAME else UTC


def name_of(zone: tzinfo) -> str:
    """Return the name of a zone."""
    return zone.key if isinstance(zone, ZoneInfo) else UTC_NAME


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the names that can be chosen: UTC, and what the system's zone data has of an area and a place."""
    areas = {
        "Africa",
        "America",
        "Antarctica",
        "Asia",
        "Atlantic",
        "Australia",
        "Europe",
        "Indian",
        "Pacific",
    }
    return (UTC_NAME, *sorted(name for name in available_timezones() if name.partition("/")[0] in areas))


def written(ms: int, zone: tzinfo, form: str) -> str:
    """Return a time as people in a zone write it.

    Args:
        ms: since the epoch.
        zone: in which it is shown.
        form: of ``strftime``.
    """
    return datetime.fromtimestamp(ms / 1000, zone).strftime(form)


def in_zone(text: str, zone: tzinfo) -> str:
    """Return a time as somebody has typed it, in the zone in which that person sees times where it names none."""
    typed = text.strip()
    return typed if not typed or _NEEDS_NO_ZONE.search(typed) else f"{typed} {name_of(zone)}"
