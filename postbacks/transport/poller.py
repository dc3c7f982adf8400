"""Poller of descriptors: epoll, or the poll of systems that have none, with one interface.

``selectors`` would do, but costs too much at every transfer: it keeps an object a descriptor, and raises where the
number of a closed one comes again.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Final, Protocol

#: Masks for ready to read and ready to write; the same numbers in poll and epoll.
READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT


class Poller(Protocol):
    """The methods of ``select.epoll`` that the client uses."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Register a descriptor."""
        ...

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Change the mask of a descriptor. Raises FileNotFoundError if it was not registered."""
        ...

    def unregister(self, fd: int, /) -> None:
        """Unregister the descriptor. Raises OSError or KeyError if it was not registered."""
        ...

    def poll(self, timeout_s: float, /) -> list[tuple[int, int]]:
        """Wait until any descriptor is ready; returns each with its events."""
        ...

    def close(self) -> None:
        """Release the poller's own descriptor."""
        ...


class PollFallback:
    """``select.poll`` with the interface of epoll. A closed descriptor leaves it by itself here as well."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.modify = self._poll.register, self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout_s: float, /) -> list[tuple[int, int]]:
        """Wait until any descriptor is ready; returns each with its events."""
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            events = self._poll.poll(-(-left_s * 1000 // 1))
            closed = [fd for fd, happened in events if happened & select.POLLNVAL]
            for fd in closed:
                with suppress(KeyError):
                    self._poll.unregister(fd)
            ready = [event for event in events if not event[1] & select.POLLNVAL]
            if ready or not closed:
                return ready

    def close(self) -> None:
        """Do nothing: there is no descriptor to release."""


def make_poller() -> Poller:
    """Return the best poller that this system has."""
    return select.epoll() if hasattr(select, "epoll") else PollFallback()
