"""POSTs over libcurl, many at once.

It knows nothing of queues: bytes and headers go in, an ``Outcome`` comes out. The limits that libcurl
cannot keep are kept here: from the connection 10 s to the whole header of the answer, however it
drips, and at most as long again for its body.
"""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from typing import Any, Final

import pycurl

from postbacks.errors import InvalidUrl
from postbacks.settings import Settings
from postbacks.transport.answer import MISREAD
from postbacks.transport.classify import WEIRD_ANSWER, classify
from postbacks.transport.connections import IdleConnections
from postbacks.transport.handle import CurlHandle
from postbacks.transport.outcomes import Outcome
from postbacks.transport.poller import READ, WRITE, make_poller
from postbacks.transport.resolver import Resolver
from postbacks.transport.transfer import Transfer

#: What libcurl waits for -> what is asked of the system.
_MASKS: Final = {
    pycurl.POLL_NONE: 0,
    pycurl.POLL_IN: READ,
    pycurl.POLL_OUT: WRITE,
    pycurl.POLL_INOUT: READ | WRITE,
}

#: How libcurl ends a transfer whose kept connection was dead, where it does not begin anew by itself.
_DEAD_CONNECTION: Final = frozenset(
    {pycurl.E_ABORTED_BY_CALLBACK, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR}
)

#: Seconds that moving bytes may take before the loop looks at everything else again.
HELD_UP_S: Final = 0.05


class CurlClient:
    """Makes POSTs over libcurl. Not for more than one thread at a time."""

    def __init__(self, settings: Settings, *, max_connections: int = 0) -> None:
        self._settings = settings
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket_state)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        if max_connections:
            self._multi.setopt(pycurl.M_MAXCONNECTS, max_connections)
        self._poll = make_poller()
        # What is kept here is bounded by the transfers that a loop may have open (`capacity.py`).
        self._wanted: dict[int, int] = {}  # descriptor -> what libcurl waits for on it
        self._timer_s: float | None = None
        self._free: list[CurlHandle] = []
        self._open: dict[pycurl.Curl, CurlHandle] = {}
        self._kept = IdleConnections()
        self._names = Resolver()
        self._poll.register(self._names.fileno(), READ)
        self._watched: int | None = None
        self.heard = False
        self._looking: dict[str, list[CurlHandle]] = {}  # host -> those that wait for its addresses
        self._scan_every_s = min(0.1, settings.answer_timeout_s / 10)
        self._next_scan_s = 0.0
        self._done: list[tuple[Transfer, Outcome]] = []
        self.connections = 0
        self.renewals = 0

    def __len__(self) -> int:
        return len(self._open) + sum(map(len, self._looking.values()))

    # -- many at once -----------------------------------------------------------------------

    def start(self, transfer: Transfer) -> None:
        """Begin a POST; ``wait`` tells what came of it."""
        slot = self._free.pop() if self._free else CurlHandle(self._settings, self._kept)
        try:
            slot.load(transfer)
        except InvalidUrl as error:
            self._refuse(slot, transfer, Outcome("bad_url", detail=str(error)))
            return
        except pycurl.error as error:
            why = f"the account's TLS settings cannot be used: {error.args[-1]}"
            self._refuse(slot, transfer, Outcome("tls", detail=why))
            return
        if transfer.blocked is not None:
            self._refuse(slot, transfer, Outcome("blocked", detail=f"not allowed: {transfer.blocked}"))
            return
        if slot.host:
            addresses = self._names.known(slot.host)
            if addresses is None:
                self._looking.setdefault(slot.host, []).append(slot)
                return
            slot.resolve(addresses)
        self._begin(slot)

    def _begin(self, slot: CurlHandle) -> None:
        self._open[slot.handle] = slot
        self._multi.add_handle(slot.handle)

    def _begin_looked_up(self) -> None:
        """Begin the transfers whose host's look-up has ended, or end them where it found nothing."""
        for answer in self._names.answers():
            for slot in self._looking.pop(answer.host, ()):
                if answer.addresses:
                    slot.resolve(answer.addresses)
                    self._begin(slot)
                elif slot.transfer is not None:
                    code = pycurl.E_COULDNT_RESOLVE_HOST
                    self._refuse(slot, slot.transfer, classify(slot.transfer, code, answer.fault))

    def _refuse(self, slot: CurlHandle, transfer: Transfer, outcome: Outcome) -> None:
        self._retire(slot)
        self._done.append((transfer, outcome))

    def _retire(self, slot: CurlHandle) -> None:
        slot.transfer = None
        if slot.reusable:
            self._free.append(slot)
        else:
            slot.handle.close()

    def wait(self, timeout_s: float) -> list[tuple[Transfer, Outcome]]:
        """Move bytes until something has ended or the time is up; returns what has ended."""
        now_s = time.monotonic()
        if self._done:
            timeout_s = 0.0
        if self._timer_s is not None:
            timeout_s = min(timeout_s, max(0.0, self._timer_s - now_s))
        if self._open or self._looking:
            timeout_s = min(timeout_s, self._scan_every_s)
        events = self._poll.poll(timeout_s)
        began_s = time.monotonic()
        for fd, happened in events:
            wanted = self._wanted.get(fd)
            if wanted is None:
                self._heard_unasked(fd)
                continue
            # An error or the end of the connection is told to whoever waits, as selectors do.
            flags = pycurl.CSELECT_IN if happened & ~WRITE and wanted & READ else 0
            if happened & ~READ and wanted & WRITE:
                flags |= pycurl.CSELECT_OUT
            self._kept.serving = fd
            self._multi.socket_action(fd, flags)
            if time.monotonic() - began_s > HELD_UP_S:
                break  # who was not served is reported again
        now_s = time.monotonic()
        if self._timer_s is not None and now_s >= self._timer_s:
            self._timer_s = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()
        if time.monotonic() - began_s > HELD_UP_S:
            self._end_bodies()
        if now_s >= self._next_scan_s:
            self._next_scan_s = now_s + self._scan_every_s
            self._end_late(now_s)
        done, self._done = self._done, []
        return done

    def watch(self, fd: int | None) -> None:
        """Have ``wait`` return, with ``heard`` set, when something comes on a descriptor of somebody else's; once."""
        self._watched, self.heard = fd, False
        if fd is not None:
            self._ask(fd, READ)

    def _heard_unasked(self, fd: int) -> None:
        """A look-up has ended; or something came on a connection that rests, which nobody waits for."""
        if fd == self._names.fileno():
            self._begin_looked_up()
            return
        if fd == self._watched:
            self.heard = True  # and no longer looked at: who is to read it may be busy for a while
        with suppress(OSError, KeyError):
            self._poll.unregister(fd)

    def _on_socket_state(self, event: int, fd: int, _multi: Any, _data: Any) -> None:
        if event == pycurl.POLL_REMOVE:
            # It stays in the poll while it rests: most are used again, and a closed one leaves by itself.
            self._wanted.pop(fd, None)
            return
        self._wanted[fd] = mask = _MASKS[event]
        self._ask(fd, mask)

    def _ask(self, fd: int, mask: int) -> None:
        try:
            self._poll.modify(fd, mask)
        except FileNotFoundError:
            self._poll.register(fd, mask)

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer_s = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _collect(self) -> None:
        while True:
            queued, succeeded, failed = self._multi.info_read(100)
            for handle in succeeded:
                self._end(handle, 0, "")
            for handle, code, message in failed:
                self._end(handle, code, message)
            if queued == 0:
                return

    def _end_late(self, now_s: float) -> None:
        """End the transfers whose answer is later than the limit; libcurl knows the connection's alone."""
        late = [
            handle
            for handle, slot in self._open.items()
            if slot.transfer is not None and slot.transfer.overdue(now_s)
        ]
        for handle in late:
            self._end(handle, pycurl.E_OPERATION_TIMEDOUT, "")
        for host, slots in list(self._looking.items()):
            in_time: list[CurlHandle] = []
            for slot in slots:
                transfer = slot.transfer
                if transfer is None or now_s - transfer.started_s < transfer.profile.connect_timeout_s:
                    in_time.append(slot)
                else:
                    self._refuse(slot, transfer, classify(transfer, pycurl.E_OPERATION_TIMEDOUT, ""))
            if in_time:
                self._looking[host] = in_time
            else:
                del self._looking[host]
                self._names.give_up(host)
        if self._looking:
            self._names.begin()

    def _end_bodies(self) -> None:
        """Read no further in answers whose status is known: one of them keeps all others waiting.

        Chunk extensions can, since libcurl reads them as fast as they come and tells nobody.
        """
        held_since_s = time.monotonic() - HELD_UP_S
        for handle, slot in list(self._open.items()):
            if slot.transfer is not None and (slot.transfer.header_s or held_since_s) < held_since_s:
                self._end(handle, pycurl.E_OPERATION_TIMEDOUT, "")

    def _end(self, handle: pycurl.Curl, code: int, message: str) -> None:
        slot = self._open.pop(handle)
        if slot.transfer is not None and slot.transfer.on_new:
            self._note_connection(handle, slot.transfer)
        self._multi.remove_handle(handle)
        if code in _DEAD_CONNECTION and slot.renew():
            self._begin(slot)
            return
        transfer = slot.transfer
        if transfer is not None:
            if transfer.watch is not None:
                transfer.watch.release()
            self.renewals += transfer.sends > 1
            if code == WEIRD_ANSWER and transfer.status is not None:
                MISREAD.add(transfer.url)
            self._done.append((transfer, classify(transfer, code, message)))
        self._retire(slot)

    def _note_connection(self, handle: pycurl.Curl, transfer: Transfer) -> None:
        self.connections += handle.getinfo(pycurl.NUM_CONNECTS)
        if transfer.connection in self._kept or not transfer.framed:
            return
        fd = handle.getinfo(pycurl.ACTIVESOCKET)
        if fd >= 0:  # else it was closed behind the transfer
            self._kept.note(fd)

    def close(self) -> None:
        """Drop what is open and release every handle and connection."""
        for handle, slot in self._open.items():
            self._multi.remove_handle(handle)
            handle.close()
            if slot.transfer is not None and slot.transfer.watch is not None:
                slot.transfer.watch.release()
        self._open.clear()
        for slot in itertools.chain.from_iterable(self._looking.values()):
            slot.handle.close()
        self._looking.clear()
        self._names.close()
        for slot in self._free:
            slot.handle.close()
        self._free.clear()
        self._multi.close()
        self._poll.close()

    # -- one at a time ----------------------------------------------------------------------

    def post(self, transfer: Transfer) -> Outcome:
        """Make one POST and wait for its outcome. The adapter must have nothing else open."""
        self.start(transfer)
        while True:
            for _, outcome in self.wait(1.0):
                return outcome
