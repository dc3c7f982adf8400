"""Paths to what a query finds: which index is read, in which order, and how much of it.

Each statement names its index on SQLite (INDEXED BY), whose planner guesses without statistics; PostgreSQL has them. Only a
path that does not meet its postbacks newest first is walked in spans of time, so that a page reads no more than a few
times its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import text

from postbacks.history import schema
from postbacks.history.schema import HOUR_MS, SLOT_MS, SLOW_MS
from postbacks.history.slots import first_of_hour
from postbacks.ledger import states

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row, TextClause

    from postbacks.history.filters import Filters

#: Paths, by what leads their index.
VALUE: Final = "value"
ACCOUNT: Final = "account"
OPEN: Final = "open"
TROUBLED: Final = "troubled"
HOST: Final = "host"
TIME: Final = "time"
OPT_OUTS: Final = "opt_outs"
UNDELIVERED: Final = "undelivered"

_INDEX: Final = {
    ACCOUNT: "postbacks_by_account",
    OPEN: "postbacks_open",
    TROUBLED: "postbacks_troubled",
    HOST: "postbacks_by_account",
    TIME: "postbacks_by_time",
    OPT_OUTS: "postbacks_opt_outs",
    UNDELIVERED: "postbacks_opt_outs_undelivered",
}
#: Postbacks that have a value from which on it is common, such as a short code: a path of few others is shorter.
_COMMON: Final = 1000
#: First span of a walk, and how many times longer each next one is.
_FIRST_SPAN_MS: Final = 600_000
_FIRST_VALUE_SPAN_MS: Final = 24 * HOUR_MS
_GROWTH: Final = 4
_DELIVERED: Final = schema.STATES[states.DELIVERED]


class Key(NamedTuple):
    """Row of the database and its place in the order."""

    accepted_ms: int
    row_id: int


class _Span(NamedTuple):
    """Times of acceptance from ``since_ms``, before ``until_ms``."""

    since_ms: int
    until_ms: int


class Path:
    """Path to what filters find.

    Attributes:
        name: of the path.
        filters: that it serves.
    """

    def __init__(self, connection: Connection, filters: Filters) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"
        self.filters = filters
        self.name = self._choose()

    # -- choice ------------------------------------------------------------------------------------

    def _choose(self) -> str:
        filters = self.filters
        is_troubled = self._is_troubled()
        is_rare = is_troubled or filters.opt_outs
        if filters.hashes and not (is_rare and self._is_common(filters.hashes[0])):
            return VALUE
        if filters.opt_outs:  # few, of whatever account
            is_undelivered = filters.undelivered or filters.state not in {None, _DELIVERED}
            return UNDELIVERED if is_undelivered else OPT_OUTS
        if filters.account is not None and filters.reason is None:
            return OPEN if filters.live else ACCOUNT
        if is_troubled:  # as all that have a reason are
            return TROUBLED
        return TIME if filters.endpoints is None else HOST

    def _is_troubled(self) -> bool:
        """Tell whether the filters leave out all that was delivered by its first POST in time."""
        filters = self.filters
        return (
            filters.state not in {None, _DELIVERED}
            or filters.attempts not in {None, 1}
            or filters.outcome not in {None, schema.OUTCOMES["delivered"]}
            or filters.status not in {None, 200}
            or filters.reason is not None
            or filters.undelivered
            or (filters.slower_than_ms is not None and filters.slower_than_ms >= SLOW_MS)
        )

    def _is_common(self, value: int) -> bool:
        count = text(
            "SELECT count(*) FROM (SELECT 1 FROM slots s CROSS JOIN business_values v "
            "WHERE v.slot = s.slot AND v.hash = :hash LIMIT :most) postbacks_of_value"
        )
        return bool(self._connection.execute(count, {"hash": value, "most": _COMMON}).scalar_one() == _COMMON)

    @property
    def _is_counted(self) -> bool:
        """Tell whether ``counts`` knows all that is filtered by, but for times."""
        filters = self.filters
        return (
            self.name in {TIME, TROUBLED}
            and not (filters.live or filters.hashes)
            and filters.endpoints is None
            and filters.reason is None
            and filters.slower_than_ms is None
        )

    # -- statements --------------------------------------------------------------------------------

    def _statement(self, columns: str, span: _Span, tail: str = "") -> tuple[TextClause, dict[str, Any]]:
        """Put the statement together that reads the path's rows of a span."""
        parameters = self._parameters() | self._limits(span)
        conditions = ["p.accepted_ms >= :since_ms", "p.accepted_ms < :until_ms", *self._conditions()]
        if self.name == VALUE:
            source = "slots s CROSS JOIN business_values v CROSS JOIN postbacks p"
            conditions += [
                "s.slot >= :first_slot",
                "s.slot <= :last_slot",
                "v.slot = s.slot",
                "v.hash = :hash0",
                "p.row_id = v.row_id",
            ]
        else:
            source = "postbacks p"
            if self._is_sqlite:
                source += f" INDEXED BY {_INDEX[self.name]}"
        # Names and conditions are this module's; what people give travels as parameters.
        statement = f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)} {tail}"
        return text(statement), parameters

    def _limits(self, span: _Span) -> dict[str, int]:
        """Return the parameters of a statement that say the span."""
        limits = {"since_ms": span.since_ms, "until_ms": span.until_ms}
        if self.name == VALUE:
            limits |= {
                "first_slot": first_of_hour(span.since_ms),
                "last_slot": (span.until_ms - 1) // SLOT_MS,
            }
        return limits

    def _parameters(self) -> dict[str, Any]:
        filters = self.filters
        named = ("account", "state", "outcome", "status", "reason", "attempts", "slower_than_ms")
        hashes = {f"hash{number}": value for number, value in enumerate(filters.hashes)}
        return {name: getattr(filters, name) for name in named if getattr(filters, name) is not None} | hashes

    def _conditions(self) -> list[str]:
        """Return the conditions on a postback, beside its time of acceptance."""
        filters = self.filters
        conditions = []
        if filters.account is not None:
            conditions.append("p.account = :account")
        elif self.name == HOST:
            conditions.append(
                "p.account IN (SELECT account FROM account_endpoints "
                f"WHERE endpoint IN ({_listed(filters.endpoints or ())}))"
            )
        # SQLite compares in this order: the cheap ones first.
        if filters.slower_than_ms is not None:
            conditions.append("p.elapsed_ms > :slower_than_ms")
        conditions += self._counted_conditions("p.")
        if filters.endpoints is not None:
            conditions.append(f"p.endpoint IN ({_listed(filters.endpoints)})")
        if filters.live:
            conditions.append(f"p.{schema.OPEN.text}")
        if filters.opt_outs:
            conditions.append(f"p.{schema.OPT_OUT.text}")
        if filters.reason is not None:
            conditions.append("p.reason = :reason")
        if self.name == TROUBLED:
            conditions.append(schema.TROUBLED.text)
        # The first leads its path.
        for number in range(1 if self.name == VALUE else 0, len(filters.hashes)):
            conditions.append(
                "EXISTS (SELECT 1 FROM business_values w "
                f"WHERE w.slot = p.slot AND w.hash = :hash{number} AND w.row_id = p.row_id)"
            )
        return conditions

    def _counted_conditions(self, prefix: str = "") -> list[str]:
        """Return the conditions on what ``counts`` has, too."""
        filters = self.filters
        names = ("outcome", "status", "attempts", *(() if filters.live else ("state",)))
        conditions = [f"{prefix}{name} = :{name}" for name in names if getattr(filters, name) is not None]
        if filters.undelivered or self.name == UNDELIVERED:
            conditions.append(f"{prefix}{schema.UNDELIVERED.text}")
        if filters.codes is not None:
            conditions.append(f"{prefix}code IN ({_listed(filters.codes)})")
        return conditions

    # -- reading -----------------------------------------------------------------------------------

    def keys(self, before: Key | None, limit: int) -> list[Key]:
        """Read the keys of the newest postbacks behind a key, at most ``limit``."""
        span = self._span(before)
        keys: list[Key] = []
        for part in self._parts(span) if span else ():
            keys += self._read(part, before, limit - len(keys))
            if len(keys) == limit:
                break
        return keys

    def _read(self, span: _Span, before: Key | None, limit: int) -> list[Key]:
        tail = "ORDER BY p.accepted_ms DESC, p.row_id DESC LIMIT :limit"
        if before is not None and before.accepted_ms < span.until_ms:
            tail = f"AND (p.accepted_ms < :before_ms OR p.row_id < :before_row) {tail}"
        statement, parameters = self._statement("p.accepted_ms, p.row_id", span, tail)
        if before is not None:
            parameters |= {"before_ms": before.accepted_ms, "before_row": before.row_id}
        return [Key(*row) for row in self._connection.execute(statement, parameters | {"limit": limit})]

    def _span(self, before: Key | None) -> _Span | None:
        """Return the times between the oldest and the newest postback that the filters leave; None for none."""
        oldest, newest = (
            self._connection.execute(text(f"SELECT {end}(accepted_ms) FROM postbacks")).scalar()
            for end in ("min", "max")
        )
        if oldest is None or newest is None:
            return None
        since_ms = max(oldest, self.filters.since_ms or 0)
        until_ms = newest + 1 if self.filters.until_ms is None else min(newest + 1, self.filters.until_ms)
        if before is not None:
            until_ms = min(until_ms, before.accepted_ms + 1)
        return _Span(since_ms, until_ms) if since_ms < until_ms else None

    def _parts(self, span: _Span) -> Iterator[_Span]:
        """Cut a span, newest first, where the path does not meet its postbacks in that order."""
        narrowed = self.name == TIME and bool(self._counted_conditions())
        if not narrowed and self.name not in {VALUE, HOST}:
            yield span
            return
        length_ms = _FIRST_VALUE_SPAN_MS if self.name == VALUE else _FIRST_SPAN_MS
        until_ms = span.until_ms
        while until_ms > span.since_ms:
            part = _Span(max(span.since_ms, until_ms - length_ms), until_ms)
            yield from self._narrowed(part) if narrowed else (part,)
            until_ms = part.since_ms
            length_ms *= _GROWTH

    def _narrowed(self, span: _Span) -> Iterator[_Span]:
        """Leave out the hours of a span in which ``counts`` has none."""
        conditions = " AND ".join(["hour >= :first_hour", "hour <= :last_hour", *self._counted_conditions()])
        hours = text(f"SELECT DISTINCT hour FROM counts WHERE {conditions} ORDER BY hour DESC")
        limits = {"first_hour": span.since_ms // HOUR_MS, "last_hour": (span.until_ms - 1) // HOUR_MS}
        for first, last in _runs(self._connection.execute(hours, self._parameters() | limits).scalars()):
            yield _Span(max(span.since_ms, first * HOUR_MS), min(span.until_ms, (last + 1) * HOUR_MS))

    # -- counting ----------------------------------------------------------------------------------

    def count(self) -> int:
        """Count what the filters find."""
        span = self._span(None)
        if span is None:
            return 0
        whole = self._whole_hours(span)
        if whole is None:
            return self._count_rows(span)
        first, last = whole
        edges = (_Span(span.since_ms, first * HOUR_MS), _Span(last * HOUR_MS, span.until_ms))
        return self._count_hours(first, last) + sum(
            self._count_rows(edge) for edge in edges if edge.since_ms < edge.until_ms
        )

    def _whole_hours(self, span: _Span) -> tuple[int, int] | None:
        """Return the hours, the last one excluded, that can be counted without their postbacks; None for none."""
        filters = self.filters
        by_value_alone = self.name == VALUE and len(filters.hashes) == 1 and not self._conditions()
        if not (by_value_alone or self._is_counted):
            return None
        # The first and the last hour are whole where the filters name no time within them.
        first = -(-span.since_ms // HOUR_MS) if filters.since_ms else span.since_ms // HOUR_MS
        last = span.until_ms // HOUR_MS if filters.until_ms else -(-span.until_ms // HOUR_MS)
        return (first, last) if first < last else None

    def _count_hours(self, first: int, last: int) -> int:
        if self.name == VALUE:
            limits = {
                "first_slot": first_of_hour(first * HOUR_MS),
                "until_slot": first_of_hour(last * HOUR_MS),
            }
            statement = (
                "SELECT count(*) FROM slots s CROSS JOIN business_values v "
                "WHERE s.slot >= :first_slot AND s.slot < :until_slot AND v.slot = s.slot AND v.hash = :hash0"
            )
        else:
            limits = {"first_hour": first, "last_hour": last}
            conditions = ["hour >= :first_hour", "hour < :last_hour", *self._counted_conditions()]
            statement = f"SELECT coalesce(sum(postbacks), 0) FROM counts WHERE {' AND '.join(conditions)}"
        return int(self._connection.execute(text(statement), self._parameters() | limits).scalar_one())

    def by_time(self, part_ms: int) -> Iterator[tuple[int, int, int]]:
        """Yield the part of time of acceptance, its number since the epoch, a state, and how many the filters find in both."""
        span = self._span(None)
        if span is None:
            return
        whole = None if part_ms % HOUR_MS or self.name == VALUE else self._whole_hours(span)
        edges = [span]
        if whole is not None:
            first, last = whole
            edges = [_Span(span.since_ms, first * HOUR_MS), _Span(last * HOUR_MS, span.until_ms)]
            conditions = ["hour >= :first_hour", "hour < :last_hour", *self._counted_conditions()]
            hours = text(
                f"SELECT hour / {part_ms // HOUR_MS}, state, sum(postbacks) FROM counts"
                f" WHERE {' AND '.join(conditions)} GROUP BY 1, 2"
            )
            limits = {"first_hour": first, "last_hour": last}
            for number, state, postbacks in self._connection.execute(hours, self._parameters() | limits):
                yield number, state, int(postbacks)
        for edge in edges:
            if edge.since_ms >= edge.until_ms:
                continue
            if not self._is_sqlite:
                columns = f"p.accepted_ms / {part_ms}, p.state, count(*)"
                statement, parameters = self._statement(columns, edge, "GROUP BY 1, 2")
                yield from map(tuple, self._connection.execute(statement, parameters))
                continue
            # SQLite sorts what it groups by an expression: a statement a part takes half the time.
            statement, parameters = self._statement("p.state, count(*)", edge, "GROUP BY p.state")
            for part in _cut(edge, part_ms):
                parameters |= self._limits(part)
                for state, postbacks in self._connection.execute(statement, parameters):
                    yield part.since_ms // part_ms, state, postbacks

    def span(self) -> tuple[int, int] | None:
        """Return the times between which all lies that the filters leave, the last one excluded; None for none."""
        return self._span(None)

    def groups(self, columns: str, group_by: str) -> Iterator[Row[Any]]:
        """Read aggregates of what the filters find.

        Args:
            columns: of the statement; ``p`` is a postback.
            group_by: of the statement.
        """
        span = self._span(None)
        if span is not None:
            statement, parameters = self._statement(columns, span, f"GROUP BY {group_by}")
            yield from self._connection.execute(statement, parameters)

    def _count_rows(self, span: _Span) -> int:
        statement, parameters = self._statement("count(*)", span)
        return int(self._connection.execute(statement, parameters).scalar_one())


def _cut(span: _Span, part_ms: int) -> Iterator[_Span]:
    """Cut a span at the multiples of a length."""
    for number in range(span.since_ms // part_ms, (span.until_ms - 1) // part_ms + 1):
        yield _Span(max(span.since_ms, number * part_ms), min(span.until_ms, (number + 1) * part_ms))


def _listed(numbers: Sequence[int]) -> str:
    """Write numbers of the database for a statement; none of them is 0 rows, not an error."""
    return ", ".join(map(str, numbers)) or "NULL"


def _runs(hours: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Join hours, newest first, that follow each other: the first and the last of each run."""
    first = last = None
    for hour in hours:
        if first is not None and last is not None and hour < first - 1:
            yield first, last
            last = hour
        first = hour
        last = hour if last is None else last
    if first is not None and last is not None:
        yield first, last
