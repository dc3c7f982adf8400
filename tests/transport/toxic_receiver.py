"""A receiver that does everything wrong, by path; over TLS by port, since that comes before any path.

``python tests/transport/toxic_receiver.py`` serves in a process of its own: names of ports and files of
certificates come as JSON on the standard input, the ports' numbers go out; it ends with its input.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Self

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"
EMPTY = LENGTH % 0
#: Seconds between two bytes of what drips: faster than any limit, so that each byte could prolong it.
DRIP_S = 0.05
PIECE = 65_536


class Peer:
    """Connection as the behaviours use it. What the other side has ended, ends them (OSError)."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ended = threading.Event()

    def send(self, *pieces: bytes) -> None:
        """Send these bytes."""
        for piece in pieces:
            self.connection.sendall(piece)

    def drip(self, data: Iterator[bytes] | bytes) -> None:
        """Send this slowly: bytes one by one, or an iterator's pieces."""
        for one in data:
            self.send(bytes([one]) if isinstance(one, int) else one)
            self.ended.wait(DRIP_S)

    def flood(self, piece: bytes, size: int = 0) -> None:
        """Send a piece again and again, as fast as it goes: so many bytes, or for ever."""
        sent = 0
        while not size or sent < size:
            self.send(piece)
            sent += len(piece)

    def hold(self) -> None:
        """Say nothing more until the other side gives up."""
        while self.connection.recv(PIECE):
            pass

    def reset(self) -> None:
        """End it with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionResetError

    def request(self) -> bytes:
        """Read a request, or what there is of it."""
        data = b""
        while b"\r\n\r\n" not in data and (some := self.connection.recv(PIECE)):
            data += some
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [
            int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        ]
        while len(body) < sum(lengths) and (some := self.connection.recv(PIECE)):
            body += some
        return data


def for_ever(line: bytes) -> Iterator[bytes]:
    """A line, for ever."""
    while True:
        yield line


Behaviour = Callable[[Peer], None]


def says(*pieces: bytes) -> Behaviour:
    """Say this and close."""
    return lambda peer: peer.send(*pieces)


def says_and_holds(*pieces: bytes) -> Behaviour:
    """Say this and then nothing more."""

    def behave(peer: Peer) -> None:
        peer.send(*pieces)
        peer.hold()

    return behave


def says_and_resets(*pieces: bytes) -> Behaviour:
    """Say this and reset the connection."""

    def behave(peer: Peer) -> None:
        peer.send(*pieces)
        peer.reset()

    return behave


def says_and_drips(said: bytes, drips: Callable[[], Iterator[bytes] | bytes]) -> Behaviour:
    """Say this at once and that slowly."""

    def behave(peer: Peer) -> None:
        peer.send(said)
        peer.drip(drips())
        peer.hold()

    return behave


def says_and_floods(said: bytes, piece: bytes, size: int = 0, end: bytes = b"") -> Behaviour:
    """Say this, then that again and again."""

    def behave(peer: Peer) -> None:
        peer.send(said)
        peer.flood(piece, size)
        peer.send(end)

    return behave


def half_closes(peer: Peer) -> None:
    """Close the sending half and go on listening."""
    peer.connection.shutdown(socket.SHUT_WR)
    peer.hold()


BOMB = gzip.compress(b"\0" * 20_000_000, 9)  # 20 kB of 20 MB
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What it does once it has the request.
PATHS: Mapping[str, Behaviour] = {
    "honest": says(OK + EMPTY),
    "no": says(b"HTTP/1.1 500 No\r\n" + EMPTY),
    # silence
    "silence": Peer.hold,
    "half-a-status-line": says_and_holds(b"HTTP/1.1 20"),
    "half-a-header": says_and_holds(OK + b"Content-Le"),
    "header-without-end": says_and_holds(OK + b"Content-Length: 0\r\n"),
    "half-closed": half_closes,
    "header-then-silence": says_and_holds(OK + LENGTH % 100),
    "chunk-then-silence": says_and_holds(CHUNKED + b"5\r\nhel"),
    # dripping
    "drip-status-line": says_and_drips(b"", lambda: OK * 100),
    "drip-header": says_and_drips(OK, lambda: b"X-Drip: " + b"x" * 10_000),
    "drip-header-lines": says_and_drips(OK, lambda: for_ever(b"X-Drip: x\r\n")),
    "drip-100-continue": says_and_drips(b"", lambda: for_ever(CONTINUE)),
    "drip-body": says_and_drips(OK + LENGTH % 10_000, lambda: b"x" * 10_000),
    "drip-chunks": says_and_drips(CHUNKED, lambda: for_ever(b"1\r\nx\r\n")),
    "drip-body-of-500": says_and_drips(b"HTTP/1.1 500 No\r\n" + LENGTH % 10_000, lambda: b"x" * 10_000),
    # it breaks
    "close": says(),
    "reset": says_and_resets(),
    "reset-in-status-line": says_and_resets(b"HTTP/1.1 20"),
    "reset-in-header": says_and_resets(OK + b"Content-Length: 0\r\n"),
    "reset-in-body": says_and_resets(OK + LENGTH % 100 + b"half"),
    "close-in-status-line": says(b"HTTP/1.1 200"),
    "close-in-header": says(OK + b"Content-Length: 0\r\n"),
    "close-before-the-last-byte-of-the-header": says(OK + b"Content-Length: 0\r\n\r"),
    "close-before-the-body": says(OK + LENGTH % 100),
    "close-in-the-body": says(OK + LENGTH % 100 + b"half"),
    "close-in-a-chunk": says(CHUNKED + b"ff\r\nhalf"),
    # too much
    "body-100-mb": says_and_floods(OK + LENGTH % 100_000_000, b"x" * PIECE, 100_000_000),
    "body-100-mb-of-500": says_and_floods(b"HTTP/1.1 500 No\r\n\r\n", b"x" * PIECE, 100_000_000),
    "body-without-end": says_and_floods(OK + b"\r\n", b"x" * PIECE),
    "chunks-without-end": says_and_floods(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "chunks-of-a-byte-without-end": says_and_floods(CHUNKED, b"1\r\nx\r\n" * 1000),
    "chunk-extension-without-end": says_and_floods(CHUNKED + b"5;", b"x" * PIECE),
    "trailers-without-end": says_and_floods(CHUNKED + b"0\r\n", b"X-Trailer: x\r\n" * 1000),
    "gzip-bomb": says(OK + b"Content-Encoding: gzip\r\n" + LENGTH % len(BOMB) + BOMB),
    "gzip-bomb-as-transfer-coding": says(
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n" % len(BOMB) + BOMB + b"\r\n0\r\n\r\n"
    ),
    "header-of-1-mb": says(OK + b"X-Long: " + b"x" * 1_000_000 + b"\r\n" + EMPTY),
    "header-line-without-end": says_and_floods(OK + b"X-Long: ", b"x" * PIECE),
    "headers-10000": says(OK + b"X-Many: x\r\n" * 10_000 + EMPTY),
    "headers-10000-short": says(OK + b"a:\r\n" * 10_000 + EMPTY),
    "headers-without-end": says_and_floods(OK, b"a:\n" * 1000),
    "flood-of-100": says_and_floods(b"", CONTINUE * 1000),
    "flood-of-103": says_and_floods(b"", HINTS * 1000),
    "status-line-without-end": says_and_floods(b"HTTP/1.1 200 ", b"x" * PIECE),
    # no HTTP
    "not-http": says_and_floods(b"", b"\x16\x03\x01\x00" * 1000, 10_000),
    "http-0.9": says(b"<html>200 OK</html>\r\n"),
    "http-2": says(b"HTTP/2 200\r\n" + EMPTY),
    "http-2-frames": says(b"\0\0\0\4\0\0\0\0\0"),
    "http-1.2": says(b"HTTP/1.2 200 OK\r\n" + EMPTY),
    "icy": says(b"ICY 200 OK\r\n" + EMPTY),
    "status-word": says(b"HTTP/1.1 OK\r\n" + EMPTY),
    "status-missing": says(b"HTTP/1.1 \r\n" + EMPTY),
    "status-of-two-digits": says(b"HTTP/1.1 20\r\n" + EMPTY),
    "status-of-four-digits": says(b"HTTP/1.1 2000 OK\r\n" + EMPTY),
    "status-plus": says(b"HTTP/1.1 +200 OK\r\n" + EMPTY),
    "status-000": says(b"HTTP/1.1 000 OK\r\n" + EMPTY),
    "status-999": says(b"HTTP/1.1 999 Denied\r\n" + EMPTY),
    "lower-case": says(b"http/1.1 200 OK\r\n" + EMPTY),
    "blank-line-first": says(b"\r\n" + OK + EMPTY),
    "500-with-a-200-in-its-header": says(b"HTTP/1.1 500 No\r\nHTTP/1.1 200 OK: yes\r\n" + EMPTY),
    "500-with-a-200-in-its-body": says(b"HTTP/1.1 500 No\r\n" + LENGTH % 38 + OK + EMPTY),
    "header-without-colon": says(OK + b"no header\r\n" + EMPTY),
    "header-with-nul": says(OK + b"X-Nul: \0\r\n" + EMPTY),
    "header-with-cr": says(OK + b"X-Cr: a\rb\r\n" + EMPTY),
    "switching-protocols": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + OK + EMPTY),
    "100-then-garbage": says(CONTINUE + b"garbage\r\n\r\n"),
    "100-then-close": says(CONTINUE),
    # bad framing
    "chunk-size-no-number": says(CHUNKED + b"zzz\r\nhello\r\n0\r\n\r\n"),
    "chunk-size-negative": says(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk-size-too-large": says(CHUNKED + b"f" * 40 + b"\r\nhello"),
    "chunk-longer-than-its-size": says(CHUNKED + b"2\r\nhello\r\n0\r\n\r\n"),
    "two-lengths": says(OK + b"Content-Length: 2\r\n" + LENGTH % 5 + b"hello"),
    "length-no-number": says(OK + b"Content-Length: many\r\n\r\nhello"),
    "length-negative": says(OK + b"Content-Length: -5\r\n\r\nhello"),
    "length-too-large": says(OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello"),
    "length-and-chunks": says(OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "unknown-transfer-coding": says(OK + b"Transfer-Encoding: rot13\r\n\r\nuryyb"),
    "204-with-a-body": says(b"HTTP/1.1 204 No Content\r\n" + LENGTH % 5 + b"hello"),
    "redirect-to-itself": says(b"HTTP/1.1 307 Again\r\nLocation: /redirect-to-itself\r\n" + EMPTY),
    "challenge": says(b'HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm="a"\r\n' + EMPTY),
    "twice": says_and_holds((OK + EMPTY) * 2),
}


def answers_first(peer: Peer) -> None:
    """Answer before a byte is read, and then read."""
    peer.send(OK + b"Connection: close\r\n" + EMPTY)
    peer.hold()


def answers_first_and_resets(peer: Peer) -> None:
    """Answer and close with the request unread, which resets the connection."""
    peer.send(OK + EMPTY)
    peer.connection.recv(1)
    peer.reset()


def greeted(behave: Behaviour) -> Behaviour:
    """Wait for the first bytes: else a reset could come before the connection stands."""

    def behave_then(peer: Peer) -> None:
        peer.connection.recv(PIECE)
        behave(peer)

    return behave_then


#: What it does before it has the request: ports of their own.
AT_ONCE: Mapping[str, Behaviour] = {
    "answers-first": answers_first,
    "answers-first-and-resets": answers_first_and_resets,
    "resets-at-once": Peer.reset,
    "closes-at-once": says(),
    "never-reads": lambda peer: peer.ended.wait(5) and None,
    # of TLS
    "stalls-in-the-handshake": says_and_holds(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"),
    "drips-in-the-handshake": says_and_drips(
        b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03", lambda: b"x" * 16_000
    ),
    "resets-in-the-handshake": greeted(says_and_resets(b"\x16\x03\x03\x40\x00")),
    "closes-in-the-handshake": greeted(says(b"\x16\x03\x03\x40\x00")),
    "plain-http-for-tls": greeted(says(b"HTTP/1.1 200 OK\r\n" + EMPTY)),
    "fatal-alert": greeted(says(b"\x15\x03\x03\x00\x02\x02\x28")),
}


class Toxic:
    """Serves all of it on loopback, each connection in a thread.

    Args:
        tls: names of further ports, and what they present.
    """

    def __init__(self, tls: Mapping[str, ssl.SSLContext] | None = None) -> None:
        self._tls = tls or {}
        self._listeners: dict[str, socket.socket] = {}
        self.ports: dict[str, int] = {}
        self.served: Counter[str] = Counter()  # requests, by path
        for name in ("plain", *AT_ONCE, *self._tls):
            self._listeners[name] = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.ports[name] = self._listeners[name].getsockname()[1]

    def __enter__(self) -> Self:
        for name, listener in self._listeners.items():
            threading.Thread(target=self._accept, args=(name, listener), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, name: str, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(name, connection), daemon=True).start()

    def _serve(self, name: str, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            connection.settimeout(30)
            if name in self._tls:
                secured = self._tls[name].wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                stack.callback(secured.close)
                try:
                    secured.do_handshake()
                except ssl.SSLError:  # the alert would be lost with a reset
                    secured.shutdown(socket.SHUT_WR)
                    Peer(secured).hold()
                    return
                connection = secured
            peer = Peer(connection)
            if name in AT_ONCE:
                AT_ONCE[name](peer)
                return
            words = peer.request().split(b" ", 2)
            if len(words) == 3:
                path = words[1].decode()[1:]
                self.served[path] += 1
                PATHS[path](peer)
                # Closing with something unread would reset the connection and cut off what was said.
                connection.shutdown(socket.SHUT_WR)
                peer.hold()


def context_of(spec: Mapping[str, str]) -> ssl.SSLContext:
    """Make the context of a port from its file, its oldest and newest TLS, and whose clients' certificates it asks
    for.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(spec["path"])
    if "version" in spec:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it is too old is what is tried
            context.minimum_version = context.maximum_version = ssl.TLSVersion[spec["version"]]
    if "clients" in spec:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=spec["clients"])
    return context


def main() -> None:
    """Serve until the input ends."""
    contexts = {name: context_of(spec) for name, spec in json.loads(sys.stdin.readline()).items()}
    with Toxic(contexts) as toxic:
        print(json.dumps(toxic.ports), flush=True)
        for path in sys.stdin:
            print(toxic.served[path.strip()], flush=True)


if __name__ == "__main__":
    main()
