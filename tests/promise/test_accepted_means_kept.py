"""Nothing is lost when a worker, or the broker, dies in the middle of it."""

from __future__ import annotations

import threading
import time

import pytest
from events import EVENT
from helpers import BASE_ENV, ended, running, set_account

from postbacks import send_postbacks
from postbacks.devtools.receiver import Answer, Receiver

LEASE = {"POSTBACKS_CLAIM_LEASE_S": "3", "POSTBACKS_INTAKE_LEASE_S": "2"}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_that_is_killed_in_mid_flight_loses_nothing(broker, tmp_path, pool):
    """SIGKILL to the whole worker; another takes its claims over when the lease ends."""
    with Receiver(lambda _: Answer(delay_s=0.3)) as receiver:
        for number in range(10):
            set_account(f"a{number}", url=receiver.url())
        with running(broker, tmp_path, pool=pool, env=LEASE) as stack:
            ids = [one for number in range(10) for one in send_postbacks(f"a{number}", [EVENT] * 20)]
            receiver.wait_for(20, 30)
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
    import sys

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
            receiver.wait_for(50, 30)
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
            receiver.wait_for(2, 30)
            worker = stack.workers[0]
            worker.terminate()
            assert worker.wait(30) == 0
            client = broker.client()
            assert not client.exists("postbacks:claimers")
            assert not list(client.scan_iter("postbacks:claims:*"))
            states = {one: client.hget(f"postbacks:record:{one}", "state") for one in ids}
            posts = receiver.by_id()
    for one, state in states.items():
        assert state == (b"parked" if one in posts else b"waiting")
        assert len(posts.get(one, [])) <= 1


def test_a_worker_stops_in_time_though_its_receivers_never_answer(broker, tmp_path):
    """What is still open after POSTBACKS_STOP_WITHIN_S is settled by its lease: sent again, and the ledger says why."""
    with Receiver(lambda post: Answer(action="hang" if post.attempt == 1 else "answer")) as receiver:
        set_account("acme", url=receiver.url())
        with running(broker, tmp_path, env=LEASE | {"POSTBACKS_STOP_WITHIN_S": "1"}) as stack:
            (one,) = send_postbacks("acme", [EVENT])
            receiver.wait_for(1, 30)
            began_s = time.monotonic()
            stack.workers[0].terminate()
            assert stack.workers[0].wait(30) == 0
            assert time.monotonic() - began_s < 8, "the answer's limit of 10 s was waited for"
            stack.workers[0].start()
            record = ended(broker.client(), one)
    assert [attempt.outcome for attempt in record.attempts] == ["unknown", "delivered"]
    assert record.failures == 0
