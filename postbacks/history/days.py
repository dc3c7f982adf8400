"""Statistics of the last 24 hours, for whoever asks for them again and again: what was counted is kept by the hour.

An hour is counted anew once anything of it has changed. ``counts``, which the writer changes in the transaction that
changes a row, tells so for a thousandth of the work.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import text

from postbacks.errors import HistoryUnavailable
from postbacks.history import schema
from postbacks.history.engine import reader
from postbacks.history.filters import resolve
from postbacks.history.listing import recorded_ms
from postbacks.history.paths import Path
from postbacks.history.query import Query
from postbacks.history.schema import HOUR_MS, STATES
from postbacks.history.statistics import Group, Stats, counted, percentile
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.ledger.record import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

T = TypeVar("T")

DAY_MS: Final = 24 * HOUR_MS
#: Seconds after which one call counts no further hour; the next one goes on.
WITHIN_S: Final = 3.0
#: Seconds after which an hour is counted anew in any case: two changes of it may have made up for each other in ``counts``.
_KEPT_S: Final = 600.0
_COUNTS: Final = text(
    "SELECT hour, code, state, outcome, status, attempts, postbacks FROM counts WHERE hour >= :first "
    "ORDER BY hour, code, state, outcome, status, attempts"
)
_NAMES: Final = text("SELECT id, name FROM accounts")
#: Duration of an answer to two digits, of postbacks that were answered: as people read it, and few enough to be kept.
_ROUNDED: Final = (
    f"CASE WHEN p.outcome NOT IN {schema.ANSWERED} THEN -1 WHEN p.elapsed_ms < 100 THEN p.elapsed_ms "
    "WHEN p.elapsed_ms < 1000 THEN p.elapsed_ms / 10 * 10 WHEN p.elapsed_ms < 10000 THEN p.elapsed_ms / 100 * 100 "
    "ELSE p.elapsed_ms / 1000 * 1000 END"
)
_COLUMNS: Final = (
    f"p.account, p.state, CASE WHEN p.attempts > 1 THEN 2 ELSE p.attempts END, {_ROUNDED}, count(*)"
)
_WIDTH: Final = 5
_DELIVERED, _DEAD = STATES[states.DELIVERED], STATES[states.DEAD]


class _Kept(NamedTuple, Generic[T]):
    """Counts of an hour, the state of ``counts`` that they are of, and when they were made."""

    of: int
    counts: T
    at_s: float


class _Day(Generic[T]):
    """Counts of whole hours. Calls of several threads do not wait for each other.

    A subclass counts a stretch of time (``_count``), and may follow how hours change (``_change``).
    """

    def __init__(self) -> None:
        self._hours: dict[int, _Kept[T]] = {}
        self._lock = threading.Lock()

    def _count(self, connection: Connection, since_ms: int, until_ms: int) -> T:
        """Count from one time to another."""
        raise NotImplementedError

    def _change(self, before: T | None, now: T | None) -> None:
        """Take note of what an hour had and has; None for nothing."""

    @contextmanager
    def _refreshed(
        self, now_ms: int, engine: Engine | None
    ) -> Iterator[tuple[Connection, tuple[int, T] | None]]:
        """Bring the whole hours of the day before a time up to date, one call at a time.

        Yields:
            Connection to the history, and the hour in which the day begins with its counts from there on; None where the
            day begins with an hour.

        Raises:
            HistoryUnavailable: somebody else counts, or there is more than one call counts.
        """
        if not self._lock.acquire(blocking=False):
            raise self._unfinished()
        try:
            with reading(engine or reader()) as connection:
                yield connection, self._refresh(connection, now_ms)
        finally:
            self._lock.release()

    def _unfinished(self) -> HistoryUnavailable:
        return HistoryUnavailable(
            f"The postbacks of the last 24 hours are being counted, {len(self._hours)} hours so far; look again in a moment."
        )

    def _refresh(self, connection: Connection, now_ms: int) -> tuple[int, T] | None:
        since_ms = now_ms - DAY_MS
        first = -(-since_ms // HOUR_MS)
        by_hour: dict[int, list[tuple[Any, ...]]] = {}
        for row in connection.execute(_COUNTS, {"first": first}):
            by_hour.setdefault(row[0], []).append(tuple(row))
        for hour in self._hours.keys() - by_hour.keys():
            self._change(self._hours.pop(hour).counts, None)
        began_s = time.monotonic()
        oldest_s = min((kept.at_s for kept in self._hours.values()), default=began_s)
        for hour, rows in by_hour.items():
            of, kept = hash(tuple(rows)), self._hours.get(hour)
            is_old = kept is not None and kept.at_s == oldest_s and oldest_s < began_s - _KEPT_S
            if kept is not None and kept.of == of and not is_old:
                continue
            if time.monotonic() - began_s > WITHIN_S:
                raise self._unfinished()
            counts = self._count(connection, hour * HOUR_MS, (hour + 1) * HOUR_MS)
            self._change(kept.counts if kept else None, counts)
            self._hours[hour] = _Kept(of, counts, time.monotonic())
        if since_ms == first * HOUR_MS:
            return None
        return first - 1, self._count(connection, since_ms, first * HOUR_MS)


class DayOfAccount(_Day[Group]):
    """Day of an account by the hour, exactly as ``stats`` counts it.

    Args:
        account: its name.
    """

    def __init__(self, account: str) -> None:
        super().__init__()
        self._account = account

    def read(self, now_ms: int, *, engine: Engine | None = None) -> Stats:
        """Count what was accepted in the 24 hours before a time.

        Raises:
            HistoryUnavailable: there is more than one call counts; the next one goes on. Or as ``stats``.
            HistoryOff, HistoryError: as ``stats``.
        """
        with self._refreshed(now_ms, engine) as (connection, edge):
            groups = {hour: kept.counts for hour, kept in self._hours.items()}
            if edge:
                groups[edge[0]] = edge[1]
            until_ms = recorded_ms(connection)
        total = Group()
        for group in groups.values():
            total.merge(group)
        rows = (groups[hour].row(str(iso(hour * HOUR_MS))) for hour in sorted(groups))
        return Stats(tuple(row for row in rows if row.postbacks), total.row("total"), until_ms)

    def _count(self, connection: Connection, since_ms: int, until_ms: int) -> Group:
        group = Group()
        query = Query(account=self._account, since_ms=since_ms, until_ms=until_ms)
        for _, alike in counted(connection, query, "hour"):
            group.add(*alike)
        return group


class AccountCounts(NamedTuple):
    """Postbacks of an account within a day.

    Attributes:
        postbacks: accepted.
        sent: of them those of which a POST has begun.
        first: delivered by the first POST.
        dead: given up.
        open: neither delivered nor given up yet.
        p50_ms: median of the latest POST's time to its answer, to two digits; None for none.
        p95_ms: of 20 such answers 19 came as fast.
    """

    postbacks: int
    sent: int
    first: int
    dead: int
    open: int
    p50_ms: int | None
    p95_ms: int | None


class _Total:
    """Sums of an account."""

    __slots__ = ("answers", "dead", "first", "open", "postbacks", "sent")

    def __init__(self) -> None:
        self.postbacks = self.sent = self.first = self.dead = self.open = 0
        self.answers: Counter[int] = Counter()

    def add(self, state: int, posts: int, elapsed_ms: int, number: int) -> None:
        """Count postbacks that are alike; a negative number takes them away."""
        self.postbacks += number
        if posts:
            self.sent += number
        if state == _DELIVERED:
            if posts == 1:
                self.first += number
        elif state == _DEAD:
            self.dead += number
        elif state <= schema.LAST_OPEN:
            self.open += number
        if elapsed_ms >= 0:
            self.answers[elapsed_ms] += number

    def copy(self) -> _Total:
        """Return sums that change apart from these."""
        other = _Total()
        for name in ("postbacks", "sent", "first", "dead", "open"):
            setattr(other, name, getattr(self, name))
        other.answers = self.answers.copy()
        return other

    def row(self) -> AccountCounts:
        """Return the counts."""
        answers = +self.answers  # without those of which none is left
        return AccountCounts(
            self.postbacks, self.sent, self.first, self.dead, self.open, percentile(answers, 50), percentile(answers, 95)
        )  # fmt: skip


class DayByAccount(_Day["array[int]"]):
    """Day of all accounts. Of an hour ``_WIDTH`` numbers are kept for postbacks that are alike."""

    def __init__(self) -> None:
        super().__init__()
        self._totals: dict[int, _Total] = {}

    def read(self, now_ms: int, *, engine: Engine | None = None) -> dict[str, AccountCounts]:
        """Count what was accepted in the 24 hours before a time, by the name of its account.

        Raises:
            HistoryUnavailable: there is more than one call counts; the next one goes on. Or as ``stats``.
            HistoryOff, HistoryError: as ``stats``.
        """
        with self._refreshed(now_ms, engine) as (connection, edge):
            totals = self._totals
            if edge:
                totals = dict(totals)
                for account in {*edge[1][::_WIDTH]} & totals.keys():
                    totals[account] = totals[account].copy()
                _add(totals, edge[1], 1)
            names = {row.id: row.name for row in connection.execute(_NAMES)}
            return {
                names.get(account, ""): total.row() for account, total in totals.items() if total.postbacks
            }

    def _count(self, connection: Connection, since_ms: int, until_ms: int) -> array[int]:
        counts = array("i")
        filters = resolve(connection, Query(since_ms=since_ms, until_ms=until_ms))
        for row in Path(connection, filters).groups(_COLUMNS, "1, 2, 3, 4"):
            counts.extend(row)
        return counts

    def _change(self, before: array[int] | None, now: array[int] | None) -> None:
        _add(self._totals, before or (), -1)
        _add(self._totals, now or (), 1)


def _add(totals: dict[int, _Total], counts: Sequence[int], sign: int) -> None:
    for account, state, posts, elapsed_ms, number in _rows(counts):
        total = totals.get(account)
        if total is None:
            total = totals[account] = _Total()
        total.add(state, posts, elapsed_ms, sign * number)


def _rows(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    numbers = iter(counts)
    return zip(*[numbers] * _WIDTH, strict=True)
