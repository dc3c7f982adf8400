"""Lua scripts of the doctor: each reads several keys in one instant, and repairs them in the same step where asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker import lua
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from postbacks.queue.scripts import Scripts

#: Postbacks that one call of ``locate.lua`` is given, and ids of lanes after which it locates no further one: each
#: means a search through its lanes.
LOCATE_BATCH: Final = 50
SEARCH_MAX: Final = 200_000
#: Lanes that one call of ``lane.lua`` is given.
LANE_BATCH: Final = 100
#: Claimed and parked ids that one script counts, so that it holds the broker up for 20 ms at most (``lane.lua`` and
#: ``endpoint.lua`` have the same number).
OPEN_MAX: Final = 3_000


@dataclass(frozen=True, slots=True)
class Placement:
    """Places of a postback in one instant.

    Attributes:
        id: the postback.
        state: of its record; empty where there is no record, ``?`` where the record has none.
        lane: the lane that its record names; empty where it names none.
        remembered: the ledger only remembers that it was revoked before it came.
        sequence: its number in its account.
        places: ``lane acme/mt``, ``claims 1f3c…``, ``quarantine``, ``parked``, ``done`` or ``dead``, each.
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
        claimed: ids in claims, by its state.
        claimed_counted: ids in claims, counted.
        held: of these, the held ones, by its state.
        held_counted: the held ones, counted.
        claimable: whether its state lets a loop claim from it.
        trusted: whether it is in the ring of the trusted.
        suspect: whether it is in the ring of the suspects.
        delayed: whether it is in none as it waits for its account's rate, or for room.
    """

    name: str
    waiting: int
    claimed: int
    claimed_counted: int
    held: int
    held_counted: int
    claimable: bool
    trusted: bool
    suspect: bool
    delayed: bool


def _run(scripts: Scripts, name: str, arguments: Iterable[str | int], *, repair: bool) -> Any:
    """Run a script; where it repairs nothing read-only, so that a user who may only read can run it."""
    run = scripts.client.eval if repair else scripts.client.eval_ro
    script = lua.load("queue/_shared", "queue/_changes", f"doctor/{name}")
    with broker_errors():
        return run(script.text, len(script.keys), *script.keys, scripts.clock_offset_ms, *arguments)


def _mode(*, repair: bool) -> str:
    return "repair" if repair else "inspect"


def locate(
    scripts: Scripts,
    lanes_of: Mapping[str, Iterable[str]],
    tokens: Sequence[str] = (),
    *,
    repair: bool = False,
) -> list[Placement]:
    """Return all places of postbacks; where asked, put each into the one place that its record names.

    Args:
        scripts: the broker's.
        lanes_of: id of a postback -> lanes to search for it, besides the one that its record names.
        tokens: of claims to search, besides those of ``keys.CLAIMERS``.
        repair: whether to move the postbacks; the youngest first, so that the oldest ends up in front.
    """
    ids = list(lanes_of)
    placements: list[Placement] = []
    while len(placements) < len(ids):
        arguments: list[str | int] = [_mode(repair=repair), SEARCH_MAX, len(tokens), *tokens]
        for postback_id in ids[len(placements) : len(placements) + LOCATE_BATCH]:
            arguments += (postback_id, "\n".join(lanes_of[postback_id]))
        for row in _run(scripts, "locate", arguments, repair=repair):
            postback_id, state, lane, kind, sequence, *places = row
            placements.append(
                Placement(
                    text(postback_id), text(state), text(lane), kind == 1, int(sequence),
                    tuple(text(place) for place in places), kind == 2,
                )
            )  # fmt: skip
    return placements


def count_lanes(
    scripts: Scripts, names: Iterable[str], tokens: Sequence[str] = (), *, repair: bool = False
) -> list[Lane]:
    """Return lanes with their claims counted, repaired where asked; empty if too much is claimed."""
    names = list(names)
    lanes: list[Lane] = []
    for start in range(0, len(names), LANE_BATCH):
        batch = names[start : start + LANE_BATCH]
        arguments: list[str | int] = [_mode(repair=repair), len(tokens), *tokens, *batch]
        for row in _run(scripts, "lane", arguments, repair=repair):
            name, waiting, claimed, claimed_counted, held, held_counted, *flags = row
            counts = (waiting, claimed, claimed_counted, held, held_counted)
            lanes.append(Lane(text(name), *counts, *(bool(flag) for flag in flags)))
    return lanes


def count_backlogs(
    scripts: Scripts, accounts: Iterable[str], tokens: Sequence[str] = (), *, repair: bool = False
) -> dict[str, tuple[int, int]]:
    """Return accounts' backlogs as noted and as counted, repaired where asked; empty if too much is open."""
    arguments: tuple[str | int, ...] = (
        _mode(repair=repair), OPEN_MAX, len(keys.GROUPS), len(tokens), *keys.GROUPS, *tokens, *accounts,
    )  # fmt: skip
    rows = _run(scripts, "backlog", arguments, repair=repair)
    return {text(account): (noted, counted) for account, noted, counted in rows}


def count_endpoints(
    scripts: Scripts, tokens: Sequence[str] = (), *, repair: bool = False
) -> dict[str, tuple[int, int]]:
    """Return endpoints that note more open POSTs than there are, and both numbers; repaired where asked."""
    rows = _run(scripts, "endpoint", (_mode(repair=repair), *tokens), repair=repair)
    return {text(endpoint): (noted, counted) for endpoint, noted, counted in rows}


def repair_leases(
    scripts: Scripts, lease_ms: int, intake_ms: int, slack_ms: int, tokens: Sequence[str]
) -> tuple[int, int]:
    """Give orphaned claims an ended lease and shorten leases from the future; returns how many of each."""
    adopted, shortened = _run(scripts, "lease", (lease_ms, intake_ms, slack_ms, *tokens), repair=True)
    return adopted, shortened
