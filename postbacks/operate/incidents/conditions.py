"""Conditions: what stands wrong now. A source returns those of its kind; the finder makes incidents of them.

A source is a function of a ``Look``. It is called every few seconds, so it asks little and says how much at most. It
returns what stands, also where that is too little to open an incident: an incident that is open goes on as long as its
condition stands. So a source with two thresholds never flaps: it returns a condition from the lower one on, and sets ``opens``
from the upper one on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from postbacks.errors import PostbacksError

if TYPE_CHECKING:
    import redis
    from sqlalchemy import Engine

    from postbacks.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Fault that stands now.

    Attributes:
        kind: noun that the source has its conditions by: ``endpoint``, ``ticks``, ``paused``. A key begins with it.
        subject: what it is about, as people know it: an endpoint, the name of an account; empty for the system as a whole.
        title: what is wrong, in a few words without figures: "ticks are late".
        sentence: what stands and why, a clause or several with figures, without a full stop; no number, text or e-mail of a
            person, and no password.
        advice: what to do, a sentence or two.
        opens: True where it is bad enough for an incident of its own.
        size: number by which it grows: postbacks that wait, seconds.
        level: 0, and more where it is worse in kind: postbacks have died of it. A higher one than before is told as growth.
        since_ms: since when it stands, on the broker's clock; None where that is not known.
        accounts: names of the accounts, the first of many.
        figures: what is known in numbers and words, for programs; times as ISO 8601.
        refine: returns the condition with what costs more to find out, or None; called when something is told of it, and
            now and then. Key, ``opens``, ``size`` and ``level`` stay.
    """

    kind: str
    subject: str = ""
    title: str
    sentence: str
    advice: str
    opens: bool = True
    size: int = 0
    level: int = 0
    since_ms: int | None = None
    accounts: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    refine: Callable[[], Condition] | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """Key of its incident: one stands open at a time."""
        return f"{self.kind}:{self.subject}"


class Look(NamedTuple):
    """Means of a source to look.

    Attributes:
        client: the broker's.
        engine: the history's database, for reading (``history/transactions.py``, ``reading``).
        settings: the process's.
        now_ms: the broker's clock, as the finder has read it.
        clock_offset_ms: what is added to it, so that tests can move time; ``now_ms`` has it already.
    """

    client: redis.Redis
    engine: Engine
    settings: Settings
    now_ms: int
    clock_offset_ms: int = 0


class Incomplete(PostbacksError):
    """Raised by a source behind what it has returned, where there is more: then no incident of its kind grows quiet."""


#: Function that returns what stands of one kind, each key once. It raises BrokerError or HistoryError where it cannot look;
#: then the incidents of all kinds stay as they are until the next look.
Source = Callable[[Look], Iterable[Condition]]
