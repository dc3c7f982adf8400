"""Course of an incident: when it opens, grows, comes back and recovers. Pure: looks go in, changes come out.

==============  ================  ================================================================  =============
what stands     at a look         what follows                                                      change
==============  ================  ================================================================  =============
nothing         a condition       which ``opens``: the incident is open                             ``opened``
nothing         a condition       which does not: nothing
ended lately    a condition       which ``opens``: the same incident is open again                  ``came_back``
open            a condition       of a higher level or ten times the size, ten minutes after        ``grew``
                                  anything was told, once a day
open            none              it is quiet; after five minutes of quiet it has ended, after      ``recovered``
                                  twice as many for each time that it came back
open            a condition       whether it ``opens`` or not: the quiet begins anew
==============  ================  ================================================================  =============

So within a day an incident that does not come back is told three times at most, and one that comes and goes every few
minutes ever more seldom. Quiet is counted by looks: time in which nobody looked is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

OPENED: Final = "opened"
GREW: Final = "grew"
CAME_BACK: Final = "came_back"
RECOVERED: Final = "recovered"
#: Every change, and no change.
CHANGES: Final = (OPENED, GREW, CAME_BACK, RECOVERED)
NOTHING: Final = ""

#: Quiet after which an incident has ended that never came back.
QUIET_MS: Final = 300_000
#: Times that the quiet is doubled at most: to five hours and twenty minutes.
DOUBLINGS_MAX: Final = 6
#: Time after its end in which an incident comes back; later it is another one.
COMES_BACK_WITHIN_MS: Final = 3_600_000
#: Time after anything was told of an incident before its growth is.
GROWTH_AFTER_MS: Final = 600_000
#: Time between two tellings of growth.
GROWTH_EVERY_MS: Final = 86_400_000
#: Factor by which the size must have grown.
GROWTH: Final = 10
#: Most that lies between two looks; what is longer counts as no quiet, as nobody looked.
LOOK_GAP_MAX_MS: Final = 120_000


class Seen(NamedTuple):
    """Condition as the course of its incident is decided by.

    Attributes:
        opens: bad enough for an incident of its own.
        size: number by which it grows.
        level: 0, and more where it has become worse in kind: postbacks have died of it.
    """

    opens: bool = True
    size: int = 0
    level: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """Course of an incident so far. Times are ms of the broker's clock.

    Attributes:
        opened_ms: when it opened, or last came back.
        looked_ms: time of the last look.
        told_ms: when a change last came.
        told_size: size at its opening, or at its last growth.
        told_level: level then.
        quiet_ms: quiet so far; 0 while its condition stands.
        times_back: how often it came back.
        grew_ms: when it last grew; None before.
        ended_ms: when it ended; None while it is open.
    """

    opened_ms: int
    looked_ms: int
    told_ms: int
    told_size: int
    told_level: int
    quiet_ms: int = 0
    times_back: int = 0
    grew_ms: int | None = None
    ended_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """True until it has ended."""
        return self.ended_ms is None

    @property
    def quiet_wanted_ms(self) -> int:
        """Quiet after which it has ended."""
        return QUIET_MS << min(self.times_back, DOUBLINGS_MAX)


def advance(course: Course | None, seen: Seen | None, now_ms: int) -> tuple[Course | None, str]:
    """Take one look into the course of an incident; return the new course and the change, ``NOTHING`` where there is none.

    Args:
        course: the course so far; None where there is no incident, or none that can come back.
        seen: its condition; None where it does not stand.
        now_ms: time of the look.
    """
    if course is None:
        if seen is None or not seen.opens:
            return None, NOTHING
        return Course(now_ms, now_ms, now_ms, seen.size, seen.level), OPENED
    if course.ended_ms is not None:
        return _look_at_ended(course, course.ended_ms, seen, now_ms)
    if seen is None:
        return _grow_quiet(course, now_ms)
    course = replace(course, looked_ms=now_ms, quiet_ms=0)
    if not _has_grown(course, seen, now_ms):
        return course, NOTHING
    grown = replace(
        course,
        told_ms=now_ms,
        grew_ms=now_ms,
        told_size=seen.size,
        told_level=max(course.told_level, seen.level),
    )
    return grown, GREW


def comes_back(ended_ms: int, now_ms: int) -> bool:
    """Tell whether an incident that ended then is the one that opens now."""
    return now_ms - ended_ms < COMES_BACK_WITHIN_MS


def _look_at_ended(
    course: Course, ended_ms: int, seen: Seen | None, now_ms: int
) -> tuple[Course | None, str]:
    if not comes_back(ended_ms, now_ms):
        return advance(None, seen, now_ms)
    if seen is None or not seen.opens:
        return course, NOTHING
    back = replace(
        course,
        opened_ms=now_ms,
        looked_ms=now_ms,
        told_ms=now_ms,
        told_size=seen.size,
        told_level=seen.level,
        quiet_ms=0,
        times_back=course.times_back + 1,
        ended_ms=None,
    )
    return back, CAME_BACK


def _grow_quiet(course: Course, now_ms: int) -> tuple[Course, str]:
    gap_ms = now_ms - course.looked_ms
    quiet_ms = course.quiet_ms + (gap_ms if 0 <= gap_ms <= LOOK_GAP_MAX_MS else 0)
    course = replace(course, looked_ms=now_ms, quiet_ms=quiet_ms)
    if quiet_ms < course.quiet_wanted_ms:
        return course, NOTHING
    return replace(course, ended_ms=now_ms, told_ms=now_ms), RECOVERED


def _has_grown(course: Course, seen: Seen, now_ms: int) -> bool:
    if now_ms - course.told_ms < GROWTH_AFTER_MS:
        return False
    if course.grew_ms is not None and 0 <= now_ms - course.grew_ms < GROWTH_EVERY_MS:
        return False
    return seen.level > course.told_level or seen.size >= GROWTH * max(1, course.told_size)
