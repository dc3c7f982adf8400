"""Copies of whole postbacks that the history has: each acceptance as the record that the ledger would have of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.history import documents, facts, ids, schema
from postbacks.history.engine import reader
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.ledger.phases import Phases
from postbacks.ledger.reasons import forgotten_words
from postbacks.ledger.record import Attempt, Record, Resend
from postbacks.names import is_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Engine, Row

#: Postbacks that one statement reads.
PAGE: Final = 500

_STATE_NAMES: Final = {number: name for name, number in schema.STATES.items()}
_OUTCOME_NAMES: Final = {number: name for name, number in schema.OUTCOMES.items()}

_ROWS: Final = text(
    "SELECT p.*, a.name AS account_name, c.origin, c.code AS code_name, c.group_name, u.url AS url_text"
    ", f.forgotten_ms FROM postbacks p LEFT JOIN accounts a ON a.id = p.account LEFT JOIN codes c ON c.id = p.code"
    " LEFT JOIN urls u ON u.id = p.url LEFT JOIN forgotten f ON f.row_id = p.row_id WHERE p.row_id IN :rows"
).bindparams(bindparam("rows", expanding=True))
_ATTEMPTS: Final = text("SELECT * FROM attempts WHERE row_id IN :rows ORDER BY row_id, number").bindparams(
    bindparam("rows", expanding=True)
)
_RESENDS: Final = text(
    "SELECT row_id, attempts, at_ms, by_whom, job FROM resends WHERE row_id IN :rows ORDER BY row_id, attempts"
).bindparams(bindparam("rows", expanding=True))
#: Slots are walked in this order by both databases; SQLite's planner would read a whole index without the name of its own.
_ROWS_OF_ID: Final = (
    "SELECT p.row_id FROM slots s CROSS JOIN postbacks p {index} WHERE p.slot = s.slot AND p.id = :id"
    " ORDER BY p.accepted_ms DESC"
)
_OLDEST_SLOT: Final = text("SELECT min(slot) FROM slots")


class Copy(NamedTuple):
    """Copy of one acceptance of a postback.

    Attributes:
        record: as the ledger would have it. Its attempts are those that history still has; ``forgotten`` is a state, too.
        begun: POSTs begun.
        own: whose its URL is, as in the record (``queue/rows.py``).
        row_id: its row in the database.
        fault: why its document cannot be read; empty where it can, and where there is none.
    """

    record: Record
    begun: int
    own: str
    row_id: int
    fault: str = ""

    @property
    def is_open(self) -> bool:
        """True where history does not have its end: the broker knows its state."""
        return schema.STATES[self.record.state] <= schema.LAST_OPEN

    @property
    def no_document(self) -> str:
        """Say as a clause why there is no document; empty where there is one."""
        if self.record.forgotten_ms is not None:
            return forgotten_words(self.record)
        if self.record.xml or self.fault:
            return self.fault
        if self.record.raw is not None or not self.record.group:
            return "it is a message that could not be read"
        if self.record.is_stub:
            return "its account had too many waiting and dead, and its document was not kept"
        return "its document was kept for POSTBACKS_HISTORY_DOCUMENTS_DAYS"


class Recorded(NamedTuple):
    """Answer to what the history has of one id.

    Attributes:
        copies: of its acceptances, the newest first.
        recorded_ms: until when history had read the broker's changes; None where it never has.
        since_ms: begin of the oldest slot that history has postbacks of; None where it has none.
    """

    copies: tuple[Copy, ...]
    recorded_ms: int | None
    since_ms: int | None


def copies_of(postback_id: str, *, engine: Engine | None = None) -> Recorded:
    """Find what history has of an id, whole.

    Args:
        postback_id: the id.
        engine: of the history; without it the one of the settings.

    Raises:
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    with reading(engine or reader()) as connection:
        rows = rows_of(connection, postback_id)
        oldest_slot = connection.execute(_OLDEST_SLOT).scalar()
        return Recorded(
            read_rows(connection, rows),
            facts.number(connection, facts.RECORDED_MS),
            None if oldest_slot is None else oldest_slot * schema.SLOT_MS,
        )


def rows_of(connection: Connection, postback_id: str) -> Sequence[int]:
    """Find the rows of an id, the newest acceptance first; none of what cannot be an id."""
    if not is_id(postback_id):
        return ()
    index = "INDEXED BY postbacks_by_id" if connection.dialect.name == "sqlite" else ""
    statement = text(_ROWS_OF_ID.format(index=index))
    return connection.execute(statement, {"id": ids.pack(postback_id)}).scalars().all()


def read_rows(connection: Connection, row_ids: Sequence[int]) -> tuple[Copy, ...]:
    """Read copies by their rows, in the order of ``row_ids``."""
    copies: list[Copy] = []
    for first in range(0, len(row_ids), PAGE):
        page = row_ids[first : first + PAGE]
        rows = {row.row_id: row for row in connection.execute(_ROWS, {"rows": page})}
        notes: dict[int, list[Row[Any]]] = {}
        for note in connection.execute(_ATTEMPTS, {"rows": page}):
            notes.setdefault(note.row_id, []).append(note)
        resends: dict[int, list[Resend]] = {}
        for row_id, *resend in connection.execute(_RESENDS, {"rows": page}):
            resends.setdefault(row_id, []).append(Resend(*resend))
        copies += (
            _copy(connection, rows[row_id], notes.get(row_id, ()), resends.get(row_id, ()))
            for row_id in page
            if row_id in rows
        )
    return tuple(copies)


def _copy(
    connection: Connection, row: Row[Any], notes: Iterable[Row[Any]], resends: Iterable[Resend]
) -> Copy:
    document, fault = documents.NONE, ""
    try:
        document = documents.read(connection, row.row_id) or document
    except ValueError as error:
        fault = str(error)
    record = Record(
        id=ids.unpack(row.id),
        state=_STATE_NAMES[row.state],
        account=row.account_name or "",
        group=row.group_name or "",
        origin=row.origin or "",
        code=row.code_name or "",
        url=row.url_text or "",
        xml=document.content if document.kind == documents.XML else b"",
        created_ms=row.accepted_ms,
        sequence=row.sequence,
        reason=row.reason or "",
        attempts=tuple(map(_attempt, notes)) or _latest_alone(row),
        failures=row.failures,
        next_ms=None,
        ended_ms=row.ended_ms,
        raw=document.content if document.kind == documents.MESSAGE else None,
        first_id=row.first_id or "",
        own_url=row.own != 0,
        resends=tuple(resends),
        is_stub=row.sequence == 0 and row.state == schema.STATES[states.DEAD],
        is_opt_out=bool(row.opt_out),
        forgotten_ms=row.forgotten_ms,
    )
    return Copy(record, row.attempts, str(row.own), row.row_id, fault)


def _attempt(note: Row[Any]) -> Attempt:
    return Attempt(
        number=note.number,
        at_ms=note.at_ms,
        outcome=_OUTCOME_NAMES.get(note.outcome, "unknown"),
        status=note.status or None,
        elapsed_ms=note.elapsed_ms,
        detail=note.detail or "",
        excerpt=note.excerpt or "",
        shared=bool(note.shared),
        phases=Phases.unpack(note.phases),
        address=note.address or "",
    )


def _latest_alone(row: Row[Any]) -> tuple[Attempt, ...]:
    """Return the latest attempt from the postback's own row, where it is the only one or the others are pruned."""
    if not row.outcome or row.sent_ms is None:
        return ()
    is_answered = row.outcome in schema.ANSWERED  # the row has the status of an earlier answer, too
    return (
        Attempt(
            number=row.attempts,
            at_ms=row.sent_ms,
            outcome=_OUTCOME_NAMES.get(row.outcome, "unknown"),
            status=row.status if is_answered else None,
            elapsed_ms=row.elapsed_ms,
            phases=Phases.unpack(row.phases),
            address=row.address or "",
        ),
    )
