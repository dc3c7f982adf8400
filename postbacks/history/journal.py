"""Journal in the database: entries are added, read, and pruned by their age; nothing changes one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from postbacks.ledger.journal import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

#: Begins of actions whose subject is an account.
_OF_ACCOUNTS: Final = ("account.", "secret.")

_ADD: Final = text(
    "INSERT INTO journal (id, at_ms, by_user, action, subject, account, why, details) "
    "VALUES (:id, :at_ms, :by_user, :action, :subject, :account, :why, :details) ON CONFLICT (id) DO NOTHING"
)
_PRUNE: Final = text(
    "DELETE FROM journal WHERE row_id IN "
    "(SELECT row_id FROM journal WHERE at_ms < :until ORDER BY at_ms LIMIT :at_most)"
)
_COLUMNS: Final = "id, at_ms, by_user, action, subject, why, details"


def account_of(entry: Entry) -> str:
    """Return the account that an entry is about; empty where it is about none, or several."""
    account = entry.details.get("account")
    if isinstance(account, str):
        return account
    return entry.subject if entry.action.startswith(_OF_ACCOUNTS) else ""


def add(connection: Connection, entries: Sequence[Entry]) -> None:
    """Add entries; one that is there already stays as it is."""
    rows = [
        {
            "id": entry.id,
            "at_ms": entry.at_ms,
            "by_user": entry.by,
            "action": entry.action,
            "subject": entry.subject,
            "account": account_of(entry),
            "why": entry.why,
            "details": json.dumps(entry.details) if entry.details else "",
        }
        for entry in entries
    ]
    if rows:
        connection.execute(_ADD, rows)


def read(
    connection: Connection,
    *,
    limit: int,
    since_ms: int | None = None,
    until_ms: int | None = None,
    account: str = "",
    by: str = "",
    action: str = "",
) -> list[Entry]:
    """Read the newest entries, the newest first; ``entries`` of ``operate/journal.py`` says what is filtered by."""
    asked: dict[str, tuple[str, Any]] = {
        "since_ms": ("at_ms >= :since_ms", since_ms),
        "until_ms": ("at_ms < :until_ms", until_ms),
        "account": ("account = :account", account or None),
        "by": ("by_user = :by", by or None),
        "action": ("(action = :action OR action LIKE :family)", action or None),
    }
    given = {name: value for name, (_, value) in asked.items() if value is not None}
    where = " AND ".join(clause for name, (clause, _) in asked.items() if name in given) or "1 = 1"
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM journal WHERE {where} ORDER BY at_ms DESC, row_id DESC LIMIT :limit"),
        given | {"limit": limit} | ({"family": f"{action}.%"} if action else {}),
    )
    return [
        Entry(
            row.id,
            row.at_ms,
            row.by_user,
            row.action,
            row.subject,
            row.why,
            json.loads(row.details) if row.details else {},
        )
        for row in rows
    ]


def prune(connection: Connection, until_ms: int, at_most: int) -> int:
    """Delete the oldest entries that are older; return how many."""
    return connection.execute(_PRUNE, {"until": until_ms, "at_most": at_most}).rowcount
