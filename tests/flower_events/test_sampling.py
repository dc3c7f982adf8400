"""Sampling of task events, and what an event may say."""

from __future__ import annotations

import uuid
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from celery.events.state import State

from postbacks.delivery.claims import ClaimedPostback
from postbacks.flower_events import events
from postbacks.flower_events.events import TaskEvent, args_in, args_of
from postbacks.flower_events.sampling import BURST_S, METER_NUMBERS, RateMeter, Sampler, is_in_share
from postbacks.ledger.record import Attempt
from postbacks.queue.rows import AcceptRow
from postbacks.transport.outcomes import OUTCOMES

IDS = [str(uuid.UUID(int=number * 0x9E3779B97F4A7C15)) for number in range(20_000)]
NOW_S = 1_700_000_000.0
WHOLE = {("received", "started", "succeeded"), ("received", "started", "retried")}


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch):
    """Let the samplers' clock stand, so that a slow machine makes no difference."""
    monkeypatch.setattr("postbacks.flower_events.sampling.time", SimpleNamespace(monotonic=lambda: 1000.0))


def numbers(meters: int) -> memoryview[float]:
    """Make the numbers of some meters."""
    return memoryview(array("d", [0.0] * METER_NUMBERS * meters))


def sampler(share: float, per_s: int) -> Sampler:
    """Make the sampler of a process that shares its rate with no other."""
    made = Sampler(numbers(2))
    made.configure(share, per_s)
    return made


def admitted_per_s(per_s: int, limit: int, batch: int, seconds: int = 60) -> float:
    """Feed a meter steadily; returns how many postbacks it admits a second in the second half."""
    meter, admitted, batches = RateMeter(numbers(1)), 0, per_s // batch
    for number in range(seconds * batches):
        if meter.admits(batch, limit, 1000 + number / batches) and number >= seconds * batches // 2:
            admitted += batch
    return admitted / (seconds - seconds // 2)


@pytest.mark.parametrize("per_s", [1, 100, 499, 500])
def test_up_to_the_rate_every_postback_is_shown(per_s):
    """However they are batched."""
    for batch in {1, per_s}:
        assert admitted_per_s(per_s, 500, batch) == per_s


@pytest.mark.parametrize("per_s", [600, 1000, 4000, 20_000])
def test_above_the_rate_nothing_but_the_share_is_shown(per_s):
    """Steadily, so that a failing postback's resends are left out as its first POST was."""
    assert admitted_per_s(per_s, 500, 200) == 0


def test_a_burst_is_shown_whole_and_sampling_ends_with_a_quiet_time():
    """Four seconds of the rate at once, and again once half of that would fit."""
    meter = RateMeter(numbers(1))
    assert meter.admits(BURST_S * 500, 500, 1000)
    assert not meter.admits(300, 500, 1000.5)
    assert meter.is_above
    assert not meter.admits(1, 500, 1002)
    assert meter.admits(1, 500, 1003)
    assert not meter.is_above


def test_processes_that_share_their_numbers_share_the_rate():
    """As prefork's children do."""
    shared = numbers(1)
    first, second = RateMeter(shared), RateMeter(shared)
    assert first.admits(1500, 500, 1000)
    assert not second.admits(600, 500, 1000)


def test_the_share_goes_by_the_id_and_a_larger_one_holds_every_smaller_one():
    """So that every process chooses alike, and one of another setting nearly so."""
    chosen = {share: {each for each in IDS if is_in_share(each, share)} for share in (0, 0.05, 0.1, 0.5, 1)}
    assert chosen[0] == set()
    assert chosen[1] == set(IDS)
    for smaller, larger in ((0.05, 0.1), (0.1, 0.5)):
        assert chosen[smaller] < chosen[larger]
        assert len(chosen[larger]) == pytest.approx(len(IDS) * larger, rel=0.1)


def accept_row(postback_id: str, state: str = "waiting", reason: str = "") -> AcceptRow:
    """Make the row of a postback that a tick takes in."""
    return AcceptRow(
        postback_id, "acme", "mt", "SMS_MT", "N202", "", "", b"", state, reason, b"", "", b"", "0"
    )


def accepted(tick: Sampler, ids: Sequence[str]) -> list[TaskEvent]:
    """Let a process take postbacks in."""
    return list(events.accepted(tick, NOW_S, [1] * len(ids), [accept_row(each) for each in ids]))


def claimed(postback_id: str, failures: int = 0) -> ClaimedPostback:
    """Make a postback whose POST is to begin."""
    created_ms = int(NOW_S * 1000) - 60_000
    return ClaimedPostback(
        postback_id, "acme/mt", failures + 1, failures, "acme", "SMS_MT", "N202", "", 1, True, created_ms, 1, b"", "", "0"
    )  # fmt: skip


def delivered(
    loop: Sampler, postbacks: Iterable[ClaimedPostback], bad: frozenset[str] = frozenset()
) -> list[TaskEvent]:
    """Let a process make the POSTs of postbacks; those of ``bad`` fail."""
    made: list[TaskEvent] = []
    for postback in postbacks:
        fails = postback.id in bad
        attempt = Attempt(postback.number, 1, "status" if fails else "delivered", 503 if fails else 200, 5)
        result = [b"parked", 1_700_000_300_000] if fails else [b"delivered", 0]
        made += events.started(loop, NOW_S, [postback])
        made += events.committed(loop, NOW_S, [(postback, attempt, [])], [result], OUTCOMES)
    return made


def lives(made: Iterable[TaskEvent]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of events of each postback, in order."""
    kinds: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for event in made:
        kinds[event["uuid"]] += (event["type"].removeprefix("task-"),)
    return kinds


def test_a_postback_is_shown_whole_or_not_at_all_whichever_processes_meet_it():
    """Three workers of which one is above the rate, one is not, and one was when it took the postbacks in."""
    tick, busy, idle = sampler(0.1, 10), sampler(0.1, 10), sampler(0.1, 1_000_000)
    ids = IDS[:4000]
    made = accepted(tick, ids)
    made += delivered(busy, map(claimed, ids[:2000]))
    made += delivered(idle, map(claimed, ids[2000:]))
    shown = lives(made)
    assert set(shown.values()) == {("received", "started", "succeeded")}
    share = {each for each in ids if is_in_share(each, 0.1)}
    assert share <= shown.keys()
    assert set(ids[2000:]) <= shown.keys(), "a worker within its rate shows every postback"
    beyond = shown.keys() & set(ids[:2000]) - share
    assert 0 < len(beyond) <= 10 * BURST_S, "a worker above its rate shows the share alone"
    assert busy.left_out == 3 * (2000 - len(beyond | (share & set(ids[:2000]))))


def test_a_failure_is_shown_above_the_rate_from_its_first_failure_to_its_end():
    """Every one, while no more fail than the rate says."""
    loop, other = sampler(0.0, 100), sampler(0.0, 100)
    bad = frozenset(IDS[:300])
    made = delivered(loop, map(claimed, IDS[:4000]), bad)
    first = lives(made)
    assert {first[each] for each in bad} <= WHOLE | {("received", "retried")}
    assert len(first) < 1000
    made += delivered(other, (claimed(each, failures=1) for each in sorted(bad)))
    assert all(lives(made)[each][-2:] == ("started", "succeeded") for each in bad)


def test_of_more_failures_than_the_rate_the_share_is_shown():
    """Each of them whole; the others no more than a burst."""
    loop = sampler(0.1, 10)
    bad = frozenset(IDS[:2000])
    share = {each for each in bad if is_in_share(each, 0.1)}
    shown = lives([*accepted(loop, IDS[:2000]), *delivered(loop, map(claimed, IDS[:2000]), bad)])
    assert {shown[each] for each in share} == {("received", "started", "retried")}
    assert len(shown.keys() - share) <= 2 * 10 * BURST_S


def test_what_ends_at_the_tick_is_shown_by_the_tick():
    """Dead and skipped ones have no loop that would."""
    tick = sampler(0.0, 100)
    rows = [accept_row("a", "dead", "unknown_account"), accept_row("b", "skipped", "off"), accept_row("c")]
    made = list(events.accepted(tick, NOW_S, [1, 1, 1], rows))
    assert lives(made) == {"a": ("received", "failed"), "b": ("received", "failed")}
    assert [event.get("exception") for event in made[1::2]] == [
        "PostbackDead('unknown_account')", "PostbackSkipped('off')",
    ]  # fmt: skip


def test_celery_reads_when_a_postback_was_received_that_only_its_loop_shows():
    """As the time at which it was accepted, though no event bears a time that would look like a wrong clock."""
    postback = claimed(IDS[1])
    made = delivered(sampler(0.0, 100), [postback])
    assert {event["timestamp"] for event in made} == {NOW_S}
    state = State()
    for event in made:
        shared: dict[str, Any] = {"hostname": "worker@here", "utcoffset": 0, "pid": 1}
        state.event({**shared, **event, "clock": 0, "local_received": NOW_S})
    task = state.tasks[postback.id]
    assert (task.state, task.received, task.started) == ("SUCCESS", postback.created_ms / 1000, NOW_S)


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
