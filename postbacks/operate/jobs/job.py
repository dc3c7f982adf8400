"""Jobs as people see them: their kinds, states, counts and accounts' parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.ledger import states
from postbacks.ledger.record import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.history.query import Postback, Query

#: Kinds of jobs.
RESEND: Final = "resend"
CANCEL: Final = "cancel"
KINDS: Final = (RESEND, CANCEL)

#: States of a job and the ways between them::
#:
#:     asked   -> running           its set is frozen
#:     asked   -> ended             its set is empty
#:     asked   -> refused           it cannot be: another job holds some of it, or its filter cannot be
#:     running -> paused            by somebody, or as each account's part that is left has paused itself
#:     paused  -> running           by somebody
#:     running -> ended             each postback of its set is moved and answered, or counted as left alone
#:     asked | running | paused -> stopped    by somebody, or as its set is not in the database any more
ASKED: Final = "asked"
RUNNING: Final = "running"
PAUSED: Final = "paused"
ENDED: Final = "ended"
STOPPED: Final = "stopped"
REFUSED: Final = "refused"
STATES: Final = (ASKED, RUNNING, PAUSED, ENDED, STOPPED, REFUSED)
#: States that a job leaves.
UNENDED: Final = frozenset({ASKED, RUNNING, PAUSED})

#: States that a job of a kind moves postbacks from where its filter names none.
MOVED_FROM: Final[Mapping[str, tuple[str, ...]]] = {
    RESEND: (states.DEAD, states.SKIPPED),
    CANCEL: (states.WAITING, states.PARKED, states.HELD, states.SENDING),
}
#: State of a postback whose record had left the broker before the history had read its end.
FORGOTTEN: Final = "forgotten"
#: States that a filter of a kind may name.
MAY_NAME: Final[Mapping[str, tuple[str, ...]]] = {
    RESEND: (states.DEAD, states.SKIPPED, states.DELIVERED, states.CANCELLED, FORGOTTEN),
    CANCEL: MOVED_FROM[CANCEL],
}

#: Postbacks beyond which whoever asks for a job types their number.
TYPED_ABOVE: Final = 100

#: Fields of a query that choose no postbacks.
_NO_FILTERS: Final = frozenset({"limit", "cursor"})

#: Postbacks of an account that go first; more go only as these are answered. So many that fail in a row pause its part.
FIRST: Final = 50
#: Postbacks of a job that wait at a time: moved and not answered.
WAITING_MAX: Final = 10_000


class Counts(NamedTuple):
    """Counts of what became of a job's postbacks. Each but ``delivered`` and ``failed`` stands for itself.

    Attributes:
        moved: put into their lanes again, or cancelled.
        delivered: of those that were moved, whose next POST delivered them.
        failed: of those that were moved, whose next POST failed, or who were ended without one. The retry rule goes on.
        changed: left alone, as they were in another state by then, or their id stands for a later acceptance.
        in_flight: left alone, as their POST was under way. A job that cancels has them not sent again.
        forgotten: neither the broker nor the history has them, or they were erased with all of a person.
        no_document: left alone, as their document is past its retention, or was not kept.
        nowhere: left alone, as their account is not known, or has no URL for them.
    """

    moved: int = 0
    delivered: int = 0
    failed: int = 0
    changed: int = 0
    in_flight: int = 0
    forgotten: int = 0
    no_document: int = 0
    nowhere: int = 0

    @property
    def done(self) -> int:
        """Number of postbacks that the job has come by."""
        return self.moved + self.changed + self.in_flight + self.forgotten + self.no_document + self.nowhere

    def plus(self, other: Counts) -> Counts:
        """Add other counts."""
        return Counts(*(own + more for own, more in zip(self, other, strict=True)))


NO_COUNTS: Final = Counts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Part of a job: the postbacks of one account.

    Attributes:
        account: its name; empty for messages that could not be read.
        total: postbacks in the frozen set.
        counts: what became of them.
        waiting: moved and not answered.
        failed_in_a_row: latest answers that were failures, one behind the other.
        latest_failure: of the latest of them the status, or the outcome (``503``, ``refused``); empty where none failed.
        is_paused: True where so many failed in a row that it paused itself.
    """

    account: str
    total: int
    counts: Counts = NO_COUNTS
    waiting: int = 0
    failed_in_a_row: int = 0
    latest_failure: str = ""
    is_paused: bool = False

    @property
    def left(self) -> int:
        """Number of postbacks that the job has still to come by."""
        return self.total - self.counts.done

    @property
    def why_paused(self) -> str:
        """Say why it has paused itself, as ``acme paused: 50 of 50 failed, 503``; empty where it has not."""
        if not self.is_paused:
            return ""
        return f"{self.account} paused: {FIRST} of {FIRST} failed, {self.latest_failure}"

    def to_public_dict(self) -> dict[str, Any]:
        """Return the part as ``postbacks job show --json`` prints it."""
        return {
            "account": self.account,
            "total": self.total,
            "left": self.left,
            "waiting": self.waiting,
            **self.counts._asdict(),
            "paused": self.why_paused or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Job as the broker has it. Times are ms since the epoch on the broker's clock.

    Attributes:
        id: its id.
        kind: ``RESEND`` or ``CANCEL``.
        state: one of ``STATES``.
        by: who asked for it.
        why: in that person's words; may be empty.
        asked_ms: when.
        query: the filter that chose its set; of one by ids, only the state may be named. None where neither is.
        ids: number of ids that were given one by one; 0 where a filter chose its set.
        rate: postbacks a second that it moves at most; None for any number.
        total: postbacks of its frozen set; None before it is frozen.
        frozen_ms: when its set was frozen; None before.
        ended_ms: when it ended, was stopped or refused; None before.
        counts: what became of its postbacks.
        waiting: moved and not answered.
        parts: of the accounts that have any, by name; empty where the job was read without them.
        paused_by: who has paused it; empty where nobody has: each part that is left has paused itself.
        note: why it was refused or has paused itself, or by whom it was stopped: a sentence; empty for none.
        waits: why it does not go on just now: a sentence; empty where it does.
    """

    id: str
    kind: str
    state: str
    by: str
    why: str
    asked_ms: int
    query: Query | None
    ids: int
    rate: float | None
    total: int | None
    frozen_ms: int | None
    ended_ms: int | None
    counts: Counts = NO_COUNTS
    waiting: int = 0
    parts: tuple[Part, ...] = ()
    paused_by: str = ""
    note: str = ""
    waits: str = ""

    @property
    def is_unended(self) -> bool:
        """True while it may still move something."""
        return self.state in UNENDED

    @property
    def left(self) -> int:
        """Number of postbacks that it has still to come by; 0 before its set is frozen."""
        return (self.total or 0) - self.counts.done

    def to_public_dict(self) -> dict[str, Any]:
        """Return the job as ``postbacks jobs --json`` prints it, without the person whom its filter names."""
        query = {} if self.query is None else filters_of(self.query)
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "by": self.by,
            "why": self.why or None,
            "asked": iso(self.asked_ms),
            "filters": query,
            "ids": self.ids,
            "rate": self.rate,
            "total": self.total,
            "left": self.left,
            "waiting": self.waiting,
            **self.counts._asdict(),
            "frozen": iso(self.frozen_ms),
            "ended": iso(self.ended_ms),
            "paused_by": self.paused_by or None,
            "note": self.note or None,
            "waits": self.waits or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Preview of a job: what it would move, as the history knows it now.

    Attributes:
        kind: of the job.
        total: postbacks of its set.
        accounts: account -> how many of them, the most first.
        sample: some of them, the newest first.
        states: that it would move from.
        left_out: ids given one by one that nobody knows, or that are in none of these states.
        names_known: True where the filter names delivered, cancelled or forgotten ones: receivers may drop an id that they
            know.
        recorded_ms: until when history had read the broker's changes; None where it was not asked.
    """

    kind: str
    total: int
    accounts: dict[str, int]
    sample: tuple[Postback, ...]
    states: tuple[str, ...] = ()
    left_out: int = 0
    names_known: bool = False
    recorded_ms: int | None = None


def filters_of(query: Query) -> dict[str, Any]:
    """Return the filters of a query that are given, by the names of its fields."""
    return {
        name: value
        for name, value in asdict(query).items()
        if name not in _NO_FILTERS and value is not None and value is not False
    }
