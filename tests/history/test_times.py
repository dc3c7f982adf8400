"""Times that people type, read on a machine in Berlin on Saturday, 2026-11-28, at 15:30:12.345."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbacks.errors import InvalidQuery
from postbacks.history.times import Window, ahead, duration_ms, length, of_ms, shown, to_ms, window

NOW = datetime(2026, 11, 28, 14, 30, 12, 345_000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def read(since, until=None, now=NOW) -> Window:
    """Read a window as it was typed."""
    return window(since, until, lambda: to_ms(now))


@pytest.mark.parametrize(
    ("since", "words"),
    [
        ("90s", "from 2026-11-28 15:28:42+01:00 on"),
        ("30m", "from 2026-11-28 15:00:12+01:00 on"),
        ("2h", "from 2026-11-28 13:30:12+01:00 on"),
        ("3d", "from 2026-11-25 15:30:12+01:00 on"),
        ("1w", "from 2026-11-21 15:30:12+01:00 on"),
        ("now", "from 2026-11-28 15:30:12+01:00 on"),
        ("today", "from 2026-11-28 00:00:00+01:00 on"),
        ("yesterday", "from 2026-11-27 00:00:00+01:00 on"),
        ("yesterday 9:05", "from 2026-11-27 09:05:00+01:00 on"),
        ("14:00", "from 2026-11-28 14:00:00+01:00 on"),
        ("15:30:12", "from 2026-11-28 15:30:12+01:00 on"),
        ("15:31", "from 2026-11-27 15:31:00+01:00 on"),  # today's is ahead
        ("2026-11-03", "from 2026-11-03 00:00:00+01:00 on"),
        ("2026-11-03 14:00", "from 2026-11-03 14:00:00+01:00 on"),
        ("2026-07-03T14:00:07.25", "from 2026-07-03 14:00:07.250+02:00 on"),
        # A zone that is named is the one that is shown.
        ("2026-11-28T14:00Z", "from 2026-11-28 14:00:00+00:00 on"),
        ("2026-11-28T14:00:00.123-05:00", "from 2026-11-28 14:00:00.123-05:00 on"),
        ("14:00 UTC", "from 2026-11-28 14:00:00+00:00 on"),
        ("16:00 Europe/London", "from 2026-11-27 16:00:00+00:00 on"),  # it is 14:30 there
        ("yesterday America/New_York", "from 2026-11-27 00:00:00-05:00 on"),
    ],
)
def test_a_beginning_is_read_and_said_with_its_zone(since, words):
    assert read(since).words() == words


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        ("14:00", "15:00", "from 2026-11-28 14:00:00+01:00 to 15:00:00+01:00"),
        ("15:00", "16:00", "from 2026-11-28 15:00:00+01:00 to 16:00:00+01:00"),  # its end may be ahead
        ("16:00", "17:00", "from 2026-11-27 16:00:00+01:00 to 17:00:00+01:00"),
        ("23:00", "01:00", "from 2026-11-27 23:00:00+01:00 to 2026-11-28 01:00:00+01:00"),
        ("yesterday 14:00", "15:00", "from 2026-11-27 14:00:00+01:00 to 15:00:00+01:00"),
        ("2026-11-03T14:00Z", "15:00", "from 2026-11-03 14:00:00+00:00 to 15:00:00+00:00"),
        ("3d", "15:00", "from 2026-11-25 15:30:12+01:00 to 2026-11-28 15:00:00+01:00"),
        ("2h", "1h", "from 2026-11-28 13:30:12+01:00 to 14:30:12+01:00"),
        (None, "16:00", "before 2026-11-27 16:00:00+01:00"),
        # A date stands for the whole day.
        ("2026-11-03", "2026-11-03", "from 2026-11-03 00:00:00+01:00 to 2026-11-04 00:00:00+01:00"),
        ("yesterday", "yesterday", "from 2026-11-27 00:00:00+01:00 to 2026-11-28 00:00:00+01:00"),
        (None, None, ""),
    ],
)
def test_an_end_belongs_to_its_beginning(since, until, words):
    assert read(since, until).words() == words


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        # Clocks were put back from 03:00 to 02:00: all of both is meant.
        (
            "2026-10-25 02:30",
            "2026-10-25 02:30",
            "from 2026-10-25 02:30:00+02:00 to 02:30:00+01:00",
        ),
        ("2026-10-25", "2026-10-25", "from 2026-10-25 00:00:00+02:00 to 2026-10-26 00:00:00+01:00"),
        # Clocks were put forward from 02:00 to 03:00: what no clock showed is that moment.
        ("2026-03-29 02:30", "2026-03-29 03:30", "from 2026-03-29 03:00:00+02:00 to 03:30:00+02:00"),
        ("2026-03-29 01:30", "2026-03-29 02:59", "from 2026-03-29 01:30:00+01:00 to 03:00:00+02:00"),
    ],
)
@pytest.mark.parametrize("zone", ["", " Europe/Berlin"])
def test_what_clocks_show_twice_or_never_leaves_nothing_out(since, until, words, zone):
    assert read(since + zone, until + zone).words() == words


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_day_of_23_or_25_hours_is_whole(day):
    of_day = read(day, day)
    assert (of_day.until_ms - of_day.since_ms) / 3_600_000 == (23 if day == "2026-03-29" else 25)


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "25:00", "14:60", "9:5", "14", "2026-02-30", "2026-13-01", "20261128", "28.11.2026", "2 h", "-2h", "2y",
     "14:00 14:00", "2026-11-28 soon", "14:00 CEST", "T14:00", "2026-11-2814:00", "9999-12-31", "0000-01-01", "today 24:00",
     "2026-11-28T14:00+99:00", "\u0661\u0664:\u0660\u0660", "x" * 10_000],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_examples(text):
    end = text or "x"
    with pytest.raises(
        InvalidQuery, match=r"is no time: try 2h, 14:00, yesterday, .*'2026-11-28 14:00'"
    ) as refused:
        read(None, end) if text.startswith("9999") else read(text)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(("since", "until"), [("1969-12-31", None), (None, "0001-01-01")])
def test_a_time_before_1970_is_refused_by_its_own_text(since, until):
    with pytest.raises(
        InvalidQuery, match=rf"^'{since or until}' lies before 1970, and so before any postback: try 2h"
    ):
        read(since, until)


def test_a_zone_that_the_machine_does_not_have_is_named():
    with pytest.raises(InvalidQuery, match=r"'Europe/Atlantis' is no time zone .* try Europe/Berlin, UTC or"):
        read("14:00 Europe/Atlantis")


@pytest.mark.parametrize(
    ("since", "until"),
    [("15:00", "14:00"), ("1h", "2h"), ("2026-11-28", "2026-11-27"), ("14:00", "14:00"), ("yesterday 15:00", "14:00"),
     ("2026-11-28T14:00Z", "2026-11-28T14:30+01:00")],
)  # fmt: skip
def test_times_the_wrong_way_round_are_refused_with_an_example(since, until):
    with pytest.raises(InvalidQuery, match=r"name the earlier one first, as in --between 14:00 15:00"):
        read(since, until)


def test_a_window_that_no_clock_showed_is_refused():
    with pytest.raises(
        InvalidQuery, match=r"No time lies between 2026-03-29 03:00:00\+02:00 and 2026-03-29 03:00:00\+02:00"
    ):
        read("2026-03-29 02:10", "2026-03-29 02:50")


def test_the_present_is_asked_for_only_where_a_time_depends_on_it():
    def unasked():
        raise AssertionError

    whole = window("2026-11-28T14:00Z", "15:00", unasked)
    assert whole.until_ms - whole.since_ms == 3_600_000
    assert window("2026-11-27", "2026-11-28 12:00", unasked).since is not None


@given(st.integers(0, 4_000_000_000_000), st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "UTC", ""]))
def test_a_moment_as_it_is_shown_is_read_as_the_same(ms, zone):
    """Type again what was echoed, as the command for a next page does."""
    from zoneinfo import ZoneInfo

    text = of_ms(ms, ZoneInfo(zone) if zone else None).isoformat(timespec="milliseconds")
    assert read(text).since_ms == ms
    assert read(text.replace("T", " ")).since_ms == ms


@pytest.mark.parametrize(
    ("text", "ms"), [("500ms", 500), ("2s", 2000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)]
)
def test_a_length_of_time_is_read(text, ms):
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "2", "s", "-1s", "nan s", "1e3s", "2 s", "1,5s"])
def test_what_is_no_length_of_time_is_refused_with_examples(text):
    with pytest.raises(InvalidQuery, match="is no length of time: try 500ms, 2s"):
        duration_ms(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(10, "10 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 days")]
)  # fmt: skip
def test_a_length_of_time_is_said_in_one_unit(seconds, words):
    assert length(seconds * 1000) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2h", "2026-11-28 17:30:13+01:00"),  # never sooner than that
        ("90s", "2026-11-28 15:31:43+01:00"),
        ("18:00", "2026-11-28 18:00:00+01:00"),
        ("15:30:12", "2026-11-29 15:30:12+01:00"),  # today's has passed
        ("today", "2026-11-29 00:00:00+01:00"),
        ("tomorrow", "2026-11-30 00:00:00+01:00"),
        ("tomorrow 8:00", "2026-11-29 08:00:00+01:00"),
        ("2026-12-24", "2026-12-25 00:00:00+01:00"),
        ("2027-07-01T12:00", "2027-07-01 12:00:00+02:00"),
        ("14:31 UTC", "2026-11-28 14:31:00+00:00"),
    ],
)
def test_a_time_to_come_is_read_and_shown_with_its_zone(text, words):
    assert shown(ahead(text, lambda: to_ms(NOW))) == words


@pytest.mark.parametrize(
    "text", ["yesterday", "now", "2026-11-28 15:30", "1970-01-01", "", "soon", "25:00", "-2h"]
)
def test_a_time_that_has_passed_or_is_none_is_refused_with_what_to_type(text):
    with pytest.raises(InvalidQuery, match=r"(has passed|is no time to come): try 2h, 18:00, tomorrow"):
        ahead(text, lambda: to_ms(NOW))
