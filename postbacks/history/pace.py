"""Pace of an account: how fast its postbacks are delivered at present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from postbacks.history import schema
from postbacks.ledger import states

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Time whose deliveries are the present ones.
PRESENT_MS: Final = 600_000
#: Deliveries that are looked at: of the newest acceptances that have one, as an account's go in their order.
ROWS_MAX: Final = 500
_STATEMENT: Final = """
    SELECT p.ended_ms FROM postbacks p {index} WHERE p.account = (SELECT id FROM accounts WHERE name = :name)
      AND p.accepted_ms >= :since_ms AND p.state = :delivered ORDER BY p.accepted_ms DESC LIMIT :most"""
#: Age of an acceptance that is looked at.
_SINCE_MS: Final = 7 * 24 * schema.HOUR_MS


def delivered_per_s(connection: Connection, account: str, now_ms: int) -> float:
    """Return how many postbacks of an account are delivered a second, over ten minutes or the latest 500 of them."""
    index = "INDEXED BY postbacks_by_account" if connection.dialect.name == "sqlite" else ""
    parameters = {
        "name": account,
        "since_ms": now_ms - _SINCE_MS,
        "delivered": schema.STATES[states.DELIVERED],
        "most": ROWS_MAX,
    }
    ended_ms = connection.execute(text(_STATEMENT.format(index=index)), parameters).scalars().all()
    present = [ms for ms in ended_ms if ms is not None and ms > now_ms - PRESENT_MS]
    if not present:
        return 0.0
    span_ms = now_ms - min(present) if len(present) == ROWS_MAX else PRESENT_MS
    return len(present) * 1000 / max(1000, span_ms)
