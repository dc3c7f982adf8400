"""Counts: how many postbacks a query finds, and which filter leaves none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.history import live
from postbacks.history.engine import reader
from postbacks.history.filters import VALUE_FILTERS, resolve
from postbacks.history.listing import recorded_ms, unfinished
from postbacks.history.paths import Path
from postbacks.history.query import Count, Query
from postbacks.history.transactions import reading

if TYPE_CHECKING:
    import redis
    from sqlalchemy import Connection, Engine

#: Times are one filter.
TIME: Final = "time"
#: Filters by the fields of a query that they are, what people are surest of first.
_FILTERS: Final = {
    "account": ("account",),
    TIME: ("since_ms", "until_ms"),
    **{name: (name,) for name in reversed(VALUE_FILTERS)},
    **{name: (name,) for name in ("host", "group", "origin", "state", "code", "reason")},
    **{name: (name,) for name in ("opt_outs", "undelivered")},
    **{name: (name,) for name in ("outcome", "status", "attempts", "slower_than_ms")},
}


class Exclusion(NamedTuple):
    """Filter that leaves nothing of what the others find.

    Attributes:
        filter: name of a field of ``Query``; ``time`` for ``since_ms`` and ``until_ms``.
        postbacks: number of those that ``others`` finds, 0 where the history has none at all.
        others: the query without it; where two filters leave nothing each, without all that follow it.
    """

    filter: str
    postbacks: int
    others: Query


def count(query: Query, *, client: redis.Redis | None = None, engine: Engine | None = None) -> Count:
    """Count the postbacks that pass each filter of a query, exactly; its limit and cursor do not matter.

    Args:
        query: what is counted.
        client: of the broker that knows the states of unfinished postbacks; without it the one of the settings.
        engine: of the history; without it the one of the settings.

    Raises:
        InvalidQuery, HistoryOff, HistoryError: as ``search``.
    """
    with reading(engine or reader()) as connection:
        return _count(connection, query, client)


def _count(connection: Connection, query: Query, client: redis.Redis | None) -> Count:
    filters = resolve(connection, query)
    until_ms = recorded_ms(connection)
    if filters.nothing:
        return Count(0, until_ms)
    path = Path(connection, filters)
    if not filters.live:
        return Count(path.count(), until_ms)
    return replace(live.count(client, filters.live, unfinished(connection, path)), recorded_ms=until_ms)


def why_empty(
    query: Query, *, client: redis.Redis | None = None, engine: Engine | None = None
) -> list[Exclusion]:
    """Say which filter of an empty query leaves nothing.

    A filter that alone is to blame stands first with the fewest postbacks that the others find: the nearest miss
    ("312 dead of acme, none of N202"). Where no single one is, the filters are added one after the other, those first
    that people are surest of, and the first that leaves nothing is returned alone.

    Returns:
        The exclusions, the most helpful one first; none for a query without filters.

    Raises:
        InvalidQuery, HistoryOff, HistoryError: as ``search``.
    """
    given = [
        name
        for name, fields in _FILTERS.items()
        if any(value is not None and value is not False for value in (getattr(query, f) for f in fields))
    ]
    with reading(engine or reader()) as connection:

        def exclusion(name: str, others: Query) -> Exclusion:
            return Exclusion(name, _count(connection, others, client).postbacks, others)

        alone = [exclusion(name, without(query, name)) for name in given]
        to_blame = sorted(
            (blamed for blamed in alone if blamed.postbacks), key=lambda blamed: blamed.postbacks
        )
        if to_blame or not given:
            return to_blame
        # Each one was tried above without it alone; now without those behind it, too.
        found = exclusion(given[0], without(query, *given))
        for number, name in enumerate(given[1:], start=1):
            following = exclusion(name, without(query, *given[number:]))
            if not following.postbacks:
                break
            found = following
        return [found]


def without(query: Query, *names: str) -> Query:
    """Return a query without some of its filters, from its first page on."""
    fields = [field for name in names for field in _FILTERS[name]]
    return replace(query, cursor="", **dict.fromkeys(fields))  # type: ignore[arg-type]
