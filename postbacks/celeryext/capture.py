"""Seam for tests: while a capture is open, this process's calls of ``send_postback`` end in it, and nothing is sent."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postbacks.celeryext.result_backend import LedgerBackend
    from postbacks.queue.send_request import SendRequest


class Capture(Protocol):
    """Taker of the calls; ``postbacks.testing`` has the one there is."""

    @property
    def backend(self) -> LedgerBackend:
        """Result backend of what is captured, which asks no broker."""
        ...

    def take(self, request: SendRequest, postback_id: str | None, options: Mapping[str, Any]) -> str:
        """Take a call whose arguments and options are checked; return the postback's id.

        Raises:
            IdTaken: another postback has the id.
        """
        ...


_lock = threading.Lock()
_open: tuple[Capture, ...] = ()


def current() -> Capture | None:
    """Return the capture that was opened last and is open, of whichever thread; None outside of tests."""
    captures = _open
    return captures[-1] if captures else None


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Let a capture take the calls of all threads of this process while the context lasts."""
    global _open  # noqa: PLW0603 - one a process, as a call may come from any thread
    with _lock:
        _open = (*_open, capture)
    try:
        yield
    finally:
        with _lock:
            _open = tuple(other for other in _open if other is not capture)
