"""Statements over many rows, in each database's own quick way.

SQLite runs a statement a row without a round trip. PostgreSQL takes new rows by COPY in its binary form, and changes as one
array a column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.history import schema
from postbacks.history.rows import Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Engine, Table

#: Columns of a row that a later reading may change, in the order of ``change``; its ``row_id`` stands behind them.
CHANGING: Final = (
    "sequence",
    "sent_ms",
    "ended_ms",
    "endpoint",
    "elapsed_ms",
    "url",
    "state",
    "outcome",
    "status",
    "attempts",
    "failures",
    "own",
    "reason",
    "phases",
    "address",
)
#: Key of ``counts``.
COUNTED: Final = ("hour", "code", "state", "outcome", "status", "attempts")
#: Ids that one statement of SQLite names at most; it takes 32,766 in all.
_IDS_MAX: Final = 10_000

_STORED: Final = "SELECT row_id, id, accepted_ms, code, state, outcome, status, attempts, elapsed_ms, sent_ms, ended_ms, phases, address FROM postbacks"


class StoredRow(NamedTuple):
    """Row of ``postbacks`` as it stands, as far as a merge needs it."""

    row_id: int
    id: bytes
    accepted_ms: int
    code: int
    state: int
    outcome: int
    status: int
    attempts: int
    elapsed_ms: int
    sent_ms: int | None
    ended_ms: int | None
    phases: str | None
    address: str | None

    @property
    def latest(self) -> Note:
        """Latest attempt that has ended, as far as the row itself has it."""
        return Note(
            self.attempts, self.sent_ms or 0, self.outcome, self.status, self.elapsed_ms, 0,
            phases=self.phases, address=self.address,
        )  # fmt: skip


class SqliteBulk:
    """Statements of SQLite."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows, whose values stand in the order of the table's columns."""
        marks = ", ".join("?" * len(table.columns))
        self._many(connection, f"INSERT INTO {table.name} VALUES ({marks})", rows)

    def merge_attempts(self, connection: Connection, rows: Sequence[tuple[Any, ...]], *, over: bool) -> None:
        """Add attempts, or write them over those of the same number."""
        verb = "REPLACE" if over else "IGNORE"
        marks = ", ".join("?" * len(schema.attempts.columns))
        self._many(connection, f"INSERT OR {verb} INTO attempts VALUES ({marks})", rows)

    def add_missing(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows whose key the table does not have."""
        marks = ", ".join("?" * len(table.columns))
        self._many(connection, f"INSERT OR IGNORE INTO {table.name} VALUES ({marks})", rows)

    def change(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write ``CHANGING`` of rows."""
        columns = ", ".join(f"{name} = ?" for name in CHANGING)
        self._many(connection, f"UPDATE postbacks SET {columns} WHERE row_id = ?", rows)

    def stored(self, connection: Connection, slot: int, ids: Sequence[bytes]) -> list[StoredRow]:
        """Find the rows of ids that were accepted within a slot."""
        return self._found(connection, f"{_STORED} WHERE slot = ? AND id IN", (slot,), ids)

    def open(self, connection: Connection, ids: Sequence[bytes]) -> list[StoredRow]:
        """Find the rows of ids that are not at their end."""
        return self._found(
            connection, f"{_STORED} INDEXED BY postbacks_open_by_id WHERE {schema.OPEN} AND id IN", (), ids
        )

    def count(self, connection: Connection, changes: Mapping[tuple[int, ...], int]) -> None:
        """Add to ``counts``; what is none any more goes."""
        keys = " AND ".join(f"{name} = ?" for name in COUNTED)
        self._many(
            connection,
            "INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET postbacks = postbacks + excluded.postbacks",
            [(*key, number) for key, number in changes.items() if number],
        )
        self._many(
            connection,
            f"DELETE FROM counts WHERE {keys} AND postbacks = 0",
            [tuple(key) for key, number in changes.items() if number < 0],
        )

    def delete(self, connection: Connection, table: Table, row_ids: Sequence[int]) -> int:
        """Delete what rows have in a table; return how many went."""
        if not row_ids:
            return 0
        return self._many(
            connection, f"DELETE FROM {table.name} WHERE row_id = ?", [(row_id,) for row_id in row_ids]
        )

    @staticmethod
    def _many(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
        return connection.exec_driver_sql(statement, list(rows)).rowcount if rows else 0

    @staticmethod
    def _found(
        connection: Connection, statement: str, values: tuple[Any, ...], ids: Sequence[bytes]
    ) -> list[StoredRow]:
        rows: list[StoredRow] = []
        for first in range(0, len(ids), _IDS_MAX):
            some = ids[first : first + _IDS_MAX]
            marks = ", ".join("?" * len(some))
            answer = connection.exec_driver_sql(f"{statement} ({marks})", (*values, *some))
            rows.extend(StoredRow(*row) for row in answer)
        return rows


class PostgresBulk:
    """Statements of PostgreSQL."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows, whose values stand in the order of the table's columns."""
        if not rows:
            return
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([_type_of(table, column.name) for column in table.columns])
            write = copy.write_row
            for row in rows:
                write(row)

    def merge_attempts(self, connection: Connection, rows: Sequence[tuple[Any, ...]], *, over: bool) -> None:
        """Add attempts, or write them over those of the same number."""
        names = [column.name for column in schema.attempts.columns]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[2:])
        self._arrays(
            connection,
            f"INSERT INTO attempts SELECT * FROM {{arrays}} ON CONFLICT (row_id, number) DO {f'UPDATE SET {changes}' if over else 'NOTHING'}",
            schema.attempts,
            names,
            rows,
        )

    def add_missing(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows whose key the table does not have."""
        names = [column.name for column in table.columns]
        statement = f"INSERT INTO {table.name} SELECT * FROM {{arrays}} ON CONFLICT DO NOTHING"
        self._arrays(connection, statement, table, names, rows)

    def change(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write ``CHANGING`` of rows."""
        changes = ", ".join(f"{name} = new.{name}" for name in CHANGING)
        self._arrays(
            connection,
            f"UPDATE postbacks SET {changes} FROM {{arrays}} WHERE postbacks.row_id = new.row_id",
            schema.postbacks,
            [*CHANGING, "row_id"],
            rows,
        )

    def stored(self, connection: Connection, slot: int, ids: Sequence[bytes]) -> list[StoredRow]:
        """Find the rows of ids that were accepted within a slot."""
        answer = connection.exec_driver_sql(
            f"{_STORED} WHERE slot = %s AND id = ANY(%s::bytea[])", (slot, list(ids))
        )
        return [StoredRow(*row) for row in answer]

    def open(self, connection: Connection, ids: Sequence[bytes]) -> list[StoredRow]:
        """Find the rows of ids that are not at their end."""
        if not ids:
            return []
        answer = connection.exec_driver_sql(
            f"{_STORED} WHERE {schema.OPEN} AND id = ANY(%s::bytea[])", (list(ids),)
        )
        return [StoredRow(*row) for row in answer]

    def count(self, connection: Connection, changes: Mapping[tuple[int, ...], int]) -> None:
        """Add to ``counts``; what is none any more goes."""
        names = [*COUNTED, "postbacks"]
        self._arrays(
            connection,
            f"INSERT INTO counts SELECT * FROM {{arrays}} ON CONFLICT ({', '.join(COUNTED)}) "
            "DO UPDATE SET postbacks = counts.postbacks + excluded.postbacks",
            schema.counts,
            names,
            sorted((*key, number) for key, number in changes.items() if number),
        )
        self._arrays(
            connection,
            f"DELETE FROM counts USING {{arrays}} WHERE {' AND '.join(f'counts.{n} = new.{n}' for n in COUNTED)} "
            "AND counts.postbacks = 0",
            schema.counts,
            names[:-1],
            [tuple(key) for key, number in changes.items() if number < 0],
        )

    def delete(self, connection: Connection, table: Table, row_ids: Sequence[int]) -> int:
        """Delete what rows have in a table; return how many went."""
        if not row_ids:
            return 0
        return connection.exec_driver_sql(
            f"DELETE FROM {table.name} WHERE row_id = ANY(%s::bigint[])", (list(row_ids),)
        ).rowcount

    @staticmethod
    def _arrays(
        connection: Connection,
        statement: str,
        table: Table,
        names: Sequence[str],
        rows: Iterable[tuple[Any, ...]],
    ) -> None:
        """Run a statement whose ``{arrays}`` is a table named ``new`` of these columns and rows."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        if not columns:
            return
        types = ", ".join(f"%s::{_type_of(table, name)}[]" for name in names)
        arrays = f"unnest({types}) AS new ({', '.join(names)})"
        connection.exec_driver_sql(statement.format(arrays=arrays), tuple(columns))


Bulk = SqliteBulk | PostgresBulk


def bulk_of(engine: Engine) -> Bulk:
    """Return the statements of an engine's database."""
    return PostgresBulk() if engine.dialect.name == "postgresql" else SqliteBulk()


_TYPES: Final = {"BIGINT": "int8", "INTEGER": "int4", "SMALLINT": "int2", "BLOB": "bytea", "TEXT": "text"}


def _type_of(table: Table, column: str) -> str:
    """Return PostgreSQL's name of a column's type."""
    return _TYPES[str(table.columns[column].type)]
