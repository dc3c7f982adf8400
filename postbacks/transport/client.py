"""Client that makes many POSTs at once over libcurl.

It knows nothing of queues: bytes and headers go in, an ``Outcome`` comes out. It keeps the limits that libcurl
cannot keep: 10 s from the connection to the whole header of the answer, however slowly that drips, and at most as
long again for the body.
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
from postbacks.transport.phases import measure
from postbacks.transport.poller import READ, WRITE, make_poller
from postbacks.transport.resolver import Resolver
from postbacks.transport.transfer import Transfer

#: Events that libcurl waits for -> the poller's mask.
_MASKS: Final = {
    pycurl.POLL_NONE: 0,
    pycurl.POLL_IN: READ,
    pycurl.POLL_OUT: WRITE,
    pycurl.POLL_INOUT: READ | WRITE,
}

#: Codes of a transfer whose kept connection was dead, where libcurl does not begin anew by itself.
_DEAD_CONNECTION: Final = frozenset(
    {pycurl.E_ABORTED_BY_CALLBACK, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR}
)

#: Seconds that one ``wait`` moves bytes at most, before its caller can look at everything else.
BUSY_MAX_S: Final = 0.05


class CurlClient:
    """Client of one thread at a time.

    Args:
        settings: the process's settings.
        max_connections: connections, open and idle, above which libcurl closes idle ones; 0 for libcurl's own limit.

    Attributes:
        connections: connections made so far.
        renewals: requests so far that left once more over a new connection, as nothing of them had arrived.
        watched_ready: True once something has come on the descriptor of ``watch``.
    """

    def __init__(self, settings: Settings, *, max_connections: int = 0) -> None:
        self._settings = settings
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket_state)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        if max_connections:
            self._multi.setopt(pycurl.M_MAXCONNECTS, max_connections)
        self._poller = make_poller()
        # All of these are bounded by the transfers that a loop may have open (`limits.py`).
        self._wanted: dict[int, int] = {}  # descriptor -> mask that libcurl waits for
        self._timer_s: float | None = None
        self._free: list[CurlHandle] = []
        self._open: dict[pycurl.Curl, CurlHandle] = {}
        self._idle = IdleConnections()
        self._resolver = Resolver()
        self._poller.register(self._resolver.fileno(), READ)
        self._watched_fd: int | None = None
        self.watched_ready = False
        self._resolving: dict[str, list[CurlHandle]] = {}  # host -> handles that wait for its addresses
        self._scan_every_s = min(0.1, settings.answer_timeout_s / 10)
        self._next_scan_s = 0.0
        self._done: list[tuple[Transfer, Outcome]] = []
        self.connections = 0
        self.renewals = 0

    def __len__(self) -> int:
        return len(self._open) + sum(map(len, self._resolving.values()))

    def start(self, transfer: Transfer) -> None:
        """Begin a POST; ``wait`` returns it when it has ended."""
        handle = self._free.pop() if self._free else CurlHandle(self._settings, self._idle)
        try:
            handle.load(transfer)
        except InvalidUrl as error:
            self._end_unsent(handle, transfer, Outcome("bad_url", detail=str(error)))
            return
        except pycurl.error as error:
            detail = f"the account's TLS settings cannot be used: {error.args[-1]}"
            self._end_unsent(handle, transfer, Outcome("tls", detail=detail))
            return
        if transfer.blocked is not None:
            self._end_unsent(handle, transfer, Outcome("blocked", detail=f"not allowed: {transfer.blocked}"))
            return
        if handle.host:
            addresses = self._resolver.cached(handle.host)
            if addresses is None:
                self._resolving.setdefault(handle.host, []).append(handle)
                return
            handle.resolve(addresses)
        self._begin(handle)

    def _begin(self, handle: CurlHandle) -> None:
        self._open[handle.curl] = handle
        self._multi.add_handle(handle.curl)

    def _begin_looked_up(self) -> None:
        """Begin the transfers whose host has been looked up, or end them where it has no address."""
        for resolution in self._resolver.resolutions():
            for handle in self._resolving.pop(resolution.host, ()):
                if resolution.addresses:
                    handle.resolve(resolution.addresses)
                    self._begin(handle)
                elif handle.transfer is not None:
                    transfer, code = handle.transfer, pycurl.E_COULDNT_RESOLVE_HOST
                    outcome = classify(transfer, code, resolution.cause)
                    self._end_unsent(handle, transfer, _observed(handle, transfer, outcome))

    def _end_unsent(self, handle: CurlHandle, transfer: Transfer, outcome: Outcome) -> None:
        self._release(handle)
        self._done.append((transfer, outcome))

    def _release(self, handle: CurlHandle) -> None:
        handle.transfer = None
        if handle.reusable:
            self._free.append(handle)
        else:
            handle.curl.close()

    def wait(self, timeout_s: float) -> list[tuple[Transfer, Outcome]]:
        """Move bytes until a transfer has ended, ``watch`` has fired or the time is up; returns what has ended."""
        now_s = time.monotonic()
        if self._done:
            timeout_s = 0.0
        if self._timer_s is not None:
            timeout_s = min(timeout_s, max(0.0, self._timer_s - now_s))
        if self._open or self._resolving:
            timeout_s = min(timeout_s, self._scan_every_s)
        events = self._poller.poll(timeout_s)
        began_s = time.monotonic()
        for fd, happened in events:
            wanted = self._wanted.get(fd)
            if wanted is None:
                self._on_other_descriptor(fd)
                continue
            # An error or the end of a connection goes to whoever waits for either, as in `selectors`.
            flags = pycurl.CSELECT_IN if happened & ~WRITE and wanted & READ else 0
            if happened & ~READ and wanted & WRITE:
                flags |= pycurl.CSELECT_OUT
            self._idle.current_fd = fd
            self._multi.socket_action(fd, flags)
            if time.monotonic() - began_s > BUSY_MAX_S:
                break  # the poller reports the others again
        now_s = time.monotonic()
        if self._timer_s is not None and now_s >= self._timer_s:
            self._timer_s = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()
        if time.monotonic() - began_s > BUSY_MAX_S:
            self._end_bodies()
        if now_s >= self._next_scan_s:
            self._next_scan_s = now_s + self._scan_every_s
            self._end_late(now_s)
        done, self._done = self._done, []
        return done

    def watch(self, fd: int | None) -> None:
        """Have ``wait`` return, with ``watched_ready`` set, once something comes on this descriptor of the caller's."""
        self._watched_fd, self.watched_ready = fd, False
        if fd is not None:
            self._poll_for(fd, READ)

    def _on_other_descriptor(self, fd: int) -> None:
        """Handle an event on a descriptor that libcurl does not wait for: resolver, watched one, or idle connection."""
        if fd == self._resolver.fileno():
            self._begin_looked_up()
            return
        if fd == self._watched_fd:
            self.watched_ready = True  # and no longer polled: its reader may be busy for a while
        with suppress(OSError, KeyError):
            self._poller.unregister(fd)

    def _on_socket_state(self, event: int, fd: int, _multi: Any, _data: Any) -> None:
        if event == pycurl.POLL_REMOVE:
            # It stays with the poller while it is idle: most are used again, and a closed one leaves by itself.
            self._wanted.pop(fd, None)
            return
        self._wanted[fd] = mask = _MASKS[event]
        self._poll_for(fd, mask)

    def _poll_for(self, fd: int, mask: int) -> None:
        try:
            self._poller.modify(fd, mask)
        except FileNotFoundError:
            self._poller.register(fd, mask)

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer_s = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _collect(self) -> None:
        while True:
            queued, succeeded, failed = self._multi.info_read(100)
            for curl in succeeded:
                self._end(curl, 0, "")
            for curl, code, message in failed:
                self._end(curl, code, message)
            if queued == 0:
                return

    def _end_late(self, now_s: float) -> None:
        """End the transfers whose answer is later than the limit; libcurl knows the limit of the connection alone."""
        late = [
            curl
            for curl, handle in self._open.items()
            if handle.transfer is not None and handle.transfer.overdue(now_s)
        ]
        for curl in late:
            self._end(curl, pycurl.E_OPERATION_TIMEDOUT, "")
        for host, handles in list(self._resolving.items()):
            in_time: list[CurlHandle] = []
            for handle in handles:
                transfer = handle.transfer
                if transfer is None or now_s - transfer.started_s < transfer.profile.connect_timeout_s:
                    in_time.append(handle)
                else:
                    outcome = classify(transfer, pycurl.E_OPERATION_TIMEDOUT, "")
                    self._end_unsent(handle, transfer, _observed(handle, transfer, outcome))
            if in_time:
                self._resolving[host] = in_time
            else:
                del self._resolving[host]
                self._resolver.give_up(host)
        if self._resolving:
            self._resolver.start_lookups()

    def _end_bodies(self) -> None:
        """Read no further in answers whose status is known, since one of them keeps all other transfers waiting.

        Chunk extensions can do so: libcurl reads them as fast as they come and calls nobody back.
        """
        busy_since_s = time.monotonic() - BUSY_MAX_S
        for curl, handle in list(self._open.items()):
            if handle.transfer is not None and (handle.transfer.header_s or busy_since_s) < busy_since_s:
                self._end(curl, pycurl.E_OPERATION_TIMEDOUT, "")

    def _end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        handle = self._open.pop(curl)
        if handle.transfer is not None and handle.transfer.is_new_connection:
            self._keep_connection(curl, handle.transfer)
        self._multi.remove_handle(curl)
        if code in _DEAD_CONNECTION and handle.renew():
            self._begin(handle)
            return
        transfer = handle.transfer
        if transfer is not None:
            if transfer.ack_watch is not None:
                transfer.ack_watch.release()
            self.renewals += transfer.sends > 1
            if code == WEIRD_ANSWER and transfer.status is not None:
                MISREAD.add(transfer.url)
            self._done.append((transfer, _observed(handle, transfer, classify(transfer, code, message))))
        self._release(handle)

    def _keep_connection(self, curl: pycurl.Curl, transfer: Transfer) -> None:
        self.connections += curl.getinfo(pycurl.NUM_CONNECTS)
        if transfer.connection in self._idle or not transfer.framed:
            return
        fd = curl.getinfo(pycurl.ACTIVESOCKET)
        if fd >= 0:  # else libcurl has closed it after the transfer
            self._idle.add(fd)

    def close(self) -> None:
        """Drop all transfers, and release every handle and connection."""
        for curl, handle in self._open.items():
            self._multi.remove_handle(curl)
            curl.close()
            if handle.transfer is not None and handle.transfer.ack_watch is not None:
                handle.transfer.ack_watch.release()
        self._open.clear()
        for handle in itertools.chain.from_iterable(self._resolving.values()):
            handle.curl.close()
        self._resolving.clear()
        self._resolver.close()
        for handle in self._free:
            handle.curl.close()
        self._free.clear()
        self._multi.close()
        self._poller.close()

    def post(self, transfer: Transfer) -> Outcome:
        """Make one POST and wait for its outcome. The client must have nothing else open."""
        self.start(transfer)
        while True:
            for _, outcome in self.wait(1.0):
                return outcome


def _observed(handle: CurlHandle, transfer: Transfer, outcome: Outcome) -> Outcome:
    """Return the outcome of a transfer that has ended with its phases and its address."""
    phases = measure(handle.curl, transfer, outcome.elapsed_s, has_name=bool(handle.host))
    # all but its last two fields; _replace() takes twice as long
    return Outcome(*outcome[:-2], phases, handle.address_of(transfer))
