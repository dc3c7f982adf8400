"""Accepted means kept: nothing is lost, whichever process of ours or the broker dies, and whenever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from events import EVENT
from forked_processes import forking_module
from helpers import BASE_ENV, ended, environment, running, set_account
from kombu.exceptions import OperationalError

from crash.plan import HISTORY_KINDS, KINDS
from postbacks import send_postbacks
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.ledger.record import Attempt
from postbacks.queue.rows import AttemptRow
from postbacks.tasks import decide
from postbacks.worker import process

pytestmark = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).parents[2]
LEASE = {"POSTBACKS_CLAIM_LEASE_S": "3", "POSTBACKS_INTAKE_LEASE_S": "2"}


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_killed_in_mid_flight_loses_nothing(broker, tmp_path, pool):
    """SIGKILL to the whole worker; another takes its claims over when the lease ends."""
    with Receiver(lambda _: Answer(delay_s=0.3)) as receiver:
        for number in range(10):
            set_account(f"a{number}", url=receiver.url())
        with running(broker, tmp_path, pool=pool, env=LEASE) as stack:
            ids = [one for number in range(10) for one in send_postbacks(f"a{number}", [EVENT] * 20)]
            receiver.wait_for(20, 90)
            stack.workers[0].kill(group=True)
            got = len(receiver.received)
            assert got < 200, "nothing was in flight any more"
            stack.workers[0].start()
            records = [ended(broker.client(), one, 60) for one in ids]
        arrived = receiver.by_id()
    assert {record.state for record in records} == {"delivered"}
    assert set(arrived) == set(ids)
    unknown = [record for record in records if record.attempts[0].outcome == "unknown"]
    assert unknown, "the ledger does not say what was in flight"
    again = {one for one, posts in arrived.items() if len(posts) > 1}
    assert again <= {record.id for record in unknown}, "sent twice without a word in the ledger"


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(own_broker, tmp_path):
    """appendfsync always: what was accepted is on disk. Workers and beat go on by themselves."""
    import os
    import subprocess

    env = {**os.environ, **BASE_ENV, **LEASE, "POSTBACKS_BROKER_URL": own_broker.url}
    with Receiver(lambda _: Answer(delay_s=0.05)) as receiver:
        producer = (
            "import sys; from helpers import set_account; from postbacks import send_postbacks\n"
            f"set_account('acme', url={receiver.url()!r})\n"
            f"print(*send_postbacks('acme', [{EVENT!r}] * 400), sep='\\n')"
        )
        with running(own_broker, tmp_path, env=LEASE):
            made = subprocess.run(
                [sys.executable, "-c", producer],
                env={**env, "PYTHONPATH": "tests"},
                capture_output=True,
                check=True,
            )
            ids = made.stdout.decode().split()
            assert len(ids) == 400
            receiver.wait_for(50, 90)
            own_broker.kill()
            assert len(receiver.received) < 400, "nothing was in flight any more"
            threading.Event().wait(1)
            own_broker.start()
            records = [ended(own_broker.client(), one, 90) for one in ids]
        arrived = receiver.by_id()
    assert {record.state for record in records} == {"delivered"}
    assert set(arrived) == set(ids)


def test_a_worker_that_is_told_to_stop_finishes_what_is_open_and_gives_back_the_rest(broker, tmp_path):
    """SIGTERM: exit code 0, no attempt without its outcome, nothing held by anybody."""
    with Receiver(lambda _: Answer(500, delay_s=0.5)) as receiver:
        set_account("acme", url=receiver.url())
        with running(broker, tmp_path) as stack:
            ids = send_postbacks("acme", [EVENT] * 50)
            receiver.wait_for(2, 90)
            worker = stack.workers[0]
            worker.terminate()
            assert worker.wait(90) == 0
            client = broker.client()
            assert not client.exists("postbacks:claimers")
            assert not list(client.scan_iter("postbacks:claims:*"))
            states = {one: client.hget(f"postbacks:record:{one}", "state") for one in ids}
            posts = receiver.by_id()
    for one, state in states.items():
        assert state == (b"parked" if one in posts else b"waiting")
        assert len(posts.get(one, [])) <= 1


def test_a_worker_stops_in_time_though_its_receivers_never_answer(broker, tmp_path):
    """POSTs still open after POSTBACKS_STOP_WITHIN_S are settled by their lease: sent again, and the ledger says
    why.
    """
    with Receiver(lambda post: Answer(action="hang" if post.attempt == 1 else "answer")) as receiver:
        set_account("acme", url=receiver.url())
        with running(broker, tmp_path, env=LEASE | {"POSTBACKS_STOP_WITHIN_S": "1"}) as stack:
            (one,) = send_postbacks("acme", [EVENT])
            receiver.wait_for(1, 90)
            began_s = time.monotonic()
            stack.workers[0].terminate()
            assert stack.workers[0].wait(90) == 0
            assert time.monotonic() - began_s < 8, "the answer's limit of 10 s was waited for"
            stack.workers[0].start()
            record = ended(broker.client(), one)
    assert [attempt.outcome for attempt in record.attempts] == ["unknown", "delivered"]
    assert record.failures == 0


def crash(tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run one column of ``python -m crash``, always on the same plan; return what came of it."""
    out = tmp_path / "ledger.json"
    done = subprocess.run(
        forking_module("crash", "--seed", "11", "--json", str(out), *options),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    print(done.stdout, done.stderr)
    (ledger,) = json.loads(out.read_text())["columns"].values()
    assert ledger["broken"] == []
    assert done.returncode == 0
    return ledger


def test_whatever_dies_while_postbacks_travel_none_is_lost_and_none_is_stuck(tmp_path):
    """Every kind of fault once, within eight seconds of load."""
    load = ["--seconds", "11", "--postbacks", "500", "--drain", "240"]
    ledger = crash(tmp_path, "--world", "broker", "--fsync", "always", *load)
    assert ledger["lost"] == []
    assert ledger["stuck"] == []
    assert ledger["accepted"] == 500
    assert ledger["delivered"] + ledger["dead"] + ledger["skipped"] == 500
    assert (ledger["astray"], ledger["unexplained"]) == ({}, [])
    assert {"unknown_account", "origin_off"} <= set(ledger["reasons"]), (
        "accounts were removed and switched off"
    )
    assert set(ledger["faults"]) == set(KINDS)


@pytest.mark.long
def test_whatever_dies_while_postbacks_are_recorded_history_says_what_the_ledger_says(tmp_path):
    """Two recorders, a real PostgreSQL and the broker are killed, frozen and locked; each kind of fault once."""
    names = ("recorder", "database", "broker")
    load = ["--seconds", "8", "--postbacks", "300", "--drain", "60", "--pairs", "1"]
    only = [option for name in names for option in ("--only", name)]
    ledger = crash(tmp_path, "--world", "history", "--database", "postgresql", *load, *only)
    assert set(ledger["faults"]) == {kind for kind in KINDS | HISTORY_KINDS if kind.startswith(names)}
    history = ledger["history"]
    assert history["rows"] >= ledger["accepted"] == 300  # a call that raised may have arrived
    assert [history[name] for name in ("missing", "wrong", "double", "miscounted")] == [[], {}, [], {}]


def test_an_answer_to_an_attempt_that_is_unknown_already_is_not_taken_for_the_next_one(rig):
    """A worker was frozen for longer than its lease, and the same loop claimed the postback again."""
    set_account("acme", url="http://127.0.0.1:2000/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()

    def claim() -> int:
        _, begun, *_ = rig.scripts.claim(
            "frozen", 3000, at_most=1, suspects_max=1, free=100, held_max=0, held_per_lane=1, slow_lanes=()
        )
        return begun[0].number

    def note(number: int, verdict: str, outcome: str, mood: str) -> bytes:
        attempt = Attempt(number, 1, outcome).to_json()
        row = AttemptRow(one, "acme/general", verdict, number, attempt, 2000, mood, outcome)
        return rig.scripts.commit("frozen", 3000, 10, 60, [row])[0][0]

    assert claim() == 1
    rig.advance(5)
    assert rig.scripts.reap(10, 1000) == 1
    _, begun, _ = rig.scripts.examine("frozen", 3000)
    assert begun[0].number == 2
    assert note(1, "parked", "http_error", "failed") == b""
    assert rig.record(one).state == "sending"
    assert note(2, "delivered", "delivered", "ok") == b"delivered"
    record = rig.record(one)
    assert [(attempt.number, attempt.outcome) for attempt in record.attempts] == [
        (1, "unknown"),
        (2, "delivered"),
    ]


def test_a_loop_that_cannot_hand_over_finishes_what_is_open(rig):
    """A slice of time ended while the broker was loading: answers went unnoted, and postbacks out again."""

    def hand_over() -> None:
        raise OperationalError("Valkey is loading the dataset in memory")

    with Receiver(lambda _: Answer(delay_s=0.5)) as receiver, environment(POSTBACKS_DELIVER_SLICE_S="0.2"):
        set_account("acme", url=receiver.url())
        (one,) = send_postbacks("acme", [EVENT])
        rig.tick()
        assert process.deliver(decide, hand_over) == 1
    assert rig.record(one).state == "delivered"


def test_a_consumer_on_a_half_open_connection_is_dropped_within_seconds():
    """kombu's default of 25 s let two workers be silent for 50 s."""
    from postbacks.app import app

    assert app.conf.broker_transport_options["health_check_interval"] <= 5
