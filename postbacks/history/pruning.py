"""Pruning: what ended longer ago than the settings' days goes, oldest end first, a few thousand rows at a time.

The one writer prunes after a batch: a second process that prunes would hold SQLite's log open, and wait for the lease's row
on PostgreSQL. Business values have no index by row: they are read through in their own order, a slot of acceptance after the
other, once nearly all postbacks of its hour are gone. Their disk is used again by new rows; neither file shrinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import text

from postbacks.history import facts, schema
from postbacks.history.schema import HOUR_MS
from postbacks.history.slots import first_of_hour, hour_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from postbacks.history.bulk import Bulk
    from postbacks.history.names import Names
    from postbacks.history.slots import Slots
    from postbacks.settings import Settings

_DAY_MS: Final = 24 * HOUR_MS
#: Time behind the postbacks' that business values are pruned: most of an hour's postbacks end within it or the next.
_VALUES_LATER_MS: Final = 2 * HOUR_MS

#: Where the two kinds of postbacks are found that may be pruned: those that ended within an hour of their acceptance, in its
#: order, and the late ones in the order of their end. An hour after its acceptance the former has ended, too.
_SOON: Final = f"accepted_ms >= :since - {HOUR_MS} AND accepted_ms < :until - {HOUR_MS} AND ended_ms <= accepted_ms + {HOUR_MS}"
_LATE: Final = f"ended_ms >= :since AND ended_ms < :until AND {schema.LATE}"
_SOON_STEP: Final = text(
    f"SELECT accepted_ms + {HOUR_MS} FROM postbacks WHERE accepted_ms >= :since - {HOUR_MS} AND accepted_ms < :until - {HOUR_MS} "
    "ORDER BY accepted_ms LIMIT 1 OFFSET :at_most"
)
_LATE_STEP: Final = text(
    f"SELECT ended_ms FROM postbacks WHERE {_LATE} ORDER BY ended_ms LIMIT 1 OFFSET :at_most"
)
_COLUMNS: Final = "row_id, slot, code, state, outcome, status, attempts, CASE WHEN own > 0 THEN url END"
_DUE: Final = text(
    f"SELECT {_COLUMNS} FROM postbacks WHERE {_SOON} UNION ALL SELECT {_COLUMNS} FROM postbacks WHERE {_LATE}"
)
_DUE_COUNT: Final = text(
    f"SELECT (SELECT count(*) FROM postbacks WHERE {_SOON}) + (SELECT count(*) FROM postbacks WHERE {_LATE})"
)
_PACK: Final = (
    "SELECT (SELECT MAX(d.row_id) FROM documents d WHERE d.row_id <= p.row_id) FROM postbacks p WHERE"
)
_PACKS: Final = text(f"{_PACK} {_SOON} UNION {_PACK} {_LATE}")
_DROP_PACK: Final = text(
    "DELETE FROM documents WHERE row_id = :pack AND NOT EXISTS (SELECT 1 FROM postbacks p "
    "WHERE p.row_id >= documents.row_id AND p.row_id < documents.row_id + documents.row_count "
    f"AND (p.ended_ms IS NULL OR p.ended_ms >= :until OR p.accepted_ms >= :until - {HOUR_MS}))"
)
_DROP_URL: Final = text(
    "DELETE FROM urls WHERE id = :url AND NOT EXISTS (SELECT 1 FROM postbacks WHERE url = :url AND own > 0)"
)
_VALUES: Final = text(
    "SELECT v.slot, v.hash, v.row_id, p.row_id IS NULL FROM business_values v LEFT JOIN postbacks p ON p.row_id = v.row_id "
    "WHERE (v.slot, v.hash, v.row_id) > (:slot, :hash, :row_id) AND v.slot < :until "
    "ORDER BY v.slot, v.hash, v.row_id LIMIT :at_most"
)
_DROP_VALUE: Final = text(
    "DELETE FROM business_values WHERE slot = :slot AND hash = :hash AND row_id = :row_id"
)

#: ms that must have gone by since the last time, so that a recorder with little to do does not ask for each batch.
_PAUSE_MS: Final = 1_000
#: Time after all others.
NEVER: Final = 2**62
#: Where the reading of business values begins: before any.
_FIRST: Final = (-1, 0, 0)


def due_ms(accepted_ms: int, ended_ms: int | None) -> int:
    """Return the time from which the days of a postback count: its end, but not before an hour after its acceptance.

    What ``facts`` says to be pruned until a time is pruned of those that are due before it. One that is not at its end is due
    ``NEVER``.
    """
    return NEVER if ended_ms is None else max(accepted_ms + HOUR_MS, ended_ms)


class Due(NamedTuple):
    """Postbacks that are to lose something.

    Attributes:
        documents: those that lose their documents.
        attempts: those that lose their attempts.
        postbacks: those that go whole.
    """

    documents: int
    attempts: int
    postbacks: int


def count_due(connection: Connection, now_ms: int, settings: Settings) -> Due:
    """Count what is older than the settings keep, and not pruned yet."""
    known = facts.read(connection)
    return Due(
        *(
            connection.execute(_DUE_COUNT, {"since": int(known.get(fact, 0)), "until": until}).scalar_one()
            for fact, until in _ends(now_ms, settings)
        )
    )


def _ends(now_ms: int, settings: Settings) -> list[tuple[str, int]]:
    """Return each fact with the time until which it is to be pruned; nothing of a postback is kept longer than itself."""
    days = (
        (facts.DOCUMENTS_FROM_MS, settings.history_documents_days),
        (facts.ATTEMPTS_FROM_MS, settings.history_attempts_days),
        (facts.POSTBACKS_FROM_MS, settings.history_postbacks_days),
    )
    return [
        (fact, now_ms - int(min(of_it, settings.history_postbacks_days) * _DAY_MS)) for fact, of_it in days
    ]


class Pruner:
    """Pruning of one writer. What it knows holds while its transactions do: after one that failed, ``forget`` it."""

    def __init__(self, bulk: Bulk, names: Names, slots: Slots) -> None:
        self._bulk = bulk
        self._names = names
        self._slots = slots
        self.forget()

    def forget(self) -> None:
        """Forget what was read of the database; it is read again."""
        self._from: dict[str, int] = {}
        self._value = _FIRST
        self._values_until = 0

    def learn(self, connection: Connection) -> None:
        """Read until when it is pruned, where that is not known."""
        if not self._from:
            known = facts.read(connection)
            names = facts.POSTBACKS_FROM_MS, facts.DOCUMENTS_FROM_MS, facts.ATTEMPTS_FROM_MS
            self._from = {name: int(known.get(name, 0)) for name in names}

    def keeps(self, fact: str, due_ms: int) -> bool:
        """Tell whether what a fact names is kept of a postback that is due then; it may be recorded when that is pruned."""
        return due_ms >= self._from[fact]

    def return_to(self, connection: Connection, due_ms: int) -> None:
        """Prune once more from then on: the end of a postback whose row is there was recorded late."""
        for fact in self._from:
            if not self.keeps(fact, due_ms):
                self._from[fact] = due_ms
                facts.put(connection, {fact: due_ms})

    def run(self, connection: Connection, now_ms: int, settings: Settings, at_most: int) -> int:
        """Prune in a transaction; return how many rows were looked at, 0 where nothing is due."""
        self.learn(connection)
        # Where even now is pruned, the clock was ahead: what ends now would not be recorded until it is there again.
        if max(self._from.values()) > now_ms:
            self.return_to(connection, now_ms)
        looked_at = 0
        for fact, until in _ends(now_ms, settings):
            # packs of documents are found by the rows of their postbacks, so these go last
            before = (
                min(until, self._from[facts.DOCUMENTS_FROM_MS]) if fact == facts.POSTBACKS_FROM_MS else until
            )
            looked_at += self._slice(connection, fact, before, at_most)
        until = first_of_hour(self._from[facts.POSTBACKS_FROM_MS] - _VALUES_LATER_MS)
        return looked_at + self._values(connection, until, 2 * at_most)

    def _slice(self, connection: Connection, fact: str, before: int, at_most: int) -> int:
        """Prune what a fact names, from where it stands on; return how many rows were looked at."""
        since = self._from[fact]
        if before < since + _PAUSE_MS:
            return 0
        span = {"since": since, "until": before, "at_most": at_most}
        ends = [connection.execute(step, span).scalar() for step in (_SOON_STEP, _LATE_STEP)]
        steps = [end for end in ends if end is not None]
        # of one ms all at once, where even these are more
        until = max(min([before, *steps]), since + 1)
        rows = connection.execute(_DUE, span | {"until": until}).all()
        self._from[fact] = until
        if rows or steps:
            facts.put(connection, {fact: until})
        row_ids = [row[0] for row in rows]
        if fact == facts.DOCUMENTS_FROM_MS:
            self._drop_packs(connection, since, until)
        elif fact == facts.ATTEMPTS_FROM_MS:
            self._bulk.delete(connection, schema.attempts, row_ids)
        elif rows:
            self._drop(connection, rows, row_ids)
        return max(len(rows), len(steps))

    @staticmethod
    def _drop_packs(connection: Connection, since: int, until: int) -> None:
        """Drop the packs of documents of which all postbacks are due; what waits for another one goes with that."""
        packs = connection.execute(_PACKS, {"since": since, "until": until}).scalars().all()
        found = [{"pack": pack, "until": until} for pack in packs if pack is not None]
        if found:  # none is where no row before has a document
            connection.execute(_DROP_PACK, found)

    def _drop(self, connection: Connection, rows: Sequence[Sequence[Any]], row_ids: list[int]) -> None:
        """Drop postbacks with all but their business values, and what only they have used."""
        for table in (schema.postbacks, schema.attempts, schema.resends, schema.forgotten):
            self._bulk.delete(connection, table, row_ids)
        counts: dict[tuple[int, ...], int] = {}
        slots: dict[int, int] = {}
        for _, slot, *kind, _ in rows:
            key = hour_of(slot), *kind
            counts[key] = counts.get(key, 0) - 1
            slots[slot] = slots.get(slot, 0) - 1
        self._bulk.count(connection, counts)
        self._slots.count(connection, slots)
        urls = {row[7] for row in rows} - {None}
        for url in urls:
            connection.execute(_DROP_URL, {"url": url})
        self._names.lose(urls)

    def _values(self, connection: Connection, until: int, at_most: int) -> int:
        """Prune business values whose rows have gone, of the slots before ``until``."""
        if until <= self._values_until:
            return 0
        slot, digest, row_id = self._value
        rows = connection.execute(
            _VALUES, {"slot": slot, "hash": digest, "row_id": row_id, "until": until, "at_most": at_most}
        ).all()
        orphans = [
            {"slot": slot, "hash": digest, "row_id": row_id}
            for slot, digest, row_id, is_gone in rows
            if is_gone
        ]
        if orphans:
            connection.execute(_DROP_VALUE, orphans)
        if len(rows) < at_most:  # read through; once more when the next hour is due
            self._value, self._values_until = _FIRST, until
        else:
            self._value = tuple(rows[-1][:3])
        return len(orphans)
