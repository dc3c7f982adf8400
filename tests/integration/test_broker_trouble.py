"""The broker in trouble under running workers: callers are told, workers wait and go on by themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import BASE_ENV, ended, eventually, running

from postbacks.local import EmbeddedBroker
from postbacks.receiver import Receiver

PRODUCER = """
import json, sys, time
from postbacks import PostbacksError, send_postback
event = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
for line in sys.stdin:
    count, url = json.loads(line)
    said = []
    for _ in range(count):
        try:
            said.append(["accepted", send_postback.delay("acme", event, url=url).id])
        except PostbacksError as error:
            said.append([type(error).__name__, str(error)])
    print(json.dumps(said), flush=True)
"""


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
        self._process.wait(10)
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
    eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "a failed snapshot")

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


TROUBLES = {
    "read-only": (make_read_only, "BrokerUnfit", "is read-only"),
    "full": (make_full, "BrokerUnfit", "is full (maxmemory reached)"),
    "unable to write": (make_unable_to_write, "BrokerUnfit", "cannot write to its disk"),
    "frozen": (freeze, "BrokerUnreachable", "did not answer in time"),
    "gone": (kill, "BrokerUnreachable", "does not answer"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_in_trouble_the_caller_is_told_and_afterwards_all_goes_on_by_itself(tmp_path, trouble):
    """Nothing that was accepted is lost, nothing that was refused is half-done, no process needs a hand."""
    with EmbeddedBroker(config={"enable-protected-configs": "yes"}) as broker:
        live_through(broker, tmp_path, *TROUBLES[trouble])


def live_through(own_broker: EmbeddedBroker, tmp_path: Path, begin: Trouble, kind: str, words: str) -> None:
    """Accepted before, refused during, accepted after; then everything accepted has arrived."""
    env = {"POSTBACKS_CLAIM_LEASE_S": "3", "POSTBACKS_INTAKE_LEASE_S": "2", "POSTBACKS_BROKER_TIMEOUT_S": "1"}
    with Receiver() as receiver, running(own_broker, tmp_path, env=env) as stack:
        producer = Producer(own_broker, receiver.url())
        accepted = [one for said, one in producer.send(20) if said == "accepted"]
        assert len(accepted) == 20
        end = begin(own_broker)
        for said, sentence in producer.send(2):
            assert said == kind
            assert words in sentence
        end()

        def accepted_again() -> list[str]:
            return [one for said, one in producer.send(1) if said == "accepted"]

        accepted += eventually(accepted_again, 20, "a call that is accepted again")
        accepted += [one for said, one in producer.send(20) if said == "accepted"]
        client = own_broker.client()
        assert {ended(client, one, 60).state for one in accepted} == {"delivered"}
        assert all(process.alive for process in (*stack.workers, *stack.beats))
        producer.close()
    arrived = set(receiver.by_id())
    assert set(accepted) <= arrived
    assert len(arrived - set(accepted)) <= 2, "a call in a time-out may have got through, no other"


def test_five_restarts_of_the_broker_under_load_need_no_hand(own_broker, tmp_path):
    """Sending resumes each time, no process dies, and in the end everything has arrived."""
    env = {"POSTBACKS_CLAIM_LEASE_S": "3", "POSTBACKS_INTAKE_LEASE_S": "2", "POSTBACKS_BROKER_TIMEOUT_S": "1"}
    with Receiver() as receiver, running(own_broker, tmp_path, env=env) as stack:
        producer = Producer(own_broker, receiver.url())
        accepted: list[str] = []
        for _ in range(5):
            own_broker.restart()
            before = len(accepted)

            def send(before: int = before) -> bool:
                accepted.extend(one for said, one in producer.send(10) if said == "accepted")
                return len(accepted) >= before + 40

            eventually(send, 30, "forty accepted calls")
            newest = accepted[-1]
            receiver.wait_for(1, 30, where=lambda post, newest=newest: post.postback_id == newest)
        client = own_broker.client()
        assert {ended(client, one, 60).state for one in accepted} == {"delivered"}
        assert all(process.alive for process in (*stack.workers, *stack.beats))
        producer.close()
