"""Records of the broker read as the history's rows, straight from their hashes: a ``Record`` takes four times as long."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from postbacks.history import ids
from postbacks.history.documents import MESSAGE, XML, Document
from postbacks.history.schema import OUTCOMES, SLOT_MS, STATES
from postbacks.ledger import states
from postbacks.ledger.record import Attempt, Resend

#: Highest numbers that the columns hold.
_SHORT_MAX: Final = 2**15 - 1
_INT_MAX: Final = 2**31 - 1
_MS_MAX: Final = SLOT_MS * _INT_MAX
#: Bytes of a reason that are kept: an index of PostgreSQL has it, whose entries take 2,704.
_REASON_MAX: Final = 2000

_STATE: Final = {name.encode(): number for name, number in STATES.items()} | {
    states.SENDING.encode(): STATES[states.WAITING]
}
_DELIVERED: Final = STATES[states.DELIVERED]
_DELIVERED_OUTCOME: Final = OUTCOMES["delivered"]

#: Note of an attempt as ``Attempt.to_json`` writes nearly all.
_PLAIN_NOTE: Final = re.compile(
    rb'\{"number": (\d{1,4}), "at_ms": (\d{1,15}), "outcome": "delivered", "status": (\d{1,4})(?:, "elapsed_ms": (\d{1,9}))?'
    rb'(?:, "phases": "([\d,]{0,49})")?(?:, "address": "([0-9A-Fa-f.:]{0,45})")?\}'
)


class UnreadableRecord(ValueError):
    """Raised when a field of a record is not what it should be; says which."""


class Note(NamedTuple):
    """Attempt that has ended, in the order of the columns of ``attempts`` behind ``row_id``."""

    number: int
    at_ms: int
    outcome: int
    status: int
    elapsed_ms: int
    shared: int
    detail: str | None = None
    excerpt: str | None = None
    phases: str | None = None
    address: str | None = None


class Reading(NamedTuple):
    """Record as it was read. Names are bytes as they came: the writer knows most of them already.

    Attributes:
        id: packed (``ids.py``).
        accepted_ms: the id's acceptance that this is.
        state: number of the state; what is sent or held waits.
        attempts: POSTs begun.
        notes: attempts that have ended, by number.
        own: 0 the URL is the account's, 1 and 2 the call's own.
        is_marked: True where the record says that it is an opt-out.
        resends: by somebody's order.
    """

    id: bytes
    accepted_ms: int
    sequence: int
    ended_ms: int | None
    account: bytes
    endpoint: bytes
    url: bytes
    origin: bytes
    code: bytes
    group: bytes
    state: int
    attempts: int
    notes: tuple[Note, ...]
    failures: int
    own: int
    is_marked: bool
    reason: str | None
    first_id: str | None
    document: Document
    resends: tuple[Resend, ...] = ()
    forgotten_ms: int | None = None

    @property
    def is_plain(self) -> bool:
        """True where the row alone says all of the attempts: its only POST delivered it, and nothing more is known of that."""
        if self.state != _DELIVERED or self.attempts != 1 or len(self.notes) != 1:
            return False
        note = self.notes[0]
        return note.outcome == _DELIVERED_OUTCOME and not (note.shared or note.detail or note.excerpt)


def read(postback_id: str, fields: dict[bytes, bytes]) -> Reading | None:
    """Read a record from its hash.

    Returns:
        None where there is no record of a postback: the hash is empty, or only remembers that its id is cancelled.

    Raises:
        UnreadableRecord: a field is missing or is not what it should be.
    """
    if b"schema" not in fields:
        return None
    try:
        return _read(postback_id, fields)
    except UnreadableRecord:
        raise
    except KeyError as error:
        raise UnreadableRecord(
            f"its field {error} is missing, or has a value that this version does not know"
        ) from None
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UnreadableRecord(f"a field of it cannot be read: {error}") from None


def _read(postback_id: str, fields: dict[bytes, bytes]) -> Reading:
    get = fields.get
    state = _STATE[fields[b"state"]]
    accepted_ms = int(fields[b"created_ms"])
    attempts = int(get(b"attempts", 0))
    failures = int(get(b"failures", 0))
    sequence = int(get(b"sequence", 0))
    # 0.1.0 wrote no `own`: a URL with its password is kept only where it is known to be the call's
    own = int(get(b"own", 0))
    ended_ms = None
    if (ended := get(b"ended_ms")) is not None:
        ended_ms = int(ended) if ended.isdigit() else int(float(ended))
    if state == _DELIVERED and attempts == 1:
        note = get(b"attempt:1")
        notes: tuple[Note, ...] = () if note is None else (_note(note, 1),)
        resends: tuple[Resend, ...] = (_resend(fields, 0),) if b"resent:0" in fields else ()
    else:
        numbers = sorted(int(name[8:]) for name in fields if name.startswith(b"attempt:"))
        notes = tuple(_note(fields[b"attempt:%d" % number], number) for number in numbers)
        if notes and notes[-1].number > attempts:
            attempts = notes[-1].number
        resends = tuple(_resend(fields, int(name[7:])) for name in fields if name.startswith(b"resent:"))
    if not (
        0 <= accepted_ms < _MS_MAX
        and 0 <= sequence < _MS_MAX
        and 0 <= attempts <= _SHORT_MAX
        and 0 <= failures <= _SHORT_MAX
        and (ended_ms is None or 0 <= ended_ms < _MS_MAX)
        and 0 <= own <= _SHORT_MAX
    ):
        raise UnreadableRecord("a number of it is out of bounds")
    group = get(b"group", b"")
    document = Document(XML, get(b"xml", b""))
    if not document.content and (raw := get(b"raw")) is not None:
        document = Document(MESSAGE, raw)
    reason, first_id = get(b"reason"), get(b"first_id")
    return Reading(
        ids.pack(postback_id),
        accepted_ms,
        sequence,
        ended_ms,
        get(b"account", b""),
        get(b"endpoint", b""),
        get(b"url", b""),
        # what a message that could not be read says of itself may be anything; its document has it
        get(b"origin", b"") if group else b"",
        get(b"code", b"") if group else b"",
        group,
        state,
        attempts,
        notes,
        failures,
        own,
        b"opt_out" in fields,
        _shortened(reason) if reason else None,
        text_of(first_id) if first_id else None,
        document,
        resends,
        int(float(forgotten)) if (forgotten := get(b"forgotten")) else None,
    )


def _resend(fields: dict[bytes, bytes], attempts: int) -> Resend:
    resend = Resend.from_json(attempts, fields[b"resent:%d" % attempts])
    if not (0 <= resend.at_ms < _MS_MAX and 0 <= attempts <= _SHORT_MAX):
        raise UnreadableRecord(f"a number of its resend after {attempts} POSTs is out of bounds")
    return resend._replace(by=_clean(resend.by) or "", job=_clean(resend.job) or "")


def text_of(value: bytes) -> str:
    """Return a text as both databases take it: PostgreSQL refuses NUL."""
    text = value.decode("utf-8", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _shortened(reason: bytes) -> str:
    text = text_of(reason)
    return text.encode()[:_REASON_MAX].decode(errors="ignore")


def _note(value: bytes, number: int) -> Note:
    if plain := _PLAIN_NOTE.fullmatch(value):
        _, at_ms, status, elapsed_ms, phases, address = plain.groups()
        return Note(
            number, int(at_ms), _DELIVERED_OUTCOME, int(status), int(elapsed_ms or 0), 0, None, None,
            phases.decode() if phases else None, address.decode() if address else None,
        )  # fmt: skip
    attempt = Attempt.from_json(value.decode("utf-8", "replace"))
    at_ms, status, elapsed_ms = int(attempt.at_ms), int(attempt.status or 0), int(attempt.elapsed_ms)
    if not (0 <= at_ms < _MS_MAX and 0 <= status <= _SHORT_MAX and 0 < number <= _SHORT_MAX):
        raise UnreadableRecord(f"a number of its attempt {number} is out of bounds")
    return Note(
        number,
        at_ms,
        OUTCOMES[attempt.outcome],
        status,
        max(0, min(elapsed_ms, _INT_MAX)),
        int(bool(attempt.shared)),
        _clean(attempt.detail),
        _clean(attempt.excerpt),
        attempt.phases.packed if attempt.phases else None,
        _clean(attempt.address),
    )


def _clean(text: str) -> str | None:
    """Return a text that JSON may have given halves of characters, as a database takes it; None for an empty one."""
    return text_of(text.encode("utf-8", "replace")) if text else None
