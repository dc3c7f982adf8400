"""Seeded plan: what is done to whom, when, and for how long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

#: Kinds of faults: how often each comes, relative to the others, and how long it lasts (s).
Kinds = dict[str, tuple[int, float, float]]

KINDS: Final[Kinds] = {
    "worker killed": (6, 0.2, 1.0),
    "beat killed": (2, 0.2, 1.0),
    "producer killed": (2, 0.2, 1.0),
    "broker killed": (3, 0.3, 2.0),
    "power cut": (2, 0.3, 2.0),
    "all killed": (1, 0.3, 1.5),
    "worker paused": (3, 1.3, 2.0),  # leases long
    "broker restarted": (1, 0.0, 0.0),
    "connections cut": (2, 0.0, 0.0),
    "connections delayed": (1, 1.0, 3.0),
    "connections half-open": (1, 0.0, 0.0),
}
#: Beside those where a history is recorded.
HISTORY_KINDS: Final[Kinds] = {
    "recorder killed": (4, 0.2, 1.0),
    "recorder killed in a batch": (4, 0.2, 1.0),
    "recorder paused": (4, 1.3, 2.0),  # leases long
    "database killed": (4, 0.2, 3.0),
    "database locked": (3, 1.0, 8.0),  # it is waited for 5 s
}
#: Seconds of quiet at the beginning, so that the accounts are on disk.
QUIET_S: Final = 3.0
#: Seconds between two faults, on average.
EVERY_S: Final = 3.5
MIN_KILLS: Final = 20


def kills(kind: str) -> bool:
    """Tell whether a process dies by SIGKILL in a kind of fault."""
    return "killed" in kind or kind == "power cut"


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault that is done to a process, the broker, the history's database or connections.

    Attributes:
        at_s: seconds after the first postback.
        kind: one of ``KINDS`` or ``HISTORY_KINDS``.
        target: which of the two workers or beats, or of the two recorders while none works.
        hold_s: until what died is started again, what was paused goes on, the delay ends.
        share: of the connections that are hit.
    """

    at_s: float
    kind: str
    target: int
    hold_s: float
    share: float


def make_plan(seed: int, seconds: float, lease_s: float, of: Kinds = KINDS) -> list[Fault]:
    """Make a plan with every kind at least once, the rest by weight; the same for the same arguments.

    Where there is the time for it (a minute), at least ``MIN_KILLS`` of the faults kill.
    """
    chance = random.Random(seed)
    room_s = seconds - QUIET_S
    kinds = list(of)
    wanted = max(len(kinds), round(room_s / EVERY_S))
    weights = [of[kind][0] for kind in kinds]
    kinds += chance.choices(list(of), weights, k=wanted - len(kinds))
    if room_s >= 2 * MIN_KILLS:
        while sum(map(kills, kinds)) < MIN_KILLS:
            kinds.append("worker killed")
    chance.shuffle(kinds)
    step_s = room_s / len(kinds)
    plan = []
    for number, kind in enumerate(kinds):
        _, shortest_s, longest_s = of[kind]
        hold_s = chance.uniform(shortest_s, longest_s) * (lease_s if kind.endswith("paused") else 1)
        at_s = QUIET_S + step_s * (number + chance.random() * 0.8)
        plan.append(Fault(at_s, kind, chance.randrange(2), hold_s, chance.choice((0.3, 0.6, 1.0))))
    return plan
