"""Versions of the schema: tables made, an older database brought forward, a newer one refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from postbacks.errors import HistoryUnfit
from postbacks.history import facts, schema
from postbacks.history.transactions import display, writing


def _add_phases(connection: Connection) -> None:
    """Add what is kept of an attempt's course; those from before have none."""
    for table in (schema.postbacks, schema.attempts):
        for column in (table.c.phases, table.c.address):
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} TEXT"))


#: Version -> the step that makes the one after it of it. Each is one statement or a few, in one transaction.
_STEPS: Final[Mapping[int, Callable[[Connection], None]]] = {1: _add_phases}

#: Facts of a history with nothing in it, beside its schema.
FIRST_FACTS: Final[dict[str, int | str]] = {facts.LEASE: 0, facts.LAST_ROW: 0}
#: Name of the lock that lets one process at a time make the tables on PostgreSQL; SQLite locks its file.
_LOCK: Final = 7_264_011_516


def prepare(engine: Engine) -> None:
    """Make the tables of an empty database, or bring those of an older version forward, in one transaction.

    Raises:
        HistoryUnfit: the database is a newer version's, or has other tables of these names.
        HistoryUnavailable: it does not answer, or is locked or full.
    """
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        version = _version(connection)
        if version is None:
            _refuse_foreign_tables(connection)
            schema.metadata.create_all(connection, checkfirst=False)
            connection.execute(text(_VIEW[engine.dialect.name]))
        elif version > schema.VERSION:
            raise HistoryUnfit(_newer(connection, version))
        else:  # tables that this schema got while no release had it
            schema.metadata.create_all(connection)
        for step in range(version or schema.VERSION, schema.VERSION):
            _STEPS[step](connection)
        _name_numbers(connection)
        if version is None:
            facts.put(connection, FIRST_FACTS)
        if version != schema.VERSION:
            facts.put(connection, {facts.SCHEMA: schema.VERSION})


def check(connection: Connection) -> None:
    """Check that the database is of this version's schema.

    Raises:
        HistoryUnfit: it is not; says what to do.
    """
    version = _version(connection)
    history = f"The history {display(connection.engine.url)}"
    if version is None:
        raise HistoryUnfit(f"{history} has no tables yet; `postbacks history run` makes them.")
    if version > schema.VERSION:
        raise HistoryUnfit(_newer(connection, version))
    if version < schema.VERSION:
        raise HistoryUnfit(
            f"{history} is of schema {version}, and this version reads {schema.VERSION}; "
            "`postbacks history run` of this version brings it forward."
        )


def _newer(connection: Connection, version: int) -> str:
    return (
        f"The history {display(connection.engine.url)} is of schema {version}, and this version knows up to "
        f"{schema.VERSION}; use the version of postbacks that wrote it, or a newer one."
    )


def _version(connection: Connection) -> int | None:
    """Read the version of the schema; None where there are no tables of ours."""
    if not inspect(connection).has_table("facts"):
        return None
    return facts.number(connection, facts.SCHEMA)


def _refuse_foreign_tables(connection: Connection) -> None:
    taken = sorted(set(inspect(connection).get_table_names()) & set(schema.metadata.tables))
    if taken:
        raise HistoryUnfit(
            f"The history {display(connection.engine.url)} has tables of somebody else ({', '.join(taken)}); "
            "give it a database of its own."
        )


def _name_numbers(connection: Connection) -> None:
    """Write the names of states and outcomes, among them those that a release has added without a new schema."""
    for table, numbers in ((schema.states, schema.STATES), (schema.outcomes, schema.OUTCOMES)):
        connection.execute(
            text(f"INSERT INTO {table.name} (id, name) VALUES (:id, :name) ON CONFLICT (id) DO NOTHING"),
            [{"id": number, "name": name} for name, number in numbers.items()],
        )


_READABLE: Final = """
CREATE VIEW postbacks_readable AS
SELECT p.row_id, {id} AS id, a.name AS account, c.group_name AS group_name, c.origin, c.code,
  s.name AS state, p.reason, {accepted} AS accepted, {ended} AS ended, p.attempts, o.name AS outcome,
  NULLIF(p.status, 0) AS status, CASE WHEN p.outcome > 0 THEN p.elapsed_ms END AS elapsed_ms,
  e.endpoint, e.host, u.url, p.first_id, p.accepted_ms, p.ended_ms
FROM postbacks p
JOIN accounts a ON a.id = p.account
JOIN codes c ON c.id = p.code
JOIN states s ON s.id = p.state
LEFT JOIN outcomes o ON o.id = p.outcome
LEFT JOIN endpoints e ON e.id = p.endpoint
LEFT JOIN urls u ON u.id = p.url
"""
#: View for people who write SQL: names instead of numbers, ids and times as text.
_VIEW: Final = {
    "sqlite": _READABLE.format(
        id="""CASE substr(p.id, 1, 1)
    WHEN x'01' THEN lower(substr(hex(p.id), 3, 8) || '-' || substr(hex(p.id), 11, 4) || '-' || substr(hex(p.id), 15, 4)
      || '-' || substr(hex(p.id), 19, 4) || '-' || substr(hex(p.id), 23))
    WHEN x'02' THEN lower(substr(hex(p.id), 3))
    ELSE CAST(p.id AS TEXT) END""",
        accepted="strftime('%Y-%m-%dT%H:%M:%fZ', p.accepted_ms / 1000.0, 'unixepoch')",
        ended="strftime('%Y-%m-%dT%H:%M:%fZ', p.ended_ms / 1000.0, 'unixepoch')",
    ),
    "postgresql": _READABLE.format(
        id="""CASE get_byte(p.id, 0)
    WHEN 1 THEN CAST(CAST(encode(substring(p.id from 2), 'hex') AS uuid) AS text)
    WHEN 2 THEN encode(substring(p.id from 2), 'hex')
    ELSE convert_from(p.id, 'UTF8') END""",
        accepted="to_timestamp(p.accepted_ms / 1000.0)",
        ended="to_timestamp(p.ended_ms / 1000.0)",
    ),
}
