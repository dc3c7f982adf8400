"""Erasure of a person from the history: rows are found by the index of values, and lose what identifies the person.

A row keeps its id, account, event, state, times and outcomes. Its document leaves the pack that it shares, its values leave the
index, its attempts what the receiver said, and its URL goes where it came with the call. ``forgotten`` says since when.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.accounts.routing import FORGOTTEN
from postbacks.history import documents, ids, schema
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

log = EventLog(__name__)

#: Reasons that are words of ours.
_OWN_WORD: Final = re.compile(r"[a-z_]*\Z")
#: Rows without an index of their values that are looked at in one go.
_PAGE: Final = 200

#: All slots that have values, whether ``slots`` still has them or not, one look-up each; then the value in each.
_ROWS_OF_VALUE: Final = text(
    "WITH RECURSIVE used(slot) AS (SELECT min(slot) FROM business_values UNION ALL "
    "SELECT (SELECT min(v.slot) FROM business_values v WHERE v.slot > used.slot) FROM used WHERE used.slot IS NOT NULL) "
    "SELECT v.slot, v.row_id FROM used CROSS JOIN business_values v WHERE v.slot = used.slot AND v.hash = :hash "
    "ORDER BY v.slot, v.row_id"
)
#: Messages that could not be read have no values: they are dead, and few.
_MESSAGES: Final = text(
    f"SELECT p.slot, p.row_id FROM postbacks p WHERE {schema.TROUBLED} "
    "AND p.code IN (SELECT id FROM codes WHERE group_name = '') AND p.row_id > :row_id ORDER BY p.row_id LIMIT :at_most"
)


def _of_rows(statement: str) -> Any:
    return text(statement).bindparams(bindparam("rows", expanding=True))


_ROWS: Final = _of_rows("SELECT row_id, id, accepted_ms, reason FROM postbacks WHERE row_id IN :rows")
_PACKS: Final = _of_rows(
    "SELECT DISTINCT (SELECT MAX(d.row_id) FROM documents d WHERE d.row_id <= p.row_id) FROM postbacks p WHERE p.row_id IN :rows"
)
_PACK: Final = text("SELECT row_id, row_count, packing, pack FROM documents WHERE row_id = :row_id")
_CHANGE_PACK: Final = text("UPDATE documents SET packing = :packing, pack = :pack WHERE row_id = :row_id")
_DROP_PACK: Final = text("DELETE FROM documents WHERE row_id = :row_id")
_DROP_VALUES: Final = _of_rows("DELETE FROM business_values WHERE slot = :slot AND row_id IN :rows")
_EMPTY_ATTEMPTS: Final = _of_rows(
    "UPDATE attempts SET detail = NULL, excerpt = NULL WHERE row_id IN :rows "
    "AND (detail IS NOT NULL OR excerpt IS NOT NULL)"
)
_CHANGE_ROW: Final = text("UPDATE postbacks SET reason = :reason, url = NULL WHERE row_id = :row_id")
#: The recorder may have taken a URL from its row before, as the broker's record has none any more.
_DROP_URLS: Final = text(
    "DELETE FROM urls WHERE own = 1 AND NOT EXISTS (SELECT 1 FROM postbacks WHERE url = urls.id AND own > 0) RETURNING id"
)
_MARK: Final = text(
    "INSERT INTO forgotten (row_id, forgotten_ms) VALUES (:row_id, :forgotten_ms) ON CONFLICT (row_id) DO NOTHING"
)


class Place(NamedTuple):
    """Place of a row.

    Attributes:
        slot: in which the index has its values.
        row_id: the row; one whose postback is pruned may still have values.
    """

    slot: int
    row_id: int


class Erased(NamedTuple):
    """Counts of what was erased."""

    rows: int
    documents: int
    values: int


def find(connection: Connection, digest: int) -> list[Place]:
    """Find the rows of a business value by its hash."""
    return [Place(*row) for row in connection.execute(_ROWS_OF_VALUE, {"hash": digest})]


def find_messages(
    connection: Connection, is_mentioned: Callable[[bytes], bool], after: int
) -> tuple[list[Place], int | None]:
    """Find rows of messages that could not be read and mention a person, a page of them.

    Args:
        connection: to the database.
        is_mentioned: tells of a message or a reason whether it does.
        after: the row behind which the page begins; 0 for the first.

    Returns:
        Those of the page, and the row behind which the next one begins; None where there is none.
    """
    page = [Place(*row) for row in connection.execute(_MESSAGES, {"row_id": after, "at_most": _PAGE})]
    if not page:
        return [], None
    reasons = {
        row.row_id: row.reason or ""
        for row in connection.execute(_ROWS, {"rows": [place.row_id for place in page]})
    }
    found = []
    for place in page:
        try:
            document = documents.read(connection, place.row_id) or documents.NONE
        except ValueError:
            document = documents.NONE
        if any(map(is_mentioned, (document.content, reasons[place.row_id].encode()))):
            found.append(place)
    return found, page[-1].row_id


def ids_of(connection: Connection, places: Sequence[Place]) -> dict[int, tuple[str, int]]:
    """Return id and time of acceptance of the rows that are still there, by row."""
    rows = connection.execute(_ROWS, {"rows": [place.row_id for place in places]})
    return {row.row_id: (ids.unpack(row.id), row.accepted_ms) for row in rows}


def erase(connection: Connection, places: Sequence[Place], forgotten_ms: int) -> Erased:
    """Erase rows in a transaction.

    Args:
        connection: to the database; nobody else writes to it meanwhile.
        places: the rows.
        forgotten_ms: the time that is noted.
    """
    row_ids = [place.row_id for place in places]
    rows = connection.execute(_ROWS, {"rows": row_ids}).all()
    dropped = _empty_packs(connection, row_ids)
    connection.execute(_EMPTY_ATTEMPTS, {"rows": row_ids})
    values = 0
    for slot in sorted({place.slot for place in places}):
        of_slot = [place.row_id for place in places if place.slot == slot]
        values += connection.execute(_DROP_VALUES, {"slot": slot, "rows": of_slot}).rowcount
    for row in rows:
        reason = row.reason if row.reason is None or _OWN_WORD.match(row.reason) else FORGOTTEN
        connection.execute(_CHANGE_ROW, {"row_id": row.row_id, "reason": reason})
        mark(connection, row.row_id, forgotten_ms)
    return Erased(len(rows), dropped, values)


def drop_urls(connection: Connection) -> list[int]:
    """Drop calls' own URLs that no postback has any more; return their numbers."""
    return list(connection.execute(_DROP_URLS).scalars())


def mark(connection: Connection, row_id: int, forgotten_ms: int) -> None:
    """Note that a row's person was forgotten; a time that is noted already stays."""
    connection.execute(_MARK, {"row_id": row_id, "forgotten_ms": forgotten_ms})


def _empty_packs(connection: Connection, row_ids: Iterable[int]) -> int:
    """Take the documents of rows out of their packs, which keep those of other rows; return how many went."""
    rows, dropped = set(row_ids), 0
    for pack_id in connection.execute(_PACKS, {"rows": sorted(rows)}).scalars().all():
        pack = None if pack_id is None else connection.execute(_PACK, {"row_id": pack_id}).first()
        if pack is None or not rows.intersection(range(pack.row_id, pack.row_id + pack.row_count)):
            continue
        try:
            packed = documents.unpack(pack.packing, pack.row_count, pack.pack)
        except ValueError:
            log.exception(
                "forget.pack_unreadable",
                "nobody can unpack its documents: they are dropped",
                row_id=pack.row_id,
            )
            packed = [documents.NONE] * pack.row_count
        kept = list(_without(packed, pack.row_id, rows))
        dropped += sum(before.content != after.content for before, after in zip(packed, kept, strict=True))
        if any(document.content for document in kept):
            changed = {"row_id": pack.row_id, "packing": documents.PACKING, "pack": documents.pack(kept)}
            connection.execute(_CHANGE_PACK, changed)
        else:
            connection.execute(_DROP_PACK, {"row_id": pack.row_id})
    return dropped


def _without(
    packed: Sequence[documents.Document], first_row: int, rows: set[int]
) -> Iterator[documents.Document]:
    for row_id, document in enumerate(packed, first_row):
        yield documents.NONE if row_id in rows else document
