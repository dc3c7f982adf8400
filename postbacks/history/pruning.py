"""Pruning: what ended longer ago than the settings' days goes, oldest end first, a few thousand rows at a time.

The one writer prunes after a batch: a second process that prunes would hold SQLite's log open, and wait for the lease's row
on PostgreSQL. Business values have no index by row: they are read through in their own order, an hour of acceptance after the
other, once nearly all postbacks of the hour are gone. Their disk is used again by new rows; neither file shrinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from postbacks.history import facts, schema
from postbacks.history.schema import HOUR_MS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from postbacks.history.bulk import Bulk
    from postbacks.history.names import Names
    from postbacks.settings import Settings

_DAY_MS: Final = 24 * HOUR_MS
#: Hours behind the postbacks' that business values are pruned: most of an hour's postbacks end within it or the next.
_VALUES_LATER_HOURS: Final = 2

_ENDED: Final = text(
    "SELECT row_id, hour, code, state, outcome, status, attempts, CASE WHEN own > 0 THEN url END, ended_ms FROM postbacks "
    "WHERE ended_ms < :before ORDER BY ended_ms LIMIT :at_most"
)
_RANGE_END: Final = text(
    "SELECT ended_ms FROM postbacks WHERE ended_ms >= :since AND ended_ms < :before ORDER BY ended_ms LIMIT 1 OFFSET :at_most"
)
_RANGE: Final = text("SELECT row_id FROM postbacks WHERE ended_ms >= :since AND ended_ms < :until")
_HOUR_IS_USED: Final = text("SELECT 1 FROM postbacks WHERE hour = :hour LIMIT 1")
_DROP_HOUR: Final = text("DELETE FROM hours WHERE hour = :hour")
_DROP_URL: Final = text(
    "DELETE FROM urls WHERE id = :url AND NOT EXISTS (SELECT 1 FROM postbacks WHERE url = :url AND own > 0)"
)
_VALUES: Final = text(
    "SELECT v.hour, v.hash, v.row_id, p.row_id IS NULL FROM business_values v LEFT JOIN postbacks p ON p.row_id = v.row_id "
    "WHERE (v.hour, v.hash, v.row_id) > (:hour, :hash, :row_id) AND v.hour < :until "
    "ORDER BY v.hour, v.hash, v.row_id LIMIT :at_most"
)
_DROP_VALUE: Final = text(
    "DELETE FROM business_values WHERE hour = :hour AND hash = :hash AND row_id = :row_id"
)

#: Where the reading of business values begins: before any.
_FIRST: Final = (-1, 0, 0)


class Pruner:
    """Pruning of one writer. What it knows holds while its transactions do: after one that failed, ``forget`` it."""

    def __init__(self, bulk: Bulk, names: Names) -> None:
        self._bulk = bulk
        self._names = names
        self.forget()

    def forget(self) -> None:
        """Forget what was read of the database; it is read again."""
        self._from: dict[str, int] | None = None
        self._value = _FIRST
        self._values_until = 0

    def learn(self, connection: Connection) -> None:
        """Read until when documents and attempts are pruned, where that is not known."""
        if self._from is None:
            known = facts.read(connection)
            names = facts.POSTBACKS_FROM_MS, facts.ATTEMPTS_FROM_MS, facts.DOCUMENTS_FROM_MS
            self._from = {name: int(known.get(name, 0)) for name in names}

    def keeps_documents(self, ended_ms: int | None) -> bool:
        """Tell whether the document is kept of what ended then; None for what is not at its end."""
        assert self._from is not None
        return ended_ms is None or ended_ms >= self._from[facts.DOCUMENTS_FROM_MS]

    def keeps_attempts(self, ended_ms: int | None) -> bool:
        """Tell whether the attempts are kept of what ended then; None for what is not at its end."""
        assert self._from is not None
        return ended_ms is None or ended_ms >= self._from[facts.ATTEMPTS_FROM_MS]

    def run(self, connection: Connection, now_ms: int, settings: Settings, at_most: int) -> int:
        """Prune in a transaction; return how many rows were looked at, 0 where nothing is due."""
        self.learn(connection)
        postbacks_before = now_ms - int(settings.history_postbacks_days * _DAY_MS)
        pruned = self._postbacks(connection, postbacks_before, at_most)
        for fact, table, days in (
            (facts.DOCUMENTS_FROM_MS, schema.documents, settings.history_documents_days),
            (facts.ATTEMPTS_FROM_MS, schema.attempts, settings.history_attempts_days),
        ):
            pruned += self._of_rows(connection, fact, table, now_ms - int(days * _DAY_MS), at_most)
        until = postbacks_before // HOUR_MS - _VALUES_LATER_HOURS
        return pruned + self._values(connection, until, 2 * at_most)

    def _postbacks(self, connection: Connection, before: int, at_most: int) -> int:
        rows = connection.execute(_ENDED, {"before": before, "at_most": at_most}).all()
        if not rows:
            return 0
        row_ids = [row[0] for row in rows]
        for table in (schema.postbacks, schema.documents, schema.attempts):
            self._bulk.delete(connection, table, row_ids)
        counts: dict[tuple[int, ...], int] = {}
        for _, *key, _, _ in rows:
            counts[tuple(key)] = counts.get(tuple(key), 0) - 1
        self._bulk.count(connection, counts)
        hours = [
            hour
            for hour in {row[1] for row in rows}
            if not connection.execute(_HOUR_IS_USED, {"hour": hour}).first()
        ]
        urls = {row[7] for row in rows} - {None}
        for hour in hours:
            connection.execute(_DROP_HOUR, {"hour": hour})
        for url in urls:
            connection.execute(_DROP_URL, {"url": url})
        self._names.lose(hours, urls)
        self._note(connection, facts.POSTBACKS_FROM_MS, before if len(rows) < at_most else rows[-1][8])
        return len(rows)

    def _of_rows(self, connection: Connection, fact: str, table: Table, before: int, at_most: int) -> int:
        """Prune what rows have in a table, of those that ended since the last time."""
        assert self._from is not None
        since = self._from[fact]
        span = {"since": since, "before": before}
        end = connection.execute(_RANGE_END, {**span, "at_most": at_most}).scalar()
        # all of one ms at once, where even that is more than a slice
        until = before if end is None else max(end, since + 1)
        row_ids = connection.execute(_RANGE, {"since": since, "until": until}).scalars().all()
        if not row_ids:
            return 0
        self._bulk.delete(connection, table, row_ids)
        self._note(connection, fact, until)
        return len(row_ids)

    def _values(self, connection: Connection, until: int, at_most: int) -> int:
        """Prune business values whose rows have gone, of the hours of acceptance before ``until``."""
        if until <= self._values_until:
            return 0
        hour, digest, row_id = self._value
        rows = connection.execute(
            _VALUES, {"hour": hour, "hash": digest, "row_id": row_id, "until": until, "at_most": at_most}
        ).all()
        orphans = [
            {"hour": hour, "hash": digest, "row_id": row_id}
            for hour, digest, row_id, is_gone in rows
            if is_gone
        ]
        if orphans:
            connection.execute(_DROP_VALUE, orphans)
        if len(rows) < at_most:  # read through; once more when the next hour is due
            self._value, self._values_until = _FIRST, until
        else:
            self._value = tuple(rows[-1][:3])
        return len(orphans)

    def _note(self, connection: Connection, fact: str, until: int) -> None:
        assert self._from is not None
        if until > self._from[fact]:
            self._from[fact] = until
            facts.put(connection, {fact: until})
