"""A postback that kills the process is set aside, nobody else pays, and no kill from outside sets anything aside."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from events import EVENT
from helpers import (
    BASE_ENV,
    check_places,
    ended,
    environment,
    eventually,
    running,
    set_account,
)

from postbacks import send_postbacks
from postbacks.devtools.receiver import Answer, Receiver

HERE = Path(__file__).parent


class Mortals:
    """Children that work on the suite's broker, one after the other, and may die of it."""

    def __init__(self, url: str) -> None:
        env = {**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": url, "PYTHONPATH": str(HERE.parent)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "forking_child.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.offset_s = 0.0

    def work(
        self, *steps: str, kills: str | None = None, lives_s: float | None = None, posts: int | None = None
    ) -> int:
        """Let one child work; returns its exit status, negative for the signal that it died of."""
        order = {"do": steps, "offset_s": self.offset_s, "kills": kills, "lives_s": lives_s, "posts": posts}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(90)
        self._process.stdout.close()


@pytest.fixture
def mortals(broker) -> Iterator[Mortals]:
    made = Mortals(broker.url)
    yield made
    made.close()


def claim_and_die(rig, lease_ms=1000):
    """A loop that claims one postback and is never heard of again."""
    limits = {"at_most": 1, "suspects_max": 1, "free": 100, "held_max": 0, "held_per_lane": 1}
    rig.scripts.claim("dies", lease_ms, slow_lanes=(), **limits)


def test_a_postback_that_kills_its_process_is_dead_after_the_third_time_alone(rig, mortals):
    """Tried with others, with a few, alone three times, five minutes apart; the ledger tells its story."""
    with Receiver(lambda _: Answer(delay_s=0.2)) as receiver:
        for name in ("poison", *(f"a{number}" for number in range(30))):
            set_account(name, url=receiver.url())
        innocents = [one for number in range(30) for one in send_postbacks(f"a{number}", [EVENT])]
        (poison,) = send_postbacks("poison", [EVENT])
        ends = []
        for _ in range(8):
            ends.append(mortals.work("tick", "deliver", "examine", kills="poison"))
            mortals.offset_s += 301  # the lease has ended, and so has the pause
        mortals.work("tick", "deliver", "examine", kills="poison")
        rig.advance(mortals.offset_s)
        records = [rig.record(one) for one in innocents]
        story = rig.record(poison)
        ends = Counter(ends)
    assert ends == {-signal.SIGSEGV: 5, 0: 3}
    assert {record.state for record in records} == {"delivered"}
    assert {attempt.outcome for one in records for attempt in one.attempts} <= {"unknown", "delivered"}
    assert max(len(record.attempts) for record in records) > 2, "no innocent was in flight with it"
    assert (story.state, story.reason, story.failures) == ("dead", "poison", 0)
    assert [attempt.outcome for attempt in story.attempts] == ["unknown"] * 5
    assert story.attempts[-1].detail.endswith("alone: death 3 of 3")
    check_places(rig.client)


def test_a_message_that_kills_the_tick_is_dead_after_the_third_time_alone(rig, mortals):
    """The messages beside it are accepted, in their order; its own text is kept with it."""
    set_account("a", url="http://127.0.0.1:2000/")
    before = send_postbacks("a", [EVENT] * 25)
    (poison,) = send_postbacks("poison-on-arrival", [EVENT])
    after = send_postbacks("a", [EVENT] * 25)
    ends = []
    for _ in range(7):
        ends.append(mortals.work("tick", kills="poison"))
        mortals.offset_s += 11  # the intake's lease has ended
    waiting = rig.client.lrange("postbacks:lane:a/general", 0, -1)
    story = rig.record(poison)
    assert Counter(ends) == {-signal.SIGSEGV: 5, 0: 2}
    assert [one.decode() for one in waiting] == before + after
    assert (story.state, story.reason) == ("dead", "poison: 3 processes died while they took it in alone")
    assert b'"postbacks.send_postback"' in story.raw
    assert rig.client.hlen("postbacks:intake-lease") == 0
    check_places(rig.client)


def test_twenty_kills_from_outside_set_nothing_aside(rig, mortals):
    """Whatever was in flight is suspected, tried with care, and delivered: no postback is called poison."""
    chance = random.Random(5)
    with Receiver(lambda _: Answer(delay_s=chance.uniform(0, 0.05))) as receiver:
        for number in range(20):
            set_account(f"a{number}", url=receiver.url())
        ids = [one for number in range(20) for one in send_postbacks(f"a{number}", [EVENT] * 100)]
        rig.tick()
        for life in range(20):
            ids += send_postbacks("a0", [EVENT])  # ticks have something to die of as well
            dies_of = {"posts": chance.randint(20, 100), "lives_s": 5.0} if life < 10 else {"lives_s": 0.1}
            end = mortals.work("tick", "deliver", "examine", **dies_of)
            assert end == -signal.SIGKILL
            mortals.offset_s += 301
        for _ in range(5):
            assert mortals.work("tick", "deliver", "examine") == 0
            mortals.offset_s += 301
        records = [rig.record(one) for one in ids]
    assert {record.state for record in records} == {"delivered"}
    unknown = sum(attempt.outcome == "unknown" for record in records for attempt in record.attempts)
    assert unknown >= 20, f"{unknown} were in flight when their process was killed"
    check_places(rig.client)


@pytest.mark.long
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_real_worker_dies_once_of_poison_and_afterwards_only_its_examiners_do(broker, tmp_path, pool):
    """Postbacks in flight with the poison are delivered, and the worker that is started again lives on."""
    env = {
        "POSTBACKS_CLAIM_LEASE_S": "1",
        "POSTBACKS_RETRY_COUNTDOWN_S": "1",
        "PYTHONPATH": str(HERE / "deadly"),
        "DEADLY_ACCOUNT": "poison",
    }
    with environment(), Receiver(lambda _: Answer(delay_s=0.3)) as receiver:
        for name in ("poison", *(f"a{number}" for number in range(10))):
            set_account(name, url=receiver.url())
        with running(broker, tmp_path, pool=pool, env=env) as stack:
            innocents = [one for number in range(10) for one in send_postbacks(f"a{number}", [EVENT] * 3)]
            (poison,) = send_postbacks("poison", [EVENT])
            worker = stack.workers[0]
            if pool == "threads":
                eventually(lambda: not worker.alive, what="the worker's death")
                worker.start()
            story = ended(broker.client(), poison, 60)
            later = send_postbacks("a0", [EVENT])
            records = [ended(broker.client(), one) for one in innocents + later]
            assert worker.alive
            log = worker.log()
    assert (story.state, story.reason) == ("dead", "poison")
    assert log.count("quarantine.examiner_died exit=-11") in {3, 4}
    assert {record.state for record in records} == {"delivered"}


def test_an_examiner_that_is_told_to_end_finishes_what_it_has_in_flight(rig):
    """SIGTERM reaches it too when a service manager ends the worker's whole group; its token says its version."""
    answered = threading.Event()
    with Receiver(lambda _: Answer(delay_s=1 if not answered.is_set() else 0)) as receiver:
        set_account("acme", url=receiver.url())
        (one,) = send_postbacks("acme", [EVENT])
        rig.tick()
        claim_and_die(rig, lease_ms=1)
        eventually(lambda: rig.tick().quarantined == 1, what="its place in quarantine")
        command = [sys.executable, "-m", "postbacks.worker.examiner", "examiner@test"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as examiner:
            receiver.wait_for(1, 90)
            examiner.send_signal(signal.SIGTERM)
            assert examiner.wait(60) == 0
    record = rig.record(one)
    assert (record.state, [attempt.outcome for attempt in record.attempts]) == (
        "delivered",
        ["unknown", "delivered"],
    )


def test_a_lease_that_is_lost_while_one_is_alone_is_no_death(rig):
    """Nobody saw a process die: the broker was away, or the answer was lost. It takes ten of them."""
    set_account("acme", url="http://127.0.0.1:2000/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()
    claim_and_die(rig)
    for _ in range(11):  # few, then alone
        for _ in range(2):  # its lease has ended; its pause has
            rig.advance(301)
            rig.tick()
        assert rig.record(one).state == "waiting"
        rig.scripts.examine("lost", 1000, 0)
    rig.advance(301)
    rig.tick()
    record = rig.record(one)
    assert (record.state, record.reason) == ("dead", "poison")
    assert record.attempts[-1].detail == "its lease ran out while it was sent alone: 10 of 10"


def test_what_is_in_quarantine_can_be_revoked_and_stands_in_no_other_place(rig):
    """A postback whose process died is cancelled before an examiner comes to it."""
    set_account("acme", url="http://127.0.0.1:2000/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()
    claim_and_die(rig)
    rig.advance(2)
    assert rig.tick().quarantined == 1
    assert check_places(rig.client) == {"waiting": 1}
    assert rig.scripts.cancel(one, 10) == "cancelled"
    assert rig.tick().quarantined == 0
    assert check_places(rig.client) == {"done": 1}
