"""Errors that postbacks raises, in one class hierarchy.

::

    PostbacksError
    ├── InvalidEvent          an event that the catalogue does not allow
    ├── InvalidUrl            a URL that no postback may be sent to
    ├── InvalidAccount        an account name or setting that cannot be
    ├── UnknownAccount        an account that the store does not have
    ├── AccountsUnavailable   the account store failed
    ├── UnknownPostback       an id that the ledger does not have
    ├── UnknownJob            a job that the broker does not have
    ├── UnknownIncident       an incident that the history does not have
    ├── IdTaken               an id that another postback has
    ├── UnsupportedOption     a Celery option that postbacks cannot honour
    ├── BadInput              a file of events that cannot be read
    ├── InvalidQuery          a search that cannot be
    ├── RevealRefused         what is personal was to be shown without a reason
    ├── HistoryError          the history cannot be used as it is
    │   ├── HistoryOff        no history is set
    │   ├── HistoryUnavailable  its database does not answer, is locked or full
    │   ├── HistoryUnfit      its URL, driver or schema cannot be used
    │   └── LeaseLost         another recorder writes by now
    ├── BadSetting            a setting with a value that cannot be
    ├── BrokerError           the broker cannot be used as it is
    │   ├── BrokerUnreachable it does not answer
    │   ├── BrokerUnfit       it answers, and must not be trusted with postbacks
    │   └── NotReplicated     it has the message, and too few of its replicas are known to have it
    └── DeliveryError         a postback was not delivered; AsyncResult carries it
        ├── PostbackFailed    an attempt failed, and the next is planned
        ├── PostbackDead      it was given up
        └── PostbackSkipped   its account does not want it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


#: Problems that the text of an ``InvalidEvent`` names; an event may have a hundred thousand unknown tags.
MAX_PROBLEMS_SHOWN: Final = 50


class PostbacksError(Exception):
    """Root of all errors of this package."""


class InvalidEvent(PostbacksError):
    """Raised when an event is not in the catalogue's form; names the tags at fault.

    Attributes:
        problems: ``(tag, why)`` of each problem, in document order; the tag of a problem of the whole event is ``""``.
        origin: the event's ORIGIN, or empty.
        code: the event's CODE, or empty.
    """

    def __init__(self, problems: Sequence[tuple[str, str]], origin: str = "", code: str = "") -> None:
        self.problems = tuple((str(tag), str(why)) for tag, why in problems)
        self.origin = origin
        self.code = code
        # Exception.args has all arguments, so that pickle and Celery can rebuild the error.
        super().__init__(self.problems, origin, code)

    def __str__(self) -> str:
        name = f"event {self.origin} {self.code}".rstrip() if self.origin or self.code else "event"
        words = [f"{tag}: {why}" if tag else why for tag, why in self.problems[:MAX_PROBLEMS_SHOWN]]
        if more := len(self.problems) - len(words):
            words.append(f"and {more:,} more")
        return f"{name} is not in the catalogue's form: {'; '.join(words)}"


class InvalidUrl(PostbacksError):
    """Raised when a URL is no absolute http or https URL, or is too long."""


class InvalidAccount(PostbacksError):
    """Raised when an account's name or one of its settings cannot be."""


class UnknownAccount(PostbacksError):
    """Raised when the account store does not have the account."""


class AccountsUnavailable(PostbacksError):
    """Raised when the account store failed, our own or an application's."""


class UnknownPostback(PostbacksError):
    """Raised when the ledger does not have the id."""


class UnknownJob(PostbacksError):
    """Raised when the broker does not have the job: it never was, or ended too long ago."""


class UnknownIncident(PostbacksError):
    """Raised when the history does not have the incident: it never was, or ended too long ago."""


class IdTaken(PostbacksError):
    """Raised when another postback has the id: another account's, another event's, or to another URL."""


class InvalidQuery(PostbacksError):
    """Raised when a search cannot be: a filter that nothing can have, filters that exclude each other, a foreign cursor."""


class RevealRefused(PostbacksError):
    """Raised when what is personal is to be shown and no reason is given."""


class HistoryError(PostbacksError):
    """Root of the errors of the history's database."""


class HistoryOff(HistoryError):
    """Raised when no history is set; says how to set one."""


class HistoryUnavailable(HistoryError):
    """Raised when the database does not answer, is locked, or has no room; the same call may do later."""


class HistoryUnfit(HistoryError):
    """Raised when the URL of the history, its driver or its schema cannot be used; somebody must mend it."""


class LeaseLost(HistoryError):
    """Raised when a transaction was given up, as another recorder writes by now."""


class UnsupportedOption(PostbacksError):
    """Raised when a Celery option is given that postbacks cannot honour."""


class BadInput(PostbacksError):
    """Raised when a file, or standard input, holds no events that can be read."""


class BadSetting(PostbacksError):
    """Raised when a ``POSTBACKS_…`` variable, an option of Celery or the deployment's configuration cannot be."""


class BrokerError(PostbacksError):
    """Raised when the broker cannot be used as it is."""


class BrokerUnreachable(BrokerError):
    """Raised when the broker does not answer."""


class BrokerUnfit(BrokerError):
    """Raised when the broker answers but must not be trusted with postbacks (read-only, evicting, too old)."""


class NotReplicated(BrokerError):
    """Raised when fewer than ``POSTBACKS_WAIT_REPLICAS`` replicas said in time that they have the message."""


class DeliveryError(PostbacksError):
    """Error of a postback that was not delivered; ``AsyncResult.info`` and ``.get()`` carry it.

    Attributes:
        message: the error in words.
        outcome: the last attempt's outcome, or the reason where there was no attempt.
        status: HTTP status of the last attempt, or None.
        attempts: POSTs begun so far.
        next_at: time of the next attempt, ISO 8601 UTC, or None.
    """

    def __init__(
        self,
        message: str,
        outcome: str | None = None,
        status: int | None = None,
        attempts: int = 0,
        next_at: str | None = None,
    ) -> None:
        # Exception.args has all arguments, so that Celery can serialise and rebuild the error.
        super().__init__(message, outcome, status, attempts, next_at)
        self.message = message
        self.outcome = outcome
        self.status = status
        self.attempts = attempts
        self.next_at = next_at

    def __str__(self) -> str:
        return self.message


class PostbackFailed(DeliveryError):
    """Raised when an attempt failed, and the next is planned (state RETRY)."""


class PostbackDead(DeliveryError):
    """Raised when a postback was given up (state FAILURE)."""


class PostbackSkipped(DeliveryError):
    """Raised when the account does not want the postback (state FAILURE)."""
