"""Which descriptors are ready: epoll, or the poll of systems that have none, behind one face.

``selectors`` would do, but for what it costs at every transfer: it keeps an object a descriptor, and raises where a
closed one's number comes again.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Final, Protocol

#: Ready to read, ready to write; the same numbers in poll and epoll.
READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT


class Poller(Protocol):
    """What is used of ``select.epoll``."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Ask about a descriptor."""
        ...

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Ask something else; FileNotFoundError where it is not asked about."""
        ...

    def unregister(self, fd: int, /) -> None:
        """Ask no more; OSError or KeyError where it is not asked about."""
        ...

    def poll(self, timeout_s: float, /) -> list[tuple[int, int]]:
        """Wait until any is ready; descriptors with what happened to them."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class PollFallback:
    """``select.poll`` with epoll's face. A closed descriptor leaves it by itself here as well."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.modify = self._poll.register, self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout_s: float, /) -> list[tuple[int, int]]:
        """Wait until any is ready; descriptors with what happened to them."""
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            found = self._poll.poll(-(-left_s * 1000 // 1))
            closed = [fd for fd, happened in found if happened & select.POLLNVAL]
            for fd in closed:
                with suppress(KeyError):
                    self._poll.unregister(fd)
            ready = [entry for entry in found if not entry[1] & select.POLLNVAL]
            if ready or not closed:
                return ready

    def close(self) -> None:
        """It holds nothing."""


def make_poller() -> Poller:
    """The best that this system has."""
    return select.epoll() if hasattr(select, "epoll") else PollFallback()
