"""A million waiting: what a claim and a take-in cost beside the same with a thousand waiting."""

from __future__ import annotations

import time
import uuid

from benchmarks import fill
from benchmarks.machine import exact_cpu_s
from benchmarks.scenario import Bench, Row, environment
from postbacks import accounts, keys
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.ledger.record import Attempt
from postbacks.queue.intake import Intake
from postbacks.queue.rows import AttemptRow
from postbacks.queue.scripts import Scripts
from postbacks.settings import load

ACCOUNTS = 100
CLAIMS, PER_CLAIM = 20, 50
#: Moves are measured in this many turns, few and many waiting interleaved.
TURNS = 7


class _World:
    """A broker with so many waiting, and the moves that a worker and a tick make on it."""

    def __init__(self, broker: EmbeddedBroker, waiting: int) -> None:
        self.client = broker.client(timeout_s=60)
        self.pid = broker.pid
        self.url = broker.url
        self.names = [f"a{number}" for number in range(ACCOUNTS)]
        with environment(broker.url):
            fill.set_accounts(self.names, lambda number: f"http://127.1.0.{number + 1}:8080/")
            self.messages = fill.Messages(self.client)
            self.client.config_set("appendfsync", "no")  # for the filling alone
            fill.accept(self.client, range(waiting), self._account)
            self.client.config_set("appendfsync", "always")
        self.scripts = Scripts(self.client)
        for name in self.names:  # lanes that have answered 200: ten transfers each
            self.client.hset(
                keys.LANE_STATE + f"{name}/mt",
                mapping={"limit": 10, "suspect": 0, "failing": 0, "claimed": 0},
            )
        self.client.delete(keys.READY_SUSPECT)
        self.client.zadd(keys.READY_TRUSTED, {f"{name}/mt": 0 for name in self.names})

    def _account(self, number: int) -> tuple[str, str]:
        name = number % ACCOUNTS
        return self.names[name], f"http://127.1.0.{name + 1}:8080/"

    def claim(self) -> float:
        """Microseconds of the broker a postback for claiming and noting; take_in puts as many back."""
        token, before_s = uuid.uuid4().hex, exact_cpu_s(self.pid)
        count = 0
        for _ in range(CLAIMS):
            _, begun, *_ = self.scripts.claim(
                token,
                30_000,
                at_most=PER_CLAIM,
                suspects_max=0,
                free=2000,
                held_max=0,
                held_per_lane=1,
                slow_lanes=(),
            )
            rows = [
                AttemptRow(row.id, row.lane, "delivered", 1, Attempt(1, 0, "ok", 200).to_json(), 0, "ok", "")
                for row in begun
            ]
            self.scripts.commit(token, 30_000, 10, 86_400, rows)
            count += len(begun)
        assert count == CLAIMS * PER_CLAIM
        return 1e6 * (exact_cpu_s(self.pid) - before_s) / count

    def take_in(self) -> tuple[float, float]:
        """Microseconds of the broker and of the tick a postback for taking in as many as were claimed."""
        count = CLAIMS * PER_CLAIM
        with environment(self.url):
            self.messages.push(range(count), lambda number: self.names[number % ACCOUNTS])
            before_s, began_s = exact_cpu_s(self.pid), time.process_time()
            taken, more = Intake(self.scripts, accounts.store(), load()).run(
                uuid.uuid4().hex, time.monotonic() + 60
            )
            tick_us = 1e6 * (time.process_time() - began_s) / count
        assert (taken, more) == (count, False)
        return 1e6 * (exact_cpu_s(self.pid) - before_s) / count, tick_us


def run(bench: Bench) -> list[Row]:
    """Two brokers, one with little and one with much; the same moves on both in turn."""
    few, many = 1_000, 20_000 if bench.quick else 1_000_000
    least: dict[str, list[float]] = {name: [float("inf")] * 2 for name in ("claim", "take_in", "tick")}
    config = {"auto-aof-rewrite-percentage": "0"}  # else a rewrite may fall into one of the moves
    with EmbeddedBroker(config=config) as small, EmbeddedBroker(config=config) as big:
        began_s = time.monotonic()
        worlds = [_World(small, few), _World(big, many)]
        bench.say(f"{many:,} put into their lanes in {time.monotonic() - began_s:.0f} s")
        memory = worlds[1].client.info("memory")["used_memory"]
        for turn in range(3 if bench.quick else TURNS + 1):
            for which, world in enumerate(worlds):
                costs = (world.claim(), *world.take_in())
                if turn:  # the first loads the scripts
                    for name, cost in zip(least, costs, strict=True):
                        least[name][which] = min(least[name][which], cost)
    ratios = {name: with_many / with_few for name, (with_few, with_many) in least.items()}
    costs_us = {name: with_many for name, (_, with_many) in least.items()}
    worst = max(ratios["claim"], ratios["take_in"])
    bench.say(f"ratios {ratios}, microseconds {costs_us}")
    return [
        Row(
            f"{many:,} waiting: claim (with its note) and take-in, cost a postback in the broker",
            f"at most 1.2 times that at {few:,}",
            f"claim {ratios['claim']:.2f} times ({costs_us['claim']:.0f} µs), take-in {ratios['take_in']:.2f} times "
            f"({costs_us['take_in']:.0f} µs; the tick's own CPU {costs_us['tick']:.0f} µs, {ratios['tick']:.2f} times)",
            worst <= 1.2,
            {"ratios": ratios, "microseconds": costs_us, "broker_bytes_each": memory / many},
        )
    ]
