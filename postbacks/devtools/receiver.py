"""A receiver of postbacks for tests and for trying things out: a small, fast HTTP/1.1 server.

It records a request before it answers, so that no sender hears of more than was received. It answers 400 to what is not
clean HTTP, so that a sender's mistakes show.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import responses as reasons
from typing import Any, Literal, NamedTuple, Self, cast

#: Bytes that a head or a body may have, as sent; no postback has more, and most have less than a KiB. Longer ones get 413.
MAX_BYTES = 2 * 1024 * 1024
#: Seconds that a refused sender may go on sending before its connection is closed.
_REFUSED_LINGER_S = 1.0
#: Statuses whose answer has no body, whatever its head says.
BODILESS = frozenset({*range(100, 200), 204, 304})
#: Value of SO_LINGER with which close() sends RST: on, for 0 s.
_LINGER_0 = struct.pack("ii", 1, 0)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived.

    Attributes:
        number: counts the requests in the order of arrival, from 1.
        at: time at which it was complete, seconds since the epoch.
        monotonic_s: the same time on the monotonic clock, for differences.
        method: ``POST``, or what else came.
        path: the request's target, query included.
        headers: values by name in lower case; a repeated header's values are joined by ``", "``.
        body: bytes of the body, its chunks joined.
        connection: number of the TCP connection that brought it, from 1 in the order of acceptance.
        head: bytes of the request line and the headers as they came, the empty line among them.
        framed_body: bytes of the body as they came, the sizes of its chunks among them.
    """

    number: int
    at: float
    monotonic_s: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    head: bytes = b""
    framed_body: bytes = b""

    @property
    def postback_id(self) -> str:
        """Id of the postback, the same at every attempt; ``""`` if the request has none."""
        return self.headers.get("postback-id", "")

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1; 0 if the request has none."""
        return int(self.headers.get("postback-attempt", 0))

    @property
    def sequence(self) -> int | None:
        """Number of the event in its account; None if the request has none."""
        sequence = self.headers.get("postback-sequence")
        return None if sequence is None else int(sequence)

    @property
    def created(self) -> str:
        """Time at which the event was made, as the sender wrote it; ``""`` if the request has none."""
        return self.headers.get("postback-created", "")

    @property
    def tags(self) -> dict[str, Any]:
        """Tags of the document in upper case, with their values."""
        # Imported here, so that receiving needs neither lxml nor the catalogue.
        from postbacks.catalogue import xml  # noqa: PLC0415

        return xml.read(self.body)


@dataclass(frozen=True)
class Answer:
    """An answer to a request, given ``delay_s`` after the request came.

    The header ``connection: close`` closes the connection afterwards. A ``content-length`` (computed where none is
    given) that is larger than the body cuts the answer off.

    Attributes:
        status: HTTP status.
        body: bytes of the body.
        headers: values by name, beside those that HTTP needs.
        delay_s: seconds from the request to the answer.
        action: ``answer``; ``hang`` gives no answer and keeps the connection; ``reset`` sends RST; ``close`` closes
            without a byte; ``garbage`` sends bytes that are no HTTP and closes.
        pieces: the whole answer, head and all, in place of status, headers and body; each piece is sent as it comes, and
            an empty one closes the connection.
    """

    status: int = 200
    body: bytes = b"OK"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    action: Literal["answer", "hang", "reset", "close", "garbage"] = "answer"
    pieces: AsyncIterator[bytes] | None = None


Answers = Callable[[Received], Answer]
_OK = Answer()


def fail_first(n: int, status: int = 500) -> Answers:
    """Make an answer function that gives ``status`` to the first ``n`` POSTs of each postback, then 200."""
    posts: defaultdict[str, int] = defaultdict(int)
    failure = Answer(status, b"not yet")

    def answer(received: Received) -> Answer:
        posts[received.postback_id] += 1
        return failure if posts[received.postback_id] <= n else _OK

    return answer


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """Reserve a port of 127.0.0.1 that refuses every connection while the context lasts."""
    # The port is bound without listening: no other program gets it, and no client connects to itself on it.
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class Receiver:
    """An HTTP server on a thread of its own that records every request.

    ``start`` raises the process's limit of open files as far as the system allows.

    Args:
        answer: the answer function; it runs on the server's thread, so it must not block. Where none is given, every
            request gets a 200.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        keep: keep the requests; False only counts them, for long loads.

    Attributes:
        answer: the answer function; another one counts from the next request on.
        port: the port, the real one once started.
        count: requests so far.
        connections: TCP connections accepted so far.
    """

    def __init__(
        self, answer: Answers | None = None, *, host: str = "127.0.0.1", port: int = 0, keep: bool = True
    ) -> None:
        self.host = host
        self.port = port
        self.count = 0
        self.connections = 0
        self.answer = answer or (lambda _: _OK)
        self._keep = keep
        self._received: list[Received] = []
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # held, as the event loop does not hold them
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()

    def start(self) -> None:
        """Listen, and serve on a new thread.

        Raises:
            OSError: the port cannot be listened on.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError):  # macOS reports "unlimited" and refuses it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # Bound on the caller's thread, so that the caller learns of a port in use.
        # The kernel queues as many connections as net.core.somaxconn allows.
        listener = socket.create_server((self.host, self.port), backlog=65_535)
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener)), daemon=True)
        self._thread.start()
        self._started.wait()

    def serve_forever(self) -> None:
        """Keep a started receiver in the foreground until ``stop()`` or Ctrl-C."""
        if thread := self._thread:
            thread.join()

    def stop(self) -> None:
        """Cut all connections and end the thread; raise the first error of the answer function, lest it be missed."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, path: str = "/") -> str:
        """Return the URL of a path."""
        return f"http://{self.host}:{self.port}{path}"

    @property
    def received(self) -> list[Received]:
        """Copy of the requests so far, in order of arrival."""
        return self._received.copy()

    def by_id(self) -> dict[str, list[Received]]:
        """Group the requests so far by postback id, each group in order of arrival."""
        groups: dict[str, list[Received]] = {}
        for received in self.received:
            groups.setdefault(received.postback_id, []).append(received)
        return groups

    def wait_for(
        self, n: int, timeout_s: float, *, where: Callable[[Received], bool] | None = None
    ) -> list[Received]:
        """Wait until there are ``n`` requests (for which ``where`` is true), and return all of them.

        Raises:
            TimeoutError: fewer came in time; says how many. The first error of the answer function is raised as well.
        """
        deadline_s = time.monotonic() + timeout_s
        matching: list[Received] = []
        read_count = 0
        while True:
            if self._error is not None:
                raise self._error
            is_late = (
                time.monotonic() >= deadline_s
            )  # asked first, so that the last look is after the deadline
            fresh = self._received[read_count:]
            read_count += len(fresh)
            matching += filter(where, fresh)
            count = len(matching) if self._keep else self.count
            if count >= n:
                return matching
            if is_late:
                raise TimeoutError(
                    f"{count} of the {n} requests{' asked for' if where else ''} came in {timeout_s:g} s "
                    f"({self.count} in all, over {self.connections} connections)."
                )
            time.sleep(0.005)  # polled, as a wake-up for every request would slow the server

    # -- on the server's thread ------------------------------------------------------------------

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), sock=listener, backlog=65_535)
        self._started.set()
        await self._stopping.wait()
        server.close()
        for connection in self._open:
            connection.transport.abort()
        await asyncio.sleep(0)  # one turn of the event loop, in which they close

    def _record(self, head: _Head, body: bytes, framed_body: bytes, connection: int) -> Answer:
        self.count += 1
        now = time.time(), time.monotonic()
        received = Received(
            self.count, *now, head.method, head.path, head.headers, body, connection, head.text, framed_body
        )
        if self._keep:
            self._received.append(received)
        try:
            return self.answer(received)
        except Exception as error:  # noqa: BLE001 - raised again on the caller's thread
            self._error = self._error or error
            return Answer(500, b"the answer function failed", {"connection": "close"})


class _Connection(asyncio.Protocol):
    """A TCP connection: parses the requests in its bytes, one at a time."""

    # Half of the receiver, whose private names it uses.
    # ruff: noqa: SLF001

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = bytearray()
        self._head: _Head | None = None  # head of a request whose body is not complete
        self._busy = False  # True until the answer is sent; requests pipelined behind it wait

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._receiver.connections += 1
        self._number = self._receiver.connections
        self._receiver._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._receiver._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read()

    def _read(self) -> None:
        try:
            request = None if self._busy else self._take_request()
        except _RefusalError as refusal:
            self._busy = True  # for good, as what follows cannot be parsed
            self.transport.write(_render(Answer(*refusal.args), close=True))
            # Closing with bytes unread would send RST, which can overtake the answer.
            self._receiver._loop.call_later(_REFUSED_LINGER_S, self.transport.close)
            self.transport.write_eof()
            return
        if request is not None:
            self._busy = True
            answer, close = self._receiver._record(*request, self._number), request[0].close
            if answer.delay_s:
                self._receiver._loop.call_later(answer.delay_s, self._act, answer, close)
            else:
                self._act(answer, close)

    def _take_request(self) -> tuple[_Head, bytes, bytes] | None:
        buffer = self._buffer
        if self._head is None and (end := buffer.find(b"\r\n\r\n")) >= 0:
            self._head = _parse_head(bytes(buffer[: end + 4]))
            del buffer[: end + 4]
            if self._head.headers.get("expect", "").lower() == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        if head is not None:
            length = head.length
            body, end = _join_chunks(buffer) if length is None else (bytes(buffer[:length]), length)
            if body is not None and len(buffer) >= end:
                framed_body = body if length is not None else bytes(buffer[:end])
                del buffer[:end]
                self._head = None
                return head, body, framed_body
        if len(buffer) > MAX_BYTES:
            raise _RefusalError(413, b"the request is too long")
        return None

    def _act(self, answer: Answer, close: bool) -> None:
        if answer.pieces is not None:
            task = self._receiver._loop.create_task(self._send(answer.pieces, close))
            self._receiver._tasks.add(task)
            task.add_done_callback(self._receiver._tasks.discard)
            return
        if answer.action == "hang" or self.transport.is_closing():  # it closes if the sender did not wait
            return
        if answer.action == "answer":
            lines = {f"{name}: {value}".lower() for name, value in answer.headers.items()}
            close = close or "connection: close" in lines
            self.transport.write(_render(answer, close=close))
            self._busy = close
        elif answer.action == "garbage":
            # Bytes like those of a TLS record: no client takes them for an answer of HTTP/0.9.
            self.transport.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        elif answer.action == "reset":
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._go_on()

    async def _send(self, pieces: AsyncIterator[bytes], close: bool) -> None:
        """Send an answer that comes in pieces, all of which are asked for even if the sender has not waited."""
        try:
            async for piece in pieces:
                close = close or not piece
                if not self.transport.is_closing():
                    self.transport.write(piece)
        except Exception as error:  # noqa: BLE001 - raised again on the caller's thread
            self._receiver._error = self._receiver._error or error
            close = True
        self._busy = close
        self._go_on()

    def _go_on(self) -> None:
        if self._busy:
            self.transport.close()
        elif (
            self._buffer
        ):  # read in the next turn, as a thousand pipelined requests would nest a thousand calls
            self._receiver._loop.call_soon(self._read)


class _RefusalError(Exception):
    """Raised when a request cannot be read, with the status and the body to answer."""


class _Head(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    length: int | None  # bytes of the body; None if it comes in chunks
    close: bool
    text: bytes


def _parse_head(text: bytes) -> _Head:
    request_line, *lines = text[:-4].decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not all(words) or words[2] not in {"HTTP/1.1", "HTTP/1.0"}:
        raise _RefusalError(400, b"the request line is not 'METHOD target HTTP/1.1'")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise _RefusalError(400, b"a header line is not 'name: value'")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    length, coding = headers.get("content-length", "0"), headers.get("transfer-encoding")
    # Both a length and a coding: two readers could see two different requests.
    if coding is not None and (coding.lower() != "chunked" or "content-length" in headers):
        raise _RefusalError(400, b"transfer-encoding is not just 'chunked', without a content-length")
    if not re.fullmatch("[0-9]{1,18}", length):
        raise _RefusalError(400, b"content-length is no number")
    if int(length) > MAX_BYTES:
        raise _RefusalError(413, b"the body is too long")
    close = words[2] == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
    return _Head(words[0], words[1], headers, None if coding else int(length), close, text)


def _join_chunks(data: bytearray) -> tuple[bytes | None, int]:
    """Join a body's chunks; return the body and its end in ``data``, or None while chunks or trailers are missing."""
    body = bytearray()
    start = 0
    while (line_end := data.find(b"\r\n", start)) >= 0:
        digits = data[start:line_end].partition(b";")[0]
        if not _CHUNK_SIZE.fullmatch(digits):
            raise _RefusalError(400, b"a chunk's size is no hexadecimal number")
        size = int(digits, 16)
        if size == 0:
            # Trailers end with an empty line, which follows at once where there are none.
            trailers_end = data.find(b"\r\n\r\n", line_end)
            return (None, 0) if trailers_end < 0 else (bytes(body), trailers_end + 4)
        end = line_end + 2 + size
        if not b"\r\n".startswith(data[end : end + 2]):  # a part of the line end may be missing still
            raise _RefusalError(400, b"a chunk is longer than its size")
        body += data[line_end + 2 : end]
        start = end + 2
    return None, 0


def _render(answer: Answer, *, close: bool) -> bytes:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if close:
        headers["connection"] = "close"
    if answer.status not in BODILESS:
        headers.setdefault("content-length", str(len(answer.body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {answer.status} {reasons.get(answer.status, '')}\r\n{lines}\r\n".encode("latin-1")
    return head if answer.status in BODILESS else head + answer.body
