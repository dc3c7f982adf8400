"""Names looked up beside the loop, each in a thread of its own.

libcurl could do it, but in 20 threads for all transfers together: 20 names whose name servers never
answer would keep everybody else's names waiting. Here a silent name server holds its own names only.
A look-up cannot be called off: it ends when the C library gives up, by its own settings after 10 s and more. So
names that are silent never get all threads, and the latest that is asked for goes first: it has the most time left.
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
#: Threads begun in one go: the loop waits for it.
BEGUN_MAX: Final = 100
#: Seconds after which a look-up that goes on counts as silent.
SILENT_AFTER_S: Final = 0.5
#: Of the threads that no silent look-up has, only one in so many may be in use. So thousands of names that turn silent at
#: once leave some threads to others in each second.
YOUNG_SHARE: Final = 2
#: Look-ups that may be silent while another begins of a name that was silent the last time.
SILENT_AGAIN_MAX: Final = LOOKUPS_MAX // 2
#: Names that wait to be asked for at most; the oldest of the least hopeful goes first.
WAITING_MAX: Final = 4000
#: Names at most of which it is remembered how their last look-up ended; the one not heard of for longest goes first.
REMEMBERED_MAX: Final = 10_000
#: Addresses of one name that are tried at most.
ADDRESSES_MAX: Final = 16

#: How hopeful a name is, by its last look-up.
ANSWERED, UNKNOWN, SILENT = 0, 1, 2


class Resolution(NamedTuple):
    """What came of a look-up: addresses, or why there are none."""

    host: str
    addresses: tuple[str, ...]
    fault: str = ""


class Resolver:
    """Looks names up, each once for all who ask at the same time. One thread asks; ``fileno`` wakes it."""

    def __init__(self) -> None:
        # Names that have answered within STALE_S.
        self._known: dict[str, tuple[tuple[str, ...], float]] = {}
        # How the last look-up of a name ended: REMEMBERED_MAX.
        self._hope: dict[str, int] = {}
        # Names that wait, by their hope, the latest last: WAITING_MAX.
        self._waiting: tuple[dict[str, None], ...] = ({}, {}, {})
        # Names that are looked up, LOOKUPS_MAX together: since when, oldest first; and those that are silent.
        self._young: dict[str, float] = {}
        self._silent: set[str] = set()
        # Of look-ups that have ended since the last call of ``answers``: LOOKUPS_MAX.
        self._answers: deque[Resolution] = deque()
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
        if age_s >= FRESH_S and host not in self._young and host not in self._silent:
            self._queue(host)
            self.begin()
        return addresses if age_s < STALE_S else None

    def answers(self) -> list[Resolution]:
        """What has been found since the last call."""
        with suppress(BlockingIOError):
            while self._wake_up.recv(4096):
                pass
        found = []
        now_s = time.monotonic()
        self._set_silent_apart(now_s)
        while self._answers:
            answer = self._answers.popleft()
            was_silent = answer.host in self._silent and not answer.addresses
            self._silent.discard(answer.host)
            self._young.pop(answer.host, None)
            self._remember(answer.host, SILENT if was_silent else ANSWERED)
            if answer.addresses:
                self._known[answer.host] = (answer.addresses, now_s)
            found.append(answer)
        if found:
            self._known = {host: one for host, one in self._known.items() if now_s - one[1] < STALE_S}
            self.begin()
        return found

    def give_up(self, host: str) -> None:
        """Ask no more for a name that nobody waits for any more; one that is being asked for is silent, it seems."""
        for names in self._waiting:
            names.pop(host, None)
        if host in self._silent:
            self._remember(host, SILENT)

    def begin(self) -> None:
        """Begin look-ups, as many as there is room for; called again and again, since silent ones make room in time."""
        self._set_silent_apart(time.monotonic())
        begun = 0
        for hope, names in enumerate(self._waiting):
            while names and self._has_room(hope) and begun < BEGUN_MAX:
                host = next(reversed(names))
                thread = threading.Thread(target=self._look_up, args=(host,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system allows no more threads: when one ends, the next begins
                    return
                del names[host]
                self._young[host] = time.monotonic()
                begun += 1

    def _has_room(self, hope: int) -> bool:
        silent, young = len(self._silent), len(self._young)
        if hope == SILENT and silent + young >= SILENT_AGAIN_MAX:
            return False
        return young < (LOOKUPS_MAX - silent) // YOUNG_SHARE

    def _set_silent_apart(self, now_s: float) -> None:
        while self._young:
            host, began_s = next(iter(self._young.items()))
            if now_s - began_s < SILENT_AFTER_S:
                return
            del self._young[host]
            self._silent.add(host)

    def _queue(self, host: str) -> None:
        names = self._waiting[self._hope.get(host, UNKNOWN)]
        names.pop(host, None)  # asked for anew, it goes first
        names[host] = None
        if sum(map(len, self._waiting)) > WAITING_MAX:
            least = next(names for names in reversed(self._waiting) if names)
            del least[next(iter(least))]

    def _remember(self, host: str, hope: int) -> None:
        self._hope.pop(host, None)
        self._hope[host] = hope
        if len(self._hope) > REMEMBERED_MAX:
            del self._hope[next(iter(self._hope))]

    def _look_up(self, host: str) -> None:
        try:
            # As bytes: Python would put its own, older IDNA on a text.
            found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
            addresses = tuple(str(where[0]).partition("%")[0] for *_, where in found[:ADDRESSES_MAX])
            answer = Resolution(host, addresses)
        except socket.gaierror as error:
            answer = Resolution(host, (), str(error.strerror))
        except (OSError, UnicodeError) as error:
            answer = Resolution(host, (), type(error).__name__)
        self._answers.append(answer)
        with suppress(OSError):  # BlockingIOError: the bell rings already; else closed meanwhile
            self._bell.send(b"!")

    def close(self) -> None:
        """Forget all; look-ups under way end by themselves and are not waited for."""
        for names in self._waiting:
            names.clear()
        self._wake_up.close()
        self._bell.close()
