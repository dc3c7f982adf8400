"""Outbox of a test: calls of ``send_postback`` are checked as ever, recorded, and not sent."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from postbacks.celeryext.capture import capturing
from postbacks.errors import IdTaken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postbacks.catalogue import Event
    from postbacks.celeryext.result_backend import LedgerBackend
    from postbacks.client.task import AccountName
    from postbacks.queue.send_request import SendRequest


@dataclass(frozen=True, slots=True)
class CapturedPostback:
    """A postback that a call made, and that was not sent.

    Attributes:
        id: the postback's id, the ``id`` of the call's result.
        account: name of the account, as text.
        event: the event, checked; it equals one that is made of the same tags.
        url: the call's own ``url=``; None where the account's is used.
        countdown: seconds that the call wants the first send delayed by; None where it wants none.
        eta: time at which the call wants the first send; None where it wants none.
        options: the call's other options, those among them that Celery gives the members of a group.
    """

    id: str
    account: str
    event: Event
    url: str | None = None
    countdown: float | None = None
    eta: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """ORIGIN of the event."""
        return self.event.origin

    @property
    def code(self) -> str:
        """CODE of the event."""
        return self.event.code

    @property
    def tags(self) -> dict[str, Any]:
        """Tags of the event in upper case, with their values; ORIGIN and CODE come first."""
        return self.event.to_mapping()

    @property
    def document(self) -> bytes:
        """XML document as the POST would carry it, byte for byte."""
        from postbacks.catalogue.xml import render  # noqa: PLC0415 - with lxml, which few tests need

        return render(self.event)


class Outbox(list[CapturedPostback]):
    """Postbacks that were captured, in the order of the calls.

    An id that is sent again stands here once, as it is one postback. ``clear()`` forgets the ids as well.

    Attributes:
        revoked: ids of those that were revoked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.revoked: set[str] = set()

    def clear(self) -> None:
        """Forget what was captured and revoked."""
        super().clear()
        self.revoked.clear()

    def only(
        self, *, account: AccountName | None = None, origin: str | None = None, code: str | None = None
    ) -> CapturedPostback:
        """Return the one postback of this account, ORIGIN and CODE, as far as they are given.

        Raises:
            AssertionError: there is none, or more than one; lists what was captured.
        """
        asked = {
            "account": None if account is None else str(account),
            "origin": origin,
            "code": code,
        }
        wanted = {name: value for name, value in asked.items() if value is not None}
        found = [
            postback
            for postback in self
            if all(getattr(postback, name) == value for name, value in wanted.items())
        ]
        if len(found) == 1:
            return found[0]
        words = " ".join(f"{name}={value}" for name, value in wanted.items()) or "any"
        listed = "; ".join(
            f"{postback.account} {postback.origin} {postback.code} ({postback.id})" for postback in self
        )
        raise AssertionError(
            f"{len(found)} postbacks were captured that are {words}, not 1. All that were captured: {listed or 'none'}."
        )


class OutboxCapture:
    """Capture that fills an outbox.

    Args:
        outbox: what it fills.
        raising: error that every call raises once it is checked.
    """

    def __init__(self, outbox: Outbox, raising: Exception | None) -> None:
        self._outbox = outbox
        self._raising = raising
        self._lock = threading.RLock()
        self._backend: LedgerBackend | None = None

    @property
    def backend(self) -> LedgerBackend:
        """Result backend that knows the outbox alone."""
        if self._backend is None:
            from postbacks.app import app  # noqa: PLC0415 - Celery, with the first call
            from postbacks.testing.backend import OutboxBackend  # noqa: PLC0415

            self._backend = OutboxBackend(app, self._outbox)
        return self._backend

    def take(self, request: SendRequest, postback_id: str | None, options: Mapping[str, Any]) -> str:
        """Record a checked call; return the postback's id.

        Raises:
            IdTaken: another postback of the outbox has the id.
        """
        from postbacks.client.message_template import new_id  # noqa: PLC0415 - with Celery

        if self._raising is not None:
            raise self._raising
        eta = options.get("eta")
        postback = CapturedPostback(
            postback_id or new_id(),
            request.account,
            request.event,
            request.url,
            options.get("countdown"),
            datetime.fromisoformat(eta) if isinstance(eta, str) else eta,
            {name: value for name, value in options.items() if name not in {"countdown", "eta"}},
        )
        with self._lock:
            if postback_id is None or not self._is_known(postback):
                self._outbox.append(postback)
        return postback.id

    def _is_known(self, postback: CapturedPostback) -> bool:
        for other in self._outbox:
            if other.id != postback.id:
                continue
            if _identity(other) == _identity(postback):
                return True
            raise IdTaken(
                f"The id {postback.id} is taken by a postback that was captured (account {other.account}, {other.origin} "
                f"{other.code}). Give each event an id of its own: the same id means the same account, event and url=."
            )
        return False


def _identity(postback: CapturedPostback) -> tuple[Any, ...]:
    return postback.account, postback.tags, postback.url


@contextmanager
def captured_postbacks(*, raising: Exception | None = None) -> Iterator[Outbox]:
    """Record what is sent while the context lasts, instead of sending it; no broker is needed.

    Each call is checked as ever and raises what the real call would: ``InvalidEvent``, ``InvalidAccount``,
    ``InvalidUrl``, ``UnsupportedOption``, ``IdTaken``. It holds for all threads of this process and in eager mode too.
    Of contexts within each other the inner one records alone.

    Args:
        raising: error that every call raises once it is checked, as a broker does that fails
            (``BrokerUnreachable("down")``); nothing is recorded then.

    Yields:
        The outbox, which may be read within the context and after it.
    """
    outbox = Outbox()
    with capturing(OutboxCapture(outbox, raising)):
        yield outbox
