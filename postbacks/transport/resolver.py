"""Resolver that looks names up beside the loop, each in a thread of its own.

libcurl could do it, but in 20 threads for all transfers together: 20 names whose name servers never
answer would keep everybody else's names waiting. Here a silent name server holds up its own names only.
A look-up cannot be called off: it ends when the C library gives up, by its own settings after 10 s and more. So
silent names never get all threads, and the name that was asked for last goes first: it has the most time left.
A resolution permits nothing: the guard judges each address when its socket is opened.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

#: Seconds for which addresses are used without another look-up.
FRESH_S: Final = 60
#: Seconds for which they are still used while they are looked up again, so that a kept connection need not wait.
STALE_S: Final = 120
#: Look-ups at a time, a thread each; as many as the transfers that accounts in trouble may have open.
LOOKUPS_MAX: Final = 1000
#: Threads begun in one go, since the loop waits for that.
THREADS_AT_ONCE_MAX: Final = 100
#: Seconds after which a look-up that still runs counts as silent.
SILENT_AFTER_S: Final = 0.5
#: Of the threads that are not silent, only one in so many may run. So thousands of names that turn silent at once leave
#: some threads to others in each second.
RUNNING_DIVISOR: Final = 2
#: Look-ups up to which another one begins of a name that was silent the last time.
KNOWN_SILENT_MAX: Final = LOOKUPS_MAX // 2
#: Names that wait for a thread at most; the oldest of the least hopeful is dropped first.
WAITING_MAX: Final = 4000
#: Names whose last end is remembered at most; the one that has been remembered for longest is dropped first.
REMEMBERED_MAX: Final = 10_000
#: Addresses of a name that are tried at most.
ADDRESSES_MAX: Final = 16

#: Ends of a name's last look-up, the most hopeful first.
ANSWERED, UNKNOWN, SILENT = 0, 1, 2


class Resolution(NamedTuple):
    """Result of a look-up: addresses, or the cause for which there are none."""

    host: str
    addresses: tuple[str, ...]
    cause: str = ""


class Resolver:
    """Looks names up, each once for all who ask at the same time. For one thread, which polls ``fileno``."""

    def __init__(self) -> None:
        # Names that have answered within STALE_S.
        self._cache: dict[str, tuple[tuple[str, ...], float]] = {}
        # Name -> end of its last look-up: REMEMBERED_MAX.
        self._last_ends: dict[str, int] = {}
        # Names that wait for a thread, by the end of their last look-up, the latest last: WAITING_MAX.
        self._waiting: tuple[dict[str, None], ...] = ({}, {}, {})
        # Look-ups with a thread, LOOKUPS_MAX together: name -> begin, the oldest first; and those that are silent.
        self._running: dict[str, float] = {}
        self._silent: set[str] = set()
        # Look-ups that have ended since the last call of ``resolutions``: LOOKUPS_MAX.
        self._resolutions: deque[Resolution] = deque()
        self._wakeup_receive, self._wakeup_send = socket.socketpair()
        self._wakeup_receive.setblocking(False)
        self._wakeup_send.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there are resolutions."""
        return self._wakeup_receive.fileno()

    def cached(self, host: str) -> tuple[str, ...] | None:
        """Return the addresses of a name; None where it is being looked up, and ``resolutions`` will have it."""
        addresses, at_s = self._cache.get(host, ((), float("-inf")))
        age_s = time.monotonic() - at_s
        if age_s >= FRESH_S and host not in self._running and host not in self._silent:
            self._queue(host)
            self.start_lookups()
        return addresses if age_s < STALE_S else None

    def resolutions(self) -> list[Resolution]:
        """Return the resolutions since the last call."""
        with suppress(BlockingIOError):
            while self._wakeup_receive.recv(4096):
                pass
        ended = []
        now_s = time.monotonic()
        self._sort_out_silent(now_s)
        while self._resolutions:
            resolution = self._resolutions.popleft()
            was_silent = resolution.host in self._silent and not resolution.addresses
            self._silent.discard(resolution.host)
            self._running.pop(resolution.host, None)
            self._remember(resolution.host, SILENT if was_silent else ANSWERED)
            if resolution.addresses:
                self._cache[resolution.host] = (resolution.addresses, now_s)
            ended.append(resolution)
        if ended:
            self._cache = {
                host: (addresses, at_s)
                for host, (addresses, at_s) in self._cache.items()
                if now_s - at_s < STALE_S
            }
            self.start_lookups()
        return ended

    def give_up(self, host: str) -> None:
        """Drop a name that nobody waits for any more; remember it as silent if its look-up still runs."""
        for names in self._waiting:
            names.pop(host, None)
        if host in self._silent:
            self._remember(host, SILENT)

    def start_lookups(self) -> None:
        """Begin as many look-ups as there is room for. Call it repeatedly, since silent ones make room in time."""
        self._sort_out_silent(time.monotonic())
        begun = 0
        for last_end, names in enumerate(self._waiting):
            while names and self._has_room(last_end) and begun < THREADS_AT_ONCE_MAX:
                host = next(reversed(names))
                thread = threading.Thread(target=self._look_up, args=(host,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system allows no more threads: when one ends, the next begins
                    return
                del names[host]
                self._running[host] = time.monotonic()
                begun += 1

    def _has_room(self, last_end: int) -> bool:
        silent, running = len(self._silent), len(self._running)
        if last_end == SILENT and silent + running >= KNOWN_SILENT_MAX:
            return False
        return running < (LOOKUPS_MAX - silent) // RUNNING_DIVISOR

    def _sort_out_silent(self, now_s: float) -> None:
        while self._running:
            host, began_s = next(iter(self._running.items()))
            if now_s - began_s < SILENT_AFTER_S:
                return
            del self._running[host]
            self._silent.add(host)

    def _queue(self, host: str) -> None:
        names = self._waiting[self._last_ends.get(host, UNKNOWN)]
        names.pop(host, None)  # asked for once more, it goes first
        names[host] = None
        if sum(map(len, self._waiting)) > WAITING_MAX:
            least_hopeful = next(names for names in reversed(self._waiting) if names)
            del least_hopeful[next(iter(least_hopeful))]

    def _remember(self, host: str, last_end: int) -> None:
        self._last_ends.pop(host, None)
        self._last_ends[host] = last_end
        if len(self._last_ends) > REMEMBERED_MAX:
            del self._last_ends[next(iter(self._last_ends))]

    def _look_up(self, host: str) -> None:
        try:
            # As bytes, since Python would apply its own, older IDNA to a text.
            entries = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
            addresses = tuple(str(address[0]).partition("%")[0] for *_, address in entries[:ADDRESSES_MAX])
            resolution = Resolution(host, addresses)
        except socket.gaierror as error:
            resolution = Resolution(host, (), str(error.strerror))
        except (OSError, UnicodeError) as error:
            resolution = Resolution(host, (), type(error).__name__)
        self._resolutions.append(resolution)
        with suppress(OSError):  # BlockingIOError: it is readable already; else it has been closed meanwhile
            self._wakeup_send.send(b"!")

    def close(self) -> None:
        """Forget all names. Look-ups under way end by themselves and are not waited for."""
        for names in self._waiting:
            names.clear()
        self._wakeup_receive.close()
        self._wakeup_send.close()
