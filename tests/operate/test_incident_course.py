"""Course of an incident: as a table, and under looks that chance makes up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbacks.operate.incidents.course import (
    CAME_BACK,
    DOUBLINGS_MAX,
    GREW,
    LOOK_GAP_MAX_MS,
    OPENED,
    QUIET_MS,
    RECOVERED,
    Seen,
    advance,
)

MIN = 60
HOUR = 3600
#: Seconds between two looks, as the finder makes them.
EVERY_S = 10


def run(looks, *, course=None, begin_s=0):
    """Take ``(seconds, what is seen)`` one after the other; return the changes, each with its second, and the course."""
    changes, now_s = [], begin_s
    for lasts_s, seen in looks:
        for _ in range(0, lasts_s, EVERY_S):
            course, change = advance(course, seen, now_s * 1000)
            if change:
                changes.append((now_s, change))
            now_s += EVERY_S
    return changes, course


BAD, MILD, GOOD = Seen(size=5), Seen(opens=False, size=5), None

TABLE = {
    "nothing stands": ([(HOUR, GOOD)], []),
    "too little for an incident": ([(HOUR, MILD)], []),
    "down for an hour, then well": (
        [(HOUR, BAD), (HOUR, GOOD)],
        [(0, OPENED), (HOUR + 5 * MIN - EVERY_S, RECOVERED)],
    ),
    "an open one goes on while little stands": ([(MIN, BAD), (HOUR, MILD)], [(0, OPENED)]),
    "one that fails now and then stays open": (
        [(MIN, BAD), *[(MIN, GOOD), (EVERY_S, MILD)] * 60],
        [(0, OPENED)],
    ),
    "ten times as many wait": ([(11 * MIN, BAD), (HOUR, Seen(size=50))], [(0, OPENED), (11 * MIN, GREW)]),
    "nine times as many do": ([(11 * MIN, BAD), (HOUR, Seen(size=49))], [(0, OPENED)]),
    "growth within ten minutes waits": ([(MIN, BAD), (HOUR, Seen(size=50))], [(0, OPENED), (10 * MIN, GREW)]),
    "the first one dies": ([(25 * MIN, BAD), (HOUR, Seen(size=5, level=1))], [(0, OPENED), (25 * MIN, GREW)]),
    "growth is told once a day": (
        [(11 * MIN, BAD), (HOUR, Seen(size=50)), (26 * HOUR, Seen(size=500, level=1))],
        [(0, OPENED), (11 * MIN, GREW), (11 * MIN + 24 * HOUR, GREW)],
    ),
    "back within the hour, and twice as long to recover": (
        [(MIN, BAD), (30 * MIN, GOOD), (MIN, BAD), (30 * MIN, GOOD)],
        [
            (0, OPENED),
            (MIN + 5 * MIN - EVERY_S, RECOVERED),
            (31 * MIN, CAME_BACK),
            (32 * MIN + 10 * MIN - EVERY_S, RECOVERED),
        ],
    ),
    "another one after the hour": (
        [(MIN, BAD), (70 * MIN, GOOD), (MIN, BAD)],
        [(0, OPENED), (MIN + 5 * MIN - EVERY_S, RECOVERED), (71 * MIN, OPENED)],
    ),
    "little after its end opens nothing": (
        [(MIN, BAD), (10 * MIN, GOOD), (HOUR, MILD)],
        [(0, OPENED), (MIN + 5 * MIN - EVERY_S, RECOVERED)],
    ),
}


@pytest.mark.parametrize(("looks", "changes"), TABLE.values(), ids=list(TABLE))
def test_an_incident_opens_grows_and_recovers_as_the_table_says(looks, changes):
    assert run(looks)[0] == changes


def test_time_in_which_nobody_looked_is_no_quiet():
    """A finder that was away for a day does not end what it finds nothing of at its first look."""
    _, course = run([(MIN, BAD), (4 * MIN, GOOD)])
    course, change = advance(course, None, 86_400_000)
    assert (change, course.quiet_ms) == ("", 4 * MIN * 1000)
    changes, _ = run([(HOUR, GOOD)], course=course, begin_s=86_400 + EVERY_S)
    assert [change for _, change in changes] == [RECOVERED]


def test_one_that_comes_and_goes_for_a_day_is_told_ever_more_seldom():
    """Six minutes down, six up: without the doubling 240 notices in a day."""
    changes, _ = run([(6 * MIN, BAD), (6 * MIN, GOOD)] * 120)
    assert [change for _, change in changes] == [OPENED, RECOVERED, CAME_BACK]
    # Half an hour down and half up, so that each quiet is long enough three times.
    changes, _ = run([(30 * MIN, BAD), (30 * MIN, GOOD)] * 24)
    assert len(changes) <= 7


seen = st.none() | st.builds(Seen, st.booleans(), st.integers(0, 10**6), st.integers(0, 2))
looks = st.lists(st.tuples(seen, st.integers(-5_000, 2 * LOOK_GAP_MAX_MS)), max_size=80)


@given(looks)
def test_whatever_is_seen_changes_alternate_and_nothing_recovers_without_its_quiet(steps):
    """Opened or back, then grown at will, then recovered; the clock may jump."""
    course, now_ms, last, quiet_ms = None, 1_000_000, RECOVERED, 0
    for what, gap_ms in steps:
        now_ms += gap_ms
        quiet_ms = quiet_ms + max(0, gap_ms) if what is None else 0
        before = course
        course, change = advance(course, what, now_ms)
        if change in {OPENED, CAME_BACK}:
            assert last == RECOVERED
            assert what.opens
        elif change == GREW:
            assert last != RECOVERED
            assert now_ms - before.told_ms >= 600_000
        elif change == RECOVERED:
            assert last != RECOVERED
            assert quiet_ms >= before.quiet_wanted_ms >= QUIET_MS
            assert before.quiet_wanted_ms <= QUIET_MS << DOUBLINGS_MAX
        last = change or last
        if course is not None:
            assert course.is_open == (last != RECOVERED)
