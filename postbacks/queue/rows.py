"""Rows that Python and the Lua scripts hand each other, by the names of their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from postbacks.ledger.record import Attempt


class AcceptRow(NamedTuple):
    """A postback as ``accept.lua`` takes it.

    Attributes:
        id: the id of its message.
        account: the account's name; empty where the message could not be read.
        group: group of its lane; empty where the message is no postback.
        origin: of the event.
        code: of the event.
        url: where it goes; empty where it goes nowhere.
        endpoint: scheme, host and port of the URL.
        xml: the document.
        state: ``waiting``, ``skipped`` or ``dead``.
        reason: why it is skipped or dead.
        message: the message, of one that could not be read.
        due_ms: ms since the epoch, of a caller's eta or countdown; empty for at once.
        digest: what makes it the same postback (``ledger/digest.py``).
        own: ``0`` its URL is the account's, ``1`` it is the call's own, ``2`` it is and the account is not known.
        opt_out: ``1`` for an opt-out, else empty.
    """

    id: str
    account: str
    group: str
    origin: str | bytes
    code: str | bytes
    url: str
    endpoint: str
    xml: bytes
    state: str
    reason: str | bytes
    message: bytes
    due_ms: int | str
    digest: bytes
    own: str
    opt_out: str = ""


class PutBackRow(NamedTuple):
    """A postback that has left the broker, as ``put_back.lua`` takes it.

    Attributes:
        id: its id.
        account: the account's name.
        group: group of its lane.
        origin: of the event.
        code: of the event.
        url: where it goes now.
        endpoint: scheme, host and port of the URL.
        xml: the document.
        created_ms: time of acceptance.
        sequence: its number in its account.
        attempts: POSTs begun.
        digest: as in ``AcceptRow``.
        own: as in ``AcceptRow``.
        first_id: id that it came with; empty where that is its own.
        alone: 1 to try it alone, as it has killed processes.
        opt_out: as in ``AcceptRow``.
    """

    id: str
    account: str
    group: str
    origin: str
    code: str
    url: str
    endpoint: str
    xml: bytes
    created_ms: int
    sequence: int
    attempts: int
    digest: bytes
    own: str
    first_id: str
    alone: int
    opt_out: str = ""


class AttemptRow(NamedTuple):
    """An attempt that has ended, as ``commit.lua`` takes it.

    Attributes:
        id: the postback's id.
        lane: the postback's lane.
        verdict: state that the attempt leads to: ``delivered``, ``parked`` or ``dead``.
        number: number of the attempt, 1 for the first POST.
        attempt: the attempt as JSON (``Attempt.to_json``).
        countdown_ms: time until a parked postback is due.
        mood: what the attempt says of its lane: ``ok``, ``slow``, ``failed``, or ``shared`` for a failed one whose
            own POST has not begun.
        reason: the attempt's outcome.
    """

    id: str
    lane: str
    verdict: str
    number: int
    attempt: str
    countdown_ms: int
    mood: str
    reason: str


class BegunRow(NamedTuple):
    """A postback whose attempt has begun, as ``begin.lua`` gives it. What the record holds is bytes.

    Attributes:
        id: its id.
        number: number of the attempt, 1 for the first POST.
        failures: attempts before this one that count against the resends.
        account: the account's name.
        origin: of the event.
        code: of the event.
        created_ms: time of acceptance.
        sequence: its number in its account.
        url: where the POST goes.
        xml: the document.
        version: version of the account's row that the URL comes from; empty where there is none.
        own: as in ``AcceptRow``; empty in a record of version 0.1.0.
        waited_ms: time for which a first POST has waited for us; -1 where that cannot be said.
    """

    id: bytes
    number: int
    failures: bytes
    account: bytes
    origin: bytes
    code: bytes
    created_ms: bytes
    sequence: bytes
    url: bytes
    xml: bytes
    version: bytes
    own: bytes
    waited_ms: int


class ClaimRow(NamedTuple):
    """A postback whose attempt has begun, as ``claim.lua`` and ``examine.lua`` give it.

    Attributes:
        lane: its lane.
        standing: 0 if the lane answers in time, 1 if it is slow or failing, 2 if it is new.
        id: this and all others as in ``BegunRow``.
    """

    id: bytes
    lane: bytes
    standing: int
    number: int
    failures: bytes
    account: bytes
    origin: bytes
    code: bytes
    created_ms: bytes
    sequence: bytes
    url: bytes
    xml: bytes
    version: bytes
    own: bytes
    waited_ms: int


class HeldRow(NamedTuple):
    """A postback that is to be held behind the probe of its lane, as ``claim.lua`` gives it.

    Attributes:
        id: its id.
        lane: its lane.
        endpoint: scheme, host and port of its URL.
        attempts: attempts so far.
        failures: attempts of them that count against the resends.
        account: the account's name.
        origin: of the event.
        code: of the event.
    """

    id: bytes
    lane: bytes
    endpoint: bytes
    attempts: bytes
    failures: bytes
    account: bytes
    origin: bytes
    code: bytes


class EndedRow(NamedTuple):
    """A postback that has ended without a POST, as ``claim.lua`` and ``examine.lua`` give it.

    Attributes:
        id: its id.
        account: the account's name.
        origin: of the event.
        code: of the event.
        state: ``skipped`` or ``dead``.
        reason: why.
    """

    id: bytes
    account: bytes
    origin: bytes
    code: bytes
    state: bytes
    reason: bytes


class CommittedRow(NamedTuple):
    """State that a postback has after its attempt was committed (``commit.lua``).

    Attributes:
        state: its state; empty where the claim was lost.
        next_ms: when a parked one is due; 0 for any other.
    """

    state: bytes
    next_ms: int


class TakenIn(NamedTuple):
    """Messages that a tick has taken from Celery's queue (``take_in.lua``).

    Attributes:
        at_once: how many of them may be accepted together; 0 for all.
        alone_deaths: ticks that died while they accepted the first one alone.
        messages: as Celery published them, oldest first.
    """

    at_once: int
    alone_deaths: int
    messages: list[bytes]


class Begun(NamedTuple):
    """Held postbacks that were asked to begin (``begin.lua``).

    Attributes:
        now_ms: the broker's clock.
        rows: of postbacks to send now.
        later: ids that stay held as there is no room for them yet.
        full: the endpoints that had no room.
        tried: endpoint, ms and account of the last POST that had no connection in time, whichever loop made it,
            where none has been made since.
        moved: ids that stay held and are to go back to their lanes: their account goes elsewhere now, or stands still.
    """

    now_ms: int
    rows: list[BegunRow]
    later: list[bytes]
    full: list[bytes]
    tried: list[tuple[bytes, int, bytes]]
    moved: list[bytes]


class Retained(NamedTuple):
    """Records that the retention has dropped (``retain.lua``).

    Attributes:
        dropped: records in all.
        early: account whose dead took more than their share -> how many of them.
        near: accounts whose dead have nearly filled their share.
        unrecorded: records of them that the history has not recorded.
    """

    dropped: int
    early: dict[str, int]
    near: list[str]
    unrecorded: int


class RoomMade(NamedTuple):
    """Room that a nearly full broker has made by dropping things before their time (``make_room.lua``).

    Attributes:
        done: done postbacks.
        dead: dead ones.
        accounts: whose the dead ones were.
        entries: entries of the history's feed.
        unrecorded: of the postbacks those that the history has not recorded.
    """

    done: int
    dead: int
    accounts: set[str]
    entries: int
    unrecorded: int


#: Count under which a job's postback stands that is moved.
MOVED: Final = "moved"


class JobItem(NamedTuple):
    """Postback of a job's slice, as ``move_job.lua`` takes it.

    Attributes:
        id: its id.
        accepted_ms: time of the acceptance that is meant.
        cursor: behind it.
        is_here: True where the broker had its record when the slice was read.
        verdict: the count under which it is left where it is, or ``MOVED``.
        copy: of one that is to be moved and that the broker did not have.
        attempts: of the copy.
    """

    id: str
    accepted_ms: int
    cursor: str
    is_here: bool
    verdict: str = MOVED
    copy: PutBackRow | None = None
    attempts: Sequence[Attempt] = ()

    def arguments(self) -> Iterator[str | bytes | int]:
        """Return it as arguments of the script."""
        more: list[str | bytes | int] = []
        if self.copy is not None:
            more += self.copy
            for attempt in self.attempts:
                more += (attempt.number, attempt.to_json())
        yield from (self.id, self.accepted_ms, self.cursor, int(self.is_here), self.verdict, len(more))
        yield from more


class SliceMoved(NamedTuple):
    """Slice of a job after ``move_job.lua``.

    Attributes:
        why: it stopped, as the script's header says.
        part: the account's part as JSON; empty where the job has none.
        moved: ids that were moved.
    """

    why: str
    part: str
    moved: list[str]


class JobWatched(NamedTuple):
    """Answers to what a job has moved (``watch_job.lua``).

    Attributes:
        scan: where to go on; ``0`` where all were looked at.
        parts: account -> its part as JSON, of those that have changed.
        paused: accounts whose parts have paused themselves.
        gone: ids whose record has left the broker.
    """

    scan: str
    parts: dict[str, str]
    paused: list[str]
    gone: list[str]
