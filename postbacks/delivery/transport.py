"""POSTs over libcurl: one at a time behind ``requests``, or many at once.

It knows nothing of queues: bytes and headers go in, an ``Outcome`` comes out. The limits that libcurl
cannot keep are kept here: from the connection 10 s to the whole header of the answer, however it
drips, and at most as long again for its body.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping
from typing import Any, Final

import pycurl
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from postbacks.delivery.outcomes import Outcome
from postbacks.delivery.profile import Profile
from postbacks.delivery.transfer import Slot, Transfer
from postbacks.delivery.verdict import outcome_of
from postbacks.settings import Settings

#: What ``requests`` raises for an outcome without an answer.
_EXCEPTIONS: Final[dict[str, type[requests.exceptions.RequestException]]] = {
    "connect_timeout": requests.exceptions.ConnectTimeout,
    "answer_timeout": requests.exceptions.ReadTimeout,
    "tls": requests.exceptions.SSLError,
    "bad_url": requests.exceptions.InvalidURL,
}


class CurlAdapter(BaseAdapter):
    """A requests transport adapter over libcurl that can also send many at once.

    Not for more than one thread at a time. ``start`` and ``wait`` send many; ``send`` is what
    ``requests`` calls.
    """

    def __init__(self, settings: Settings, *, max_connections: int = 0) -> None:
        super().__init__()
        self._settings = settings
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket_state)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        if max_connections:
            self._multi.setopt(pycurl.M_MAXCONNECTS, max_connections)
        self._selector = selectors.DefaultSelector()
        self._timer_s: float | None = None
        self._free: list[Slot] = []
        self._open: dict[pycurl.Curl, Slot] = {}
        self._scan_every_s = min(0.1, settings.answer_timeout_s / 10)
        self._next_scan_s = 0.0
        self._done: list[tuple[Transfer, Outcome]] = []
        self.connections = 0

    def __len__(self) -> int:
        return len(self._open)

    # -- many at once -----------------------------------------------------------------------

    def start(self, transfer: Transfer) -> None:
        """Begin a POST; ``wait`` tells what came of it."""
        slot = self._free.pop() if self._free else Slot(self._settings)
        try:
            slot.load(transfer)
        except (requests.exceptions.RequestException, ValueError, UnicodeError) as error:
            why = f"the URL cannot be sent to: {type(error).__name__}"
            self._refuse(slot, transfer, Outcome("bad_url", detail=why))
            return
        except pycurl.error as error:
            why = f"the account's TLS settings cannot be used: {error.args[-1]}"
            self._refuse(slot, transfer, Outcome("tls", detail=why))
            return
        if transfer.blocked is not None:
            self._refuse(slot, transfer, Outcome("blocked", detail=f"not allowed: {transfer.blocked}"))
            return
        self._open[slot.handle] = slot
        self._multi.add_handle(slot.handle)

    def _refuse(self, slot: Slot, transfer: Transfer, outcome: Outcome) -> None:
        self._retire(slot)
        self._done.append((transfer, outcome))

    def _retire(self, slot: Slot) -> None:
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
        if self._open:
            timeout_s = min(timeout_s, self._scan_every_s)
        if not self._selector.get_map():
            if timeout_s > 0:
                time.sleep(timeout_s)
            events = []
        else:
            events = self._selector.select(timeout_s)
        for key, mask in events:
            flags = 0
            if mask & selectors.EVENT_READ:
                flags |= pycurl.CSELECT_IN
            if mask & selectors.EVENT_WRITE:
                flags |= pycurl.CSELECT_OUT
            self._multi.socket_action(key.fd, flags)
        now_s = time.monotonic()
        if self._timer_s is not None and now_s >= self._timer_s:
            self._timer_s = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()
        if now_s >= self._next_scan_s:
            self._next_scan_s = now_s + self._scan_every_s
            self._end_late(now_s)
        done, self._done = self._done, []
        return done

    def _on_socket_state(self, event: int, fd: int, _multi: Any, _data: Any) -> None:
        if event == pycurl.POLL_REMOVE:
            try:
                self._selector.unregister(fd)
            except (KeyError, ValueError):
                return
            return
        mask = 0
        if event in {pycurl.POLL_IN, pycurl.POLL_INOUT}:
            mask |= selectors.EVENT_READ
        if event in {pycurl.POLL_OUT, pycurl.POLL_INOUT}:
            mask |= selectors.EVENT_WRITE
        try:
            self._selector.modify(fd, mask)
        except KeyError:
            self._selector.register(fd, mask)

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

    def _end(self, handle: pycurl.Curl, code: int, message: str) -> None:
        slot = self._open.pop(handle)
        self._multi.remove_handle(handle)
        transfer = slot.transfer
        self.connections += handle.getinfo(pycurl.NUM_CONNECTS)
        if transfer is not None:
            self._done.append((transfer, outcome_of(transfer, code, message)))
        self._retire(slot)

    def close(self) -> None:
        """Drop what is open and release every handle and connection."""
        for handle in list(self._open):
            self._multi.remove_handle(handle)
            handle.close()
        self._open.clear()
        for slot in self._free:
            slot.handle.close()
        self._free.clear()
        self._multi.close()
        self._selector.close()

    # -- one at a time ----------------------------------------------------------------------

    def post(self, transfer: Transfer) -> Outcome:
        """Make one POST and wait for its outcome. The adapter must have nothing else open."""
        self.start(transfer)
        while True:
            for _, outcome in self.wait(1.0):
                return outcome

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """What ``requests`` calls. The limits are those of the settings, TLS is always verified.

        Raises:
            requests.exceptions.RequestException: the class that fits the outcome.
        """
        del stream, timeout, verify, cert, proxies
        body = request.body or b""
        transfer = Transfer(
            url=request.url or "",
            body=body.encode() if isinstance(body, str) else bytes(body),
            headers=[
                f"{name}: {value}"
                for name, value in request.headers.items()
                if name.lower() != "content-length"
            ],
            profile=Profile.default(self._settings),
        )
        outcome = self.post(transfer)
        if transfer.header_s is None:
            raise _EXCEPTIONS.get(outcome.name, requests.exceptions.ConnectionError)(
                outcome.detail, request=request
            )
        response = requests.Response()
        response.status_code = transfer.status or 0
        response.url = request.url or ""
        response.request = request
        response.headers = CaseInsensitiveDict(
            (name.decode("latin-1").strip(), value.decode("latin-1").strip())
            for name, _, value in (line.partition(b":") for line in transfer.header_lines)
        )
        response._content = transfer.excerpt  # noqa: SLF001 - how adapters without a stream fill a response
        return response
