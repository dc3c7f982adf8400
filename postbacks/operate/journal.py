"""Journal of operators: who did what, when and why, by command line, page and API alike.

::

    from postbacks.operate import journal

    journal.write("account.set", "acme", why="ticket 812", details={"rate": ["20/s", "50/s"]}, by="ann")
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from postbacks.broker.client import client
from postbacks.errors import BrokerError
from postbacks.ledger.journal import MAX_WAITING, RECORDED, REFUSED, Entry, append, waiting
from postbacks.logs import EventLog
from postbacks.operate.identity import user_of
from postbacks.printable import printable
from postbacks.privacy import mask_why

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

log = EventLog(__name__)

#: Most characters of a subject or a value, of a reason, and of all details as JSON.
MAX_VALUE: Final = 300
MAX_WHY: Final = 1000
MAX_DETAILS: Final = 3000

#: True where an entry of this context came to the log alone; whoever shows the outcome of an action says so.
only_logged: Final[ContextVar[bool]] = ContextVar("only_logged", default=False)


def write(
    action: str,
    subject: str = "",
    *,
    why: str = "",
    details: Mapping[str, Any] | None = None,
    by: str | None = None,
    broker: redis.Redis | None = None,
) -> bool:
    """Write to the journal what was done. It raises nothing: what was done is done.

    Args:
        action: what was done, a word such as ``account.set``.
        subject: what it was done to: an account, an id, the name of a job.
        why: the reason that was given; persons in it are masked.
        details: what else is worth knowing; no secret, number or document may be among it.
        by: who did it; None for the user of this process.
        broker: client of the broker; None for that of the settings.

    Returns:
        True where a recorder copies it to the database; False where the log alone has it (``only_logged``).
    """
    entry = Entry(
        uuid.uuid4().hex,
        0,
        user_of(by),
        printable(action)[:MAX_VALUE],
        printable(subject)[:MAX_VALUE],
        mask_why(printable(why), broker)[:MAX_WHY],  # cut before, a number would lose its end and stay
        _bounded(details or {}),
    )
    try:
        outcome = append(broker or client(), entry)
        trouble = "too many entries of the journal wait in the broker" if outcome == REFUSED else ""
    except BrokerError as error:
        outcome, trouble = REFUSED, f"{error}"
    if trouble:
        log.warning("journal.entry", f"this line alone has it: {trouble}", **entry.to_log())
    else:
        log.info("journal.entry", **entry.to_log())
    if outcome != RECORDED:
        only_logged.set(True)
    return outcome == RECORDED


def entries(
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    account: str = "",
    by: str = "",
    action: str = "",
    limit: int = 100,
) -> list[Entry]:
    """Return entries of the journal, the newest first: of the database, and those that wait for a recorder.

    Args:
        since_ms: only from then on; ms since the epoch, by the broker's clock.
        until_ms: only before then.
        account: only about this account.
        by: only by this user.
        action: only of this action, or of this family of them: ``account`` has ``account.set`` and all others.
        limit: at most so many.

    Raises:
        HistoryOff: no history is set.
        HistoryError: it cannot be read.
        BrokerError: the broker cannot be asked for those that wait.
    """
    # Loaded only here: SQLAlchemy takes as long to import as all else of a command.
    from postbacks.history import journal  # noqa: PLC0415
    from postbacks.history.engine import reader  # noqa: PLC0415
    from postbacks.history.transactions import reading  # noqa: PLC0415

    engine = reader()
    # Those that wait are read first: one that is copied meanwhile is found twice, and shown once.
    pending = [
        entry
        for _, entry in reversed(waiting(client(), MAX_WAITING))
        if (since_ms is None or entry.at_ms >= since_ms)
        and (until_ms is None or entry.at_ms < until_ms)
        and account in {"", journal.account_of(entry)}
        and by in {"", entry.by}
        and (not action or f"{entry.action}.".startswith(f"{action}."))
    ]
    with reading(engine) as connection:
        recorded = journal.read(
            connection,
            limit=limit,
            since_ms=since_ms,
            until_ms=until_ms,
            account=account,
            by=by,
            action=action,
        )
    known = {entry.id for entry in recorded}
    return [*(entry for entry in pending if entry.id not in known), *recorded][:limit]


def _bounded(details: Mapping[str, Any], room: int = MAX_DETAILS) -> dict[str, Any]:
    """Return details with printable texts, as many as there is room for as JSON; ``more`` counts the others."""
    bounded: dict[str, Any] = {}
    for number, (name, value) in enumerate(details.items()):
        clean = _bounded(value, room) if isinstance(value, Mapping) else _clean(value)
        named = {printable(name)[:MAX_VALUE]: clean}
        room -= len(json.dumps(named))
        if room < 0:
            bounded["more"] = len(details) - number
            break
        bounded |= named
    return bounded


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        values: Iterable[Any] = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_clean(of_it) for of_it in values]
    return printable(value)[:MAX_VALUE]
