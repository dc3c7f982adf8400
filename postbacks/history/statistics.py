"""Statistics: what became of the postbacks that a query finds, by account, event, host or hour of acceptance.

One statement counts them by all that matters and by the duration of the answer, so percentiles are exact; it reads the
covering index of the query's path alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import text

from postbacks.errors import InvalidQuery
from postbacks.history import schema
from postbacks.history.engine import reader
from postbacks.history.filters import resolve
from postbacks.history.listing import recorded_ms
from postbacks.history.paths import Path
from postbacks.history.schema import HOUR_MS, STATES
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.ledger.record import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from postbacks.history.query import Query

#: What statistics can be by -> the column that tells it.
BY: Final = {
    "account": "p.account",
    "code": "p.code",
    "host": "p.endpoint",
    "hour": f"p.accepted_ms / {HOUR_MS}",
}
_MINUTE_MS: Final = 60_000
#: Statements that read the names of small numbers.
_NAMES: Final = {
    "account": text("SELECT id, name FROM accounts"),
    "code": text("SELECT id, origin || ' ' || code FROM codes"),
    "host": text("SELECT id, host FROM endpoints"),
}
_COLUMNS: Final = (
    "{key}, p.state, CASE WHEN p.attempts > 1 THEN 2 ELSE p.attempts END,"
    f" CASE WHEN p.outcome IN {schema.ANSWERED} THEN p.elapsed_ms END, count(*), min(p.accepted_ms)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatRow:
    """Statistics of one account, event, host or hour. Times are ms since the epoch on the broker's clock.

    Attributes:
        key: name of the account, ``ORIGIN CODE``, host, or begin of the hour in ISO 8601; empty for what has none.
        postbacks: accepted.
        sent: of them those of which a POST has begun.
        first: delivered by the first POST.
        later: delivered by a later one.
        dead: given up.
        open: neither delivered nor given up yet.
        other: skipped, cancelled, or left the broker unseen.
        p50_ms: median of the latest POST's time to its answer, of those that were answered; None for none.
        p95_ms: of 20 such answers 19 came as fast.
        oldest_open_ms: acceptance of the oldest that is neither delivered nor given up yet; None for none.
    """

    key: str
    postbacks: int
    sent: int
    first: int
    later: int
    dead: int
    open: int
    other: int
    p50_ms: int | None
    p95_ms: int | None
    oldest_open_ms: int | None

    def to_public_dict(self) -> dict[str, Any]:
        """Return the row as ``postbacks stats --json`` prints it."""
        return {
            "key": self.key, "postbacks": self.postbacks, "sent": self.sent, "delivered_first": self.first,
            "delivered_later": self.later, "dead": self.dead, "open": self.open, "other": self.other,
            "p50_ms": self.p50_ms, "p95_ms": self.p95_ms, "oldest_undelivered": iso(self.oldest_open_ms),
        }  # fmt: skip


class Stats(NamedTuple):
    """Statistics of what a query finds.

    Attributes:
        rows: of hours the oldest first, of all else those with the most postbacks first.
        total: of all of them.
        recorded_ms: until when history had read the broker's changes; None where it never has.
    """

    rows: tuple[StatRow, ...]
    total: StatRow
    recorded_ms: int | None


class Minute(NamedTuple):
    """Postbacks that were accepted within one minute.

    Attributes:
        at_ms: its begin.
        first: delivered by the first POST.
        later: delivered by a later one.
        dead: given up.
        open: neither delivered nor given up yet.
        other: skipped, cancelled, or left the broker unseen.
    """

    at_ms: int
    first: int
    later: int
    dead: int
    open: int
    other: int


class Group:
    """Postbacks of one key, as they are counted."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, int]] = Counter()  # state, POSTs begun (2 for more) -> postbacks
        self.answers: Counter[int] = Counter()  # ms -> answers
        self.oldest_open_ms: int | None = None

    def add(self, state: int, posts: int, elapsed_ms: int | None, count: int, oldest_ms: int) -> None:
        """Count postbacks that are alike."""
        self.counts[state, posts] += count
        if elapsed_ms is not None:
            self.answers[elapsed_ms] += count
        if state <= schema.LAST_OPEN and (self.oldest_open_ms is None or oldest_ms < self.oldest_open_ms):
            self.oldest_open_ms = oldest_ms

    def merge(self, other: Group) -> None:
        """Count those of another one, too."""
        self.counts.update(other.counts)
        self.answers.update(other.answers)
        if other.oldest_open_ms is not None and (
            self.oldest_open_ms is None or other.oldest_open_ms < self.oldest_open_ms
        ):
            self.oldest_open_ms = other.oldest_open_ms

    def row(self, key: str) -> StatRow:
        """Return the statistics."""
        of_state: Counter[int] = Counter()
        for (state, _), count in self.counts.items():
            of_state[state] += count
        delivered, dead = STATES[states.DELIVERED], STATES[states.DEAD]
        first = self.counts[delivered, 1]
        is_open = sum(count for state, count in of_state.items() if state <= schema.LAST_OPEN)
        total = of_state.total()
        return StatRow(
            key=key,
            postbacks=total,
            sent=sum(count for (_, posts), count in self.counts.items() if posts),
            first=first,
            later=of_state[delivered] - first,
            dead=of_state[dead],
            open=is_open,
            other=total - of_state[delivered] - of_state[dead] - is_open,
            p50_ms=percentile(self.answers, 50),
            p95_ms=percentile(self.answers, 95),
            oldest_open_ms=self.oldest_open_ms,
        )


def stats(query: Query, by: str, *, engine: Engine | None = None) -> Stats:
    """Count what became of the postbacks that a query finds.

    Args:
        query: its limit and its cursor count for nothing.
        by: a key of ``BY``.
        engine: of the history; without it the one of the settings.

    Raises:
        InvalidQuery: there are no statistics by that, or a filter cannot be; says what to try.
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    if by not in BY:
        raise InvalidQuery(f"There are no statistics by {by!r}: by one of {', '.join(BY)}.")
    groups: defaultdict[str, Group] = defaultdict(Group)
    total = Group()
    with reading(engine or reader()) as connection:
        for name, alike in counted(connection, query, by):
            groups[name].add(*alike)
            total.add(*alike)
        until_ms = recorded_ms(connection)
    rows = [group.row(name) for name, group in groups.items()]
    rows.sort(key=lambda row: (row.key,) if by == "hour" else (-row.postbacks, row.key))
    return Stats(tuple(rows), total.row("total"), until_ms)


def by_minute(query: Query, *, engine: Engine | None = None) -> list[Minute]:
    """Count what became of the postbacks that a query finds by the minute of their acceptance, the oldest first.

    Minutes without any are left out. One statement reads the covering index alone, and not the answers' durations.

    Raises:
        InvalidQuery: a filter cannot be; says what to try.
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    groups: defaultdict[int, Group] = defaultdict(Group)
    columns = f"p.accepted_ms / {_MINUTE_MS}, p.state, CASE WHEN p.attempts > 1 THEN 2 ELSE p.attempts END"
    with reading(engine or reader()) as connection:
        filters = resolve(connection, query)
        if not filters.nothing:
            rows: Iterator[Sequence[Any]] = Path(connection, filters).groups(
                f"{columns}, count(*)", "1, 2, 3"
            )
            for begin, state, posts, count in rows:
                groups[begin].counts[state, posts] += count
    minutes = [(begin * _MINUTE_MS, group.row("")) for begin, group in sorted(groups.items())]
    return [Minute(at_ms, of.first, of.later, of.dead, of.open, of.other) for at_ms, of in minutes]


def counted(connection: Connection, query: Query, by: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield of postbacks that are alike the name, and state, POSTs, ms of the answer, how many, and oldest acceptance."""
    filters = resolve(connection, query)
    if filters.live:
        raise InvalidQuery(
            f"Statistics know no state {query.state}, which the broker alone knows: leave it out."
        )
    if filters.nothing:
        return
    names = {row[0]: row[1] for row in connection.execute(_NAMES[by])} if by in _NAMES else {}
    for row in Path(connection, filters).groups(_COLUMNS.format(key=BY[by]), "1, 2, 3, 4"):
        name = str(iso(row[0] * HOUR_MS)) if by == "hour" else names.get(row[0], "").strip()
        yield name, row[1:]


def percentile(answers: Counter[int], percent: int) -> int | None:
    """Return the shortest duration within which so many percent of the answers came; None where there are none."""
    wanted = -(-answers.total() * percent // 100)
    for elapsed_ms in sorted(answers):
        wanted -= answers[elapsed_ms]
        if wanted <= 0:
            return elapsed_ms
    return None
