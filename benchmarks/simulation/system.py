"""The processes of one broker's system as simpy runs them: callers, the tick, and what all of them share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final

import simpy

from benchmarks.simulation.costs import Costs
from benchmarks.simulation.figures import Figures, Sample
from benchmarks.simulation.loops import Loop
from benchmarks.simulation.rules import Account, Piece, Rules
from benchmarks.simulation.world import FAIL_SHARE, MO_SHARE, Choice, poisson
from postbacks.queue.tick import LANES_PER_WAKE, MAX_WAKES, MOVED_PER_WAKE, TICK_BUDGET_S
from postbacks.settings import Settings

#: Events that come within so many seconds are one piece of their lane.
STEP_S: Final = 0.1
TICK_EVERY_S: Final = 1.0
#: The longest that Python lets one thread compute while another waits (sys.getswitchinterval).
SWITCH_S: Final = 0.005

Process = Generator[simpy.Event, Any, None]


class Cores:
    """The processors of one machine, where all processes share them."""

    def __init__(self, count: int) -> None:
        self._free_at_s = [0.0] * count

    def take(self, earliest_s: float, work_s: float) -> float:
        """When work begins that could begin then."""
        start_s = max(earliest_s, heappop(self._free_at_s))
        heappush(self._free_at_s, start_s + work_s)
        return start_s


class Server:
    """Something that does one thing at a time, in the order in which it is asked: the broker, a process's Python.

    The broker works in turns of its event loop: what comes while one lasts is done in the next, all of it with one
    write and one sync of its file.
    """

    def __init__(self, env: simpy.Environment, cores: Cores | None = None) -> None:
        self._env = env
        self._cores = cores
        self._turn_ends_s = 0.0  # the turn that is under way, or was the last
        self._free_at_s = 0.0  # with the turn after it, which gathers what comes meanwhile
        self._inflation = 1.0
        self._messages_busy = 0.0
        self._message_turn_s = 0.0
        self.busy_s = 0.0

    def charge(self, work_s: float, turn_work_s: float = 0.0, turn_wait_s: float = 0.0) -> float:
        """Have work done; returns how long until it is.

        Args:
            work_s: of its own.
            turn_work_s: once for all that is done in the same turn.
            turn_wait_s: the same, and it blocks without using a processor.
        """
        now_s = self._env.now
        start_s = self._free_at_s
        idle = now_s >= start_s
        if idle:
            self.busy_s += (now_s - start_s) * self._messages_busy
            start_s = now_s + self._messages_busy * self._message_turn_s / 2
        if now_s >= self._turn_ends_s:
            self._turn_ends_s = max(now_s, self._free_at_s)
        if self._free_at_s <= self._turn_ends_s:  # the first of its turn
            work_s += turn_work_s
        else:
            turn_wait_s = 0.0
        work_s *= self._inflation
        if self._cores is not None:
            start_s = self._cores.take(start_s, work_s)
        self._free_at_s = start_s + work_s + turn_wait_s
        if idle:
            self._turn_ends_s = self._free_at_s
        self.busy_s += work_s + turn_wait_s
        return self._free_at_s - now_s

    def take_messages(self, per_s: float, each_s: float, turn_s: float) -> None:
        """From now on so many messages come a second, besides what is charged.

        While it works on something else they are done with it, at their own cost. While it would rest they make
        turns of their own, in which those share that come during the one before: of the time ``x / (1 + x)``, where
        x is what they would take one by one.
        """
        alone = per_s * (each_s + turn_s)
        self._inflation = 1 / (1 - min(0.9, per_s * each_s))
        self._messages_busy = alone / (1 + alone)
        self._message_turn_s = each_s + turn_s

    def serve(self, work_s: float) -> simpy.Timeout:
        """Have work done and wait for it."""
        return self._env.timeout(self.charge(work_s))


@dataclass(frozen=True, slots=True)
class Load:
    """Events that come for some accounts.

    Attributes:
        accounts: for whom.
        per_s: how many a second, at a second of the simulation.
        until_s: no more after that.
    """

    accounts: Sequence[Account]
    per_s: Callable[[float], float]
    until_s: float


class System:
    """One broker, its tick and its workers.

    Args:
        costs: of each step.
        settings: those of the workers.
        accounts: everybody whose lanes there are.
        workers: worker processes, each with a processor of its own unless ``cores`` says otherwise.
        seed: of all chance.
        cores: processors that all of it shares; None where there are enough.
        warm: every lane has had its answers of 200, as on any day but the first.
        fail_share: of the POSTs to servers that are well.
        mo_share: of the events, general and MO ones.
        answer_spread: by which part the answers of one server take more or less than their mean.
        sample_every_s: seconds between two samples of what there is.
        resting_s: seconds of processor that a POST costs others on the same machine (the receiver of a check).
    """

    def __init__(
        self,
        costs: Costs,
        settings: Settings,
        accounts: Sequence[Account],
        *,
        workers: int,
        seed: int,
        cores: int | None = None,
        warm: bool = True,
        fail_share: float = FAIL_SHARE,
        mo_share: float = MO_SHARE,
        answer_spread: float = 0.3,
        resting_s: float = 0.0,
        sample_every_s: float = 1.0,
    ) -> None:
        self.env = simpy.Environment()
        self.costs = costs
        self.settings = settings
        self.accounts = accounts
        self.random = random.Random(seed)
        self.rules = Rules(settings)
        self.figures = Figures()
        self.fail_share = fail_share
        self.answer_spread = answer_spread
        self._mo_share = mo_share
        shared = Cores(cores) if cores else None
        self.broker = Server(self.env, shared)
        self.others = Server(self.env, shared)
        self.resting_s = resting_s
        self.loops = [Loop(self, Server(self.env, shared)) for _ in range(workers)]
        self._ticker = 0
        for account in accounts:
            for group in ("mo", "mt"):
                lane = account.lane(group)
                if warm:
                    lane.warm(settings.lane_max_transfers)
        self._messages_per_s = 0.0
        self.env.process(self._beat())
        self.env.process(self._watch(sample_every_s))
        for loop in self.loops:
            self.env.process(loop.run())

    def run(self, until_s: float, *, drained: bool = False) -> None:
        """Let time pass; with ``drained`` end when nothing is left, at most at that second."""
        if not drained:
            self.env.run(until_s)
            return
        while self.env.now < until_s and self.left() > 0:
            self.env.run(min(until_s, self.env.now + 0.25))

    def left(self) -> int:
        """Postbacks that are neither delivered nor dead."""
        rules = self.rules
        return rules.queued + rules.accepted - rules.delivered - rules.dead

    def call(self, moved_s: float) -> simpy.Timeout:
        """A script call that writes: the broker's time for what it moves and for itself, its disk, and the way there."""
        costs = self.costs
        own_s = max(costs.call_s - costs.turn_s, costs.publish_s)
        done_s = self.broker.charge(own_s + moved_s, costs.turn_s, costs.sync_s)
        return self.env.timeout(done_s + costs.network_s)

    # -- callers ----------------------------------------------------------------------------

    def add(self, load: Load) -> None:
        """Events come."""
        self.env.process(self._come(load))

    def add_trouble(self, account: Account, trouble: str, from_s: float, until_s: float) -> None:
        """A customer's server is down for a while."""
        account.is_down = True
        self.env.process(self._trouble(account, trouble, from_s, until_s))

    def _trouble(self, account: Account, trouble: str, from_s: float, until_s: float) -> Process:
        yield self.env.timeout(max(0.0, from_s - self.env.now))
        account.trouble = trouble
        yield self.env.timeout(until_s - self.env.now)
        account.trouble = ""

    def _come(self, load: Load) -> Process:
        choice = Choice(self.random, load.accounts)
        before_per_s = 0.0
        while self.env.now < load.until_s:
            per_s = load.per_s(self.env.now + STEP_S / 2)
            self._messages_per_s += per_s - before_per_s
            before_per_s = per_s
            self.broker.take_messages(
                self._messages_per_s, self.costs.publish_s, self.costs.turn_s + self.costs.sync_s
            )
            yield self.env.timeout(STEP_S)
            created_s = self.env.now - STEP_S / 2
            pieces: Counter[Account] = Counter(choice.of(poisson(self.random, per_s * STEP_S)))
            for account, number in pieces.items():
                mo = (
                    sum(self.random.random() < self._mo_share for _ in range(number)) if self._mo_share else 0
                )
                for group, some in (("mo", mo), ("mt", number - mo)):
                    if some:
                        self.rules.publish(account.lane(group), Piece(some, created_s, created_s, 0))
        self._messages_per_s -= before_per_s

    # -- the tick ---------------------------------------------------------------------------

    def _beat(self) -> Process:
        """Every second, unless one waits already; one that has more than fits goes on at once."""
        next_s = self.random.random() * TICK_EVERY_S
        while True:
            yield self.env.timeout(max(0.0, next_s - self.env.now))
            yield from self._tick()
            while next_s <= self.env.now:
                next_s += TICK_EVERY_S

    def _tick(self) -> Process:
        more = True
        while more:
            deadline_s = self.env.now + TICK_BUDGET_S
            worker = self.loops[self._ticker % len(self.loops)].python
            self._ticker += 1
            moved = 0
            more = False
            while True:
                taken = self.rules.take_in(self.settings.intake_batch)
                count = sum(piece.size for _, piece in taken)
                yield self.call(0.0)
                if not taken:
                    break
                yield from self._compute(worker, count * self.costs.tick_s)
                self.rules.accept(taken)
                yield self.call(count * self.costs.take_in_s)
                moved += count
                if self.env.now >= deadline_s:
                    more = True
                    break
            while True:
                released = self.rules.release(self.env.now, self.settings.release_batch)
                yield self.call(released * self.costs.release_s)
                moved += released
                if released < self.settings.release_batch:
                    break
                if self.env.now >= deadline_s:
                    more = True
                    break
            self._wake(moved + self.rules.claimed)

    def _compute(self, server: Server, work_s: float) -> Process:
        while work_s > 0:
            yield server.serve(min(work_s, SWITCH_S))
            work_s -= SWITCH_S

    def awake(self) -> int:
        """Loops that claim."""
        return sum(loop.asleep is None for loop in self.loops)

    def _wake(self, moved: int) -> None:
        """As many loops as there is work for; a wake-up that finds its process at work is lost."""
        soon = not self.awake() and self.rules.due_within(self.env.now, TICK_EVERY_S)
        lanes = self.rules.trusted.size + self.rules.suspect.size + soon
        more = max(lanes // LANES_PER_WAKE, moved // MOVED_PER_WAKE)
        wakes = min(MAX_WAKES, 1 + more) if lanes or more else 0
        asleep = [loop for loop in self.loops if loop.asleep is not None]
        for loop in self.random.sample(asleep, min(wakes, len(asleep))):
            loop.wake()

    # -- watching ---------------------------------------------------------------------------

    def _watch(self, every_s: float) -> Process:
        busy_s = 0.0
        while True:
            yield self.env.timeout(every_s)
            rules = self.rules
            busy = min(1.0, (self.broker.busy_s - busy_s) / every_s)
            busy_s = self.broker.busy_s
            self.figures.samples.append(
                Sample(
                    self.env.now, rules.queued, rules.waiting, rules.claimed, rules.parked,
                    sum(loop.open for loop in self.loops), rules.trusted.size + rules.suspect.size,
                    self.awake(), busy, rules.dead,
                )
            )  # fmt: skip
