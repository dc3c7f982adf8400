"""Task events at their limits: more postbacks than Flower can be shown, forks, and a broker that takes no events."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from events import EVENT
from helpers import environment, eventually, set_account
from wire import Wire

from postbacks import keys, send_postback, send_postbacks
from postbacks.app import app
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.flower_events.publisher import publisher
from postbacks.flower_events.sampling import BURST_S, is_in_share
from postbacks.queue.actions import cancel
from postbacks.settings import load

FORKS = """
import os, time
from postbacks.flower_events.events import ended_unsent
from postbacks.flower_events.publisher import publisher
from postbacks.queue.rows import EndedRow
publisher.configure("worker@here", "postbacks.events")
publisher.switch(True)
with publisher._publishing, publisher._lock:  # as the thread of a parent has them while it works
    publisher._pending.append((1, lambda: ended_unsent(publisher._sampler, 0.0, [EndedRow(b"parents", b"a", b"SUB", b"N301", b"dead", b"")])))
    child = os.fork()
    if child == 0:
        publisher.add(ended_unsent, [EndedRow(b"childs", b"a", b"SUB", b"N301", b"dead", b"")])
        until_s = time.monotonic() + 20
        while not publisher.counts()["sent"] and time.monotonic() < until_s:
            time.sleep(0.01)
        os._exit(publisher.counts()["sent"] != 1)
    _, status = os.waitpid(child, 0)
publisher.flush()
print(os.waitstatus_to_exitcode(status), publisher.counts()["sent"])
"""


@pytest.fixture
def events_on(rig) -> Iterator[None]:
    """Events of this process, as if it were a worker."""
    publisher.configure("worker@here", "postbacks.events")
    publisher.switch(True)
    publisher.announce()
    yield
    publisher.flush()
    publisher.switch(False)


def test_above_the_rate_every_failure_is_shown_and_of_the_rest_a_share_from_first_to_last(
    broker, rig, events_on, caplog, monkeypatch
):
    """1,200 at once with a rate of 80 a second: some are shown, none by half; the log says so once."""
    wire = Wire(broker)
    now_s = time.monotonic()  # stands, so that a slow machine makes no difference
    monkeypatch.setattr("postbacks.flower_events.sampling.time", SimpleNamespace(monotonic=lambda: now_s))
    with (
        environment(POSTBACKS_EVENTS_PER_S="80"),
        Receiver(lambda post: Answer(503 if "bad" in post.path else 200), keep=False) as receiver,
        caplog.at_level(logging.INFO, "postbacks.flower_events.publisher"),
    ):
        good = [f"good-{number}" for number in range(4)]
        for name in (*good, "bad"):
            set_account(name, url=receiver.url(f"/{name}"))
        delivered = [each for name in good for each in send_postbacks(name, [EVENT] * 300)]
        failed = send_postbacks("bad", [EVENT] * 60)
        while rig.tick().more:
            pass
        rig.deliver()
        publisher.flush()
        eventually(lambda: all(wire.kinds(each)[-1:] == ["retried"] for each in failed), what="every failure")
        whole = {(), ("received", "started", "succeeded")}
        lives = eventually(
            lambda: (
                (found := Counter(tuple(wire.kinds(each)) for each in delivered)).keys() <= whole and found
            ),
            what="every one shown from first to last or not at all",
        )
        shown = 1200 - lives[()]
        share = [each for each in delivered if is_in_share(each, load().flower_share)]
        assert all(wire.kinds(each) for each in share)
        assert 80 <= shown - len(share) <= 80 * BURST_S, lives
        # after a quiet time all are shown again
        now_s += BURST_S
        late = send_postback.delay("good-0", EVENT).id
        rig.tick()
        rig.deliver()
        wire.wait(late, "received", "started", "succeeded")
    wire.close()
    lines = [record.message.split()[0] for record in caplog.records if "sampling" in record.message]
    assert lines == ["taskevents.sampling", "taskevents.sampling_ended"]


def test_events_cost_the_broker_nothing_but_their_publishing(broker, rig, events_on, receiver):
    """Delivered, failing and dead ones are chosen without asking the broker."""
    set_account("good", url=receiver.url("/good"))
    set_account("bad", url=receiver.url("/bad"))
    counts: list[Counter[str]] = []
    for on in (False, False, True):  # at first scripts are loaded
        publisher.switch(on)
        rig.client.config_resetstat()
        for name in ("good", "bad", "nobody"):
            send_postbacks(name, [EVENT] * 30)
        rig.tick()
        rig.deliver()
        publisher.flush()
        stats = rig.client.info("commandstats")
        counts.append(Counter({name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}))
    assert counts[2].keys() - (counts[0] | counts[1]).keys() == {"publish"}
    assert 1 <= counts[2]["publish"] <= 9  # one in 0.2 s, or 500 events


def test_a_child_publishes_what_it_has_done_itself(broker, rig):
    """A fork takes no event along, whatever its parent's thread is at, and starts a thread of its own."""
    wire = Wire(broker)
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["0", "2"], "exit of the child, and events that both have counted"
    for each in ("childs", "parents"):
        wire.wait(each, "failed")
    wire.close()


def test_a_postback_that_is_cancelled_while_it_is_held_or_open_is_shown_as_revoked(broker, rig, events_on):
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
        publisher.flush()
        wire.wait(ids[0], "received", "started", "revoked")
        for one in ids[1:]:
            wire.wait(one, "received", "revoked")
    wire.close()


def test_a_broker_that_takes_no_events_stops_and_slows_nothing(broker, rig, events_on):
    """PUBLISH fails: postbacks are accepted, delivered and cancelled; what was not published is counted."""
    before = publisher.counts()["dropped"]
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
            publisher.flush()
            assert {rig.record(one).state for one in ids} == {"delivered"}
            eventually(lambda: publisher.counts()["dropped"] > before, what="dropped events being counted")
        finally:
            app.conf.task_send_sent_event = False
            client.execute_command("ACL", "SETUSER", "default", "+publish")
    assert client.llen(keys.QUEUE) == 0, "an event went into the queue of postbacks"
