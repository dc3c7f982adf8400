"""Opt-outs that are not delivered: how many, since when, and whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.history import facts, listing, live, schema
from postbacks.history.engine import reader
from postbacks.history.transactions import reading
from postbacks.ledger import states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis
    from sqlalchemy import Connection, Engine, Row

    from postbacks.history.query import Postback

#: Opt-outs that one look counts at most, the oldest first.
AT_MOST: Final = 10_000
#: Time before which every postback was accepted.
_FOR_EVER_MS: Final = 2**62
#: Ends that somebody has asked for: the account's switch and a hand.
_ASKED_FOR: Final = (schema.STATES[states.SKIPPED], schema.STATES[states.CANCELLED])
_OLDEST: Final = f"""
    FROM postbacks p {{index}}
      WHERE p.{schema.OPT_OUT} AND p.{schema.UNDELIVERED} AND p.state NOT IN :asked_for AND p.accepted_ms < :before_ms
        AND NOT EXISTS (SELECT 1 FROM forgotten f WHERE f.row_id = p.row_id)
      ORDER BY p.accepted_ms LIMIT :most"""
_STATEMENT: Final = f"""
    SELECT a.name, count(*) AS postbacks, min(o.accepted_ms) AS oldest_ms,
      sum(CASE WHEN o.state = :dead THEN 1 ELSE 0 END) AS dead
    FROM (SELECT p.account, p.accepted_ms, p.state {_OLDEST}) o
    JOIN accounts a ON a.id = o.account GROUP BY a.name ORDER BY postbacks DESC, a.name"""
_ROWS: Final = f"SELECT p.row_id {_OLDEST}"


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
    parameters = {"before_ms": before_ms, "dead": schema.STATES[states.DEAD], "most": AT_MOST}
    rows = _read(connection, _STATEMENT, parameters)
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


def oldest(
    limit: int, *, client: redis.Redis | None = None, engine: Engine | None = None
) -> tuple[Postback, ...]:
    """Read the opt-outs that are not delivered, the oldest first, with the states that the broker has by now.

    Args:
        limit: at most so many.
        client: of the broker; without it the one of the settings.
        engine: of the history; without it the one of the settings.

    Raises:
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    with reading(engine or reader()) as connection:
        rows = _read(connection, _ROWS, {"before_ms": _FOR_EVER_MS, "most": limit})
        found = listing.read_rows(connection, [row.row_id for row in rows])
    now = live.read(client, found).postbacks
    return tuple(postback for postback in reversed(now) if postback.state != states.DELIVERED)


def _read(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
    index = "INDEXED BY postbacks_opt_outs_undelivered" if connection.dialect.name == "sqlite" else ""
    bound = text(statement.format(index=index)).bindparams(bindparam("asked_for", expanding=True))
    return connection.execute(bound, {"asked_for": _ASKED_FOR, **parameters}).all()
