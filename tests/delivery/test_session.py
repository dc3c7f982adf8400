"""Scripts that leave together and are heard later, on a real broker: their answers, and what becomes of a broken one."""

from __future__ import annotations

import threading
import time

import pytest
from events import MO
from helpers import Rig, environment, eventually, set_account

from postbacks import keys, send_postbacks
from postbacks.delivery.pipeline import Pipeline
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import BrokerError, BrokerUnfit, BrokerUnreachable
from postbacks.queue.scripts import Call, commit_call

RENEW = Call("renew", ("nobody", 1000))


@pytest.fixture
def pipeline(rig):
    """A pipeline to the suite's broker, and the descriptors that it has watched."""
    watched: list[int | None] = []
    made = Pipeline(rig.scripts, 5.0, watched.append)
    made.watched = watched
    yield made
    made.close()


def rounds_of(rig: Rig) -> list[int]:
    """Count the POSTs that ended in each of the loop's rounds from now on; the list grows while the loop runs."""
    wait, rounds = rig.adapter.wait, []

    def waits(timeout_s: float):
        done = wait(timeout_s)
        rounds.append(len(done))
        return done

    rig.adapter.wait = waits
    return rounds


def test_scripts_that_leave_together_answer_in_their_order(rig, pipeline):
    """A release and a renewal in one go: the first moved something, the second found no lease; one descriptor."""
    rig.client.zadd(keys.PARKED, {"due": 1})
    rig.client.hset(keys.RECORD + "due", mapping={"state": "parked", "account": "acme", "group": "mo"})
    pipeline.send([Call("release", (10,)), RENEW])
    assert pipeline
    assert pipeline.receive() == [1, 0]
    assert not pipeline
    pipeline.send([RENEW])
    assert pipeline.receive() == [0]
    assert len(pipeline.watched) == 2
    assert len(set(pipeline.watched)) == 1


def test_a_broker_that_has_forgotten_the_scripts_is_given_them_again(rig, pipeline):
    """SCRIPT FLUSH between two questions, as a restart would: the answers are as before."""
    pipeline.send([RENEW, RENEW])
    assert pipeline.receive() == [0, 0]
    rig.client.script_flush()
    pipeline.send([RENEW, RENEW])
    assert pipeline.receive() == [0, 0]


def test_the_fault_of_one_script_leaves_the_answer_of_the_other(rig, pipeline):
    """A key that holds other data: its script's error is told in its place, and the connection goes on."""
    rig.client.set(keys.PARKED, "no zset")
    pipeline.send([RENEW, Call("release", (10,)), RENEW])
    first, failed, last = pipeline.receive()
    assert (first, last) == (0, 0)
    assert isinstance(failed, BrokerUnfit)
    pipeline.send([RENEW])
    assert pipeline.receive() == [0]


def test_an_answer_that_does_not_come_is_an_error_in_time(own_broker):
    """A frozen broker: after the limit the question is given up, and the next one is asked on a new connection."""
    rig = Rig(own_broker)
    watched: list[int | None] = []
    pipeline = Pipeline(rig.scripts, 0.3, watched.append)
    pipeline.send([RENEW])
    assert pipeline.receive() == [0]
    own_broker.pause()
    pipeline.send([RENEW])
    assert not pipeline.timed_out(time.monotonic())
    eventually(lambda: pipeline.timed_out(time.monotonic()))
    began_s = time.monotonic()
    with pytest.raises(BrokerUnreachable, match="no answer in time"):
        pipeline.receive()
    assert time.monotonic() - began_s < 20
    assert not pipeline
    own_broker.resume()
    pipeline.send([RENEW])
    assert pipeline.receive() == [0]
    assert [fd is None for fd in watched] == [False, False, True, False]
    pipeline.close()
    rig.close()


def test_bytes_move_while_the_broker_works(own_broker):
    """A broker that stands still with a question under way: answers of POSTs that are open are read all the same."""
    with (
        environment(POSTBACKS_BROKER_URL=own_broker.url, POSTBACKS_BROKER_TIMEOUT_S="60"),
        Receiver(lambda _: Answer(200, delay_s=0.3)) as receiver,
    ):
        rig = Rig(own_broker)
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MO])
        rig.tick()
        rounds = rounds_of(rig)
        thread = threading.Thread(target=rig.deliver_lanes)
        thread.start()
        receiver.wait_for(1, 90)
        own_broker.pause()
        try:
            assert eventually(lambda: any(rounds))
        finally:
            own_broker.resume()
        thread.join(60)
        assert not thread.is_alive()
        assert rig.client.zcard(keys.DONE) == 1
        rig.close()


def test_a_broker_that_answers_with_errors_is_asked_less_and_less_often(own_broker, caplog, monkeypatch):
    """Too few replicas for a note: one line that it is lost, pauses that grow, no spinning; then one that it is back."""
    with (
        environment(POSTBACKS_BROKER_URL=own_broker.url),
        Receiver(lambda _: Answer(200, delay_s=0.3)) as receiver,
        caplog.at_level("INFO"),
    ):
        rig = Rig(own_broker)
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MO])
        rig.tick()
        asked_s: list[float] = []
        rounds = rounds_of(rig)
        send = Pipeline.send

        def sends(self, calls):
            asked_s.append(time.monotonic())
            return send(self, calls)

        thread = threading.Thread(target=rig.deliver_lanes)
        thread.start()
        receiver.wait_for(1, 90)
        rig.client.config_set("min-replicas-to-write", 1)
        with monkeypatch.context() as patched:
            patched.setattr(Pipeline, "send", sends)
            eventually(lambda: len(asked_s) >= 5)
        rig.client.config_set("min-replicas-to-write", 0)
        thread.join(60)
        assert not thread.is_alive()
        assert rig.client.zcard(keys.DONE) == 1
        rig.close()
    said = [record.message.split()[0] for record in caplog.records if "broker_" in record.message]
    assert said == ["delivery.broker_lost", "delivery.broker_back"]
    assert asked_s[4] - asked_s[3] > 2 * (asked_s[1] - asked_s[0])
    assert len(rounds) < 2000


def test_what_is_claimed_and_not_begun_goes_back_when_a_loop_must_leave(rig, monkeypatch):
    """A claim's answer comes as the loop is told to end at once: no POST, no attempt counted, no wait for a lease."""
    with Receiver(lambda _: Answer(200)) as receiver:
        set_account("acme", url=receiver.url())
        (postback_id,) = send_postbacks("acme", [MO])
        rig.tick()
        leaving = []
        send = Pipeline.send

        def sends(self, calls):
            send(self, calls)
            leaving.append(True)

        with monkeypatch.context() as patched:
            patched.setattr(Pipeline, "send", sends)
            assert rig.deliver_lanes(must_leave=lambda: bool(leaving)) == 0
        assert receiver.received == []
        assert rig.record(postback_id).state == "parked"
        rig.tick()
        assert rig.deliver_lanes() == 1
    record = rig.record(postback_id)
    assert (record.state, [attempt.number for attempt in record.attempts]) == ("delivered", [1])


def test_a_note_whose_answer_was_lost_is_made_again_and_counts_once(rig, monkeypatch):
    """The connection ends between the notes' leaving and their answer: noted once, delivered once."""
    with Receiver(lambda _: Answer(200)) as receiver:
        set_account("acme", url=receiver.url())
        (postback_id,) = send_postbacks("acme", [MO])
        rig.tick()
        lost = []
        reply = Pipeline._reply

        def loses(self):
            if self.pending[0].name == "commit" and not lost:
                lost.append(reply(self))
                self._connection.disconnect()
                raise BrokerUnreachable("the connection has ended")
            return reply(self)

        monkeypatch.setattr(Pipeline, "_reply", loses)
        rig.deliver()
        assert lost
        assert len(receiver.received) == 1
    record = rig.record(postback_id)
    assert (record.state, len(record.attempts)) == ("delivered", 1)
    assert rig.client.hget(keys.TOTALS, "posts") == b"1"


def test_a_connection_that_the_broker_closes_while_nothing_is_asked_is_given_up(rig):
    """CLIENT KILL of an idle loop's connection does not make the loop spin, and the next claim works."""
    with Receiver(lambda _: Answer(200, delay_s=1.0)) as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MO])
        rig.tick()
        rounds = rounds_of(rig)
        thread = threading.Thread(target=rig.deliver_lanes)
        thread.start()
        receiver.wait_for(1, 90)
        for one in rig.client.client_list():
            if one["cmd"] == "evalsha":
                rig.client.client_kill_filter(_id=one["id"])
        thread.join(60)
        assert not thread.is_alive()
    assert rig.client.zcard(keys.DONE) == 1
    assert len(rounds) < 2000


def test_commit_call_is_what_the_broker_is_sent(rig):
    """The command of a call: the script's digest, its keys with the totals among them, the offset, the arguments."""
    command = rig.scripts.command(commit_call("t", 1, 2, 3, [("a", "b")], {"posts": 1}))
    assert command[0] == "EVALSHA"
    count = command[2]
    assert keys.TOTALS in command[3 : 3 + count]
    assert command[3 + count :] == [0, "t", 1, 2, 3, "a", "b", '{"posts": 1}']


def test_what_cannot_be_sent_leaves_nothing_asked(own_broker):
    """A broker that is gone: sending says so, and nothing is awaited."""
    rig = Rig(own_broker)
    pipeline = Pipeline(rig.scripts, 5.0, lambda _: None)
    own_broker.kill()
    with pytest.raises(BrokerError):
        pipeline.send([RENEW])
    assert not pipeline
    rig.close()
