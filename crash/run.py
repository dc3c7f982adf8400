"""Driver of a run: start a world, let its faults happen, drain it, read it, and compare."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from crash.account_states import AccountStates
from crash.broker import read_held
from crash.comparison import Comparison, compare
from crash.history_comparison import HistoryComparison
from crash.notes import read_notes
from crash.plan import kills
from crash.receive import read_posts
from crash.world import Load, World
from postbacks.errors import BrokerError

#: Seconds after the load's end within which all must be accepted.
ACCEPTED_WITHIN_S: Final = 180.0
#: Seconds that the broker must have held nothing for it to count as drained.
QUIET_S: Final = 1.5

#: Starts a world in a folder; what the stack gets is undone at the end of the run.
MakeWorld = Callable[[Load, Path, ExitStack], World]


class Effect(NamedTuple):
    """Effect of one fault: seconds to a new primary, the next accepted call and the next POST; None where none came."""

    kind: str
    elected_s: float | None
    accepted_s: float | None
    posted_s: float | None


@dataclass(frozen=True)
class Column:
    """Result of one run: a column of the printed table.

    Attributes:
        name: the column's head.
        comparison: of the three lists.
        may_lose: the broker may lose what it had accepted last.
        unsynced_label: the row of what it lost so.
        effects: of each fault that was done.
        raised: calls of the producer that raised.
        ended_themselves: processes that no fault had killed, and that had to be started again.
        posts: POSTs at the receiver.
        took_s: the load, and the draining after it.
        left: what was still on its way at the deadline.
        unfinished: the producer, or who changes the accounts, did not come to the end in time.
        changed: changes of accounts.
        history: comparison of the ledger with the history, where one was recorded.
    """

    name: str
    comparison: Comparison
    may_lose: bool
    unsynced_label: str
    effects: Sequence[Effect]
    raised: int
    ended_themselves: Sequence[str]
    posts: int
    took_s: tuple[float, float]
    left: Mapping[str, int]
    unfinished: bool
    changed: int
    history: HistoryComparison | None

    @property
    def done(self) -> Counter[str]:
        """Count of the faults done, by kind."""
        return Counter(effect.kind for effect in self.effects)

    @property
    def kills(self) -> int:
        """Count of the faults that killed."""
        return sum(kills(effect.kind) for effect in self.effects)

    def silences(self) -> dict[str, list[float]]:
        """Return seconds from each fault to the first POST after it, by kind."""
        return {
            kind: [
                effect.posted_s
                for effect in self.effects
                if effect.kind == kind and effect.posted_s is not None
            ]
            for kind in self.done
        }

    def violations(self) -> list[str]:
        """Say in sentences what breaks the promise; empty when it holds."""
        sentences = self.comparison.violations(may_lose=self.may_lose)
        if self.history is not None:
            sentences += self.history.violations()
        if self.unfinished:
            sentences.append("not all postbacks were accepted, or not all changes of accounts made, in time")
        if self.left:
            sentences.append(f"not drained: {dict(self.left)}")
        return sentences


def run(name: str, load: Load, make_world: MakeWorld, folder: Path) -> Column:
    """Run one column in a folder."""
    with ExitStack() as stack:
        world = make_world(load, folder, stack)
        world.do_faults()
        is_sent = world.turn_until(lambda: world.is_sent, world.end_s + ACCEPTED_WITHIN_S)
        world.mend()
        drained_s, left = _drain(world)
        world.stop_processes()
        print(f"{name}: drained in {drained_s:.1f} s; left: {left or 'nothing'}. Comparing …", flush=True)
        with world.client(30) as client:
            held = read_held(client)
            history = world.compare_history(client)
        posts = read_posts(folder / "posts")
        states = AccountStates(world.changes, read_notes(folder / "changes"))
        accepted = {postback_id: float(at) for _, postback_id, at in read_notes(folder / "accepted")}
        return Column(
            name=name,
            comparison=compare(
                accepted,
                posts,
                held,
                unsynced_deaths=world.unsynced_deaths(),
                explains=states.explains,
                astray=states.astray(posts, held.entries, exact=world.exact),
            ),
            may_lose=world.may_lose,
            unsynced_label=world.unsynced_label,
            effects=_effects(world, accepted.values(), (post.at_s for post in posts)),
            raised=len(read_notes(folder / "raised")),
            ended_themselves=world.ended_themselves,
            posts=len(posts),
            took_s=(load.seconds, drained_s),
            left=left,
            unfinished=not is_sent,
            changed=states.made,
            history=history,
        )


def _drain(world: World) -> tuple[float, dict[str, int]]:
    """Wait until nothing has been on its way for a moment; return the seconds and what is left."""
    began_s = time.time()
    left: dict[str, int] = {"not looked": 1}
    empty_since_s: float | None = None
    with world.client(5) as client:
        while time.time() < began_s + world.load.drain_s:
            world.turn()
            with suppress(BrokerError):
                left = world.on_the_way(client)
                if left:
                    empty_since_s = None
                else:
                    empty_since_s = empty_since_s or time.time()
                    if time.time() - empty_since_s >= QUIET_S:
                        break
            time.sleep(0.1)
    return time.time() - began_s, left


def _effects(world: World, accepted: Iterable[float], posted: Iterable[float]) -> list[Effect]:
    ordered = [sorted(accepted), sorted(posted)]

    def next_after(at_s: float, times: list[float]) -> float | None:
        number = bisect_right(times, at_s)
        return times[number] - at_s if number < len(times) else None

    return [
        Effect(fault.kind, fault.elected_s, *(next_after(fault.at_s, times) for times in ordered))
        for fault in world.done
    ]
