"""Names looked up beside the loop, each in a thread of its own.

libcurl could do it, but in 20 threads for all transfers together: 20 names whose name servers never
answer would keep everybody else's names waiting. Here a silent name server holds its own names only.
What comes of a look-up decides nothing: the guard judges each address when its socket is opened.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

#: Seconds that addresses are used without asking again.
FRESH_S: Final = 60
#: Seconds that they are still used while they are asked for again, so that a kept connection need not wait.
STALE_S: Final = 120
#: Names asked for at a time, a thread each; as many as the accounts in trouble may have transfers open.
LOOKUPS_MAX: Final = 1000
#: Addresses of one name that are tried at most.
ADDRESSES_MAX: Final = 16


class Answer(NamedTuple):
    """What came of a look-up: addresses, or why there are none."""

    host: str
    addresses: tuple[str, ...]
    fault: str = ""


class Names:
    """Looks names up, each once for all who ask at the same time. One thread asks; ``fileno`` wakes it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[str, ...], float]] = {}
        self._running: set[str] = set()
        self._queued: deque[str] = deque()
        self._answers: deque[Answer] = deque()
        self._wake_up, self._bell = socket.socketpair()
        self._wake_up.setblocking(False)
        self._bell.setblocking(False)

    def fileno(self) -> int:
        """Becomes readable when there are answers."""
        return self._wake_up.fileno()

    def known(self, host: str) -> tuple[str, ...] | None:
        """The addresses of a name; None where it is being looked up now, and ``answers`` will tell."""
        addresses, at_s = self._known.get(host, ((), float("-inf")))
        age_s = time.monotonic() - at_s
        if age_s >= FRESH_S and host not in self._running and host not in self._queued:
            self._queued.append(host)
        if self._queued:  # also those for which the system had no thread
            self._begin()
        return addresses if age_s < STALE_S else None

    def answers(self) -> list[Answer]:
        """What has been found since the last call."""
        with suppress(BlockingIOError):
            while self._wake_up.recv(4096):
                pass
        found = []
        now_s = time.monotonic()
        while self._answers:
            answer = self._answers.popleft()
            self._running.discard(answer.host)
            if answer.addresses:
                self._known[answer.host] = (answer.addresses, now_s)
            found.append(answer)
        if found:
            self._known = {host: one for host, one in self._known.items() if now_s - one[1] < STALE_S}
            self._begin()
        return found

    def _begin(self) -> None:
        while self._queued and len(self._running) < LOOKUPS_MAX:
            thread = threading.Thread(target=self._look_up, args=(self._queued[0],), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads: when one ends, the next begins
                return
            self._running.add(self._queued.popleft())

    def _look_up(self, host: str) -> None:
        try:
            # As bytes: Python would put its own, older IDNA on a text.
            found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
            addresses = tuple(str(where[0]).partition("%")[0] for *_, where in found[:ADDRESSES_MAX])
            answer = Answer(host, addresses)
        except socket.gaierror as error:
            answer = Answer(host, (), str(error.strerror))
        except (OSError, UnicodeError) as error:
            answer = Answer(host, (), type(error).__name__)
        self._answers.append(answer)
        with suppress(OSError):  # BlockingIOError: the bell rings already; else closed meanwhile
            self._bell.send(b"!")

    def close(self) -> None:
        """Forget all; look-ups under way end by themselves and are not waited for."""
        self._queued.clear()
        self._wake_up.close()
        self._bell.close()
