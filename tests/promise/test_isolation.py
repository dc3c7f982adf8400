"""Isolation: an account's trouble never delays another's, and a dead endpoint costs one connection, not each."""

from __future__ import annotations

import threading
import time

import pytest
from events import MT
from helpers import Rig, black_hole, ended, environment, eventually, running, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.delivery import results, session
from postbacks.devtools.receiver import Answer, Receiver, dead_port

#: POSTs that hang longer than a machine is busy, and a worker that does not wait for them as it ends.
HANGS = {"POSTBACKS_ANSWER_TIMEOUT_S": "30", "POSTBACKS_STOP_WITHIN_S": "1"}


def test_a_new_account_does_not_wait_behind_accounts_that_hang(broker):
    """Neither while those are new as well, nor when they have failed and their next ones hang."""
    answer_s = 3
    with (
        environment(POSTBACKS_MAX_TRANSFERS="40", POSTBACKS_ANSWER_TIMEOUT_S=str(answer_s)),
        Receiver(lambda _: Answer(action="hang")) as silent,
        Receiver() as healthy,
    ):
        rig = Rig(broker)
        for number in range(60):
            set_account(f"hang{number}", url=silent.url())
            send_postbacks(f"hang{number}", [MT] * 5)
        rig.tick()
        stopping = threading.Event()
        loop_ = threading.Thread(target=rig.deliver_lanes, kwargs={"must_leave": stopping.is_set})
        loop_.start()
        late_s = []
        try:
            eventually(lambda: len(silent.received) >= 10, what="the silent receiver's load")
            ends_s = time.monotonic() + 1.5 * answer_s
            while time.monotonic() < ends_s:
                name = f"{'az'[len(late_s) % 2]}{len(late_s)}"  # before and behind them by name
                set_account(name, url=healthy.url())
                send_postback.delay(name, MT)
                rig.tick()
                began_s = time.monotonic()
                healthy.wait_for(len(late_s) + 1, 90)
                late_s.append(time.monotonic() - began_s)
                threading.Event().wait(0.2)
            open_now = len(silent.received)
        finally:
            stopping.set()
            loop_.join(60)
            rig.close()
    assert open_now > 30, "accounts that have failed did not go on beside them"
    late = [seconds for seconds in late_s if seconds >= 0.75 * answer_s]
    assert len(late) <= len(late_s) // 5, late_s  # a busy machine is late with one or two


@pytest.mark.parametrize(
    ("pool", "accounts"), [("threads", 600), pytest.param("prefork", 200, marks=pytest.mark.long)]
)
def test_accounts_that_hang_do_not_delay_another_accounts_postbacks(broker, tmp_path, pool, accounts):
    """Their receivers take each POST and never answer; the neighbour's postbacks leave within the tick."""
    with Receiver(lambda _: Answer(action="hang")) as silent, Receiver() as healthy:
        set_account("neighbour", url=healthy.url())
        names = [f"hang{number}" for number in range(accounts)]
        for name in names:
            set_account(name, url=silent.url())
        with running(broker, tmp_path, pool=pool, env=HANGS):
            for name in names:
                send_postbacks(name, [MT] * 3)
            eventually(lambda: len(silent.received) >= accounts, what="the silent receivers' load")
            sent_s: dict[str, float] = {}
            for _ in range(40):  # four seconds of a steady trickle, while the others hang for thirty
                sent_s[send_postback.delay("neighbour", MT).id] = time.time()
                threading.Event().wait(0.1)
            healthy.wait_for(40, 90)
            late_s = sorted(post.at - sent_s[post.postback_id] for post in healthy.received)
            open_now = len(silent.received)
    assert open_now < accounts * 3, "the silent accounts got more than a try each"
    # a tick is a second; the hanging transfers take thirty: the margin tells one from the other
    assert late_s[-1] < 20, late_s[-5:]
    assert late_s[len(late_s) // 2] < 10, late_s


def test_a_dead_endpoint_costs_its_held_postbacks_one_connection_together(broker):
    """The connect time-out of one is shared by those that were held for the same endpoint."""
    with environment(POSTBACKS_CONNECT_TIMEOUT_S="1"), black_hole() as port:
        rig = Rig(broker)
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        ids = send_postbacks("acme", [MT] * 120)
        rig.tick()
        began_s = time.monotonic()
        rig.deliver()
        took_s = time.monotonic() - began_s
        records = [rig.record(one) for one in ids]
        rig.close()
    assert {record.state for record in records} == {"parked"}
    assert {attempt.outcome for record in records for attempt in record.attempts} == {"connect_timeout"}
    assert {len(record.attempts) for record in records} == {1}
    shared = [record for record in records if record.attempts[0].shared]
    assert len(shared) >= 100
    assert took_s < 20, "120 connections of a second each were tried one by one"


def test_failures_of_many_accounts_at_once_are_noted_as_fast_as_they_come(broker, monkeypatch):
    """Failures that are not noted yet stay few: they fill the memory, and their countdown has not begun."""
    lanes, each, batch = 60, 10, 20
    monkeypatch.setattr(results, "COMMIT_BATCH", batch)
    add, uncommitted = results.ResultBatch.add, []

    def added(self, *args):
        add(self, *args)
        uncommitted.append(batch - self.free())

    monkeypatch.setattr(results.ResultBatch, "add", added)
    rig = Rig(broker)
    with dead_port() as port:
        for number in range(lanes):
            rig.client.hset(f"{keys.LANE_STATE}a{number}/mt", mapping={"failing": 1, "limit": 1})
            send_postbacks(f"a{number}", [MT] * each, url=f"http://127.0.0.1:{port}/")
        rig.tick()
        assert rig.deliver_lanes() == lanes * each
    rig.close()
    assert max(uncommitted) <= lanes + session.CLAIM_BATCH + batch  # a failing lane has one open


def test_another_workers_help_arrives_when_one_is_full(broker, tmp_path):
    """Two workers share what one could not carry; every postback arrives once."""
    with Receiver(lambda _: Answer(delay_s=0.05)) as receiver:
        for number in range(20):
            set_account(f"a{number}", url=receiver.url())
        with running(broker, tmp_path, workers=2, env={"POSTBACKS_MAX_TRANSFERS": "40"}) as stack:
            for number in range(20):
                send_postbacks(f"a{number}", [MT] * 60)
            client = broker.client()
            eventually(lambda: client.zcard("postbacks:claimers") == 2, what="both workers' claiming")
            posts = receiver.wait_for(1200, 120)
            assert len({post.postback_id for post in posts}) == 1200
            ended(broker.client(), posts[-1].postback_id)
            assert all(worker.alive for worker in stack.workers)
    assert len(receiver.received) == 1200


def test_a_connect_timeout_is_not_shared_with_an_account_that_would_wait_longer(broker):
    """Two accounts, one endpoint: the short limit of the one says nothing about the other's."""
    with environment(POSTBACKS_MAX_RESENDS="0"), black_hole() as port:
        rig = Rig(broker)
        for name, limit_s in (("short", 0.3), ("long", 1.5)):
            set_account(name, url=f"http://127.0.0.1:{port}/", connect_timeout_s=limit_s)
            rig.client.hset(f"postbacks:pace:{name}/mt", mapping={"failing": 1, "limit": 1})
        ids = {name: send_postbacks(name, [MT] * 5) for name in ("short", "long")}
        rig.tick()
        rig.deliver()
        details = {
            name: {attempt.detail for one in ids[name] for attempt in rig.record(one).attempts}
            for name in ids
        }
        rig.close()
    assert all("0.3 s" not in detail for detail in details["long"])
    assert any("0.3 s" in detail for detail in details["short"])
