"""Words of incidents: numbers, names and causes as whoever is on call reads them. No person's data is in any of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from postbacks.monitor.moments import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.operate.incidents.course import Course

#: Names that a sentence lists at most.
NAMES_MAX: Final = 3


def quiet(course: Course) -> str:
    """Say as a clause when an open incident ends, and whether it stands by now: it may be over already."""
    so_far = f", and has for {duration(course.quiet_ms)}" if course.quiet_ms else ""
    return f"once nothing of it has stood for {duration(course.quiet_wanted_ms)}{so_far}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 account, 1,204 accounts."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def names(accounts: Sequence[str], total: int | None = None) -> str:
    """List names: acme, or acme, beta, gamma and 497 more."""
    total = len(accounts) if total is None else total
    shown = list(accounts[:NAMES_MAX])
    more = total - len(shown)
    return (
        f"{', '.join(shown)} and {more:,} more"
        if more
        else " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    )


def host(subject: str) -> str:
    """Return an endpoint as short as it is clear, and anything else as it is: acme.example, acme.example:8443."""
    scheme, _, rest = subject.partition("://")
    return rest.removesuffix({"https": ":443", "http": ":80"}.get(scheme, "")) or subject


def cause(outcome: str, status: int, detail: str) -> str:
    """Say as a clause what every attempt comes to; empty where nothing is known of any."""
    if status and outcome == "status":
        return f"it answers {status}"
    return detail.partition(" (")[0].partition(";")[0]  # libcurl's own words follow in brackets


def iso_second(ms: int, *, up: bool = False) -> str:
    """Return a whole second in ISO 8601 UTC, as ``--between`` takes it: the one that has begun, or the next one."""
    second = -(-ms // 1000) if up else ms // 1000
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
