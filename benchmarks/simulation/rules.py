"""What the broker's scripts decide, with counts instead of ids: accept, claim, commit, release.

Each method mirrors the script of its name in ``postbacks/queue/`` and keeps its rules. Left out, as no scenario uses
them: rates and limits of accounts and endpoints (``_pacing.lua``), quarantine, cancelling, weights other than the
default ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple

from postbacks.delivery.open_transfers import Room
from postbacks.settings import Settings

#: A lane may have no more transfers than this part of what its worker has free (``claim.lua``).
PART_OF_FREE: Final = 64
#: The part of a claim that suspects have first (``claim.lua``).
SUSPECTS_FIRST: Final = 4
#: Seconds after which a new lane has waited (``claim.lua``).
WAITED_S: Final = 1.0


class Piece(NamedTuple):
    """So many postbacks of one lane that came together and stay together.

    Attributes:
        size: how many they are.
        created_s: when the event was handed over.
        due_s: when they should have left: created_s, or the end of their countdown.
        failures: failed attempts of each so far.
    """

    size: int
    created_s: float
    due_s: float
    failures: int


@dataclass(slots=True, eq=False)
class Account:
    """A customer: how fast its server answers, and how much it gets.

    Attributes:
        number: its rank by size, 0 for the largest.
        share: of all events.
        answer_s: what its server takes for one POST in the mean.
        trouble: what its server does now: '' (it answers 200), 'hang', 'drop', 'refuse' or '500'.
        lanes: its lanes, MO first.
        backlog: postbacks that are neither delivered nor given up.
    """

    number: int
    share: float
    answer_s: float
    trouble: str = ""
    lanes: dict[str, Lane] = field(default_factory=dict)
    backlog: int = 0
    is_down: bool = False  # in trouble at any time of the scenario

    def lane(self, group: str) -> Lane:
        """Its lane of a group."""
        return self.lanes.setdefault(group, Lane(self, group))


@dataclass(slots=True, eq=False)
class Lane:
    """A lane and its pace, as ``_shared.lua`` knows it."""

    account: Account
    group: str
    waiting: deque[Piece] = field(default_factory=deque)
    count: int = 0
    claimed: int = 0
    held: int = 0
    limit: int = 1
    failing: bool = False
    suspect: bool = True
    new: bool = True
    tag: float = 0.0
    ring: Ring | None = None
    entry: int = 0

    def claimable(self) -> bool:
        """Whether anything of it may be claimed now."""
        return self.claimed == 0 if self.failing else self.claimed < self.limit

    def warm(self, limit: int) -> None:
        """What it is after some hundred answers of 200."""
        self.limit, self.failing, self.suspect, self.new = limit, False, False, False

    def take(self, wanted: int) -> list[Piece]:
        """The first ones of the lane, at most so many."""
        taken = []
        while wanted > 0 and self.waiting:
            piece = self.waiting.popleft()
            if piece.size > wanted:
                self.waiting.appendleft(piece._replace(size=piece.size - wanted))
                piece = piece._replace(size=wanted)
            taken.append(piece)
            wanted -= piece.size
            self.count -= piece.size
        return taken


class Ring:
    """Lanes that take turns, the one with the least virtual time first."""

    def __init__(self) -> None:
        self.turn = 0.0
        self._heap: list[tuple[float, int, Lane]] = []
        self._entries = 0
        self.size = 0

    def add(self, lane: Lane, tag: float) -> None:
        """Put a lane in, if it is in none (``ZADD NX``)."""
        if lane.ring is None:
            self._entries += 1
            lane.ring, lane.entry = self, self._entries
            self.size += 1
            heappush(self._heap, (tag, self._entries, lane))

    def remove(self, lane: Lane) -> bool:
        """Take a lane out; its entry in the heap is passed over later."""
        if lane.ring is not self:
            return False
        lane.ring = None
        self.size -= 1
        return True

    def peek(self) -> float | None:
        """The virtual time of the lane whose turn it is."""
        while self._heap and not self._stands(*self._heap[0][1:]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> tuple[float, Lane] | None:
        """The lane whose turn it is."""
        if self.peek() is None:
            return None
        tag, _, lane = heappop(self._heap)
        lane.ring = None
        self.size -= 1
        return tag, lane

    def _stands(self, entry: int, lane: Lane) -> bool:
        return lane.ring is self and lane.entry == entry


class Note(NamedTuple):
    """What came of postbacks of a lane: ``outcome`` is ok, slow, failed or shared."""

    lane: Lane
    piece: Piece
    outcome: str


class Rules:
    """The lanes, the parked and the counts of one broker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.trusted, self.suspect = Ring(), Ring()
        self.new = Ring()  # of the suspects: the latest first
        self.now_s = 0.0
        self.messages: deque[tuple[Lane, Piece]] = deque()
        self.queued = 0
        self.waiting = 0
        self.claimed = 0
        self.parked = 0
        self.accepted = 0
        self.delivered = 0
        self.dead = 0
        self.backlog_full = 0
        self._parked: list[tuple[float, int, Lane, Piece]] = []
        self._entries = 0

    # -- in ---------------------------------------------------------------------------------

    def publish(self, lane: Lane, piece: Piece) -> None:
        """A caller's ``.delay()``."""
        self.messages.append((lane, piece))
        self.queued += piece.size

    def take_in(self, at_most: int) -> list[tuple[Lane, Piece]]:
        """The oldest messages of Celery's queue."""
        taken = []
        while at_most > 0 and self.messages:
            lane, piece = self.messages.popleft()
            if piece.size > at_most:
                self.messages.appendleft((lane, piece._replace(size=piece.size - at_most)))
                piece = piece._replace(size=at_most)
            taken.append((lane, piece))
            at_most -= piece.size
        self.queued -= sum(piece.size for _, piece in taken)
        return taken

    def accept(self, taken: Iterable[tuple[Lane, Piece]]) -> None:
        """``accept.lua``: each into its lane; past its account's backlog an MT postback is dead at once."""
        most = self._settings.max_waiting_per_account
        for lane, piece in taken:
            self.accepted += piece.size
            account = lane.account
            if lane.group == "mt" and account.backlog + piece.size > most:
                room = max(0, most - account.backlog)
                self.dead += piece.size - room
                self.backlog_full += piece.size - room
                if not room:
                    continue
                piece = piece._replace(size=room)  # noqa: PLW2901 - what is left of it
            account.backlog += piece.size
            self._append(lane, piece)

    def _append(self, lane: Lane, piece: Piece) -> None:
        lane.waiting.append(piece)
        lane.count += piece.size
        self.waiting += piece.size
        self._make_ready(lane)

    def release(self, now_s: float, at_most: int) -> int:
        """``release_due``: parked ones whose countdown has ended go to the end of their lanes."""
        self.now_s = now_s
        released = 0
        while self._parked and self._parked[0][0] <= now_s and released < at_most:
            _, _, lane, piece = heappop(self._parked)
            released += piece.size
            self._append(lane, piece)
        self.parked -= released
        return released

    def due_within(self, now_s: float, within_s: float) -> bool:
        """Whether anything parked is due until then."""
        return bool(self._parked) and self._parked[0][0] <= now_s + within_s

    def _make_ready(self, lane: Lane) -> None:
        if lane.ring is not None or not lane.count or not lane.claimable():
            return
        if lane.new:
            self.new.add(lane, -self.now_s)
        else:
            ring = self.suspect if lane.suspect else self.trusted
            ring.add(lane, max(lane.tag, ring.turn))

    # -- out --------------------------------------------------------------------------------

    def slow(self, lane: Lane) -> None:
        """A transfer of the lane has been open for too long (the first part of ``claim.lua``)."""
        if not lane.suspect:
            lane.suspect, lane.tag = True, 0.0
            if self.trusted.remove(lane):
                self._make_ready(lane)

    def claim(
        self,
        at_most: int,
        suspects_max: int,
        free: int,
        held_max: int,
        shares: tuple[int, int, int] | None = None,
    ) -> tuple[list[tuple[Lane, list[Piece]]], list[tuple[Lane, list[Piece]]], int]:
        """``claim.lua``: what to send now, what to hold behind a probe, and how many are to be sent."""
        room = Room(suspects_max, *(shares or (suspects_max,) * 3))
        claim = _Claim(self, self._settings, room, free, held_max)
        first = min(room.suspects, -(-at_most // SUSPECTS_FIRST))
        claim.serve(self.suspect, first)
        claim.serve(self.trusted, at_most - claim.count)
        claim.serve(self.suspect, min(room.suspects - claim.suspects, at_most - claim.count))
        moved = claim.count + claim.held_count
        self.waiting -= moved
        self.claimed += moved
        return claim.begun, claim.held, claim.count

    def begin(self, lane: Lane, count: int) -> None:
        """``begin.lua``: held ones that are sent now."""
        lane.held = max(0, lane.held - count)

    def commit(self, now_s: float, notes: Iterable[Note]) -> None:
        """``commit.lua``: each on to delivered, parked or dead; then the paces of their lanes."""
        self.now_s = now_s
        tallies: dict[Lane, list[int]] = {}  # noted, succeeded since the last failure, shared
        moods: dict[Lane, str] = {}
        for lane, piece, outcome in notes:
            count = piece.size
            tally = tallies.setdefault(lane, [0, 0, 0])
            tally[0] += count
            if outcome in {"ok", "slow"}:
                tally[1] += count
                self.delivered += count
                lane.account.backlog -= count
            else:
                tally[1] = 0
                tally[2] += count if outcome == "shared" else 0
                self._fail(now_s, lane, piece)
            moods[lane] = "failed" if outcome == "shared" else outcome
            self.claimed -= count
        for lane, (noted, succeeded, shared) in tallies.items():
            failing, suspect = moods[lane] == "failed", moods[lane] != "ok"
            if suspect != lane.suspect:
                (self.suspect if lane.suspect else self.trusted).remove(lane)
                lane.tag = 0.0
            lane.claimed = max(0, lane.claimed - noted)
            lane.limit = 1 if failing else min(self._settings.lane_max_transfers, lane.limit + succeeded)
            lane.failing, lane.suspect, lane.new = failing, suspect, False
            if lane.held:
                lane.held = max(0, lane.held - shared) if lane.claimed else 0
            self._make_ready(lane)

    def _fail(self, now_s: float, lane: Lane, piece: Piece) -> None:
        if piece.failures >= self._settings.max_resends:
            self.dead += piece.size
            lane.account.backlog -= piece.size
            return
        due_s = now_s + self._settings.retry_countdown_s
        self._entries += 1
        parked = Piece(piece.size, piece.created_s, due_s, piece.failures + 1)
        heappush(self._parked, (due_s, self._entries, lane, parked))
        self.parked += piece.size

    def lost(self) -> int:
        """Postbacks that are in no place, or in two: 0."""
        return self.accepted - self.delivered - self.dead - self.waiting - self.claimed - self.parked


class _Claim:
    """One call of ``claim.lua``."""

    def __init__(self, rules: Rules, settings: Settings, room: Room, free: int, held_max: int) -> None:
        self._rules = rules
        self._per_lane = settings.probe_claims
        self._room, self._free, self._held_max = room, free, held_max
        self._new = 0
        self.begun: list[tuple[Lane, list[Piece]]] = []
        self.held: list[tuple[Lane, list[Piece]]] = []
        self.count = 0
        self.suspects = 0
        self.held_count = 0

    def _next(self, ring: Ring) -> tuple[float, Lane] | None:
        """The lane whose turn it is; of the suspects a new one, as long as there is room for it."""
        if ring is not self._rules.suspect:
            return ring.pop()
        latest = self._rules.new.peek()
        if latest is not None and self._new < self._room.new:
            waited = self._rules.now_s + latest > WAITED_S
            if not waited or self._new < self._room.waited:
                return self._rules.new.pop()
        return ring.pop() if self.suspects < self._room.troubled else None

    def _urgent(self, account: Account) -> bool:
        """Whether MO postbacks of the account wait and do not fail: its MT lane keeps one transfer then."""
        mo = account.lanes.get("mo")
        return mo is not None and mo.count > 0 and not mo.failing

    def serve(self, ring: Ring, room: int) -> None:
        set_aside: list[tuple[float, Lane]] = []
        turn: float | None = None
        size = ring.size + (self._rules.new.size if ring is self._rules.suspect else 0)
        share = max(1, self._free // max(1, size))
        while room > 0:
            head = self._next(ring)
            if head is None:
                break
            score, lane = head
            tag = ring.turn if lane.new else score
            if not lane.count or not lane.claimable():
                continue
            waiting = lane.count
            lanes = sum(1 for other in lane.account.lanes.values() if other.count)
            keep, wanted = 0, 1
            if lane.failing:
                keep = max(0, min(waiting - 1, self._per_lane - 1, self._held_max - self.held_count))
            else:
                limit = min(lane.limit, max(1, (self._free - self.count) // PART_OF_FREE))
                if lanes > 1 and lane.group == "mt" and self._urgent(lane.account):
                    limit = 1
                wanted = min(waiting, limit - lane.claimed, room, share)
            if wanted <= 0:
                set_aside.append((score, lane))
                continue
            self.begun.append((lane, lane.take(wanted)))
            self.count += wanted
            room -= wanted
            if ring is self._rules.suspect:
                self.suspects += wanted
                self._new += wanted if lane.new else 0
            if keep:
                self.held.append((lane, lane.take(keep)))
                self.held_count += keep
                lane.held += keep
            lane.claimed += wanted + keep
            turn = turn if lane.new else tag
            lane.tag = tag + (wanted + keep) * lanes
            if lane.count and lane.claimable():
                ring.add(lane, lane.tag)
        if turn is not None:
            ring.turn = turn
        for score, lane in set_aside:
            (self._rules.new if lane.new else ring).add(lane, score)
