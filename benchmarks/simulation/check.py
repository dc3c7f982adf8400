"""The same small storm twice: on the real system, and simulated with the costs that the real run had."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.scenario import environment
from benchmarks.simulation.costs import Costs
from benchmarks.simulation.plan import (
    ACCOUNTS,
    AT_ONCE_S,
    BEGIN_S,
    COUNTDOWN_S,
    DELAY_MS,
    DRAIN_WITHIN_S,
    ROUNDS,
    SETTINGS,
    SIMULATED_STORM_S,
    STEADY_S,
    STEP_S,
    WORKERS,
    Script,
    Seen,
    kind,
    script,
    share,
)
from benchmarks.simulation.real import measure
from benchmarks.simulation.rules import Account, Piece
from benchmarks.simulation.system import Process, System
from postbacks.settings import load

#: A process has its core for about so long before another one's turn comes.
OTHERS_EVERY_S: Final = 0.004


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
        return {name: self.simulated[name] / value - 1 if value else 0.0 for name, value in self.real.items()}


def run(folder: Path, seed: int, say: Callable[[str], None]) -> Checked:
    """Run the real system for half a minute, so many times, then simulate the same; the means of all."""
    plans = [script(seed + turn) for turn in range(ROUNDS)]
    measured = [measure(folder, plan, say) for plan in plans]
    costs = Costs(**_mean([one.costs.to_json() for one in measured]))
    spent = _mean([one.spent for one in measured])
    model = [simulated(plan, costs, seed + turn, spent).shown() for turn, plan in enumerate(plans)]
    real = [one.seen.shown() for one in measured]
    return Checked(_mean(real), _mean(model), costs, spent, real)


def _mean(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(one[name] for one in rounds) for name in rounds[0]}


def simulated(plan: Script, costs: Costs, seed: int, spent: dict[str, float]) -> Seen:
    """The script in the simulation, on as many cores as this machine has."""
    accounts = [
        Account(number, share(number), DELAY_MS / 1000 if kind(number) == "delay" else AT_ONCE_S)
        for number in range(ACCOUNTS)
    ]
    with environment("redis://127.0.0.1:1/0", **SETTINGS):
        settings = load()
    system = System(
        costs, settings, accounts, workers=WORKERS, seed=seed, cores=len(os.sched_getaffinity(0)), warm=False,
        fail_share=0.0, mo_share=0.0, answer_spread=0.0, resting_s=spent["receiver_s"], sample_every_s=4 * STEP_S,
    )  # fmt: skip
    for account in accounts:
        if kind(account.number) in {"", "delay"}:
            account.lane("mt").warm(settings.lane_max_transfers)
        else:
            account.trouble, account.is_down = kind(account.number), True
    system.env.process(_others(system, spent["others_cores"] / 2))
    watch = _Watch()
    system.figures.watch = watch.left
    system.env.process(_publish(system, plan, accounts))
    system.run(BEGIN_S + STEADY_S)
    system.run(BEGIN_S + STEADY_S + DRAIN_WITHIN_S, drained=True)
    assert system.rules.lost() == 0
    samples = system.figures.samples
    well = {account.number for account in accounts if not account.is_down}
    return Seen(
        late_s=[
            late_s
            for number, due_s, at_s, again in watch.all
            if number in well and not again
            for late_s in [at_s - due_s]
        ],
        storm_drained_s=max(
            at_s - due_s
            for number, due_s, at_s, again in watch.all
            if number in well and abs(due_s - SIMULATED_STORM_S) < STEP_S / 2
        ),
        longest=max(sample.queued + sample.waiting for sample in samples),
        most_parked=max(sample.parked for sample in samples),
        posts_per_s=sum(
            SIMULATED_STORM_S <= at_s < SIMULATED_STORM_S + 4 and not again for _, _, at_s, again in watch.all
        )
        / 4,
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


def _others(system: System, cores: float) -> Process:
    """What else ran on the machine, as far as it was in the way: half of it.

    The other half had a core that was idle anyway. Fitted to two runs, in which others had 0.7 and 1.7 of two cores.
    """
    while True:
        system.others.charge(cores * OTHERS_EVERY_S)
        yield system.env.timeout(OTHERS_EVERY_S)


def _publish(system: System, plan: Script, accounts: list[Account]) -> Process:
    for at_s, numbers in plan.steps:
        yield system.env.timeout(BEGIN_S + at_s - system.env.now)
        for number in numbers:
            system.rules.publish(accounts[number].lane("mt"), Piece(1, BEGIN_S + at_s, BEGIN_S + at_s, 0))
        system.broker.charge(len(numbers) * system.costs.publish_many_s, 0.0, system.costs.sync_s)
