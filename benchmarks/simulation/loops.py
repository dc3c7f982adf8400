"""One worker process's delivering loop: ``delivery/loop.py`` and ``notes.py`` with counts and costs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import simpy

from benchmarks.simulation.rules import Lane, Note, Piece
from postbacks.delivery.loop import HELD_MAX
from postbacks.delivery.open_transfers import divide_half
from postbacks.delivery.results import COMMIT_BATCH, COMMIT_WITHIN_S
from postbacks.delivery.session import CLAIM_BATCH, LINGER_FOR_DUE_MS, POLL_EVERY_S
from postbacks.worker.process import LINGER_S

if TYPE_CHECKING:
    from benchmarks.simulation.system import Server, System

Process = Generator[simpy.Event, Any, None]

#: Of ``claim.lua``: parked ones that a claim releases at most, and loops that stay for what is due soon.
DUE_MAX: Final = 1000
DUE_LOOKERS: Final = 2
#: The part of a POST's cost that the worker has before it leaves; the rest when the answer is there.
BEFORE: Final = 0.5
#: Seconds that a server which refuses takes for it: a packet there and back.
REFUSING_S: Final = 0.03


class Transfer(NamedTuple):
    """POSTs of one lane that began together and end together.

    Attributes:
        ends_s: when their answers are there.
        order: tells apart those that end at the same time.
        lane: whose they are.
        pieces: what was sent.
        size: how many.
        began_s: when.
        outcome: ok, failed or connect_timeout.
    """

    ends_s: float
    order: int
    lane: Lane
    pieces: list[Piece]
    size: int
    began_s: float
    outcome: str


class Claimed(NamedTuple):
    """What a claim has brought.

    Attributes:
        begun: lanes and what of them is to be sent now.
        held: lanes and what of them is held behind a probe.
        size: how many are to be sent.
        at_s: when.
    """

    begun: list[tuple[Lane, list[Piece]]]
    held: list[tuple[Lane, list[Piece]]]
    size: int
    at_s: float


class Loop:
    """Claims, sends and notes, until it finds nothing; then it sleeps until a tick wakes it."""

    def __init__(self, system: System, python: Server) -> None:
        self._system = system
        self._env = system.env
        self._rules = system.rules
        self._costs = system.costs
        self._settings = system.settings
        self.python = python
        self.asleep: simpy.Event | None = None
        self.open = 0
        self._order = 0
        self._ends: list[Transfer] = []
        self._oldest: deque[Transfer] = deque()
        self._ended_orders: set[int] = set()
        self._open_of: dict[Lane, int] = {}
        self._suspects: set[Lane] = set()
        self._suspects_open = 0
        self._new: set[Lane] = set()  # of those that have a POST open
        self._reported_slow: set[Lane] = set()
        self._ended: deque[tuple[Lane, Piece, str, float]] = deque()
        self._ended_count = 0
        self._held: dict[Lane, deque[tuple[Piece, float]]] = {}
        self._held_count = 0
        self._held_limit: dict[Lane, int] = {}

    def wake(self) -> None:
        """A tick's ``deliver``."""
        if self.asleep is not None and not self.asleep.triggered:
            self.asleep.succeed()

    def open_of(self, lane: Lane) -> int:
        """POSTs of a lane that it has open."""
        return self._open_of.get(lane, 0)

    def run(self) -> Process:
        """The loop, slice after slice; between two it only hands over, which is left out."""
        env = self._env
        next_claim_s, found_s, oldest_note_s = 0.0, 0.0, math.inf
        found = False
        answer: simpy.Process | None = None
        while True:
            if answer is not None and answer.triggered:
                claimed: Claimed | None = answer.value
                answer = None
                if claimed is not None:
                    due_soon = self._rules.due_within(env.now, LINGER_FOR_DUE_MS / 1000)
                    found = claimed.size > 0 or (due_soon and self._system.awake() <= DUE_LOOKERS)
                    found_s = env.now if found else found_s
                    next_claim_s = env.now if claimed.size == CLAIM_BATCH else env.now + POLL_EVERY_S
                    yield from self._begin_answered(claimed)
            if self._ended and oldest_note_s == math.inf:
                oldest_note_s = env.now
            if answer is None:
                notes_due = self._ended_count > 0 and (
                    self._ended_count >= min(COMMIT_BATCH, max(1, self.open))
                    or env.now - oldest_note_s >= COMMIT_WITHIN_S - 1e-9
                )
                claims = (notes_due or env.now >= next_claim_s) and self.open < self._settings.max_transfers
                if notes_due or claims:
                    answer = env.process((yield from self._ask(claims=claims)))
                    oldest_note_s = env.now if self._ended else math.inf
                elif env.now >= next_claim_s:
                    next_claim_s, found, found_s = env.now + POLL_EVERY_S, True, env.now
            if self._held:
                yield from self._begin_held()
            idle = answer is None and not (self.open or self._ended or self._held or found)
            if idle and env.now - found_s >= LINGER_S:
                yield from self._sleep()
                found, found_s, next_claim_s = True, env.now, 0.0
                continue
            yield from self._wait(answer, next_claim_s, oldest_note_s)
            self._collect()

    def _wait(self, answer: simpy.Process | None, next_claim_s: float, oldest_note_s: float) -> Process:
        """Until the broker's answer, a receiver's, or something that is due while the broker is not asked."""
        env = self._env
        wait_until_s = math.inf
        if answer is None:
            wait_until_s = next_claim_s
            if self._ended:
                more = self._ended_count >= COMMIT_BATCH
                wait_until_s = env.now if more else min(wait_until_s, oldest_note_s + COMMIT_WITHIN_S)
        if self._ends:
            wait_until_s = min(wait_until_s, self._ends[0].ends_s)
        if wait_until_s <= env.now or (answer is not None and answer.triggered):
            return
        if answer is None:
            yield env.timeout(wait_until_s - env.now)
        elif wait_until_s == math.inf:
            yield answer
        else:
            yield answer | env.timeout(wait_until_s - env.now)

    def _sleep(self) -> Process:
        self.asleep = self._env.event()
        yield self.asleep
        self.asleep = None

    # -- claiming ---------------------------------------------------------------------------

    def _ask(
        self, *, claims: bool
    ) -> Generator[simpy.Event, Any, Generator[simpy.Event, Any, Claimed | None]]:
        """Prepare notes and a claim; returns the process that has the broker run both, the one after the other."""
        costs = self._costs
        notes, each_s, own_s = self._decided()
        yield self.python.serve(own_s + costs.asking_s)
        if claims:
            self._report_slow()
        return self._asked(notes, each_s, claims=claims)

    def _asked(
        self, notes: list[Note], each_s: float, *, claims: bool
    ) -> Generator[simpy.Event, Any, Claimed | None]:
        claimed = None
        moved_s = each_s * 0.5
        self._rules.commit(self._env.now, notes)
        if claims:
            free = self._settings.max_transfers - self.open
            room = divide_half(self._settings.max_transfers, self._suspects_open, len(self._new))
            released = self._rules.release(self._env.now, DUE_MAX)
            moved_s += released * self._costs.release_s
            claimed = Claimed(
                *self._rules.claim(
                    min(free, CLAIM_BATCH),
                    room.suspects,
                    free,
                    HELD_MAX - self._held_count,
                    room[1:],
                ),
                self._env.now,
            )
            moved = claimed.size + sum(piece.size for _, pieces in claimed.held for piece in pieces)
            moved_s += moved * self._costs.claim_s * 0.5 + (
                self._costs.call_s - self._costs.turn_s if notes else 0.0
            )
        yield self._system.call(moved_s)
        if notes and not self._held:
            self._held_limit.clear()
        return claimed

    def _begin_answered(self, claimed: Claimed) -> Process:
        for lane, pieces in claimed.held:
            queue = self._held.setdefault(lane, deque())
            for piece in pieces:
                queue.append((piece, claimed.at_s))
                self._held_count += piece.size
            self._held_limit.setdefault(lane, 1)
        for lane, _ in claimed.begun:
            self._suspect(lane, suspect=lane.suspect and not lane.new)
            if lane.new:
                self._new.add(lane)
        if claimed.begun:
            yield from self._begin(claimed.begun, claimed.size)

    def _begin(self, begun: list[tuple[Lane, list[Piece]]], count: int) -> Process:
        yield self.python.serve(count * self._costs.send_s * BEFORE)
        for lane, pieces in begun:
            self._start(lane, pieces)
        if self._system.resting_s:
            self._system.others.charge(count * self._system.resting_s)

    def _start(self, lane: Lane, pieces: list[Piece]) -> None:
        system, account, now_s = self._system, lane.account, self._env.now
        count = sum(piece.size for piece in pieces)
        for piece in pieces:
            system.figures.left(account.number, piece.due_s, now_s, piece.size, again=piece.failures > 0)
        outcome, takes_s = self._answer(account.trouble, account.answer_s, count)
        self._order += 1
        transfer = Transfer(now_s + takes_s, self._order, lane, pieces, count, now_s, outcome)
        heappush(self._ends, transfer)
        self._oldest.append(transfer)
        self.open += count
        self._open_of[lane] = self._open_of.get(lane, 0) + count
        if lane in self._suspects:
            self._suspects_open += count

    def _answer(self, trouble: str, answer_s: float, count: int) -> tuple[str, float]:
        settings, chance = self._settings, self._system.random
        if trouble == "hang":
            return "failed", settings.answer_timeout_s
        if trouble == "drop":
            return "connect_timeout", settings.connect_timeout_s
        if trouble == "refuse":
            return "failed", min(answer_s, REFUSING_S)
        takes_s = answer_s * (1 + self._system.answer_spread * (2 * chance.random() - 1))
        failed = trouble == "500" or chance.random() < self._system.fail_share * count
        return ("failed" if failed else "ok"), takes_s

    def _suspect(self, lane: Lane, *, suspect: bool) -> None:
        self._new.discard(lane)
        if suspect and lane not in self._suspects:
            self._suspects.add(lane)
            self._suspects_open += self._open_of.get(lane, 0)
        elif not suspect and lane in self._suspects:
            self._suspects.discard(lane)
            self._suspects_open -= self._open_of.get(lane, 0)

    def _report_slow(self) -> None:
        before_s = self._env.now - self._settings.slow_after_s
        for transfer in self._oldest:
            if transfer.began_s > before_s:
                break
            if transfer.order not in self._ended_orders and transfer.lane not in self._reported_slow:
                self._reported_slow.add(transfer.lane)
                self._suspect(transfer.lane, suspect=True)
                self._rules.slow(transfer.lane)

    def _begin_held(self) -> Process:
        """One script call for the held ones of all lanes that have room."""
        room = min(self._settings.max_transfers - self.open, COMMIT_BATCH - self._ended_count)
        in_trouble = divide_half(self._settings.max_transfers, self._suspects_open, len(self._new)).troubled
        chosen: list[tuple[Lane, list[Piece]]] = []
        count = 0
        for lane in list(self._held):
            wanted = min(self._held_limit.get(lane, 1) - self._open_of.get(lane, 0), room - count)
            if lane in self._suspects:
                wanted = max(0, min(wanted, in_trouble))
                in_trouble -= wanted
            if wanted > 0:
                pieces = self._take_held(lane, wanted)
                if lane in self._held:
                    self._held[lane] = self._held.pop(lane)  # behind the others: they take turns
                taken = sum(piece.size for piece in pieces)
                self._rules.begin(lane, taken)
                chosen.append((lane, pieces))
                count += taken
        if chosen:
            yield self.python.serve(self._costs.asking_s)
            yield self._system.call(count * self._costs.claim_s * 0.5)
            yield from self._begin(chosen, count)

    def _take_held(self, lane: Lane, wanted: int, claimed_by_s: float = math.inf) -> list[Piece]:
        queue, taken = self._held[lane], []
        while wanted > 0 and queue and queue[0][1] <= claimed_by_s:
            piece, claimed_s = queue.popleft()
            if piece.size > wanted:
                queue.appendleft((piece._replace(size=piece.size - wanted), claimed_s))
                piece = piece._replace(size=wanted)
            taken.append(piece)
            wanted -= piece.size
            self._held_count -= piece.size
        if not queue:
            del self._held[lane]
        return taken

    # -- noting -----------------------------------------------------------------------------

    def _collect(self) -> None:
        """Answers that are there."""
        now_s = self._env.now
        while self._ends and self._ends[0].ends_s <= now_s + 1e-9:
            transfer = heappop(self._ends)
            lane, count = transfer.lane, transfer.size
            self.open -= count
            self._ended_orders.add(transfer.order)
            left = self._open_of[lane] - count
            if lane in self._suspects:
                self._suspects_open -= count
            if left:
                self._open_of[lane] = left
            else:
                del self._open_of[lane]
                self._reported_slow.discard(lane)
                self._new.discard(lane)
            elapsed_s = transfer.ends_s - transfer.began_s
            slow = transfer.outcome == "ok" and elapsed_s >= self._settings.slow_after_s
            outcome = "slow" if slow else transfer.outcome
            self._end(lane, transfer.pieces, "failed" if outcome == "connect_timeout" else outcome)
            if outcome == "connect_timeout":
                for other in lane.account.lanes.values():
                    if other in self._held:
                        self._end(other, self._take_held(other, HELD_MAX, transfer.began_s), "shared")
        while self._oldest and self._oldest[0].order in self._ended_orders:
            self._ended_orders.discard(self._oldest.popleft().order)

    def _end(self, lane: Lane, pieces: list[Piece], outcome: str) -> None:
        figures, now_s = self._system.figures, self._env.now
        for piece in pieces:
            self._ended.append((lane, piece, outcome, now_s))
            self._ended_count += piece.size
            if outcome in {"ok", "slow"}:
                figures.answered(lane.account.number, piece.created_s, now_s, piece.size)
            elif outcome == "shared":
                figures.shared += piece.size

    def _decided(self) -> tuple[list[Note], float, float]:
        """A batch of notes, what it costs the broker, and what it costs the worker."""
        costs = self._costs
        notes: list[Note] = []
        count = failed = shared = 0
        while self._ended and count < COMMIT_BATCH:
            lane, piece, outcome, ended_s = self._ended.popleft()
            if piece.size > COMMIT_BATCH - count:
                rest = piece._replace(size=piece.size - (COMMIT_BATCH - count))
                self._ended.appendleft((lane, rest, outcome, ended_s))
                piece = piece._replace(size=COMMIT_BATCH - count)
            notes.append(Note(lane, piece, outcome))
            count += piece.size
            if outcome == "shared":
                shared += piece.size
            elif outcome == "failed":
                failed += piece.size
            self._mood(lane, outcome, piece.size)
        self._ended_count -= count
        sent = count - shared
        good = sent - failed
        each_s = good * costs.claim_s + failed * costs.park_s + shared * costs.share_s
        own_s = sent * costs.send_s * (1 - BEFORE) + (failed + shared) * costs.decide_s
        return notes, each_s, own_s

    def _mood(self, lane: Lane, outcome: str, count: int) -> None:
        self._suspect(lane, suspect=outcome != "ok")
        if lane in self._held_limit:
            if outcome in {"failed", "shared"}:
                self._held_limit[lane] = 1
            else:
                most = self._settings.lane_max_transfers
                self._held_limit[lane] = min(most, self._held_limit[lane] + count)
