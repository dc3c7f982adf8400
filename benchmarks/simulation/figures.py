"""What a simulation keeps: how late what left, account by account, and what waited second by second."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

#: Lateness is kept to 10 ms up to this many seconds, and to 3.5% above.
LINEAR_S: Final = 4.0
_STEPS: Final = 100
_LINEAR_BINS: Final = int(LINEAR_S * _STEPS)
_DOUBLING_BINS: Final = 20


class Lateness:
    """A histogram of seconds."""

    __slots__ = ("bins", "count", "worst_s")

    def __init__(self) -> None:
        self.bins: dict[int, int] = {}
        self.count = 0
        self.worst_s = 0.0

    def add(self, late_s: float, count: int) -> None:
        """So many postbacks were so late."""
        if late_s < LINEAR_S:
            where = int(late_s * _STEPS)
        else:
            where = _LINEAR_BINS + int(_DOUBLING_BINS * math.log2(late_s / LINEAR_S))
        self.bins[where] = self.bins.get(where, 0) + count
        self.count += count
        self.worst_s = max(self.worst_s, late_s)

    def merge(self, others: Iterable[Lateness]) -> Lateness:
        """Itself, with these in it."""
        for other in others:
            for where, count in other.bins.items():
                self.bins[where] = self.bins.get(where, 0) + count
            self.count += other.count
            self.worst_s = max(self.worst_s, other.worst_s)
        return self

    def percentile(self, share: float) -> float:
        """The seconds that this share of them does not exceed; 0 where there are none."""
        left = self.count * share
        for where in sorted(self.bins):
            left -= self.bins[where]
            if left <= 0:
                return min(self.worst_s, _middle_s(where))
        return self.worst_s

    def shown(self) -> dict[str, float]:
        """As the documents have it."""
        return {
            "count": self.count,
            "p50_s": self.percentile(0.5),
            "p99_s": self.percentile(0.99),
            "worst_s": self.worst_s,
        }


def _middle_s(where: int) -> float:
    if where < _LINEAR_BINS:
        return (where + 0.5) / _STEPS
    return LINEAR_S * math.exp2((where - _LINEAR_BINS + 0.5) / _DOUBLING_BINS)


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was at a moment.

    Attributes:
        at_s: seconds since the begin of the simulation.
        queued: messages in Celery's queue.
        waiting: postbacks in lanes.
        claimed: postbacks in claims, sent or held.
        parked: postbacks that wait for a countdown.
        open: POSTs.
        ready_lanes: lanes that wait for their turn.
        loops: delivering loops that run.
        broker_busy: share of the time since the last sample in which the broker worked.
        dead: given up so far.
    """

    at_s: float
    queued: int
    waiting: int
    claimed: int
    parked: int
    open: int
    ready_lanes: int
    loops: int
    broker_busy: float
    dead: int


@dataclass(slots=True)
class Figures:
    """Everything that is kept of a run.

    Attributes:
        first: how late first POSTs left, by the number of the account.
        again: how late resends left.
        delivered: how long it took from the event to the answer of 200.
        samples: what there was, every few seconds.
        posts: POSTs begun.
        shared: attempts that shared another one's connect time-out.
        measures_from_s: what left earlier is not counted.
        watch: told of every POST as well: account, when it was due, when it left, how many, whether again.
    """

    first: dict[int, Lateness] = field(default_factory=dict)
    again: dict[int, Lateness] = field(default_factory=dict)
    delivered: dict[int, Lateness] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    posts: int = 0
    shared: int = 0
    measures_from_s: float = 0.0
    watch: Callable[[int, float, float, int, bool], None] | None = None

    def left(self, account: int, due_s: float, now_s: float, count: int, *, again: bool) -> None:
        """POSTs have begun."""
        self.posts += count
        if self.watch is not None:
            self.watch(account, due_s, now_s, count, again)
        if now_s >= self.measures_from_s:
            of = (self.again if again else self.first).setdefault(account, Lateness())
            of.add(max(0.0, now_s - due_s), count)

    def answered(self, account: int, created_s: float, now_s: float, count: int) -> None:
        """Answers of 200 have come."""
        if now_s >= self.measures_from_s:
            self.delivered.setdefault(account, Lateness()).add(now_s - created_s, count)

    def together(self, which: dict[int, Lateness], accounts: Iterable[int]) -> Lateness:
        """One histogram of these accounts."""
        return Lateness().merge(which[number] for number in accounts if number in which)
