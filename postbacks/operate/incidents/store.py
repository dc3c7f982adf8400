"""Incidents and their notices in the history's database: read by anybody, written by the finder and by who mutes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from postbacks.history.schema import PENDING, incidents, notices
from postbacks.ledger.record import iso
from postbacks.operate.incidents.course import COMES_BACK_WITHIN_MS, Course

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

#: States of a notice.
PENDING_STATE: Final = "pending"
SENT: Final = "sent"
GIVEN_UP: Final = "given_up"
#: No URL was set when it came: the log alone has it.
LOG_ALONE: Final = "log_alone"
#: Kept and not told: its incident was muted, or is part of a larger one.
MUTED: Final = "muted"
PART: Final = "part"
UNTOLD: Final = (MUTED, PART)
#: States of a notice -> what they mean.
NOTICE_WORDS: Final = {
    PENDING_STATE: "not sent yet",
    SENT: "sent",
    GIVEN_UP: "given up after a day",
    LOG_ALONE: "in the log alone (POSTBACKS_NOTICE_URL is not set)",
    MUTED: "not told, as it was muted",
    PART: "not told, as another incident stands for it",
}

#: Incidents that are read at most: those that are open, or ended within an hour.
INCIDENTS_MAX: Final = 20_000
_COURSE: Final = tuple(Course.__dataclass_fields__)
#: Numbers that an incident can have: those of the databases' column.
_NUMBERS: Final = range(1, 2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Incident as it is stored. Times are ms since the epoch on the broker's clock.

    Attributes:
        id: its number; 0 for one that is not stored yet.
        kind: noun of its condition: ``endpoint``, ``ticks``, …
        subject: what it is about; empty for the system as a whole.
        title: what is wrong, without figures.
        sentence: what stands and why; of one that has ended, what has become of it.
        advice: what to do.
        resend: command that sends again what died of it; empty while it is open, and where nothing died.
        first_ms: when it opened first.
        course: its course since.
        since_ms: since when its condition stands; None where that is not known.
        size: number by which it grows.
        accounts: names of the accounts, the first of many.
        figures: what is known in numbers and words.
        refined_ms: when sentence and figures were last looked up in full.
        part_of: the incident that stands for it; None where it stands for itself.
        muted_until_ms: until when nothing of it is told; None where it was not muted.
        mute_reason: why.
        muted_by: who muted it.
        withheld: True where a change of it was not told, as it was muted.
    """

    id: int = 0
    kind: str
    subject: str
    title: str
    sentence: str
    advice: str
    resend: str = ""
    first_ms: int
    course: Course
    since_ms: int | None = None
    size: int = 0
    accounts: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    refined_ms: int = 0
    part_of: int | None = None
    muted_until_ms: int | None = None
    mute_reason: str | None = None
    muted_by: str | None = None
    withheld: bool = False

    @property
    def key(self) -> str:
        """Key of its condition."""
        return f"{self.kind}:{self.subject}"

    @property
    def is_open(self) -> bool:
        """True until it has ended."""
        return self.course.is_open

    @property
    def began_ms(self) -> int:
        """Since when what it tells of stands, as far as that is known; else when it opened."""
        return self.course.opened_ms if self.since_ms is None else self.since_ms

    @property
    def worded_ms(self) -> int:
        """Time at which its sentence was written."""
        return self.refined_ms or self.course.opened_ms

    def is_muted(self, now_ms: int) -> bool:
        """Tell whether nothing of it is told now."""
        return self.muted_until_ms is not None and now_ms < self.muted_until_ms

    def state(self, now_ms: int) -> str:
        """Return its state in a word: ``open``, ``muted`` or ``ended``."""
        if not self.is_open:
            return "ended"
        return "muted" if self.is_muted(now_ms) else "open"

    def to_public_dict(self) -> dict[str, Any]:
        """Return the object that ``postbacks incidents --json`` prints."""
        return {
            "id": self.id,
            "kind": self.kind,
            "subject": self.subject or None,
            "open": self.is_open,
            "title": self.title,
            "sentence": self.sentence,
            "advice": self.advice or None,
            "resend": self.resend or None,
            "since": iso(self.since_ms),
            "first_opened": iso(self.first_ms),
            "opened": iso(self.course.opened_ms),
            "quiet_s": self.course.quiet_ms // 1000,
            "ended": iso(self.course.ended_ms),
            "times_back": self.course.times_back,
            "size": self.size,
            "accounts": list(self.accounts),
            "figures": dict(self.figures),
            "looked_up": iso(self.refined_ms),
            "part_of": self.part_of,
            "muted_until": iso(self.muted_until_ms),
            "mute_reason": self.mute_reason,
            "muted_by": self.muted_by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Notice of a change: stored before it is told.

    Attributes:
        id: number of its row.
        notice_id: id that its receivers know it by, the same at every attempt.
        incident: number of its incident.
        change: a word of ``course.CHANGES``.
        at_ms: when the change came.
        body: what is sent, JSON.
        is_logged: True once the log has it.
        state: ``PENDING_STATE``, ``SENT``, …
        attempts: POSTs so far.
        next_ms: when it is sent next.
        done_ms: when it was sent or given up.
        fault: why the latest POST failed.
    """

    id: int = 0
    notice_id: str
    incident: int
    change: str
    at_ms: int
    body: str
    is_logged: bool = False
    state: str = PENDING_STATE
    attempts: int = 0
    next_ms: int = 0
    done_ms: int | None = None
    fault: str | None = None

    def to_public_dict(self) -> dict[str, Any]:
        """Return the object that ``postbacks incident show --json`` prints."""
        return {
            "id": self.notice_id,
            "change": self.change,
            "at": iso(self.at_ms),
            "state": self.state,
            "attempts": self.attempts,
            "next": iso(self.next_ms) if self.state == PENDING_STATE else None,
            "done": iso(self.done_ms),
            "fault": self.fault,
        }


# -- incidents -------------------------------------------------------------------------------------


def current(connection: Connection, now_ms: int) -> dict[str, Incident]:
    """Read the incidents that are open, and those that may come back, by their keys: of several the newest."""
    columns = incidents.c
    is_current = columns.ended_ms.is_(None) | (columns.ended_ms > now_ms - COMES_BACK_WITHIN_MS)
    query = select(incidents).where(is_current).order_by(columns.id).limit(INCIDENTS_MAX)
    rows = [_incident(row) for row in connection.execute(query)]
    return {incident.key: incident for incident in rows}


def find(connection: Connection, number: int) -> Incident | None:
    """Read an incident; None where there is none of this number."""
    if number not in _NUMBERS:
        return None
    row = connection.execute(select(incidents).where(incidents.c.id == number)).one_or_none()
    return None if row is None else _incident(row)


def newest(connection: Connection, *, open_only: bool, limit: int) -> list[Incident]:
    """Read incidents, those that are open first, and the newest first of these and of the others."""
    columns = incidents.c
    query: Select[Any] = (
        select(incidents).order_by(columns.ended_ms.isnot(None), columns.id.desc()).limit(limit)
    )
    if open_only:
        query = query.where(columns.ended_ms.is_(None))
    return [_incident(row) for row in connection.execute(query)]


def add(connection: Connection, added: Sequence[Incident]) -> list[Incident]:
    """Write new incidents; return them with their numbers."""
    if not added:
        return []
    statement = insert(incidents).returning(incidents.c.id, sort_by_parameter_order=True)
    numbers = connection.execute(statement, [_values(incident) for incident in added]).scalars().all()
    return [replace(incident, id=number) for incident, number in zip(added, numbers, strict=True)]


def save(connection: Connection, changed: Sequence[Incident]) -> None:
    """Write incidents anew, but for what is said of their mute: somebody may have changed that meanwhile."""
    if not changed:
        return
    rows = [{"number": incident.id, **_values(incident)} for incident in changed]
    for row in rows:
        for name in ("muted_until_ms", "mute_reason", "muted_by"):
            del row[name]
    statement = update(incidents).where(incidents.c.id == bindparam("number"))
    connection.execute(
        statement.values({name: bindparam(name) for name in rows[0] if name != "number"}), rows
    )


def mute(connection: Connection, number: int, until_ms: int | None, reason: str, by: str) -> None:
    """Write until when nothing of an incident is told; None lets it be told again."""
    values = {"muted_until_ms": until_ms, "mute_reason": reason or None, "muted_by": by or None}
    connection.execute(update(incidents).where(incidents.c.id == number), values)


def prune(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete incidents that ended before a time, some at a time, with their notices; return how many."""
    ended = (
        select(incidents.c.id)
        .where(incidents.c.ended_ms < before_ms)
        .order_by(incidents.c.ended_ms)
        .limit(limit)
    )
    numbers = connection.execute(ended).scalars().all()
    if numbers:
        connection.execute(delete(notices).where(notices.c.incident.in_(numbers)))
        connection.execute(delete(incidents).where(incidents.c.id.in_(numbers)))
    return len(numbers)


def _values(incident: Incident) -> dict[str, Any]:
    values = {name: getattr(incident, name) for name in incidents.columns.keys() if hasattr(incident, name)}  # noqa: SIM118
    values |= asdict(incident.course)
    values |= {
        "accounts": json.dumps(incident.accounts),
        "figures": json.dumps(dict(incident.figures)),
        "withheld": int(incident.withheld),
    }
    values.pop("id")
    return values


def _incident(row: Row[Any]) -> Incident:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name begins so
    course = Course(**{name: values.pop(name) for name in _COURSE})
    values |= {
        "accounts": tuple(json.loads(values["accounts"])),
        "figures": json.loads(values["figures"]),
        "withheld": bool(values["withheld"]),
    }
    return Incident(course=course, **values)


# -- notices ---------------------------------------------------------------------------------------


def add_notices(connection: Connection, added: Sequence[Notice]) -> None:
    """Store notices."""
    rows = [asdict(notice) | {"is_logged": int(notice.is_logged)} for notice in added]
    for row in rows:
        del row["id"]
    if rows:
        connection.execute(insert(notices), rows)


def unlogged(connection: Connection, limit: int) -> list[Notice]:
    """Read the notices that the log does not have, the oldest first."""
    query = select(notices).where(PENDING, notices.c.is_logged == 0).order_by(notices.c.id).limit(limit)
    return [_notice(row) for row in connection.execute(query)]


def mark_logged(connection: Connection, numbers: Sequence[int]) -> None:
    """Note that the log has them."""
    connection.execute(update(notices).where(notices.c.id.in_(numbers)), {"is_logged": 1})


def due(connection: Connection, now_ms: int) -> tuple[Notice | None, int | None]:
    """Read the oldest notice that is to be sent now, and when the next one is due; None where there is none."""
    pending = select(notices).where(PENDING, notices.c.state == PENDING_STATE)
    row = connection.execute(
        pending.where(notices.c.next_ms <= now_ms).order_by(notices.c.id).limit(1)
    ).one_or_none()
    next_ms = connection.execute(pending.with_only_columns(func.min(notices.c.next_ms))).scalar()
    return (None if row is None else _notice(row)), next_ms


def update_notice(connection: Connection, number: int, values: Mapping[str, Any]) -> None:
    """Write what has become of a notice."""
    connection.execute(update(notices).where(notices.c.id == number), values)


def notices_of(connection: Connection, incident: int, limit: int = 100) -> list[Notice]:
    """Read the notices of an incident, the oldest first."""
    query = select(notices).where(notices.c.incident == incident).order_by(notices.c.id).limit(limit)
    return [_notice(row) for row in connection.execute(query)]


def _notice(row: Row[Any]) -> Notice:
    values = dict(row._mapping)  # noqa: SLF001
    return Notice(**values | {"is_logged": bool(values["is_logged"])})
