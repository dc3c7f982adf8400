"""Task events at their limits: more postbacks than Flower can be shown, and a broker that takes no events."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from events import EVENT
from helpers import environment, eventually, set_account
from wire import Wire

from postbacks import flower_events, keys, send_postback, send_postbacks
from postbacks.app import app
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.queue.operate import cancel
from postbacks.transport.outcomes import OUTCOMES


@pytest.fixture
def events_on(rig) -> Iterator[None]:
    """Events of this process, as if it were a worker."""
    flower_events.set_up("worker@here", "postbacks.events", OUTCOMES)
    flower_events.switch(True)
    flower_events.announce()
    yield
    flower_events.flush()
    flower_events.switch(False)


def test_above_the_limit_every_failure_is_told_and_of_the_rest_a_share_from_first_to_last(
    broker, rig, events_on, caplog
):
    """1,200 at once with a limit of 80 a second: some are told of, none by half; the log says so once."""
    wire = Wire(broker)
    with (
        environment(POSTBACKS_EVENTS_PER_S="80"),
        Receiver(lambda post: Answer(503 if "bad" in post.path else 200), keep=False) as receiver,
        caplog.at_level(logging.INFO, "postbacks.flower_events.publisher"),
    ):
        good = [f"good-{number}" for number in range(4)]
        for name in (*good, "bad"):
            set_account(name, url=receiver.url(f"/{name}"))
        delivered = [one for name in good for one in send_postbacks(name, [EVENT] * 300)]
        failed = send_postbacks("bad", [EVENT] * 60)
        while rig.tick().more:
            pass
        rig.deliver()
        flower_events.flush()
        eventually(lambda: all(wire.kinds(one)[-1:] == ["retried"] for one in failed), what="every failure")
        whole = {(), ("received", "started", "succeeded")}
        told = eventually(
            lambda: (found := Counter(tuple(wire.kinds(one)) for one in delivered)).keys() <= whole and found,
            what="every one told of from first to last or not at all",
        )
        shown = 1200 - told[()]
        assert 80 <= shown <= 480, told
        quiet_level = broker.client().hget(keys.TASK_EVENTS_METER, "level")
        assert int(quiet_level) > 0
        # after a quiet time all are shown again, of the same broker
        rig.advance(60)
        late = send_postback.delay("good-0", EVENT).id
        rig.tick()
        rig.deliver()
        wire.wait(late, "received", "started", "succeeded")
    wire.close()
    lines = [record.message.split()[0] for record in caplog.records if "sampling" in record.message]
    assert lines == ["taskevents.sampling", "taskevents.sampling_ended"]


def test_one_that_is_cancelled_while_it_is_held_or_open_is_told_of_as_revoked(broker, rig, events_on):
    """The lane fails: the first is probed, the others are held; all are cancelled before the answer comes."""
    ids: list[str] = []

    def answer(_: object) -> Answer:
        for one in ids:
            cancel(one)
        return Answer(503)

    wire = Wire(broker)
    with Receiver(lambda _: Answer(503)) as failing, Receiver(answer) as cancelling:
        set_account("acme", url=failing.url())
        send_postback.delay("acme", EVENT)
        rig.tick()
        rig.deliver()  # the lane fails from now on
        set_account("acme", url=cancelling.url())
        ids += send_postbacks("acme", [EVENT] * 3)
        rig.tick()
        rig.deliver()
        flower_events.flush()
        wire.wait(ids[0], "received", "started", "revoked")
        for one in ids[1:]:
            wire.wait(one, "received", "revoked")
    wire.close()


def test_a_broker_that_takes_no_events_stops_and_slows_nothing(broker, rig, events_on):
    """PUBLISH fails: postbacks are accepted, delivered and cancelled; what was not told is counted."""
    before = flower_events.counts()["dropped"]
    app.conf.task_send_sent_event = True
    with Receiver() as receiver, broker.client() as client:
        set_account("acme", url=receiver.url())
        client.execute_command("ACL", "SETUSER", "default", "-publish")
        try:
            ids = [send_postback.delay("acme", EVENT).id, *send_postbacks("acme", [EVENT] * 20)]
            parked = send_postback.apply_async(("acme", EVENT), countdown=60).id
            rig.tick()
            assert cancel(parked) == "cancelled"
            rig.deliver()
            flower_events.flush()
            assert {rig.record(one).state for one in ids} == {"delivered"}
            eventually(
                lambda: flower_events.counts()["dropped"] > before, what="dropped events being counted"
            )
        finally:
            app.conf.task_send_sent_event = False
            client.execute_command("ACL", "SETUSER", "default", "+publish")
    assert client.llen(keys.QUEUE) == 0, "an event went into the queue of postbacks"
