"""Tries: POSTs of some accounts at one endpoint, whichever postback they were of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.history import ids, schema
from postbacks.ledger import states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

#: Postbacks of an account whose POSTs are looked at.
ROWS_MAX: Final = 200
_DELIVERED: Final = schema.OUTCOMES["delivered"]
_OUTCOME_NAMES: Final = {number: name for name, number in schema.OUTCOMES.items()}
_ENDPOINT: Final = text("SELECT id FROM endpoints WHERE endpoint = :endpoint")
_ACCOUNTS: Final = text("SELECT id FROM accounts WHERE name IN :names").bindparams(
    bindparam("names", expanding=True)
)
_ROWS: Final = """
    SELECT p.row_id, p.id, p.sent_ms, p.outcome, p.status, p.elapsed_ms, p.attempts FROM postbacks p {index}
    WHERE p.account = :account AND p.accepted_ms BETWEEN :since_ms AND :until_ms AND p.endpoint = :endpoint
      AND {condition} ORDER BY p.accepted_ms {order} LIMIT :most"""
_ATTEMPTS: Final = text(
    "SELECT row_id, number, at_ms, outcome, status, elapsed_ms FROM attempts WHERE row_id IN :rows"
).bindparams(bindparam("rows", expanding=True))


class Try(NamedTuple):
    """POST that has ended, without what its receiver said.

    Attributes:
        at_ms: when it began.
        postback_id: of its postback.
        row_id: of the postback in the database.
        number: 1 for the first POST of the postback.
        outcome: as an attempt's.
        status: of the answer; None where none came.
        elapsed_ms: from the begin of the POST to its outcome.
    """

    at_ms: int
    postback_id: str
    row_id: int
    number: int
    outcome: str
    status: int | None
    elapsed_ms: int

    @property
    def is_delivered(self) -> bool:
        """True where the receiver has it."""
        return self.outcome == states.DELIVERED


class Place(NamedTuple):
    """Endpoint and accounts, in the numbers of the database."""

    endpoint: int
    accounts: tuple[int, ...]


def place_of(connection: Connection, endpoint: str, accounts: Sequence[str]) -> Place | None:
    """Find the numbers of an endpoint and of accounts; None where the history has no POST there."""
    number = connection.execute(_ENDPOINT, {"endpoint": endpoint}).scalar()
    known = connection.execute(_ACCOUNTS, {"names": list(accounts)}).scalars().all()
    return Place(number, tuple(known)) if number is not None and known else None


def latest(connection: Connection, place: Place, since_ms: int, until_ms: int, most: int) -> list[Try]:
    """Read the latest POSTs of the newest postbacks accepted in a time, the oldest POST first."""
    found = _read(connection, place, since_ms, until_ms, condition="p.attempts > 0", order="DESC")
    return found[-most:]


def first_failed(
    connection: Connection, place: Place, accepted_from_ms: int, since_ms: int, until_ms: int
) -> Try | None:
    """Read the first POST that failed from a time on, of postbacks accepted from an earlier time on."""
    condition = f"p.attempts > 0 AND {schema.TROUBLED.text}"
    found = _read(connection, place, accepted_from_ms, until_ms, condition=condition, order="ASC")
    return next(
        (one for one in found if not one.is_delivered and one.at_ms + one.elapsed_ms >= since_ms), None
    )


def oldest_open(connection: Connection, place: Place) -> str | None:
    """Find the id of the oldest postback that has not ended; None where there is none."""
    index = "INDEXED BY postbacks_open" if connection.dialect.name == "sqlite" else ""
    statement = text(
        f"SELECT p.accepted_ms, p.id FROM postbacks p {index} WHERE p.account = :account AND p.endpoint = :endpoint "
        f"AND p.{schema.OPEN.text} ORDER BY p.accepted_ms LIMIT 1"
    )
    rows = [
        row
        for account in place.accounts
        for row in connection.execute(statement, {"account": account, "endpoint": place.endpoint})
    ]
    return ids.unpack(min(rows).id) if rows else None


def _read(
    connection: Connection, place: Place, since_ms: int, until_ms: int, *, condition: str, order: str
) -> list[Try]:
    index = "INDEXED BY postbacks_by_account" if connection.dialect.name == "sqlite" else ""
    statement = text(_ROWS.format(index=index, condition=condition, order=order))
    limits = {"endpoint": place.endpoint, "since_ms": since_ms, "until_ms": until_ms, "most": ROWS_MAX}
    rows = {
        row.row_id: row
        for account in place.accounts
        for row in connection.execute(statement, limits | {"account": account})
    }
    noted = [
        _try(rows[note.row_id], note.at_ms, note)
        for note in (connection.execute(_ATTEMPTS, {"rows": list(rows)}) if rows else ())
    ]
    with_notes = {one.row_id for one in noted}
    alone = [
        _try(row, row.sent_ms, row)
        for row in rows.values()
        if row.row_id not in with_notes and row.outcome and row.sent_ms is not None
    ]
    return sorted([*noted, *alone])


def _try(row: Any, at_ms: int, said: Any) -> Try:
    """Build a try of a postback's row and of what says how it ended: its note, or where there is none the row itself."""
    number = said.attempts if said is row else said.number
    status = said.status if said is not row or said.outcome in schema.ANSWERED else 0
    outcome = _OUTCOME_NAMES.get(said.outcome, "unknown")
    return Try(at_ms, ids.unpack(row.id), row.row_id, number, outcome, status or None, said.elapsed_ms)
