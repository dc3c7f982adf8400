"""Costs of a postback, in counts that no busy machine changes; `make bench` has the times.

Each bound is about one and a half times what was counted when it was set. Who makes something cheaper lowers its
bound; who must raise one says why beside it.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers import Rig, set_account

from benchmarks import worst_cases
from postbacks import keys, send_postbacks
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver

ACCOUNTS, EACH = 10, 100
COUNT = ACCOUNTS * EACH
MT = {"ORIGIN": "SMS_MT", "CODE": "N202", "STATUS": "Message Sent/Delivered", "FROM": "86717",
      "TO": "15552312102", "TRACKINGID": "MT_0123456789", "SPID": "0007",
      "TIMESTAMP": "2013-11-05T05:41:08-05:00"}  # fmt: skip


class Counts(Counter):
    """Counts of one phase, each for one postback where it is called ``each``."""

    def each(self, name: str) -> float:
        return self[name] / COUNT


@contextmanager
def counted(rig: Rig, *, calls: bool = False) -> Iterator[Counts]:
    """Count what the block asks of the broker, and with ``calls`` the Python calls of this thread."""
    counts = Counts()
    rig.client.config_resetstat()

    def on_event(_frame, event, _argument):
        if event in {"call", "c_call"}:
            counts["python_calls"] += 1

    sys.setprofile(on_event if calls else None)
    try:
        yield counts
    finally:
        sys.setprofile(None)
    stats = rig.client.info("everything")
    for name, stat in stats.items():
        if name.startswith("cmdstat_") and name not in {"cmdstat_info", "cmdstat_config|resetstat"}:
            counts["commands"] += stat["calls"]
            counts[name.removeprefix("cmdstat_")] = stat["calls"]
    counts["in_bytes"], counts["out_bytes"] = (
        stats["total_net_input_bytes"],
        stats["total_net_output_bytes"],
    )


class CountingPoll:
    """Counts the system calls that go through what the transport waits with."""

    def __init__(self, poll) -> None:
        self._poll = poll
        self.calls = 0

    def __getattr__(self, name):
        self.calls += 1
        return getattr(self._poll, name)


def publish(each: int = EACH) -> None:
    for number in range(ACCOUNTS):
        send_postbacks(f"a{number}", [MT] * each)


@pytest.fixture(scope="module")
def costs(suites_broker) -> dict[str, Counts]:
    """Every phase of the way of a thousand postbacks of ten accounts, once plainly and once with calls counted."""
    with suites_broker.client() as client:
        client.flushdb()
    rig = Rig(suites_broker)
    found: dict[str, Counts] = {}
    with Receiver(keep=False) as receiver:
        for number in range(ACCOUNTS):
            set_account(f"a{number}", url=receiver.url())
        publish(15)  # scripts are loaded, lanes have their ten transfers, connections stand
        rig.tick()
        rig.deliver()
        with counted(rig) as found["idle"]:
            rig.tick()
        for calls in (False, True):
            phases = {"publish": publish, "tick": rig.tick, "deliver": rig.deliver}
            for name, run in phases.items():
                with counted(rig, calls=calls) as found[f"{name}+calls" if calls else name]:
                    run()
        assert receiver.count == ACCOUNTS * 15 + 2 * COUNT
    found["record"] = Counts(
        bytes=sum(
            rig.client.memory_usage(keys.record(postback_id.decode()), samples=0)
            for postback_id in rig.client.zrange(keys.DONE, -COUNT, -1)
        )
    )
    rig.close()
    return found


def test_a_postback_costs_the_broker_few_commands(costs):
    """Commands that the broker serves, those inside scripts included, in each phase of the way."""
    assert costs["publish"].each("commands") <= 0.02  # one LPUSH a batch of an account
    assert costs["tick"].each("commands") <= 3.5
    assert costs["deliver"].each("commands") <= 9


def test_a_postback_costs_the_broker_few_bytes(costs):
    """Bytes that go to the broker and come from it, over the whole way: a message is 1,300, its XML 300."""
    way = [costs[name] for name in ("publish", "tick", "deliver")]
    assert sum(phase.each("in_bytes") for phase in way) <= 3_000
    assert sum(phase.each("out_bytes") for phase in way) <= 2_700


def test_a_record_takes_few_bytes_of_the_brokers_memory(costs):
    """MEMORY USAGE of a delivery receipt that was delivered, its XML included; as a hash table it takes 1,500."""
    assert costs["record"].each("bytes") <= 1_000


def test_a_tick_with_nothing_to_do_asks_the_broker_little(costs):
    """Lua calls and commands of an idle tick."""
    assert costs["idle"]["evalsha"] <= 8
    assert (
        costs["idle"]["commands"] <= 53
    )  # the last ones ask for feed and journal of the history, and for pauses that end


def test_messages_are_taken_in_and_answers_noted_in_batches(costs):
    """Lua calls for a thousand postbacks: full batches; how many notes go together depends on the answers' haste."""
    assert costs["tick"]["evalsha"] <= 14
    assert costs["deliver"]["evalsha"] <= 150


def test_the_feed_of_the_history_costs_a_command_a_batch(costs):
    """Entries: one of the intake, one of each batch of notes; none where nothing changes."""
    assert costs["tick"]["xadd"] <= 6
    assert costs["deliver"]["xadd"] <= costs["deliver"]["evalsha"]
    assert costs["idle"]["xadd"] == 0


def test_a_postback_costs_few_python_calls(costs):
    """Functions called in Python, builtins included: a count that stands for time."""
    assert costs["publish+calls"].each("python_calls") <= 170
    assert costs["tick+calls"].each("python_calls") <= 195
    assert costs["deliver+calls"].each("python_calls") <= 192


def test_a_thousand_postbacks_to_one_endpoint_open_ten_connections_and_few_system_calls(broker):
    """As many connections as the lane has transfers, each kept; libcurl's own calls are a send and a read or two."""
    rig = Rig(broker)
    counting = rig.adapter._poller = CountingPoll(rig.adapter._poller)
    with Receiver(keep=False) as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MT] * COUNT)
        rig.tick()
        assert rig.deliver() == COUNT
        assert receiver.connections == rig.adapter.connections <= 15
        assert counting.calls / COUNT <= 6
    rig.close()


def test_memory_goes_back_when_postbacks_are_through(broker):
    """The peak of a tick is bounded by its batch, and nothing of a postback stays in the worker."""
    rig = Rig(broker)
    with Receiver(keep=False) as receiver:
        for number in range(ACCOUNTS):
            set_account(f"a{number}", url=receiver.url())
        for _ in range(3):  # what is made once is there: connections, handles
            publish()
            rig.tick()
            rig.deliver()
        publish()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            rig.tick()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        gc.collect()
        gc.disable()
        blocks = sys.getallocatedblocks()
        try:
            rig.deliver()
            in_cycles = gc.collect()
        finally:
            gc.enable()
        kept = sys.getallocatedblocks() - blocks
    rig.close()
    assert (peak - before) / COUNT <= 3_400  # bytes
    assert (
        in_cycles < COUNT / 2
    )  # the collector comes so seldom that a loop's dictionaries would stay for minutes
    assert kept < COUNT / 2  # allocations: less than one a postback


FEW_ACCOUNTS, MANY_ACCOUNTS = 300, 3_000


@pytest.fixture(scope="module")
def worlds():
    """The same state with 300 accounts and with 3,000, ten times as many waiting in one lane."""
    with (
        EmbeddedBroker(config={"appendonly": "no"}) as few,
        EmbeddedBroker(config={"appendonly": "no"}) as many,
    ):
        both = (
            worst_cases.World(few, FEW_ACCOUNTS, 10 * FEW_ACCOUNTS),
            worst_cases.World(many, MANY_ACCOUNTS, 10 * MANY_ACCOUNTS),
        )
        yield both
        for world in both:
            world.client.close()


def commands_of(world: worst_cases.World, case: str) -> int:
    """Commands of one script call at its worst, those inside it."""
    run = worst_cases.cases(world)[case]()
    world.client.config_resetstat()
    run()
    stats = world.client.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name != "cmdstat_config|resetstat")


@pytest.mark.parametrize(
    ("case", "at_most"),
    [
        ("claim: all lanes in turn", 1_500),
        ("claim: no account may send by its rate", 5_000),
        ("claim: all wait for their rate and are due", 6_000),
        ("claim: the endpoint that all share is full", 3_500),
        ("claim: no lane may have more", 3_000),
        ("claim: all accounts stand still", 4_000),
        ("claim: a lane of revoked ones", 1_500),
        ("cancel: in the middle of the long lane", 20),
        ("retire: the account of the long lane", 11_000),
        ("doctor: 100 lanes", 20_000),
    ],
)
def test_no_call_looks_at_more_because_there_are_more(worlds, case, at_most):
    """Ten times as many accounts, and ten times as much in one lane: the same commands."""
    few, many = (commands_of(world, case) for world in worlds)
    assert many <= 1.05 * few + 5
    assert many <= at_most


def test_a_reply_is_bounded_by_bytes(worlds):
    """Of the largest messages and documents; a call takes at least one."""
    world, _ = worlds
    for case in (
        "take_in: 500 of the largest messages",
        "take_in: 500 of them that a dead tick had taken",
        "claim: 50 of the largest documents",
        "begin: 200 held ones with the largest documents",
    ):
        run = worst_cases.cases(world)[case]()
        world.client.config_resetstat()
        run()
        assert 1_000_000 <= world.client.info("stats")["total_net_output_bytes"] <= 5_000_000, case
