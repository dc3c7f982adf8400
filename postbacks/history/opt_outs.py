"""Opt-outs that are not delivered: how many, since when, and whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.history import facts, schema
from postbacks.ledger import states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

#: Opt-outs that one look counts at most, the oldest first.
AT_MOST: Final = 10_000
#: Ends that somebody has asked for: the account's switch and a hand.
_ASKED_FOR: Final = (schema.STATES[states.SKIPPED], schema.STATES[states.CANCELLED])


class Undelivered(NamedTuple):
    """Opt-outs that wait, are sent or parked, are dead, or were lost from sight. Who skipped or cancelled one has asked for it.

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


def undelivered(
    connection: Connection, *, before_ms: int | None = None, accounts: Sequence[str] | None = None, endpoint: str = ""
) -> Undelivered:
    """Count opt-outs that are not delivered, by an index that has them alone.

    Args:
        connection: to the history.
        before_ms: only those that were accepted before.
        accounts: only of these.
        endpoint: only those that go to this scheme, host and port.
    """
    index = "INDEXED BY postbacks_opt_outs_undelivered" if connection.dialect.name == "sqlite" else ""
    conditions = [f"p.{schema.OPT_OUT.text}", f"p.{schema.UNDELIVERED.text}", "p.state NOT IN :asked_for"]
    parameters: dict[str, object] = {"asked_for": _ASKED_FOR, "dead": schema.STATES[states.DEAD], "most": AT_MOST}
    expanding = ["asked_for"]
    if before_ms is not None:
        conditions.append("p.accepted_ms < :before_ms")
        parameters["before_ms"] = before_ms
    if accounts is not None:
        conditions.append("p.account IN (SELECT id FROM accounts WHERE name IN :accounts)")
        parameters["accounts"] = tuple(accounts)
        expanding.append("accounts")
    if endpoint:
        conditions.append("p.endpoint IN (SELECT id FROM endpoints WHERE endpoint = :endpoint)")
        parameters["endpoint"] = endpoint
    statement = text(
        "SELECT a.name, count(*) AS postbacks, min(o.accepted_ms) AS oldest_ms,"
        " sum(CASE WHEN o.state = :dead THEN 1 ELSE 0 END) AS dead FROM"
        f" (SELECT p.account, p.accepted_ms, p.state FROM postbacks p {index} WHERE {' AND '.join(conditions)}"
        " ORDER BY p.accepted_ms LIMIT :most) o"
        " JOIN accounts a ON a.id = o.account GROUP BY a.name ORDER BY postbacks DESC, a.name"
    ).bindparams(*(bindparam(name, expanding=True) for name in expanding))
    rows = connection.execute(statement, parameters).all()
    return Undelivered(
        postbacks=sum(row.postbacks for row in rows),
        oldest_ms=min((row.oldest_ms for row in rows), default=None),
        by_account={row.name: row.postbacks for row in rows},
        dead=sum(row.dead for row in rows),
    )


def late(connection: Connection, late_s: float) -> Undelivered:
    """Count opt-outs that are not delivered although they were accepted so long ago, by the time until which history has recorded.

    A recorder that catches up has not read the delivery of what it has read as waiting: by its own time nothing is late that
    is not.
    """
    recorded_ms = facts.number(connection, facts.RECORDED_MS)
    return undelivered(connection, before_ms=(recorded_ms or 0) - int(late_s * 1000))
