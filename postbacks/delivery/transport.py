"""POSTs over libcurl: one at a time behind ``requests``, or many at once.

The only module that speaks pycurl. It knows nothing of queues: bytes and headers go in, an
``Outcome`` comes out. Every limit of the promise is kept here: 10 s to the connection
(CURLOPT_CONNECTTIMEOUT: name look-up, TCP, TLS and proxy together), then 10 s to the whole header
of the answer, then at most as long again and 64 KiB for its body.
"""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import pycurl
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import urldefragauth

from postbacks.delivery.guard import refusal
from postbacks.delivery.outcomes import CURL_CODES, Outcome, of_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postbacks.settings import Settings

#: A larger header is a failure; real ones are under 8 KiB.
MAX_HEADER_BYTES: Final = 65_536
#: Of the body no more is read; the answer's status has been decided before.
MAX_BODY_BYTES: Final = 65_536

_TIMED_OUT: Final = "timed_out"


@dataclass(slots=True, eq=False)
class Transfer:
    """One POST to make.

    Attributes:
        url: absolute http or https URL; user and password in it become basic auth.
        body: the document, sent as it is.
        headers: ``Name: value`` lines.
        owner: whatever the caller wants to know it by.
    """

    url: str
    body: bytes
    headers: Sequence[str]
    owner: Any = None
    # what has been seen so far
    started_s: float = 0.0
    connected_s: float | None = None
    header_s: float | None = None
    header_bytes: int = 0
    header_lines: list[bytes] = field(default_factory=list)
    status: int | None = None
    body_bytes: int = 0
    excerpt: bytes = b""
    blocked: str | None = None


@lru_cache(maxsize=10_000)
def prepare(url: str) -> tuple[str, tuple[str, ...]]:
    """The URL as it is sent (normalised, IDNA, no credentials) and its own headers, once a URL.

    Raises:
        requests.exceptions.RequestException: the URL cannot be sent to.
    """
    prepared = requests.Request("POST", url).prepare()
    # requests has made basic auth of the user and password in the URL
    authorization = prepared.headers.get("Authorization")
    own = (f"Authorization: {authorization}",) if authorization else ()
    return urldefragauth(prepared.url or ""), own


class _Handed(socket.socket):
    """A socket for libcurl, which duplicates its descriptor: ours ends quietly when it is dropped."""

    def __del__(self) -> None:
        self.close()


class _Slot:
    """A libcurl handle with its callbacks, used for one transfer after the other."""

    __slots__ = ("_excerpt_bytes", "_settings", "handle", "transfer")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._excerpt_bytes = settings.excerpt_bytes
        self.transfer: Transfer | None = None
        handle = pycurl.Curl()
        self.handle = handle
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.NOPROGRESS, 1)
        handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.HTTP09_ALLOWED, 0)
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.PROXY, "")  # an empty one also keeps libcurl from the environment's
        handle.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        handle.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(settings.connect_timeout_s * 1000)))
        # A net under our own limits: name look-up to the end of the body.
        whole_s = settings.connect_timeout_s + 2 * settings.answer_timeout_s + 5
        handle.setopt(pycurl.TIMEOUT_MS, int(whole_s * 1000))
        handle.setopt(pycurl.PREREQFUNCTION, self._on_connected)
        handle.setopt(pycurl.HEADERFUNCTION, self._on_header)
        handle.setopt(pycurl.WRITEFUNCTION, self._on_body)
        handle.setopt(pycurl.OPENSOCKETFUNCTION, self._on_socket)

    def load(self, transfer: Transfer) -> None:
        url, own_headers = prepare(transfer.url)
        handle = self.handle
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.POSTFIELDS, transfer.body)
        handle.setopt(pycurl.HTTPHEADER, ["Expect:", *own_headers, *transfer.headers])
        self.transfer = transfer
        transfer.started_s = time.monotonic()

    def _on_connected(self, *_: Any) -> int:
        if self.transfer is not None:
            self.transfer.connected_s = time.monotonic()
        return int(pycurl.PREREQFUNC_OK)

    def _on_header(self, line: bytes) -> int | None:
        transfer = self.transfer
        if transfer is None or transfer.header_s is not None:
            return None  # trailers of a chunked body
        transfer.header_bytes += len(line)
        if transfer.header_bytes > MAX_HEADER_BYTES:
            return 0
        if line.startswith(b"HTTP/"):
            transfer.status = int(line.split(None, 2)[1])
            transfer.header_lines.clear()
        elif line in {b"\r\n", b"\n"}:
            # 1xx answers come before the answer (RFC 9110 15.2)
            if transfer.status is not None and transfer.status >= 200:
                transfer.header_s = time.monotonic()
        else:
            transfer.header_lines.append(line)
        return None

    def _on_body(self, data: bytes) -> int | None:
        transfer = self.transfer
        if transfer is None:
            return 0
        missing = self._excerpt_bytes - len(transfer.excerpt)
        if missing > 0:
            transfer.excerpt += data[:missing]
        transfer.body_bytes += len(data)
        return 0 if transfer.body_bytes > MAX_BODY_BYTES else None

    def _on_socket(self, _purpose: int, address: Any) -> socket.socket | int:
        family, kind, protocol, where = address
        reason = refusal(where[0], self._settings.allowed_networks)
        if reason is not None:
            if self.transfer is not None:
                self.transfer.blocked = reason
            return int(pycurl.SOCKET_BAD)
        return _Handed(family, kind, protocol)


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
        self._free: list[_Slot] = []
        self._open: dict[pycurl.Curl, _Slot] = {}
        limit_s = min(settings.connect_timeout_s, settings.answer_timeout_s)
        self._scan_every_s = min(0.1, limit_s / 10)
        self._next_scan_s = 0.0
        self._done: list[tuple[Transfer, Outcome]] = []
        self.connections = 0

    def __len__(self) -> int:
        return len(self._open)

    # -- many at once -----------------------------------------------------------------------

    def start(self, transfer: Transfer) -> None:
        """Begin a POST; ``wait`` tells what came of it."""
        slot = self._free.pop() if self._free else _Slot(self._settings)
        try:
            slot.load(transfer)
        except (requests.exceptions.RequestException, ValueError, UnicodeError) as error:
            slot.transfer = None
            self._free.append(slot)
            self._done.append(
                (transfer, Outcome("bad_url", detail=f"the URL cannot be sent to: {type(error).__name__}"))
            )
            return
        self._open[slot.handle] = slot
        self._multi.add_handle(slot.handle)

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
        limit_s = self._settings.answer_timeout_s
        late = [
            handle
            for handle, slot in self._open.items()
            if slot.transfer is not None
            and slot.transfer.connected_s is not None
            and now_s - (slot.transfer.header_s or slot.transfer.connected_s) >= limit_s
        ]
        for handle in late:
            self._end(handle, pycurl.E_OPERATION_TIMEDOUT, _TIMED_OUT)

    def _end(self, handle: pycurl.Curl, code: int, message: str) -> None:
        slot = self._open.pop(handle)
        self._multi.remove_handle(handle)
        transfer, slot.transfer = slot.transfer, None
        if transfer is None:  # pragma: no cover - a slot in _open always has one
            return
        self.connections += handle.getinfo(pycurl.NUM_CONNECTS)
        self._done.append((transfer, outcome_of(transfer, code, message, self._settings)))
        self._free.append(slot)

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


_EXCEPTIONS: Final = {
    "connect_timeout": requests.exceptions.ConnectTimeout,
    "answer_timeout": requests.exceptions.ReadTimeout,
    "tls": requests.exceptions.SSLError,
    "bad_url": requests.exceptions.InvalidURL,
}


def outcome_of(transfer: Transfer, code: int, message: str, settings: Settings) -> Outcome:
    """Judge a transfer that has ended.

    Once the header has come whole, its status alone decides, whatever the body did afterwards.
    """
    elapsed_s = time.monotonic() - transfer.started_s
    if transfer.header_s is not None and transfer.status is not None:
        name = of_status(transfer.status)
        detail = "" if name == "delivered" else f"answered {transfer.status}; only 200 counts"
        if code:
            detail = f"{detail}; its body was not read to the end".lstrip("; ")
        return Outcome(
            name, transfer.status, elapsed_s, detail, b"" if name == "delivered" else transfer.excerpt
        )
    if transfer.blocked is not None:
        return Outcome("blocked", None, elapsed_s, f"the address is not allowed: {transfer.blocked}")
    if code == pycurl.E_OPERATION_TIMEDOUT:
        if transfer.connected_s is None:
            limit_s = settings.connect_timeout_s
            return Outcome("connect_timeout", None, elapsed_s, f"no connection within {limit_s:g} s")
        limit_s = settings.answer_timeout_s
        return Outcome(
            "answer_timeout", None, elapsed_s, f"no whole header of an answer within {limit_s:g} s"
        )
    if code == pycurl.E_WRITE_ERROR and transfer.header_bytes > MAX_HEADER_BYTES:
        return Outcome("too_large", None, elapsed_s, f"the answer's header is over {MAX_HEADER_BYTES} bytes")
    if code == pycurl.E_UNSUPPORTED_PROTOCOL and transfer.connected_s is not None:
        return Outcome(
            "broken_answer", None, elapsed_s, "the answer is no HTTP"
        )  # libcurl took it for HTTP/0.9
    name, phrase = CURL_CODES.get(code, ("broken_answer", f"libcurl's error {code}"))
    if name == "refused" and "reset" in message.lower():
        phrase = "the connection was reset"
    return Outcome(name, None, elapsed_s, f"{phrase} ({message[:120]})" if message else phrase)
