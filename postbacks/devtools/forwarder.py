"""A forwarder of requests: their bytes go on to another server as they came, and its answers' bytes come back as they are.

Nothing in a request changes but its path, and that only where the server's URL has one: no header is added, taken off,
renamed or moved, ``Host`` and ``Connection`` included. Each request has a connection of its own to the server, so that
none meets one that the server is just closing. An answer goes back piece by piece as it comes. Its end is read from its
header; where the header says none, the server's closing is the end, for the sender too. Interim answers (1xx) stay here.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from http.client import responses
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from postbacks.devtools.receiver import BODILESS, Answer, Received
from postbacks.errors import InvalidUrl
from postbacks.urls import read_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

#: Seconds to a connection, TLS included.
CONNECT_LIMIT_S: Final = 10.0
#: Seconds from the request to the end of its answer: longer than a worker waits, so that it shows how late one is.
ANSWER_LIMIT_S: Final = 60.0
#: Most bytes of an answer that go back; a worker reads 64 KiB of a body.
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
#: Bytes of an answer's body that are kept to be shown.
_SHOWN_BYTES: Final = 4096
_PIECE_BYTES: Final = 65_536
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
#: Empty line, or the end of the connection.
_ENDS_OF_HEAD: Final = (b"\r\n", b"\n", b"")
#: Digits of a length at most; no body is longer.
_LENGTH_DIGITS: Final = 18
#: Longest line of a header.
_LINE_BYTES: Final = 1024 * 1024
#: Characters of a URL's path that stay as they were written.
_AS_WRITTEN: Final = "/%:@!$&'()*+,;=~-._"
_BROKEN_OFF: Final = "the connection was closed inside its answer"
#: Piece of an answer that ends the connection to the sender.
_CLOSE: Final = b""


@dataclass(slots=True)
class Forwarded:
    """Outcome of a request that was passed on.

    Attributes:
        status: status that its sender got; None if the server's answer has none.
        elapsed_s: seconds to the whole header of the answer, or to where it failed.
        is_servers: True if the sender got the server's answer, or a part of it.
        problem: why it got a part, or none of it; empty where it got all.
        header_lines: lines of the answer's header below the first.
        body: first bytes of the answer's body as they came, the sizes of its chunks among them.
    """

    status: int | None = None
    elapsed_s: float = 0.0
    is_servers: bool = False
    problem: str = ""
    header_lines: list[bytes] = field(default_factory=list)
    body: bytes = b""


class Forwarder:
    """Passes requests of a ``Receiver`` on to one server.

    Args:
        url: where the server is. A path takes the place of each request's own, whose query stays.
        on_done: called on the receiver's thread with a request and what came of it.

    Attributes:
        url: the same, in the form in which it is used.

    Raises:
        InvalidUrl: it is no http or https URL, or has a user, a query or a fragment.
    """

    def __init__(self, url: str, on_done: Callable[[Received, Forwarded], None]) -> None:
        read = read_url(url)
        if read.userinfo:
            raise InvalidUrl(
                "The URL has a user, which would become a header: requests go on with those they have."
            )
        if set("?#") & set(url):
            raise InvalidUrl("The URL has a query or a fragment: each request goes on with its own query.")
        self._host, self._port, self._is_tls = read.host, read.port, read.scheme == "https"
        self._path = b"" if read.target == "/" else quote(read.target, safe=_AS_WRITTEN).encode()
        self.url = read.origin + (self._path.decode() or "/")
        self._on_done = on_done

    def leads_to(self, port: int) -> bool:
        """Tell whether the server is this port of this machine."""
        return self._port == port and _is_this_machine(self._host)

    def answer(self, received: Received) -> Answer:
        """Return the answer to a request: what the server answers to it, piece by piece."""
        return Answer(pieces=self._pass_on(received))

    async def _pass_on(self, received: Received) -> AsyncIterator[bytes]:
        begun_s = time.monotonic()
        answer = _ServersAnswer(received.method, begun_s)
        status, writer = 502, None
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                reader, writer = await self._connect()
            # Not waited for: a server may answer before it has read all of it.
            writer.write(self._head(received) + received.framed_body)
            async for piece in answer.pieces(reader):
                yield piece
        except TimeoutError:
            if writer is None:
                answer.problem = f"no connection within {CONNECT_LIMIT_S:g} s"
            else:
                answer.problem, status = f"no end of its answer within {ANSWER_LIMIT_S:g} s", 504
        except OSError as error:
            answer.problem = _words(error)
        except ValueError:  # of readline()
            answer.problem = "a line of its answer is too long"
        finally:
            if writer is not None and answer.is_whole:
                writer.close()
            elif writer is not None:
                writer.transport.abort()  # close() would wait until the server has read the request
        if answer.is_servers:
            if answer.problem or answer.ends_connection:
                yield _CLOSE
        else:
            answer.status, answer.elapsed_s = status, time.monotonic() - begun_s
            yield _refusal(status, f"postbacks receive: {self.url}: {answer.problem}\n")
        self._on_done(received, answer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        options: dict[str, Any] = {"limit": _LINE_BYTES}
        if self._is_tls:
            options |= {"ssl": _tls_context(self._host), "server_hostname": self._host}
        addresses = await asyncio.get_running_loop().getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        )
        for address in addresses[:-1]:
            try:
                return await asyncio.open_connection(str(address[4][0]), self._port, **options)
            except OSError:
                continue  # "localhost" has two, and most servers listen on one of them
        return await asyncio.open_connection(str(addresses[-1][4][0]), self._port, **options)

    def _head(self, received: Received) -> bytes:
        if not self._path:
            return received.head
        method, target, rest = received.head.split(b" ", 2)
        _, question_mark, query = target.partition(b"?")
        return b" ".join((method, self._path + question_mark + query, rest))


class _ServersAnswer(Forwarded):
    """A server's answer while it comes, byte for byte.

    Attributes:
        bytes_count: bytes of it so far.
        is_whole: True once it has come to its end.
        ends_connection: True if the connection to the sender ends with it.
    """

    def __init__(self, method: str, begun_s: float) -> None:
        super().__init__()
        self.bytes_count = 0
        self.is_whole = False
        self.ends_connection = True
        self._method = method
        self._is_older = True  # than HTTP/1.1: its connections are closed
        self._begun_s = begun_s
        self._deadline_s = begun_s + ANSWER_LIMIT_S  # asyncio's clock is the same

    async def pieces(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """Read the answer to its end, which its header says, or the end of the connection.

        Raises:
            TimeoutError: it did not end in time.
            OSError: the connection broke.
        """
        head = await self._head(reader)
        self.elapsed_s = time.monotonic() - self._begun_s
        if not head:
            self.problem = "the connection was closed without an answer"
            return
        yield self._counted(head)
        if self.problem:
            return
        async for piece in self._body(reader):
            self.body += piece[: max(0, _SHOWN_BYTES - len(self.body))]
            yield self._counted(piece)
            if self.bytes_count > MAX_ANSWER_BYTES:
                self.problem = _cut_off()
                return
        self.is_whole = not self.problem

    def _counted(self, piece: bytes) -> bytes:
        self.is_servers = True
        self.bytes_count += len(piece)
        return piece

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """Read the header, or the first line alone if it is none of HTTP."""
        size = 0
        while True:
            head = await self._line(reader)
            status_line = _STATUS_LINE.fullmatch(head)
            if status_line is None:
                return head
            self.header_lines.clear()
            size += len(head)
            while size <= MAX_ANSWER_BYTES and (line := await self._line(reader)) not in _ENDS_OF_HEAD:
                self.header_lines.append(line)
                size += len(line)
            if size > MAX_ANSWER_BYTES:
                self.status, self.problem = int(status_line[2]), _cut_off()
                return head + b"".join(self.header_lines)
            if not line:
                self.problem = _BROKEN_OFF
            if not line or not 100 <= int(status_line[2]) < 200:
                self.status, self._is_older = int(status_line[2]), status_line[1] == b"0"
                return head + b"".join(self.header_lines) + line

    async def _body(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        lengths, codings = set(self._values(b"content-length")), self._values(b"transfer-encoding")
        length = lengths.pop() if len(lengths) == 1 and not codings else b""
        self.ends_connection = self._is_older or b"close" in self._values(b"connection")
        if self.status is not None and (self.status in BODILESS or self._method == "HEAD"):
            return
        if codings == [b"chunked"] and not lengths:
            pieces = self._chunks(reader)
        elif length.isdigit() and len(length) <= _LENGTH_DIGITS:
            pieces = self._exactly(reader, int(length))
        else:
            pieces = self._rest(reader)
        async for piece in pieces:
            yield piece

    async def _chunks(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while size := _CHUNK_SIZE.fullmatch(line := await self._line(reader)):
            yield line
            if not int(size[1], 16):
                while (line := await self._line(reader)) not in _ENDS_OF_HEAD:
                    yield line  # a trailer
                yield line
                return
            async for piece in self._exactly(reader, int(size[1], 16)):
                yield piece
            yield await self._line(reader)
        if not line:
            self.problem = _BROKEN_OFF
        yield line  # the size of no chunk
        async for piece in self._rest(reader):
            yield piece

    async def _exactly(self, reader: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
        while count and (piece := await self._some(reader, min(count, _PIECE_BYTES))):
            count -= len(piece)
            yield piece
        if count:
            self.problem = _BROKEN_OFF

    async def _rest(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        self.ends_connection = True
        while piece := await self._some(reader, _PIECE_BYTES):
            yield piece

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout_at(self._deadline_s):
            return await reader.readline()

    async def _some(self, reader: asyncio.StreamReader, most: int) -> bytes:
        async with asyncio.timeout_at(self._deadline_s):
            return await reader.read(most)

    def _values(self, name: bytes) -> list[bytes]:
        lines = (line.lower().partition(b":") for line in self.header_lines)
        return [value.strip() for of, _, value in lines if of == name]


def _cut_off() -> str:
    return f"its answer was cut off after {MAX_ANSWER_BYTES // 1024 // 1024} MiB"


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _tls_context(host: str) -> ssl.SSLContext:
    """Make the TLS of a connection; to this very machine any certificate will do, as nobody is between."""
    context = ssl.create_default_context()
    if _is_this_machine(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _words(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return "nobody listens there"
        case ConnectionResetError() | BrokenPipeError():
            return "the connection was reset"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"no TLS there: {error.reason or error}"
        case socket.gaierror():
            return "its name cannot be looked up"
    return f"no connection: {error.strerror or error}"


def _refusal(status: int, words: str) -> bytes:
    body = words.encode("ascii", "backslashreplace")
    head = f"HTTP/1.1 {status} {responses[status]}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
