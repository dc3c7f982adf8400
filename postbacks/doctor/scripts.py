"""The doctor's own Lua scripts: what is seen in one instant, and every repair, one step each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.catalogue import ORIGINS
from postbacks.queue.scripts import assemble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from postbacks.queue.scripts import Scripts

#: Postbacks that one script call looks at, and ids of lanes, after which it looks at no further postback: each means a
#: search through its lanes.
PLACE_BATCH: Final = 50
SEARCH_MAX: Final = 200_000
#: Lanes that one script call looks at.
LANE_BATCH: Final = 100
#: Claimed and parked ids that one script counts, so that it holds the broker up for 20 ms at most (`lane.lua` as well).
OPEN_MAX: Final = 3_000
#: Groups that lanes are of (``catalogue/``).
GROUPS: Final = tuple(sorted(set(ORIGINS.values())))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a postback stood in one instant.

    Attributes:
        id: the postback.
        state: what its record says; empty where there is no record.
        lane: the lane that its record names; empty where it names none.
        remembered: the ledger only remembers that it was revoked before it came.
        sequence: its number in its account.
        places: all of them, as ``lane acme/mt``, ``claims 1f3c…``, ``quarantine``, ``parked``, ``done`` or ``dead``.
        in_lane: it was cancelled and ends when it comes up in its lane.
    """

    id: str
    state: str
    lane: str
    remembered: bool
    sequence: int
    places: tuple[str, ...]
    in_lane: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane in one instant.

    Attributes:
        name: ``account/group``.
        waiting: ids in it.
        claimed: ids in claims, as its pace says.
        counted: ids in claims, counted.
        held: of these, the held ones, as its pace says.
        held_counted: the held ones, counted.
        claimable: whether its pace lets a loop claim from it.
        trusted: whether it is in the ring of the trusted.
        suspect: whether it is in the ring of the suspects.
        aside: whether it is in none as it waits for its account's rate, or for room.
    """

    name: str
    waiting: int
    claimed: int
    counted: int
    held: int
    held_counted: int
    claimable: bool
    trusted: bool
    suspect: bool
    aside: bool


def _run(scripts: Scripts, name: str, arguments: Iterable[str | int], *, settle: bool) -> Any:
    """Run a script; one that only looks is run read-only, so that a user who may only read can look."""
    run = scripts.client.eval if settle else scripts.client.eval_ro
    script = assemble(name, "doctor")
    with broker_errors():
        return run(script.text, len(script.keys), *script.keys, scripts.clock_offset_ms, *arguments)


def places(
    scripts: Scripts, seen: Mapping[str, Iterable[str]], tokens: Sequence[str] = (), *, settle: bool = False
) -> list[Place]:
    """Where ids stand (``seen`` has the lanes that each was seen in); settled where asked."""
    ids = list(seen)
    found: list[Place] = []
    while len(found) < len(ids):
        arguments: list[str | int] = ["settle" if settle else "look", SEARCH_MAX, len(tokens), *tokens]
        for one in ids[len(found) : len(found) + PLACE_BATCH]:
            arguments += (one, "\n".join(seen[one]))
        for row in _run(scripts, "place", arguments, settle=settle):
            one, state, lane, remembered, sequence, _, *where = row
            found.append(
                Place(
                    text(one), text(state), text(lane), remembered == 1, int(sequence),
                    tuple(text(place) for place in where), remembered == 2,
                )
            )  # fmt: skip
    return found


def lanes(
    scripts: Scripts, names: Iterable[str], tokens: Sequence[str] = (), *, settle: bool = False
) -> list[Lane]:
    """How lanes stand; settled where asked; empty if too much is claimed."""
    every = list(names)
    found: list[Lane] = []
    for start in range(0, len(every), LANE_BATCH):
        mode = "settle" if settle else "look"
        arguments: list[str | int] = [mode, len(tokens), *tokens, *every[start : start + LANE_BATCH]]
        for row in _run(scripts, "lane", arguments, settle=settle):
            name, waiting, claimed, counted, held, held_counted, *flags = row
            counts = (waiting, claimed, counted, held, held_counted)
            found.append(Lane(text(name), *counts, *(bool(flag) for flag in flags)))
    return found


def settle_leases(
    scripts: Scripts, lease_ms: int, intake_ms: int, slack_ms: int, tokens: Sequence[str]
) -> tuple[int, int]:
    """Give ownerless claims an ended lease and shorten leases from the future; returns how many of each."""
    adopted, shortened = _run(scripts, "lease", (lease_ms, intake_ms, slack_ms, *tokens), settle=True)
    return adopted, shortened


def backlogs(
    scripts: Scripts, accounts: Iterable[str], tokens: Sequence[str] = (), *, settle: bool = False
) -> dict[str, tuple[int, int]]:
    """Accounts' backlogs as they are noted and as they are; put right where asked; empty if too much is open."""
    mode = "settle" if settle else "look"
    arguments: tuple[str | int, ...] = (mode, OPEN_MAX, len(GROUPS), len(tokens), *GROUPS, *tokens, *accounts)
    rows = _run(scripts, "backlog", arguments, settle=settle)
    return {text(name): (count, counted) for name, count, counted in rows}


def endpoints(
    scripts: Scripts, tokens: Sequence[str] = (), *, settle: bool = False
) -> dict[str, tuple[int, int]]:
    """Endpoints that count more open POSTs than there are, and both numbers; put right where asked."""
    mode = "settle" if settle else "look"
    rows = _run(scripts, "endpoint", (mode, *tokens), settle=settle)
    return {text(name): (count, counted) for name, count, counted in rows}
