"""The broker in trouble under running workers: callers are told, workers wait and go on by themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.beat import Scheduler
from click.testing import CliRunner
from events import EVENT
from helpers import BASE_ENV, ended, environment, eventually, running
from kombu import Connection, Queue

from postbacks import keys, send_postback, settings
from postbacks.app import app
from postbacks.celeryext.consumer import SteadyConsumer
from postbacks.celeryext.request import WakeRequest
from postbacks.cli import main
from postbacks.client.producer import RedisProducer
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver
from postbacks.devtools.stack import LocalStack
from postbacks.errors import BrokerUnfit
from postbacks.monitor.health import judge
from postbacks.monitor.metrics import SystemCollector
from postbacks.tasks import deliver

pytestmark = pytest.mark.usefixtures("forked")

PRODUCER = """
import json, sys, uuid
from postbacks import PostbacksError, send_postback
event = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
for line in sys.stdin:
    count, url = json.loads(line)
    said = []
    for _ in range(count):
        one = str(uuid.uuid4())
        try:
            send_postback.apply_async(("acme", event), {"url": url}, task_id=one)
            said.append([one, "accepted", ""])
        except PostbacksError as error:
            said.append([one, type(error).__name__, str(error)])
    print(json.dumps(said), flush=True)
"""


#: Short leases, and a broker that is given up after a second.
ENV = {"POSTBACKS_CLAIM_LEASE_S": "6", "POSTBACKS_INTAKE_LEASE_S": "2", "POSTBACKS_BROKER_TIMEOUT_S": "1"}
#: Keys of another database, so that loading them takes its time: 1 ms each until the test says otherwise.
KEYS_TO_LOAD = 5_000

Trouble = Callable[[EmbeddedBroker], Callable[[], object]]


class Producer:
    """An application of its own that sends when it is told to."""

    def __init__(self, broker: EmbeddedBroker, url: str) -> None:
        env = {
            **os.environ,
            **BASE_ENV,
            "POSTBACKS_BROKER_URL": broker.url,
            "POSTBACKS_BROKER_TIMEOUT_S": "1",
        }
        self._url = url
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRODUCER],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, count: int) -> list[list[str]]:
        self._process.stdin.write(json.dumps([count, self._url]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(90)
        self._process.stdout.close()


def make_read_only(broker: EmbeddedBroker) -> Callable[[], None]:
    client = broker.client()
    client.replicaof("127.0.0.1", "1")
    return lambda: client.replicaof("NO", "ONE")


def make_full(broker: EmbeddedBroker) -> Callable[[], None]:
    client = broker.client()
    client.config_set("maxmemory", "1")
    return lambda: client.config_set("maxmemory", "0")


def make_unable_to_write(broker: EmbeddedBroker) -> Callable[[], None]:
    client = broker.client()
    hidden = Path(broker.data_dir) / "hidden"
    hidden.mkdir()
    home = client.config_get("dir")["dir"]
    client.config_set("dir", str(hidden))
    client.config_set("save", "3600 1")
    shutil.rmtree(hidden)
    client.bgsave()
    eventually(
        lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a failed snapshot"
    )

    def mend() -> None:
        client.config_set("stop-writes-on-bgsave-error", "no")
        client.config_set("save", "")
        client.config_set("dir", home)

    return mend


def freeze(broker: EmbeddedBroker) -> Callable[[], None]:
    broker.pause()
    return broker.resume


def kill(broker: EmbeddedBroker) -> Callable[[], None]:
    broker.kill()
    return broker.start


def make_it_load(broker: EmbeddedBroker) -> Callable[[], None]:
    """Start the broker again with data that it reads for longer than the test lasts."""
    client = broker.client()
    pipe = client.pipeline(transaction=False)
    pipe.execute_command("SELECT", 9)
    for number in range(KEYS_TO_LOAD):
        pipe.set(f"ballast:{number}", "")
    pipe.execute_command("SELECT", 0)
    pipe.execute()
    client.bgrewriteaof()  # a snapshot, of which it answers between two kilobytes (see the fixture)

    def rewritten() -> bool:
        info = client.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

    eventually(rewritten, what="a snapshot")
    broker.kill()
    broker._config["key-load-delay"] = "1000"  # for this start alone: the others should be fast
    start = threading.Thread(target=broker.start)
    start.start()

    def loads() -> bool:
        try:
            client.ping()
        except redis.BusyLoadingError:
            return True
        except redis.RedisError:
            return False
        raise AssertionError("it has loaded all its data already")

    eventually(loads, what="a broker that loads")

    def end() -> None:
        client.config_set("key-load-delay", "0")
        start.join(60)
        del broker._config["key-load-delay"]
        client.execute_command("SELECT", 9)
        client.flushdb()
        client.execute_command("SELECT", 0)

    return end


def lock(broker: EmbeddedBroker) -> Callable[[], None]:
    """Give the broker a password, so that everybody has to connect anew."""
    client = broker.client()
    client.config_set("requirepass", "secret")
    client.client_kill_filter(_type="normal", skipme=True)

    def unlock() -> None:
        client.config_set("requirepass", "")

    return unlock


TROUBLES = {
    "READONLY": (make_read_only, "BrokerUnfit", "is read-only"),
    "OOM": (make_full, "BrokerUnfit", "is full (maxmemory reached)"),
    "MISCONF": (make_unable_to_write, "BrokerUnfit", "cannot write to its disk"),
    "LOADING": (make_it_load, "BrokerUnreachable", "is still loading its data"),
    "NOAUTH": (lock, "BrokerUnfit", "wants a password"),
    "frozen": (freeze, "BrokerUnreachable", "not answer"),  # when asked for the id, or for the message
    "gone": (kill, "BrokerUnreachable", "does not answer"),
}

#: Those in which the broker can be asked, and takes no postback.
REFUSING = {"READONLY", "OOM", "MISCONF"}


def samples(collector: SystemCollector) -> dict[str, float]:
    """Each figure without labels that would be on a page of metrics."""
    return {one.name: one.value for family in collector.collect() for one in family.samples if not one.labels}


@dataclass
class World:
    """A broker that is hurt again and again, and the same processes beside it all the time."""

    broker: EmbeddedBroker
    stack: LocalStack
    receiver: Receiver
    producer: Producer

    def accepted(self, count: int) -> list[str]:
        """Send until so many calls have been accepted; their ids."""
        ids: list[str] = []

        def enough() -> bool:
            ids.extend(one for one, said, _ in self.producer.send(count - len(ids)) if said == "accepted")
            return len(ids) == count

        eventually(enough, what=f"{count} accepted calls")
        return ids

    def check_all_arrived(self, accepted: list[str]) -> None:
        """Everything has come to its end, and no process had to be started again."""
        with self.broker.client() as client:
            records = [ended(client, one) for one in accepted]
        assert [record for record in records if record.state != "delivered"] == []
        assert all(process.alive for process in (*self.stack.workers, *self.stack.beats))
        assert set(accepted) <= set(self.receiver.by_id())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """World for all tests of this file: a trouble that a process did not get over shows in the next one."""
    config = {"enable-protected-configs": "yes", "loading-process-events-interval-bytes": "1024"}
    with (
        EmbeddedBroker(config=config) as broker,
        Receiver() as receiver,
        running(broker, tmp_path_factory.mktemp("trouble"), env=ENV) as stack,
    ):
        producer = Producer(broker, receiver.url())
        yield World(broker, stack, receiver, producer)
        producer.close()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_in_trouble_the_caller_is_told_and_afterwards_all_goes_on_by_itself(world, trouble):
    """Nothing that was accepted is lost or half-done, no process needs a hand; health says as much as the caller hears."""
    begin, kind, words = TROUBLES[trouble]
    accepted = world.accepted(20)
    end = begin(world.broker)
    refused = world.producer.send(2)
    with environment(POSTBACKS_BROKER_URL=world.broker.url):
        health = judge(settings.load(), timeout_s=1)
        takes_writes = samples(SystemCollector(settings.load())).get("postbacks_broker_takes_writes")
        doctor = CliRunner().invoke(main, ["doctor", "--json"]) if takes_writes == 0 else None
    end()
    assert not health.ok
    assert words in health.line
    assert health.takes_writes is (False if trouble in REFUSING else None)
    assert takes_writes == (0 if trouble in REFUSING else None)
    if doctor is not None:
        found = {line["check"]: line for line in map(json.loads, doctor.stdout.splitlines())}
        assert words in found["writes"]["says"]
        assert {found[name]["level"] for name in ("no-worker", "no-beat")} == {"ok"}
    for _, said, sentence in refused:
        assert (said, words) == (kind, words if words in sentence else sentence)
    with environment(POSTBACKS_BROKER_URL=world.broker.url):
        eventually(lambda: judge(settings.load()).ok, what="a system that is well")
    accepted += world.accepted(20)
    world.check_all_arrived(accepted)
    if trouble != "frozen":  # what was on its way then may get through, as the sentence says
        assert {one for one, _, _ in refused}.isdisjoint(world.receiver.by_id())


def test_a_database_that_the_broker_does_not_have_is_refused_with_a_sentence(own_broker, tmp_path):
    """The caller is told at its first call, a worker at its start."""
    url = own_broker.url.removesuffix("/0") + "/99"
    words = "has no database of that number; correct POSTBACKS_BROKER_URL."
    with environment(POSTBACKS_BROKER_URL=url), pytest.raises(BrokerUnfit, match=words):
        send_postback.delay("acme", EVENT)
    env = {**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": url}
    worker = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "postbacks", "worker"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 2
    assert words in worker.stderr
    assert "Traceback" not in worker.stderr


def test_five_restarts_of_the_broker_under_load_need_no_hand(world):
    """Sending resumes each time, no process dies, and in the end everything has arrived."""
    accepted: list[str] = []
    for _ in range(5):
        world.broker.restart()
        for _ in range(4):
            accepted += world.accepted(10)
        newest = accepted[-1]
        world.receiver.wait_for(1, 90, where=lambda post, newest=newest: post.postback_id == newest)
    world.check_all_arrived(accepted)


def test_ten_thousand_parked_postbacks_hold_nothing_unacknowledged(world):
    """They wait in our sorted set: Celery's ``unacked`` holds at most the tick that is just being taken."""
    with world.broker.client() as client, environment(POSTBACKS_BROKER_URL=world.broker.url):
        # A tick that was taken as the broker went away stays there for Celery's visibility timeout.
        left = set(client.hkeys("unacked"))
        with RedisProducer() as producer:
            one = send_postback.apply_async(
                ("acme", EVENT), {"url": world.receiver.url()}, countdown=3600, producer=producer
            )
            ((queue, (message,)),) = producer._collected.items()
        texts = [message.replace(one.id, f"parked-{number}") for number in range(9_999)]
        client.lpush(queue, *texts)
        held = []

        def unacknowledged() -> set[bytes]:
            return set(client.hkeys("unacked")) - left

        def parked() -> bool:
            held.append(len(unacknowledged()))
            return client.zcard(keys.PARKED) >= 10_000

        eventually(parked, what="ten thousand parked")
        for _ in range(3):
            tick = client.get(keys.LAST_TICK)
            eventually(lambda tick=tick: parked() and client.get(keys.LAST_TICK) != tick, what="a tick")
        assert max(held) <= 20, "a worker holds more than it works on"
        taken = unacknowledged()  # ticks that are being taken; a busy machine has one at any time
        eventually(lambda: not taken & unacknowledged(), what="what was taken is acknowledged")


def test_ten_minutes_without_workers_leave_one_tick_in_celerys_queue(broker, monkeypatch):
    """Beat's own scheduler with the clock moved on: 600 ticks are due, one message waits."""
    started = now = datetime.now(UTC)
    monkeypatch.setattr(app, "now", lambda: now)
    scheduler = Scheduler(app=app)
    sent = []
    monkeypatch.setattr(
        scheduler,
        "apply_async",
        lambda entry, **_: sent.append(entry.task) or app.tasks[entry.task].apply_async(),
    )
    with broker.client() as client:
        while now < started + timedelta(minutes=10):
            scheduler.tick()
            now += timedelta(seconds=1)
            assert client.llen(keys.WORK_QUEUE) <= 1
        assert len(sent) >= 590
        assert client.llen(keys.WORK_QUEUE) == 1


def test_a_wake_up_whose_connection_is_gone_before_its_acknowledgement_does_not_end_the_worker(own_broker):
    """kombu raises what Celery's list of connection errors does not hold; the next wake-up does the same."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url), Connection(own_broker.url) as connection:
        deliver.apply_async(connection=connection)
        taken: list[Any] = []
        consumer = connection.Consumer(
            [Queue(keys.WORK_QUEUE)], callbacks=[lambda _, message: taken.append(message)]
        )
        consumer.consume()
        connection.drain_events(timeout=60)
        (message,) = taken
        own_broker.kill()
        connection.collect()
        request = WakeRequest(message, on_ack=message.ack_log_error, app=app, connection_errors=())
        request.acknowledge()
    assert request.acknowledged


def test_a_connection_that_cannot_be_closed_does_not_end_the_worker(broker):
    """A tick is unacknowledged when its connection is lost: kombu's closing raises, the worker connects anew."""
    connection = app.connection_for_read()
    deliver.apply_async(connection=connection)
    consumer = connection.Consumer([Queue(keys.WORK_QUEUE)], callbacks=[lambda *_: None])
    consumer.consume()
    connection.drain_events(timeout=60)
    connection.default_channel._disconnect_pools()
    connection.transport.client = None  # as after Connection.collect
    with pytest.raises(AttributeError, match="hostname"):
        connection.default_channel.qos.restore_unacked()
    ours = SteadyConsumer.__new__(SteadyConsumer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the connection is lost
        ours.__dict__.update(app=app, connection=connection)
        ours.on_connection_error_after_connected(OSError("gone"))
    assert ours.connection is None
