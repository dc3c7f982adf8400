"""Opt-outs that are not delivered: how many, since when, and whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.history import facts, schema
from postbacks.ledger import states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

#: Opt-outs that one look counts at most, the oldest first.
AT_MOST: Final = 10_000
#: Ends that somebody has asked for: the account's switch and a hand.
_ASKED_FOR: Final = (schema.STATES[states.SKIPPED], schema.STATES[states.CANCELLED])
_STATEMENT: Final = f"""
    SELECT a.name, count(*) AS postbacks, min(o.accepted_ms) AS oldest_ms,
      sum(CASE WHEN o.state = :dead THEN 1 ELSE 0 END) AS dead
    FROM (SELECT p.account, p.accepted_ms, p.state FROM postbacks p {{index}}
      WHERE p.{schema.OPT_OUT} AND p.{schema.UNDELIVERED} AND p.state NOT IN :asked_for AND p.accepted_ms < :before_ms
        AND NOT EXISTS (SELECT 1 FROM forgotten f WHERE f.row_id = p.row_id)
      ORDER BY p.accepted_ms LIMIT :most) o
    JOIN accounts a ON a.id = o.account GROUP BY a.name ORDER BY postbacks DESC, a.name"""


class Undelivered(NamedTuple):
    """Opt-outs that wait, are sent or parked, are dead, or were lost from sight. Who skipped or cancelled one has asked for it, and one
    whose person was forgotten cannot be sent again.

    Attributes:
        postbacks: how many; ``AT_MOST`` where there are so many or more.
        oldest_ms: when the oldest was accepted; None where there is none.
        by_account: names, those with the most first.
        dead: of them the dead.
    """

    postbacks: int
    oldest_ms: int | None
    by_account: Mapping[str, int]
    dead: int

    @property
    def is_exact(self) -> bool:
        """True where all were counted."""
        return self.postbacks < AT_MOST


def undelivered(connection: Connection, before_ms: int) -> Undelivered:
    """Count the opt-outs accepted before a time that are not delivered, by an index that has no others."""
    index = "INDEXED BY postbacks_opt_outs_undelivered" if connection.dialect.name == "sqlite" else ""
    statement = text(_STATEMENT.format(index=index)).bindparams(bindparam("asked_for", expanding=True))
    dead = schema.STATES[states.DEAD]
    parameters = {"asked_for": _ASKED_FOR, "before_ms": before_ms, "dead": dead, "most": AT_MOST}
    rows = connection.execute(statement, parameters).all()
    return Undelivered(
        postbacks=sum(row.postbacks for row in rows),
        oldest_ms=min((row.oldest_ms for row in rows), default=None),
        by_account={row.name: row.postbacks for row in rows},
        dead=sum(row.dead for row in rows),
    )


def late(connection: Connection, late_s: float) -> Undelivered:
    """Count the opt-outs that are not delivered although they were accepted so long ago.

    It counts from the time until which history has recorded: what was delivered before that is known to be.
    """
    recorded_ms = facts.number(connection, facts.RECORDED_MS)
    return undelivered(connection, (recorded_ms or 0) - int(late_s * 1000))
