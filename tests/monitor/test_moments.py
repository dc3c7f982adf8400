"""Times within sentences: as they are written, and as whoever has chosen another zone reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from postbacks.monitor.moments import in_zone, minute, second


def ms(text: str) -> int:
    """Return a time of UTC in ms."""
    return int(datetime.fromisoformat(f"{text}Z").timestamp() * 1000)


WRITTEN_MS = ms("2026-11-28T23:30:20")


@pytest.mark.parametrize(
    ("at", "written"),
    [
        ("2026-11-28T14:31:59", "14:31 UTC"),
        ("2026-11-27T14:31:59", "yesterday 14:31 UTC"),
        ("2026-11-29T00:01:00", "tomorrow 00:01 UTC"),
        ("2026-11-24T14:31:59", "2026-11-24 14:31 UTC"),
    ],
)
def test_a_minute_is_told_with_its_day_where_that_is_another(at, written):
    assert minute(ms(at), WRITTEN_MS) == written


@pytest.mark.parametrize(
    ("at", "written"),
    [
        ("2026-11-28T14:31:59", "14:31:59 UTC"),
        ("2026-11-29T00:01:00", "00:01:00 UTC"),
        ("2026-11-28T11:30:00", "2026-11-28 11:30:00 UTC"),
    ],
)
def test_a_second_is_told_with_its_date_where_it_is_half_a_day_away(at, written):
    assert second(ms(at), WRITTEN_MS) == written


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns", "America/Sao_Paulo"])
@pytest.mark.parametrize("form", [minute, second])
@pytest.mark.parametrize("hours", [-30, -13, -11, -1, 0, 1, 11, 13, 30])
def test_what_was_written_is_read_back_in_any_zone(form, zone, hours):
    at_ms = WRITTEN_MS // 60_000 * 60_000 + hours * 3_600_000
    sentence = f"it fails since {form(at_ms, WRITTEN_MS)} ({abs(hours)} h); 3 wait"
    there = in_zone(sentence, WRITTEN_MS, WRITTEN_MS, ZoneInfo(zone))
    assert there == f"it fails since {form(at_ms, WRITTEN_MS, ZoneInfo(zone))} ({abs(hours)} h); 3 wait"


def test_days_are_told_from_now_where_a_sentence_is_older():
    sentence = "paused since 14:31 UTC until tomorrow 08:00 UTC"
    later_ms = ms("2026-11-29T07:00:00")
    assert in_zone(sentence, WRITTEN_MS, later_ms, UTC) == "paused since yesterday 14:31 UTC until 08:00 UTC"
    assert (
        in_zone(sentence, WRITTEN_MS, later_ms, ZoneInfo("Asia/Tokyo"))
        == "paused since yesterday 23:31 JST until 17:00 JST"
    )


@pytest.mark.parametrize(
    "words", ["25:99 UTC", "2026-13-45 14:31 UTC", "9999-12-31 23:59 UTC", "14:31", "214:31 UTC"]
)
def test_what_is_no_moment_of_ours_stays(words):
    assert (
        in_zone(f"paused (until {words})", WRITTEN_MS, WRITTEN_MS, ZoneInfo("Asia/Tokyo"))
        == f"paused (until {words})"
    )
