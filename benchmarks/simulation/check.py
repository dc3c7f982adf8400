"""The same small storm twice: on the real system, and simulated with the costs that the real run had."""

from __future__ import annotations

import os
import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from benchmarks import fill
from benchmarks.machine import commands, percentile
from benchmarks.receiving import Receiver
from benchmarks.scenario import environment, until
from benchmarks.simulation import calibrate
from benchmarks.simulation.costs import Costs
from benchmarks.simulation.rules import Account, Piece
from benchmarks.simulation.system import Process, System
from benchmarks.systems import Ours
from postbacks import keys
from postbacks.local import EmbeddedBroker
from postbacks.settings import load

ACCOUNTS: Final = 100
#: What every tenth account's server does, in turn.
DOWN_EVERY: Final = 10
KINDS: Final = ("hang", "refuse", "500")
#: Every other account's server answers after so many milliseconds, so that ten transfers a lane are a limit.
DELAY_MS: Final = 40
STEADY_PER_S: Final = 300
STEADY_S: Final = 24.0
STORM_AT_S: Final = 4.0
STORM: Final = 15_000
#: When CPU is read: at the begin, before the storm, and when most of it is over.
MARKS_S: Final = (0.0, STORM_AT_S, STORM_AT_S + 4)
COUNTDOWN_S: Final = 6
RESENDS: Final = 1
TIMEOUT_S: Final = 2
STEP_S: Final = 0.05
DRAIN_WITHIN_S: Final = 60.0
WORKERS: Final = 2
ROUNDS: Final = 2
#: Seconds of a server on loopback that answers at once.
AT_ONCE_S: Final = 0.0005
#: When the simulation's events begin; it is at rest by then.
_BEGIN_S: Final = 2.0
_STORM_S: Final = _BEGIN_S + STORM_AT_S

SETTINGS: Final = {
    "POSTBACKS_RETRY_COUNTDOWN_S": str(COUNTDOWN_S),
    "POSTBACKS_MAX_RESENDS": str(RESENDS),
    "POSTBACKS_ANSWER_TIMEOUT_S": str(TIMEOUT_S),
    "POSTBACKS_CONNECT_TIMEOUT_S": str(TIMEOUT_S),
}


@dataclass(frozen=True, slots=True)
class Script:
    """What comes when: the same for both.

    Attributes:
        steps: seconds since the begin, and the accounts of the events that come then, in order.
    """

    steps: list[tuple[float, list[int]]]

    @property
    def count(self) -> int:
        """Events in all."""
        return sum(len(accounts) for _, accounts in self.steps)


def script(seed: int) -> Script:
    """A steady load, and a storm all at once."""
    chance = random.Random(seed)
    sums = list(accumulate(share(number) for number in range(ACCOUNTS)))
    every = range(ACCOUNTS)
    steps = []
    for step in range(int(STEADY_S / STEP_S)):
        at_s = step * STEP_S
        count = round(STEADY_PER_S * STEP_S)
        if abs(at_s - STORM_AT_S) < STEP_S / 2:
            count += STORM
        steps.append((at_s, chance.choices(every, cum_weights=sums, k=count)))
    return Script(steps)


def share(number: int) -> float:
    """Of an account, by Zipf's law."""
    return 1 / (number + 1) / sum(1 / rank for rank in range(1, ACCOUNTS + 1))


def kind(number: int) -> str:
    """What an account's server does: '' or 'delay' if it is well."""
    if number % DOWN_EVERY == DOWN_EVERY // 2:
        return KINDS[number // DOWN_EVERY % len(KINDS)]
    return "delay" if number % 2 else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What both runs are compared by.

    Attributes:
        late_s: of the postbacks to servers that are well, from the event to the POST.
        storm_drained_s: until the last of them that the storm brought had left.
        longest: postbacks that waited, in Celery's queue and in lanes.
        most_parked: postbacks parked.
        posts_per_s: POSTs a second in the four seconds after the storm.
        resent_s: of failed ones, from the first POST to the second.
        posts: POSTs in all.
    """

    late_s: list[float]
    storm_drained_s: float
    longest: int
    most_parked: int
    posts_per_s: float
    resent_s: list[float]
    posts: int

    def shown(self) -> dict[str, float]:
        """The figures by their names."""
        return {
            "lateness of the healthy, p50 (s)": percentile(self.late_s, 0.5),
            "lateness of the healthy, p99 (s)": percentile(self.late_s, 0.99),
            "the storm's last healthy POST (s after it)": self.storm_drained_s,
            "longest queue (postbacks)": self.longest,
            "POSTs/s in the 4 s after the storm": self.posts_per_s,
            "most parked": self.most_parked,
            "from a failure to its resend, p50 (s)": percentile(self.resent_s, 0.5),
            "from a failure to its resend, p99 (s)": percentile(self.resent_s, 0.99),
            "POSTs in all": self.posts,
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """Both, side by side, and the costs that the real run had.

    Attributes:
        real, simulated: figures by name.
        costs: measured.
        machine: CPU seconds and counts of the real run.
        rounds: the real figures, run by run.
    """

    real: dict[str, float]
    simulated: dict[str, float]
    costs: Costs
    machine: dict[str, float]
    rounds: list[dict[str, float]]

    def errors(self) -> dict[str, float]:
        """By how much the simulation is off, as a part of the real figure."""
        return {
            name: self.simulated[name] / value - 1 if value else 0.0 for name, value in self.real.items()
        }


def run(folder: Path, seed: int, say: Callable[[str], None]) -> Checked:
    """Run the real system for half a minute and simulate the same, so many times; the means of all."""
    real: list[dict[str, float]] = []
    model: list[dict[str, float]] = []
    measured: list[dict[str, float]] = []
    spent: list[dict[str, float]] = []
    for turn in range(ROUNDS):
        plan = script(seed + turn)
        seen, costs, cpu, receiver_s = _real(folder, plan, say)
        real.append(seen.shown())
        model.append(simulated(plan, costs, seed + turn, receiver_s).shown())
        measured.append(costs.to_json())
        spent.append(cpu)
    return Checked(_mean(real), _mean(model), Costs(**_mean(measured)), _mean(spent), real)


def _mean(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(one[name] for one in rounds) for name in rounds[0]}


# -- the real run ---------------------------------------------------------------------------


def _real(folder: Path, plan: Script, say: Callable[[str], None]) -> tuple[Seen, Costs, dict[str, float], float]:
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
            receiver_s = receiver.cpu_s()
            moments: list[_Moment] = []
            sent_at_s, watched = _play(
                plan, messages, names, client, lambda: moments.append(_moment(system, client))
            )
            receiver_s = receiver.cpu_s() - receiver_s
            arrivals = receiver.arrivals()
            system.abandon()
    seen = _seen(plan, arrivals, sent_at_s, watched)
    begin, storm, after, end = moments
    whole = end.since(begin)
    say(", ".join(f"{name} {value:,.2f}" for name, value in whole.shown().items()))
    costs = _fitted(costs, after.since(storm), end.since(after).plus(storm.since(begin)))
    return seen, costs, whole.shown(), receiver_s / whole.posts


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
        sum(int(value) for value in client.hvals(keys.SEQUENCE)),
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


def _play(plan: Script, messages: Any, names: list[str], client: Any, mark: Callable[[], None]) -> tuple[list[float], list[tuple[int, int]]]:
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
            range(first, first + len(accounts)), lambda number, first=first, some=accounts: names[some[number - first]]
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


# -- the same simulated ---------------------------------------------------------------------


def simulated(plan: Script, costs: Costs, seed: int, receiver_s: float) -> Seen:
    """The script in the simulation, on as many cores as this machine has."""
    accounts = [
        Account(number, share(number), DELAY_MS / 1000 if kind(number) == "delay" else AT_ONCE_S)
        for number in range(ACCOUNTS)
    ]
    with environment("redis://127.0.0.1:1/0", **SETTINGS):
        settings = load()
    system = System(
        costs, settings, accounts, workers=WORKERS, seed=seed, cores=len(os.sched_getaffinity(0)), warm=False,
        fail_share=0.0, mo_share=0.0, answer_spread=0.0, resting_s=receiver_s, sample_every_s=4 * STEP_S,
    )  # fmt: skip
    for account in accounts:
        if kind(account.number) in {"", "delay"}:
            account.lane("mt").warm(settings.lane_max_transfers)
        else:
            account.trouble, account.is_down = kind(account.number), True
    watch = _Watch()
    system.figures.watch = watch.left
    system.env.process(_publish(system, plan, accounts))
    system.run(_BEGIN_S + STEADY_S)
    system.run(STEADY_S + DRAIN_WITHIN_S, drained=True)
    assert system.rules.lost() == 0
    samples = system.figures.samples
    well = {account.number for account in accounts if not account.is_down}
    return Seen(
        late_s=[late_s for number, due_s, at_s, again in watch.all if number in well and not again for late_s in [at_s - due_s]],
        storm_drained_s=max(at_s - due_s for number, due_s, at_s, again in watch.all if number in well and abs(due_s - _STORM_S) < STEP_S / 2),
        longest=max(sample.queued + sample.waiting for sample in samples),
        most_parked=max(sample.parked for sample in samples),
        posts_per_s=sum(_STORM_S <= at_s < _STORM_S + 4 and not again for _, _, at_s, again in watch.all) / 4,
        resent_s=[late_s + COUNTDOWN_S for late_s in watch.resent(accounts)],
        posts=system.figures.posts,
    )


class _Watch:
    """Every POST of a small simulation."""

    def __init__(self) -> None:
        self.all: list[tuple[int, float, float, bool]] = []

    def left(self, account: int, due_s: float, now_s: float, count: int, again: bool) -> None:
        self.all.extend([(account, due_s, now_s, again)] * count)

    def resent(self, accounts: list[Account]) -> Iterator[float]:
        """How much later than their countdown's end the resends of servers that answer 500 left."""
        for number, due_s, at_s, again in self.all:
            if again and accounts[number].trouble == "500":
                yield at_s - due_s


def _publish(system: System, plan: Script, accounts: list[Account]) -> Process:
    for at_s, numbers in plan.steps:
        yield system.env.timeout(_BEGIN_S + at_s - system.env.now)
        for number in numbers:
            system.rules.publish(accounts[number].lane("mt"), Piece(1, _BEGIN_S + at_s, _BEGIN_S + at_s, 0))
        system.broker.charge(len(numbers) * system.costs.publish_many_s, system.costs.sync_s)


