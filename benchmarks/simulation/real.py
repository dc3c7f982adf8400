"""The real system in a check: brokers, workers and a receiver as processes, and what they cost."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import fill
from benchmarks.machine import commands, machine_cpu_s
from benchmarks.receiving import Receiver
from benchmarks.scenario import environment, until
from benchmarks.simulation import calibrate
from benchmarks.simulation.costs import Costs
from benchmarks.simulation.plan import (
    ACCOUNTS,
    DELAY_MS,
    DRAIN_WITHIN_S,
    MARKS_S,
    RESENDS,
    SETTINGS,
    STEP_S,
    STORM,
    STORM_AT_S,
    WORKERS,
    Script,
    Seen,
    kind,
)
from benchmarks.systems import Ours
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker


@dataclass(frozen=True, slots=True)
class Measured:
    """A real run.

    Attributes:
        seen: what both runs are compared by.
        costs: of the steps.
        spent: CPU seconds and counts; ``receiver_s`` of the receiver a POST, ``others_cores`` that all else had.
    """

    seen: Seen
    costs: Costs
    spent: dict[str, float]


def measure(folder: Path, plan: Script, say: Callable[[str], None]) -> Measured:
    """Run the plan on a real broker, worker processes and a receiver."""
    names = [f"a{number}" for number in range(ACCOUNTS)]
    warm = [number for number in range(ACCOUNTS) if kind(number) in {"", "delay"}]
    highest = plan.count + 20 * len(warm)
    with (
        EmbeddedBroker() as broker,
        Receiver(highest, delay_ms=DELAY_MS) as receiver,
        socket.socket() as refusing,
        environment(broker.url, **SETTINGS) as env,
    ):
        refusing.bind(("127.0.0.1", 0))  # and never listens: connections are refused at once
        port = refusing.getsockname()[1]

        def url(number: int) -> str:
            if kind(number) == "refuse":
                return f"http://127.1.0.{number + 1}:{port}/"
            return receiver.url(number, kind(number))

        fill.set_accounts(names, url)
        say("costs of the steps, on the idle broker")
        costs = calibrate.measure(broker, 0.0, say)
        client = broker.client()
        client.flushdb()
        fill.set_accounts(names, url)
        messages = fill.Messages(client)
        with Ours(broker, env, folder, workers=WORKERS) as system:
            first = plan.count
            messages.push(range(first, highest), lambda number: names[warm[number % len(warm)]])
            receiver.wait_for(highest - first, 60)
            until(lambda: client.zcard(keys.DONE) == highest - first, 20, "the notes")
            say(f"{plan.count:,} events, {STORM:,} of them at once")
            receiver_s, machine_s, began_s = receiver.cpu_s(), machine_cpu_s(), time.monotonic()
            moments: list[_Moment] = []
            sent_at_s, watched = _play(
                plan, messages, names, client, lambda: moments.append(_moment(system, client))
            )
            receiver_s = receiver.cpu_s() - receiver_s
            machine_s, elapsed_s = machine_cpu_s() - machine_s, time.monotonic() - began_s
            arrivals = receiver.arrivals()
            system.abandon()
    seen = _seen(plan, arrivals, sent_at_s, watched)
    begin, storm, after, end = moments
    whole = end.since(begin)
    # this process, the beat, and whatever else ran
    others = max(0.0, machine_s - receiver_s - whole.worker_s - whole.broker_s) / elapsed_s
    spent = whole.shown() | {"others_cores": others, "receiver_s": receiver_s / whole.posts}
    say(", ".join(f"{name} {value:,.2f}" for name, value in spent.items()))
    costs = _fitted(costs, after.since(storm), end.since(after).plus(storm.since(begin)))
    return Measured(seen, costs, spent)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What has been done so far.

    Attributes:
        worker_s, beat_s, broker_s: CPU seconds.
        calls: of scripts.
        posts: noted.
        failed: of them.
        taken: messages taken in.
    """

    worker_s: float
    beat_s: float
    broker_s: float
    calls: int
    posts: int
    failed: int
    taken: int

    def shown(self) -> dict[str, float]:
        return asdict(self)

    def since(self, before: _Moment) -> _Moment:
        return _Moment(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    def plus(self, other: _Moment) -> _Moment:
        return _Moment(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))


def _moment(system: Ours, client: Any) -> _Moment:
    totals = {name.decode(): int(value) for name, value in client.hgetall(keys.TOTALS).items()}
    cpu = system.cpu()
    attempts = {name: value for name, value in totals.items() if name.startswith("attempt:")}
    return _Moment(
        cpu["worker"], cpu["beat"], cpu["broker"], commands(client)["evalsha"][0], totals.get("posts", 0),
        sum(attempts.values()) - attempts.get("attempt:delivered", 0),
        sum(int(value) for value in client.hvals(keys.BACKLOG)) + client.zcard(keys.DONE) + client.zcard(keys.DEAD),
    )  # fmt: skip


def _fitted(costs: Costs, storm: _Moment, steady: _Moment) -> Costs:
    """The worker's cost a POST and a call, from a time with full batches and one with small ones.

    A turn of the loop costs more than asking the broker does: it polls, looks at its clock, wakes up. That is
    the same for all that moves in the turn, so it goes to the call.
    """

    def spent(one: _Moment) -> float:
        return one.worker_s - one.taken * costs.tick_s - one.failed * costs.decide_s

    determinant = storm.posts * steady.calls - steady.posts * storm.calls
    send_s = (spent(storm) * steady.calls - spent(steady) * storm.calls) / determinant
    asking_s = (storm.posts * spent(steady) - steady.posts * spent(storm)) / determinant
    return replace(costs, send_s=max(send_s, 1e-5), asking_s=max(asking_s, 1e-5))


def _play(
    plan: Script, messages: Any, names: list[str], client: Any, mark: Callable[[], None]
) -> tuple[list[float], list[tuple[int, int]]]:
    """Put the script's events into Celery's queue in time; returns when each came, and what waited meanwhile."""
    sent_at_s: list[float] = []
    watched: list[tuple[int, int]] = []
    began_s = time.monotonic() + 0.2
    for at_s, accounts in plan.steps:
        if at_s in MARKS_S:
            mark()
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        first = len(sent_at_s)
        now_s = time.monotonic()
        messages.push(
            range(first, first + len(accounts)),
            lambda number, first=first, some=accounts: names[some[number - first]],
        )
        sent_at_s += [(now_s + time.monotonic()) / 2] * len(accounts)
        if round(at_s / STEP_S) % 4 == 0:
            watched.append(_waiting(client, names))
    ends_s = time.monotonic() + DRAIN_WITHIN_S
    while time.monotonic() < ends_s:
        watched.append(_waiting(client, names))
        if not any(watched[-1]) and not sum(client.hlen(key) for key in client.scan_iter(keys.CLAIMS + "*")):
            break
        time.sleep(0.2)
    mark()
    return sent_at_s, watched


def _waiting(client: Any, names: list[str]) -> tuple[int, int]:
    """What waits in Celery's queue and in lanes, and what is parked."""
    pipe = client.pipeline(transaction=False)
    pipe.llen(keys.QUEUE)
    pipe.zcard(keys.PARKED)
    for name in names:
        pipe.llen(keys.lane(f"{name}/mt"))
    queued, parked, *lanes = pipe.execute()
    return queued + sum(lanes), parked


def _seen(
    plan: Script, arrivals: list[tuple[int, float, float]], sent_at_s: list[float], watched: list[tuple[int, int]]
) -> Seen:  # fmt: skip
    owners = [number for _, accounts in plan.steps for number in accounts]
    well = [number for number, owner in enumerate(owners) if kind(owner) in {"", "delay"}]
    missing = [number for number in well if not arrivals[number][0]]
    assert not missing, f"{len(missing)} of the healthy accounts' postbacks never came"
    first = sum(len(accounts) for at_s, accounts in plan.steps if at_s < STORM_AT_S - STEP_S / 2)
    storm = range(first, first + STORM)
    storm_s = sent_at_s[first]
    failing = [
        arrivals[number][2] - arrivals[number][1]
        for number, owner in enumerate(owners)
        if kind(owner) == "500" and arrivals[number][0] == RESENDS + 1
    ]
    refused = sum(kind(owner) == "refuse" for owner in owners) * (RESENDS + 1)
    came = sum(arrivals[number][0] for number in range(plan.count))
    soon = sum(
        arrivals[number][0] > 0 and storm_s <= arrivals[number][1] < storm_s + 4
        for number in range(plan.count)
    )
    return Seen(
        late_s=[arrivals[number][1] - sent_at_s[number] for number in well],
        storm_drained_s=max(arrivals[number][1] for number in well if number in storm) - storm_s,
        longest=max(waiting for waiting, _ in watched),
        most_parked=max(parked for _, parked in watched),
        posts_per_s=soon / 4,
        resent_s=failing,
        posts=came + refused,
    )
