"""Strip of time: how many postbacks of a query were accepted when, and what became of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.broker import client as broker
from postbacks.errors import BrokerError
from postbacks.history import live, schema
from postbacks.history.engine import reader
from postbacks.history.filters import resolve
from postbacks.history.listing import recorded_ms, unfinished
from postbacks.history.paths import Path
from postbacks.history.transactions import reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from sqlalchemy import Connection, Engine

    from postbacks.history.query import Query

_SECOND_MS: Final = 1000
_MINUTE_MS: Final = 60_000
#: Lengths of a part: those that people count in.
LENGTHS_MS: Final = (
    *(_SECOND_MS * seconds for seconds in (1, 5, 15)),
    *(_MINUTE_MS * minutes for minutes in (1, 5, 15)),
    *(schema.HOUR_MS * hours for hours in (1, 3, 6, 12, 24, 48, 168, 720, 8760)),
)
#: Parts that a strip has at most.
PARTS_MAX: Final = 60
_NAMES: Final = {number: name for name, number in schema.STATES.items()}


class Part(NamedTuple):
    """Part of a strip.

    Attributes:
        since_ms: its first moment.
        until_ms: the moment before which it ends.
        states: state -> postbacks, as the history has them; of a state that the broker alone knows, as it says.
    """

    since_ms: int
    until_ms: int
    states: dict[str, int]

    @property
    def total(self) -> int:
        """Number of its postbacks."""
        return sum(self.states.values())


class Strip(NamedTuple):
    """Strip of a query.

    Attributes:
        parts: the oldest first, without a gap; empty where nothing is found.
        postbacks: exactly so many, as ``count`` counts them.
        recorded_ms: until when history had read the broker's changes.
    """

    parts: tuple[Part, ...]
    postbacks: int
    recorded_ms: int | None


def strip(query: Query, *, client: redis.Redis | None = None, engine: Engine | None = None) -> Strip:
    """Count the postbacks that a query finds by the time of their acceptance, in at most ``PARTS_MAX`` parts.

    Args:
        query: its limit and its cursor do not matter.
        client: of the broker that knows the states of unfinished postbacks; without it the one of the settings.
        engine: of the history; without it the one of the settings.

    Raises:
        InvalidQuery, HistoryOff, HistoryError: as ``search``.
    """
    with reading(engine or reader()) as connection:
        filters = resolve(connection, query)
        until_ms = recorded_ms(connection)
        path = None if filters.nothing else Path(connection, filters)
        span = path.span() if path else None
        if path is None or span is None:
            return Strip((), 0, until_ms)
        first_ms, last_ms = span
        part_ms = _part_ms(last_ms - first_ms)
        counted: defaultdict[int, Counter[str]] = defaultdict(Counter)
        if filters.live:
            for number in _live(connection, path, filters.live, client, part_ms):
                counted[number][filters.live] += 1
        else:
            for number, state, postbacks in path.by_time(part_ms):
                counted[number][_NAMES.get(state, "")] += postbacks
    total = sum(states_of_part.total() for states_of_part in counted.values())
    if not total:
        return Strip((), 0, until_ms)
    numbers = range(first_ms // part_ms, (last_ms - 1) // part_ms + 1)
    parts = (
        Part(number * part_ms, (number + 1) * part_ms, dict(counted.get(number, {}))) for number in numbers
    )
    return Strip(tuple(parts), total, until_ms)


def _part_ms(length_ms: int) -> int:
    """Return the shortest length of a part of which there are not too many; one more may be cut off at both ends."""
    fits = (part_ms for part_ms in LENGTHS_MS if length_ms / part_ms <= PARTS_MAX - 1)
    return next(fits, LENGTHS_MS[-1])


def _live(
    connection: Connection, path: Path, state: str, client: redis.Redis | None, part_ms: int
) -> Iterator[int]:
    """Yield the part of each postback that is in a state now; without a reachable broker, as history has them."""
    is_reachable = True
    for batch in unfinished(connection, path):
        now = [acceptance.state for acceptance in batch]
        if is_reachable:
            try:
                client = client or broker.client()
                now = live.read_states(client, batch)[1]
            except BrokerError:
                is_reachable = False
        for acceptance, state_now in zip(batch, now, strict=True):
            if state_now == state:
                yield acceptance.accepted_ms // part_ms
