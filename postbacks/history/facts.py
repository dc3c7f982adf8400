"""Facts of the history as a whole: a name and a text each, in the table ``facts``.

======================  ==============================================================================================
``schema``              version of the schema (``schema.VERSION``)
``lease``               number of the latest recorder that was let write
``last_row``            highest ``row_id`` that was ever given: none is given twice
``recorded_id``         id of the feed's latest entry that is recorded
``recorded_ms``         time of that entry
``postbacks_from_ms``   postbacks that ended before it are pruned; none of these three is there before something was
``attempts_from_ms``    attempts of postbacks that ended before it are pruned
``documents_from_ms``   documents of postbacks that ended before it are pruned
``unreadable``          records that could not be read and so are not in the history
======================  ==============================================================================================
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, select, text

from postbacks.history.schema import facts

SCHEMA: Final = "schema"
LEASE: Final = "lease"
LAST_ROW: Final = "last_row"
RECORDED_ID: Final = "recorded_id"
RECORDED_MS: Final = "recorded_ms"
POSTBACKS_FROM_MS: Final = "postbacks_from_ms"
ATTEMPTS_FROM_MS: Final = "attempts_from_ms"
DOCUMENTS_FROM_MS: Final = "documents_from_ms"
UNREADABLE: Final = "unreadable"

_ALL: Final = select(facts.c.name, facts.c.value)
_VALUE: Final = select(facts.c.value).where(facts.c.name == bindparam("wanted"))
_PUT: Final = text(
    "INSERT INTO facts (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


def read(connection: Connection) -> dict[str, str]:
    """Read all facts."""
    return {row.name: row.value for row in connection.execute(_ALL)}


def get(connection: Connection, name: str) -> str | None:
    """Read a fact; None where there is none."""
    value: str | None = connection.execute(_VALUE, {"wanted": name}).scalar()
    return value


def number(connection: Connection, name: str) -> int | None:
    """Read a fact that is a number; None where there is none."""
    value = get(connection, name)
    return None if value is None else int(value)


def put(connection: Connection, values: dict[str, int | str]) -> None:
    """Write facts."""
    connection.execute(_PUT, [{"name": name, "value": str(value)} for name, value in values.items()])
