"""Time zone in which a viewer sees times: UTC, or the one that a cookie names."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, available_timezones

if TYPE_CHECKING:
    from starlette.requests import Request

COOKIE: Final = "postbacks-zone"
UTC_NAME: Final = "UTC"


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
