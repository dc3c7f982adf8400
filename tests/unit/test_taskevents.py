"""Sampling of the postbacks that Flower is shown, and the words of an event."""

from __future__ import annotations

import uuid

import pytest

from postbacks.flower_events.facts import args_in, args_of
from postbacks.flower_events.sampling import LEVEL_MAX, Levels, Meter, is_in_share, is_shown

IDS = [str(uuid.UUID(int=number * 0x9E3779B97F4A7C15)) for number in range(20_000)]


def shown_per_s(per_s: int, batch: int, seconds: int, limit: int) -> tuple[float, int]:
    """Feed a meter steadily; the postbacks shown a second in the second half, and the last level."""
    meter, shown, batches = Meter(), 0.0, per_s // batch
    for number in range(seconds * batches):
        meter = meter.after(batch, number * 1000 // batches, limit)
        if number >= seconds * batches // 2:
            shown += batch / 2**meter.level
    return shown / (seconds - seconds // 2), meter.level


@pytest.mark.parametrize("per_s", [1, 100, 499, 500])
def test_up_to_the_limit_every_postback_is_shown(per_s):
    """However they are batched."""
    for batch in {1, per_s}:
        assert shown_per_s(per_s, batch, 60, 500) == (per_s, 0)


@pytest.mark.parametrize("per_s", [600, 1000, 4000, 20_000])
def test_above_the_limit_about_as_many_are_shown_as_the_limit_says(per_s):
    """Never more over time, and not less than 40% of it."""
    rate, _ = shown_per_s(per_s, 200, 60, 500)
    assert 200 <= rate <= 520


def test_a_burst_after_a_quiet_time_is_shown_whole():
    """Four seconds' worth at once; and a quiet time ends any sampling."""
    busy = Meter(level=LEVEL_MAX, room=0, at_ms=0)
    assert busy.after(2000, 4_000, 500).level == 0
    assert busy.after(1, 10_000, 500).level == 0


def test_the_choice_goes_by_the_id_and_larger_shares_hold_the_smaller_ones():
    """So that every process chooses alike."""
    chosen = [{one for one in IDS if is_shown(one, level)} for level in range(5)]
    assert chosen[0] == set(IDS)
    for level in range(1, 5):
        assert chosen[level] < chosen[level - 1]
        assert len(chosen[level]) == pytest.approx(len(IDS) / 2**level, rel=0.15)
    assert {one for one in IDS if is_in_share(one, 0.25)} == chosen[2]


def test_the_level_of_a_postback_is_the_one_in_force_when_it_was_taken_in():
    """Before the first change that is known every one is shown."""
    levels = Levels([(2000, 3), (1000, 1), (3000, 0)])
    assert [levels.at(ms) for ms in (0, 999, 1000, 2500, 3000, 9000)] == [0, 0, 1, 3, 0, 0]


@pytest.mark.parametrize(
    "args",
    [
        None,
        (),
        ("acme",),
        ("acme", None),
        (17, {}),
        ("acme", {"ORIGIN": "SUB"}),
        "ab",
        ({}, "acme"),
        ("a", {}, 1),
    ],
)
def test_arguments_that_are_no_postbacks_show_nothing(args):
    """A client may send anything."""
    assert args_in(args) == "()"


def test_arguments_show_account_and_code():
    """And nothing else of the event."""
    event = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102"}
    assert args_in(["acme", event]) == args_of("acme", "SUB", "N301") == "('acme', SUB N301)"
