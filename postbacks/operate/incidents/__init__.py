"""Incidents: what stands wrong with a receiver or with the system, found by the process that runs history and told once a change.

``course.py`` decides when an incident opens, grows, comes back and recovers; ``conditions.py`` says what a source of faults
is, ``sources.py`` has them all; ``finder.py`` and ``webhook.py`` are the duties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import PostbacksError, UnknownIncident
from postbacks.history.engine import reader
from postbacks.history.transactions import reading, writing
from postbacks.ledger.record import iso
from postbacks.operate import journal
from postbacks.operate.identity import current_user
from postbacks.operate.incidents import store
from postbacks.operate.incidents.store import Incident, Notice
from postbacks.privacy import mask_why
from postbacks.settings import load

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "Incident",
    "Notice",
    "Story",
    "all_incidents",
    "mute_incident",
    "read_incident",
    "unmute_incident",
]

#: Incidents that are listed at most, by default.
LIMIT: Final = 100
#: Characters of a mute's reason.
REASON_MAX: Final = 500


class Story(NamedTuple):
    """Incident with its notices, the oldest first."""

    incident: Incident
    notices: list[Notice]


def all_incidents(*, open_only: bool = False, limit: int = LIMIT) -> list[Incident]:
    """List incidents: those that are open first, the newest first.

    Raises:
        HistoryError: no history is set, or its database cannot be used.
    """
    with reading(reader()) as connection:
        return store.newest(connection, open_only=open_only, limit=limit)


def read_incident(number: int) -> Story:
    """Read an incident and its notices.

    Raises:
        UnknownIncident: there is none of this number.
        HistoryError: no history is set, or its database cannot be used.
    """
    with reading(reader()) as connection:
        return Story(_found(connection, number), store.notices_of(connection, number))


def mute_incident(number: int, *, until_ms: int, reason: str = "", by: str | None = None) -> Incident:
    """Let nothing be told of an incident until a time. It goes on, and is kept; where it stands still then, that is told.

    Args:
        number: the incident's.
        until_ms: the end of the mute, by the broker's clock.
        reason: why, for whoever sees it; persons in it are masked.
        by: who does it; None for the user.

    Raises:
        UnknownIncident: there is none of this number.
        PostbacksError: the end has passed, or the reason is too long.
        BrokerError: the broker cannot be asked for the time.
        HistoryError: no history is set, or its database cannot be used.
    """
    if len(reason) > REASON_MAX:
        raise PostbacksError(f"The reason has {len(reason):,} characters; {REASON_MAX} are the most.")
    with broker_errors():
        present_ms = now_ms(client())
    if until_ms <= present_ms:
        raise PostbacksError(
            f"The mute would end at {iso(until_ms)}, which has passed: by the broker's clock it is {iso(present_ms)}."
        )
    return _write_mute(number, until_ms, reason, by)


def unmute_incident(number: int, *, why: str = "", by: str | None = None) -> Incident:
    """Let an incident be told again.

    Raises:
        UnknownIncident: there is none of this number.
        HistoryError: no history is set, or its database cannot be used.
    """
    return _write_mute(number, None, why, by)


def _write_mute(number: int, until_ms: int | None, reason: str, by: str | None) -> Incident:
    by, reason = by or current_user(), mask_why(reason)
    with writing(reader()) as connection:
        _found(connection, number)
        store.mute(connection, number, until_ms, reason if until_ms else "", by if until_ms else "")
        incident = _found(connection, number)
    action = "incident.mute" if until_ms else "incident.unmute"
    details = {"subject": incident.title, "until": iso(until_ms)} if until_ms else {"subject": incident.title}
    journal.write(action, str(number), why=reason, details=details, by=by)
    return incident


def _found(connection: Connection, number: int) -> Incident:
    incident = store.find(connection, number)
    if incident is None:
        days = load().history_postbacks_days
        raise UnknownIncident(
            f"There is no incident {number}; postbacks incidents lists all. They are kept for {days:g} days."
        )
    return incident
