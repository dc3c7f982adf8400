"""Queries of the history, and the pages that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.ledger.record import iso
from postbacks.privacy.masker import KEYLESS

if TYPE_CHECKING:
    from postbacks.ledger.record import Record

#: Sentence where what the history needs is not installed.
WITHOUT_DRIVER: Final = "The history wants SQLAlchemy: pip install 'postbacks[history]'."
#: Postbacks that a page has at most.
LIMIT_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Filters of a search; a postback is found that passes each. None and False stand for any.

    Times are ms since the epoch on the broker's clock, and are times of acceptance.

    Attributes:
        account: name of the account.
        group: ``general``, ``mo``, ``mt`` or ``pass``.
        origin: of the event.
        code: of the event.
        state: as the ledger names it. ``waiting``, ``held``, ``sending`` and ``parked`` are read from the broker.
        outcome: of the latest attempt that has ended.
        status: HTTP status of the latest answer.
        host: host of the URL, without port, in any case.
        reason: why it was not delivered: a reason of the ledger, or the outcome of the attempt that ended it.
        attempts: POSTs begun, exactly so many.
        slower_than_ms: the latest attempt took longer.
        opt_outs: opt-outs alone (``catalogue/opt_outs.py``).
        undelivered: those alone that are not delivered: they wait, are sent or parked, or have ended otherwise.
        since_ms: accepted then or later.
        until_ms: accepted before then.
        tracking_id: exactly.
        mms_id: exactly.
        number: a phone number of FROM, TO or MOBILE, in any spelling.
        email: an e-mail address, in any case.
        sub_id: exactly.
        serial_number: exactly.
        limit: postbacks a page at most.
        cursor: ``Page.next`` of the page before this one; empty for the first page.
    """

    account: str | None = None
    group: str | None = None
    origin: str | None = None
    code: str | None = None
    state: str | None = None
    outcome: str | None = None
    status: int | None = None
    host: str | None = None
    reason: str | None = None
    attempts: int | None = None
    slower_than_ms: int | None = None
    opt_outs: bool = False
    undelivered: bool = False
    since_ms: int | None = None
    until_ms: int | None = None
    tracking_id: str | None = None
    mms_id: str | None = None
    number: str | None = None
    email: str | None = None
    sub_id: str | None = None
    serial_number: str | None = None
    limit: int = 20
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Postback:
    """Postback that a search has found, with nothing personal. Times are ms since the epoch on the broker's clock.

    Attributes:
        id: its id.
        account: its account; empty for a message that could not be read.
        group: group of its event.
        origin: of its event.
        code: of its event.
        state: as the ledger names it; ``forgotten`` where its record left the broker before history had read its end.
        reason: why it was not delivered, without what it quotes of the event; empty for none.
        accepted_ms: when it was accepted.
        ended_ms: when it ended.
        attempts: POSTs begun.
        outcome: of the latest attempt that has ended; empty for none.
        status: HTTP status of the latest answer; None for none.
        elapsed_ms: duration of the latest attempt that has ended; None for none.
        url: where it went, without password; numbers in one that came with a call are masked.
        row_id: its row in the database; 0 of one that the broker alone was asked for.
        is_opt_out: True for an opt-out.
    """

    id: str
    account: str
    group: str
    origin: str
    code: str
    state: str
    reason: str
    accepted_ms: int
    ended_ms: int | None
    attempts: int
    outcome: str
    status: int | None
    elapsed_ms: int | None
    url: str
    row_id: int
    is_opt_out: bool = False

    @classmethod
    def of_record(cls, record: Record) -> Postback:
        """Return a record of the broker as a search returns it."""
        latest = record.attempts[-1] if record.attempts else None
        return cls(
            id=record.id,
            account=record.account,
            group=record.group,
            origin=record.origin,
            code=record.code,
            state=record.state,
            reason=KEYLESS.reason(record.reason),
            accepted_ms=record.created_ms,
            ended_ms=record.ended_ms,
            attempts=len(record.attempts),
            outcome=latest.outcome if latest else "",
            status=latest.status if latest else None,
            elapsed_ms=latest.elapsed_ms if latest else None,
            url=KEYLESS.url(record.url, is_own=record.own_url) if record.url else "",
            row_id=0,
            is_opt_out=record.is_opt_out,
        )

    def to_public_dict(self) -> dict[str, Any]:
        """Return the postback as ``postbacks list --json`` prints it; what is empty is left out.

        Names are those of ``postbacks show --json``, but that ``attempts`` is their number.
        """
        fields = {
            "id": self.id,
            "state": self.state,
            "reason": self.reason,
            "account": self.account,
            "group": self.group,
            "origin": self.origin,
            "code": self.code,
            "opt_out": self.is_opt_out or None,
            "created": iso(self.accepted_ms),
            "ended": iso(self.ended_ms),
            "attempts": self.attempts,
            "outcome": self.outcome,
            "status": self.status,
            "elapsed_ms": self.elapsed_ms,
            "url": self.url,
        }
        return {name: value for name, value in fields.items() if value not in {None, ""}}


class Page(NamedTuple):
    """Postbacks that a query has found, newest acceptance first.

    Attributes:
        postbacks: at most ``Query.limit``.
        next: cursor of the page behind this one; empty where there is none.
        recorded_ms: until when history had read the broker's changes; None where it never has.
        read_ms: the broker's time at which states of unfinished postbacks were read; None where none was.
    """

    postbacks: tuple[Postback, ...]
    next: str
    recorded_ms: int | None
    read_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """Number of postbacks that a query finds.

    Attributes:
        postbacks: exactly so many.
        recorded_ms: until when history had read the broker's changes.
        read_ms: the broker's time at which states of unfinished postbacks were read; None where none was.
    """

    postbacks: int
    recorded_ms: int | None
    read_ms: int | None = None
