"""Writer of the history: merges records into rows, in transactions that hold only while its lease is the latest."""

from __future__ import annotations

from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from postbacks.catalogue.opt_outs import is_opt_out, words_of
from postbacks.errors import HistoryUnfit, LeaseLost
from postbacks.history import documents, facts, ids, journal, schema, values
from postbacks.history.bulk import StoredRow, bulk_of
from postbacks.history.erasing import mark
from postbacks.history.names import Names
from postbacks.history.pruning import NEVER, Pruner, due_ms
from postbacks.history.rows import Note, Reading, UnreadableRecord, read, text_of
from postbacks.history.schema import HOUR_MS, STATES
from postbacks.history.slots import FULL, Slots
from postbacks.history.transactions import writing
from postbacks.ledger import states
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from postbacks.history.documents import Document
    from postbacks.ledger.journal import Entry
    from postbacks.settings import Settings

    #: Key of ``counts`` -> what a transaction adds to it.
    Counts = dict[tuple[int, ...], int]

log = EventLog(__name__)

_FORGOTTEN: Final = STATES["forgotten"]
_DELIVERED: Final = STATES[states.DELIVERED]
#: ms that the first and the last postback of a pack of documents may be due apart.
_PACK_MS: Final = 24 * HOUR_MS
#: Ids of unreadable records that were logged and are remembered for it.
_LOGGED_MAX: Final = 10_000

_LAST_ATTEMPT: Final = text(
    "SELECT number, at_ms, outcome, status, elapsed_ms, phases, address FROM attempts"
    " WHERE row_id = :row_id ORDER BY number DESC LIMIT 1"
)
_FORGET: Final = text("UPDATE postbacks SET state = :state, ended_ms = :ended_ms WHERE row_id = :row_id")


class Writer:
    """Writer that one recorder has. It writes and prunes while no other has taken the lease since.

    After an error nothing of the call is written, and the same call may be made again.

    Args:
        engine: of the history.
        slot_rows: rows from which on a slot is full.
        opt_out_words: words that are opt-outs (``catalogue/opt_outs.py``), for records without their mark.

    Attributes:
        lease: number of the latest lease that it has taken; None before the first.
    """

    def __init__(
        self, engine: Engine, *, slot_rows: int = FULL, opt_out_words: frozenset[str] = words_of(())
    ) -> None:
        self._engine = engine
        self._opt_out_words = opt_out_words
        self._bulk = bulk_of(engine)
        self._lock_lease = text(
            "SELECT value FROM facts WHERE name = 'lease'"
            + " FOR UPDATE" * (engine.dialect.name == "postgresql")
        )
        self.lease: int | None = None
        self._names = Names()
        self._last_row: int | None = None
        self._slots = Slots(slot_rows)
        self._pruner = Pruner(self._bulk, self._names, self._slots)
        self._logged: set[str] = set()

    def take_lease(self) -> int:
        """Take the lease from whoever has it; return its number."""
        self._forget()
        with writing(self._engine) as connection:
            lease = int(connection.execute(self._lock_lease).scalar_one()) + 1
            facts.put(connection, {facts.LEASE: lease})
        self.lease = lease
        return lease

    def write(
        self,
        records: Sequence[tuple[str, dict[bytes, bytes]]],
        *,
        recorded_id: str | None = None,
        recorded_ms: int | None = None,
    ) -> int:
        """Write records in one transaction: new rows, and what has changed of those that are there.

        Where the database refuses one of them, each is written by itself, and those that it refuses are left out like
        unreadable ones: one record must not keep all behind it out of the history.

        Args:
            records: ids and hashes as they were read; an empty hash where the broker has no record (any more). Of one
                that was not at its end, the row becomes ``forgotten``.
            recorded_id: id of the feed's latest entry that these are of.
            recorded_ms: time of that entry.

        Returns:
            Rows that were added or changed.

        Raises:
            LeaseLost: another recorder has taken the lease.
            HistoryUnavailable: the database does not answer, is locked or full; nothing is written.
            HistoryUnfit: the database refuses whatever is written.
        """
        try:
            return self._write(records, {}, recorded_id, recorded_ms)
        except HistoryUnfit:
            if not records:
                raise
        rows, refused = 0, {}
        for record in records:
            try:
                rows += self._write([record], {}, None, recorded_ms)
            except HistoryUnfit as error:
                refused[record[0]] = f"the database refuses its record: {error}"
        return rows + self._write(
            [], refused, recorded_id, recorded_ms
        )  # raises where it refuses this as well

    def _write(
        self,
        records: Sequence[tuple[str, dict[bytes, bytes]]],
        unreadable: dict[str, str],
        recorded_id: str | None,
        recorded_ms: int | None,
    ) -> int:
        batches = list(_batches(records, unreadable))
        rows = 0
        with self._transaction() as connection:
            for readings, gone in batches:
                rows += self._merge(connection, readings, gone, recorded_ms)
            noted: dict[str, int | str] = {}
            if rows and self._last_row is not None:
                noted[facts.LAST_ROW] = self._last_row
            if recorded_id is not None:
                noted[facts.RECORDED_ID] = recorded_id
            if recorded_ms is not None:
                noted[facts.RECORDED_MS] = recorded_ms
            if new := unreadable.keys() - self._logged:
                noted[facts.UNREADABLE] = (facts.number(connection, facts.UNREADABLE) or 0) + len(new)
            if noted:
                facts.put(connection, noted)
        for postback_id in new:
            log.error("history.unreadable", unreadable[postback_id], id=postback_id)
        self._logged = (self._logged if len(self._logged) < _LOGGED_MAX else set()) | new
        return rows

    def prune(self, now_ms: int, settings: Settings, at_most: int = 2_000) -> int:
        """Prune what ended longer ago than the settings' days, oldest first; never what is not at its end.

        Returns:
            How many postbacks were looked at and how many rows went, at most about ``at_most`` of each kind; 0 where nothing
            is due.

        Raises:
            LeaseLost: another recorder has taken the lease.
            HistoryUnavailable: the database does not answer, is locked or full; nothing is pruned.
        """
        with self._transaction() as connection:
            return self._pruner.run(connection, now_ms, settings, at_most)

    def copy_journal(self, entries: Sequence[Entry]) -> None:
        """Add entries of the journal, each once however often it comes.

        Raises:
            LeaseLost: another recorder has taken the lease.
            HistoryUnavailable: the database does not answer, is locked or full; nothing is written.
        """
        with self._transaction() as connection:
            journal.add(connection, entries)

    def prune_journal(self, now_ms: int, settings: Settings, at_most: int = 2_000) -> int:
        """Prune the oldest entries of the journal, past the settings' days; return how many went.

        Raises:
            LeaseLost, HistoryUnavailable: as ``copy_journal``.
        """
        until_ms = now_ms - int(settings.history_journal_days * 24 * HOUR_MS)
        with self._transaction() as connection:
            return journal.prune(connection, until_ms, at_most)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Open a transaction that holds only with the latest lease; what was learnt in one that failed is forgotten."""
        try:
            with writing(self._engine) as connection:
                self.check_lease(connection)
                yield connection
        except BaseException:
            self._forget()
            raise

    def check_lease(self, connection: Connection) -> None:
        """Check, within a transaction, that no other recorder has taken the lease; none can until it ends.

        Raises:
            LeaseLost: another recorder has taken it.
        """
        lease = int(connection.execute(self._lock_lease).scalar_one())
        if lease != self.lease:
            raise LeaseLost(
                f"Another recorder writes to the history by now (lease {lease}, not {self.lease}): nothing was written."
            )

    def lose_urls(self, urls: Collection[int]) -> None:
        """Forget the numbers of URLs that are gone."""
        self._names.lose(urls)

    def _forget(self) -> None:
        self._last_row = None
        self._names.forget()
        self._slots.forget()
        self._pruner.forget()

    def _merge(
        self, connection: Connection, readings: list[Reading], gone: list[bytes], recorded_ms: int | None
    ) -> int:
        """Merge records of different ids into their rows; return how many rows were added or changed."""
        bulk = self._bulk
        by_slot: dict[int, list[bytes]] = {}
        for reading in readings:
            by_slot.setdefault(self._slots.of(connection, reading.accepted_ms), []).append(reading.id)
        stored = {
            (row.id, row.accepted_ms): row
            for slot, its_ids in by_slot.items()
            for row in bulk.stored(connection, slot, its_ids)
        }
        counts: Counts = {}
        # The broker has one record an id: another acceptance of it that is not at its end has left the broker.
        read_now = {reading.id: reading.accepted_ms for reading in readings}
        forgotten = [
            row
            for row in bulk.open(connection, [*read_now, *gone])
            if read_now.get(row.id) != row.accepted_ms
        ]
        if forgotten:
            self._forget_rows(connection, forgotten, recorded_ms, counts)
        self._names.learn(connection, readings)
        new, known = [], []
        for reading in readings:
            row = stored.get(reading[:2])  # id and time of acceptance
            if row is None:
                new.append(reading)
            else:
                known.append((reading, row))
        self._add(connection, new, counts)
        self._change(connection, known, counts)
        bulk.count(connection, counts)
        return len(readings) + len(forgotten)

    def _add(self, connection: Connection, readings: list[Reading], counts: Counts) -> None:
        """Add the rows of acceptances that history does not have."""
        if not readings:
            return
        if self._last_row is None:
            self._last_row = facts.number(connection, facts.LAST_ROW) or 0
        row_id = self._last_row
        names, slots, pruner = self._names, self._slots, self._pruner
        pruner.learn(connection)
        slots.open(connection, [reading.accepted_ms for reading in readings])
        rows_of_slots: dict[int, int] = {}
        rows: list[tuple[Any, ...]] = []
        kept: list[tuple[int, Document]] = []
        notes: list[tuple[Any, ...]] = []
        hashes: list[tuple[int, int, int]] = []
        resends: list[tuple[Any, ...]] = []
        forgotten: list[tuple[int, int]] = []
        # A pack of documents is pruned when all of it is due, so what is due together stands together.
        due = [(due_ms(reading.accepted_ms, reading.ended_ms), reading) for reading in readings]
        for due_at, reading in sorted(due, key=itemgetter(0)):
            if not pruner.keeps(facts.POSTBACKS_FROM_MS, due_at):
                continue
            row_id += 1
            slot = slots.of(connection, reading.accepted_ms)
            rows_of_slots[slot] = rows_of_slots.get(slot, 0) + 1
            own, state, attempts = reading.own, reading.state, reading.attempts
            account, code, endpoint, url = names.of(reading)
            outcome = status = elapsed_ms = 0
            sent_ms = phases = address = None
            if reading.notes:
                _, sent_ms, outcome, status, elapsed_ms, _, _, _, phases, address = reading.notes[-1]
                if not status:
                    status = _latest_status(reading.notes)
                if not reading.is_plain and pruner.keeps(facts.ATTEMPTS_FROM_MS, due_at):
                    notes.extend((row_id, *note) for note in reading.notes)
            resends.extend((row_id, *resend) for resend in reading.resends)
            rows.append(
                (
                    row_id, reading.accepted_ms, reading.sequence, sent_ms, reading.ended_ms, slot, account, endpoint,
                    elapsed_ms, url, code, state, outcome, status, attempts, reading.failures, own,
                    self._is_opt_out(reading), reading.id, reading.reason, reading.first_id, phases, address,
                )
            )  # fmt: skip
            key = reading.accepted_ms // HOUR_MS, code, state, outcome, status, attempts
            counts[key] = counts.get(key, 0) + 1
            if reading.forgotten_ms is not None:
                forgotten.append((row_id, reading.forgotten_ms))
            is_kept = pruner.keeps(facts.DOCUMENTS_FROM_MS, due_at)
            kept.append((due_at, reading.document if is_kept else documents.NONE))
            kind, content = reading.document
            if content and kind == documents.XML:
                found = {values.hash_of(*value) for value in values.of_document(content)}
                hashes.extend([(slot, digest, row_id) for digest in found])
        packs = _packs(self._last_row + 1, kept)
        self._last_row = row_id
        slots.count(connection, rows_of_slots)
        bulk = self._bulk
        bulk.insert(connection, schema.postbacks, rows)
        bulk.insert(connection, schema.documents, packs)
        bulk.insert(connection, schema.attempts, notes)
        bulk.add_missing(connection, schema.resends, resends)
        bulk.insert(connection, schema.forgotten, forgotten)
        hashes.sort()  # neighbours of the file together
        bulk.insert(connection, schema.business_values, hashes)

    def _is_opt_out(self, reading: Reading) -> int:
        """Return 1 for an opt-out: version 0.1.0 marks none, so the document says it as well."""
        origin, code = text_of(reading.origin), text_of(reading.code)
        document = reading.document.content
        return int(reading.is_marked or is_opt_out(origin, code, document, self._opt_out_words))

    def _change(self, connection: Connection, known: list[tuple[Reading, StoredRow]], counts: Counts) -> None:
        """Bring rows to what was read of them now: the last reading says the state, attempts are merged by number."""
        if not known:
            return
        names, pruner = self._names, self._pruner
        pruner.learn(connection)
        changes: list[tuple[Any, ...]] = []
        notes: list[tuple[Any, ...]] = []
        earlier: list[tuple[Any, ...]] = []
        for reading, row in known:
            latest = self._latest(connection, reading, row)
            attempts = max(reading.attempts, latest.number if latest else 0)
            status = _latest_status(reading.notes) or row.status
            if latest and latest.status:
                status = latest.status
            outcome, elapsed_ms, sent_ms, phases, address = (
                (latest.outcome, latest.elapsed_ms, latest.at_ms, latest.phases, latest.address)
                if latest
                else (0, 0, None, None, None)
            )
            due_before, due_at = (
                due_ms(row.accepted_ms, ended_ms) for ended_ms in (row.ended_ms, reading.ended_ms)
            )
            had_document = pruner.keeps(facts.DOCUMENTS_FROM_MS, due_before)
            if due_at != due_before:
                pruner.return_to(connection, due_at)
            keeps_attempts = pruner.keeps(facts.ATTEMPTS_FROM_MS, due_at)
            is_alone = reading.is_plain and attempts == 1
            # a broker that was restored has begun the same attempt once more: its row says it, and what is kept of the former goes
            is_other = is_alone and row.outcome and row.sent_ms != reading.notes[-1].at_ms
            if keeps_attempts and (is_other or not is_alone):
                if row.state == _DELIVERED and row.attempts == 1 and row.sent_ms is not None:
                    earlier.append((row.row_id, *row.latest))  # its row alone has said so until now
                notes.extend((row.row_id, *note) for note in reading.notes)
            if (
                not had_document
                and pruner.keeps(facts.DOCUMENTS_FROM_MS, due_at)
                and reading.document.content
                and documents.read(connection, row.row_id) is None
            ):  # it was sent again after its document was pruned
                self._bulk.insert(connection, schema.documents, _packs(row.row_id, [(0, reading.document)]))
            if reading.forgotten_ms is not None:
                mark(connection, row.row_id, reading.forgotten_ms)
            _, _, endpoint, url = names.of(reading)
            changes.append(
                (
                    reading.sequence, sent_ms, reading.ended_ms, endpoint, elapsed_ms, url, reading.state, outcome, status,
                    attempts, reading.failures, reading.own, reading.reason, phases, address, row.row_id,
                )
            )  # fmt: skip
            hour = row.accepted_ms // HOUR_MS
            before = hour, row.code, row.state, row.outcome, row.status, row.attempts
            after = hour, row.code, reading.state, outcome, status, attempts
            if before != after:
                counts[before] = counts.get(before, 0) - 1
                counts[after] = counts.get(after, 0) + 1
        bulk = self._bulk
        bulk.change(connection, changes)
        bulk.merge_attempts(connection, earlier, over=False)
        bulk.merge_attempts(connection, notes, over=True)
        resends = [(row.row_id, *resend) for reading, row in known for resend in reading.resends]
        bulk.add_missing(connection, schema.resends, resends)

    @staticmethod
    def _latest(connection: Connection, reading: Reading, row: StoredRow) -> Note | None:
        """Find the latest attempt that has ended, of those read now and those that history has."""
        newest = reading.notes[-1] if reading.notes else None
        if not row.outcome or (newest and newest.number >= row.attempts):
            return newest
        stored = connection.execute(_LAST_ATTEMPT, {"row_id": row.row_id}).first()
        if stored is None:  # its row alone says it, or the attempts are pruned
            kept = row.latest
        else:
            number, at_ms, outcome, status, elapsed_ms, phases, address = stored
            kept = Note(number, at_ms, outcome, status, elapsed_ms, 0, phases=phases, address=address)
        return newest if newest and newest.number >= kept.number else kept

    def _forget_rows(
        self, connection: Connection, rows: list[StoredRow], recorded_ms: int | None, counts: Counts
    ) -> None:
        """Note that the records of rows left the broker before their end was read."""
        if recorded_ms is None:
            recorded_ms = facts.number(connection, facts.RECORDED_MS)
        self._pruner.learn(connection)
        self._pruner.return_to(
            connection, min(due_ms(row.accepted_ms, max(recorded_ms or 0, row.accepted_ms)) for row in rows)
        )
        connection.execute(
            _FORGET,
            [
                {
                    "state": _FORGOTTEN,
                    "ended_ms": max(recorded_ms or 0, row.accepted_ms),
                    "row_id": row.row_id,
                }
                for row in rows
            ],
        )
        for row in rows:
            hour = row.accepted_ms // HOUR_MS
            key = hour, row.code, row.state, row.outcome, row.status, row.attempts
            counts[key] = counts.get(key, 0) - 1
            key = hour, row.code, _FORGOTTEN, row.outcome, row.status, row.attempts
            counts[key] = counts.get(key, 0) + 1


def _batches(
    records: Sequence[tuple[str, dict[bytes, bytes]]], unreadable: dict[str, str]
) -> Iterator[tuple[list[Reading], list[bytes]]]:
    """Read records, in batches in which no id stands twice: ids of records, and ids without one.

    Args:
        records: ids and hashes.
        unreadable: gets the id of each record that cannot be read, and why.
    """
    readings: list[Reading] = []
    gone: list[bytes] = []
    seen: set[str] = set()
    for postback_id, fields in records:
        if postback_id in seen:
            yield readings, gone
            readings, gone, seen = [], [], set()
        seen.add(postback_id)
        try:
            reading = read(postback_id, fields)
        except UnreadableRecord as error:
            unreadable[postback_id] = str(error)
        else:
            if reading is None:
                gone.append(ids.pack(postback_id))
            else:
                readings.append(reading)
    yield readings, gone


def _latest_status(notes: Sequence[Note]) -> int:
    return next((note.status for note in reversed(notes) if note.status), 0)


def _packs(row_id: int, kept: list[tuple[int, Document]]) -> list[tuple[int, int, int, bytes]]:
    """Pack the documents of neighbouring rows into rows of ``documents``.

    Args:
        row_id: of the first of them.
        kept: when each is due, in this order, and its document.
    """
    packs: list[tuple[int, int, int, bytes]] = []
    pack: list[Document] = []
    size = first_due_at = 0
    for due_at, document in [*kept, (2 * NEVER, documents.NONE)]:
        if pack and (
            len(pack) == documents.ROWS_MAX
            or size >= documents.FULL_BYTES
            or due_at > first_due_at + _PACK_MS
            or (
                document.content and not size
            )  # those before have none any more, and may get one of their own again
        ):
            if size:
                packs.append((row_id, len(pack), documents.PACKING, documents.pack(pack)))
            row_id += len(pack)
            pack, size = [], 0
        if not pack:
            first_due_at = due_at
        pack.append(document)
        size += len(document.content)
    return packs
