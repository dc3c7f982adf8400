"""Readings of the ledger and of the history's database, as they are compared."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from crash.history_comparison import HistoryComparison, Told, compare_history, told_by
from postbacks import keys
from postbacks.history.bulk import COUNTED
from postbacks.history.copies import read_rows
from postbacks.history.schema import HOUR_MS
from postbacks.history.transactions import reading
from postbacks.ledger.record import Record

#: The rows of ``postbacks`` with their hours, by which ``counts`` counts.
_WITH_HOUR: Final = f"(SELECT *, accepted_ms / {HOUR_MS} AS hour FROM postbacks) AS timed"  # noqa: S608 - a number of our own


def compare_all(ledger: dict[str, Told], engine: Engine) -> HistoryComparison:
    """Compare the ledger with every row of a history."""
    with reading(engine) as connection:
        row_ids = connection.execute(text("SELECT row_id FROM postbacks ORDER BY row_id")).scalars().all()
        copies = read_rows(connection, row_ids)
        return compare_history(
            ledger,
            [(copy.record.id, told_by(copy.record, copy.begun, copy.own)) for copy in copies],
            _counts(connection, "postbacks FROM counts"),
            _counts(connection, f"count(*) FROM {_WITH_HOUR} GROUP BY {', '.join(COUNTED)}"),
        )


def read_ledger(client: Any) -> dict[str, Told]:
    """Read what all records of the broker tell."""
    ids = [key.decode().removeprefix(keys.RECORD) for key in client.scan_iter(f"{keys.RECORD}*", 1000)]
    return {
        postback_id: told_by_hash(postback_id, client.hgetall(keys.record(postback_id)))
        for postback_id in ids
    }


def told_by_hash(postback_id: str, fields: dict[bytes, bytes]) -> Told:
    """Return what a record tells by its hash."""
    record = Record.from_hash(postback_id, fields)
    return told_by(record, int(fields.get(b"attempts", 0)), fields.get(b"own", b"0").decode())


def _counts(connection: Connection, rest: str) -> dict[str, int]:
    """Read numbers of postbacks by the key of ``counts``, in words."""
    rows = connection.execute(text(f"SELECT {', '.join(COUNTED)}, {rest}"))
    return {
        " ".join(f"{name} {value}" for name, value in zip(COUNTED, row, strict=False)): row[-1]
        for row in rows
    }
