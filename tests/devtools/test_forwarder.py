"""The forwarder: what the server gets is what was sent, and what the sender gets is what the server answered."""

from __future__ import annotations

import contextlib
import gzip
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from identities import Identity

from postbacks.devtools import forwarder as forwarding
from postbacks.devtools.forwarder import Forwarded, Forwarder
from postbacks.devtools.receiver import Received, Receiver, dead_port
from postbacks.errors import InvalidUrl

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
BINARY = bytes(range(256)) * 300
SHORT = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
#: As no library would write it: mixed case, an order of its own, a name twice, spaces, bytes that are not ASCII.
REQUEST = (
    b"POST /hook?a=1&b=%%20 HTTP/1.1\r\n"
    b"hOST: customers.example\r\n"
    b"X-Twice: one\r\n"
    b"Content-Length: %d\r\n"
    b"Postback-Id: order-17\r\n"
    b"x-twice:   two \t\r\n"
    b"X-Bytes: caf\xe9 \xff\r\n"
    b"X-Empty:\r\n"
    b"Connection: keep-alive\r\n"
    b"\r\n" % len(BINARY)
) + BINARY  # fmt: skip


class Server:
    """A server on raw sockets that records the bytes of each connection, and answers with bytes."""

    def __init__(
        self, behave: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
    ) -> None:
        self._behave = behave
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.got: list[bytes] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(20)
                with contextlib.suppress(OSError), connection:
                    if self._context:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    self._behave(connection)
                    connection.close()


def answers(*pieces: bytes, size: int, got: list[bytes]) -> Callable[[socket.socket], None]:
    """Read a request of so many bytes, send the pieces, and wait for the other side to close."""

    def behave(connection: socket.socket) -> None:
        data = b""
        while len(data) < size:
            data += connection.recv(65_536)
        got.append(data)
        for piece in pieces:
            connection.sendall(piece)
        got.append(connection.recv(65_536))

    return behave


class Sender:
    """The sender's side: raw bytes to the receiver and back."""

    def __init__(self, url: str) -> None:
        self.done: queue.SimpleQueue[tuple[Received, Forwarded]] = queue.SimpleQueue()
        forwarder = Forwarder(url, lambda received, forwarded: self.done.put((received, forwarded)))
        self.receiver = Receiver(forwarder.answer, keep=False)

    def __enter__(self) -> Self:
        self.receiver.start()
        self.sock = socket.create_connection(("127.0.0.1", self.receiver.port), timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.receiver.stop()

    def post(self, request: bytes = SHORT) -> None:
        self.sock.sendall(request)

    def get(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(65_536)
            assert piece, f"closed after {data!r}"
            data += piece
        return data

    def rest(self) -> bytes:
        data = b""
        while piece := self.sock.recv(65_536):
            data += piece
        return data

    def outcome(self) -> Forwarded:
        return self.done.get(timeout=60)[1]


@contextlib.contextmanager
def forwarding_to(
    *pieces: bytes,
    size: int = len(SHORT),
    path: str = "",
    scheme: str = "http",
    host: str = "127.0.0.1",
    context=None,
) -> Iterator[tuple[Sender, list[bytes]]]:
    """A server that answers with these pieces, and a sender whose requests of ``size`` bytes are forwarded to it."""
    got: list[bytes] = []
    with (
        Server(answers(*pieces, size=size, got=got), context) as server,
        Sender(f"{scheme}://{host}:{server.port}{path}") as sender,
    ):
        yield sender, got


@pytest.mark.parametrize("path", ["", "/"])
def test_a_request_goes_on_byte_for_byte(path):
    """Order, case and repetition of headers, Host, Connection, odd bytes and a binary body are the sender's."""
    with forwarding_to(OK, size=len(REQUEST), path=path) as (sender, got):
        sender.post(REQUEST)
        assert sender.get(len(OK)) == OK
        sender.outcome()
    assert got[0] == REQUEST


def test_a_chunked_request_goes_on_in_its_chunks():
    request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n<POST\r\n6\r\nBACK/>\r\n0\r\nT: 1\r\n\r\n"
    with forwarding_to(OK, size=len(request)) as (sender, got):
        sender.post(request)
        assert sender.get(len(OK)) == OK
        assert sender.done.get(timeout=60)[0].body == b"<POSTBACK/>"
    assert got[0] == request


@pytest.mark.parametrize(
    ("url_path", "came", "goes"),
    [
        ("/mine", "/", "/mine"),
        ("/mine/", "/hook?a=1", "/mine/?a=1"),
        ("/m%20i/né", "/hook?a=?", "/m%20i/n%C3%A9?a=?"),
        ("/", "/hook?a=1", "/hook?a=1"),
    ],
)
def test_a_path_of_the_url_takes_the_place_of_the_requests_whose_query_stays(url_path, came, goes):
    request = f"POST {came} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode()
    expected = request.replace(came.encode(), goes.encode(), 1)
    with forwarding_to(OK, size=len(expected), path=url_path) as (sender, got):
        sender.post(request)
        sender.get(len(OK))
    assert got[0] == expected


KEPT = {
    "length": b"HTTP/1.1 500 Oh no\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 3\r\n\r\na\x00\xff",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "none": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
    "lines that end with LF alone": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nOK",
}


@pytest.mark.parametrize("cut", [1, 1000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("answer", KEPT.values(), ids=KEPT)
def test_an_answer_comes_back_byte_for_byte_and_the_connection_is_kept(answer, cut):
    pieces = [answer[at : at + cut] for at in range(0, len(answer), cut)]
    with forwarding_to(*pieces) as (sender, _):
        for _ in range(2):
            sender.post()
            assert sender.get(len(answer)) == answer
            outcome = sender.outcome()
            assert (outcome.status, outcome.problem) == (int(answer.split()[1]), "")
        assert sender.receiver.connections == 1


CLOSED = {
    "no length": b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nOK",
    "both": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nOK",
    "a coding that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nOK",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc",
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\nOK",
}


@pytest.mark.parametrize("answer", CLOSED.values(), ids=CLOSED)
def test_an_answer_that_ends_with_its_connection_does_so_for_the_sender(answer):
    def behave(connection):
        connection.recv(1000)
        connection.sendall(answer)

    with Server(behave) as server, Sender(f"http://127.0.0.1:{server.port}") as sender:
        sender.post()
        assert sender.rest() == answer
        outcome = sender.outcome()
    assert (outcome.is_servers, outcome.problem) == (True, "")
    assert outcome.status == (200 if answer.startswith(b"HTTP") else None)


def test_interim_answers_stay_here():
    with forwarding_to(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK) as (
        sender,
        _,
    ):
        sender.post()
        assert sender.get(len(OK)) == OK
        assert sender.outcome().header_lines == [b"Content-Length: 2\r\n"]


def test_a_large_answer_comes_back_whole():
    body = gzip.compress(BINARY) * 4000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with forwarding_to(answer) as (sender, _):
        sender.post()
        assert sender.get(len(answer)) == answer


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "closed inside its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "closed inside its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "closed inside its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed inside its answer"),
    ],
    ids=["body", "chunk", "chunks", "header"],
)
def test_half_an_answer_is_passed_on_and_said_to_be_half(sent, problem):
    def behave(connection):
        connection.recv(1000)
        connection.sendall(sent)

    with Server(behave) as server, Sender(f"http://127.0.0.1:{server.port}") as sender:
        sender.post()
        assert sender.rest() == sent
        outcome = sender.outcome()
    assert outcome.is_servers
    assert problem in outcome.problem


def test_the_sender_gets_502_where_no_server_is_and_the_connection_goes_on():
    with dead_port() as port, Sender(f"http://localhost:{port}/mine") as sender:
        words = f"postbacks receive: http://localhost:{port}/mine: nobody listens there\n".encode()
        for _ in range(2):
            sender.post()
            answer = sender.get(len(words) + 40)
            assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert answer.endswith(words)
            outcome = sender.outcome()
            assert (outcome.status, outcome.is_servers) == (502, False)
        assert sender.receiver.connections == 1


def test_a_server_that_closes_without_an_answer_is_502():
    with Server(lambda connection: connection.recv(1000)) as server, Sender(
        f"http://127.0.0.1:{server.port}"
    ) as sender:  # fmt: skip
        sender.post()
        assert sender.get(60).startswith(b"HTTP/1.1 502 ")
        assert sender.outcome().problem == "the connection was closed without an answer"


def test_a_slow_server_is_waited_for_up_to_a_limit_and_then_504(monkeypatch):
    monkeypatch.setattr(forwarding, "ANSWER_LIMIT_S", 0.2)
    with Server(lambda connection: [connection.recv(1000), connection.recv(1000)]) as server, Sender(
        f"http://127.0.0.1:{server.port}"
    ) as sender:  # fmt: skip
        sender.post()
        assert sender.get(60).startswith(b"HTTP/1.1 504 ")
        outcome = sender.outcome()
    assert outcome.problem == "no end of its answer within 0.2 s"
    assert outcome.elapsed_s >= 0.2


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Name: value\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["body", "header", "interim answers"],
)
def test_an_answer_without_end_is_cut_off(monkeypatch, begin, piece):
    monkeypatch.setattr(forwarding, "MAX_ANSWER_BYTES", 100_000)

    def behave(connection):
        connection.recv(1000)
        connection.sendall(begin)
        while True:
            connection.sendall(piece * 1000)

    with Server(behave) as server, Sender(f"http://127.0.0.1:{server.port}") as sender:
        sender.post()
        assert len(sender.rest()) < 200_000
        assert "cut off" in sender.outcome().problem


def test_what_came_of_a_request_is_said_even_if_its_sender_has_not_waited():
    answered = threading.Event()

    def behave(connection):
        connection.recv(1000)
        answered.wait(60)
        connection.sendall(OK)

    with Server(behave) as server, Sender(f"http://127.0.0.1:{server.port}") as sender:
        sender.post()
        sender.receiver.wait_for(1, timeout_s=60)
        sender.sock.close()
        answered.set()
        assert sender.outcome().status == 200


def test_a_receiver_that_stops_waits_for_no_server():
    with Server(lambda connection: [connection.recv(1000), connection.recv(1000)]) as server:
        sender = Sender(f"http://127.0.0.1:{server.port}")
        with sender:
            sender.post()
            sender.receiver.wait_for(1, timeout_s=60)
        assert sender.done.empty()


def test_https_of_this_machine_needs_no_certificate_that_anybody_trusts(tmp_path, monkeypatch):
    context = Identity("nobody", host="elsewhere.example").server_context(tmp_path)
    with forwarding_to(OK, scheme="https", host="localhost", context=context) as (sender, _):
        sender.post()
        assert sender.get(len(OK)) == OK
    monkeypatch.setattr(forwarding, "_is_this_machine", lambda _: False)
    with forwarding_to(OK, scheme="https", host="localhost", context=context) as (sender, _):
        sender.post()
        assert sender.get(60).startswith(b"HTTP/1.1 502 ")
        assert "its certificate is not trusted" in sender.outcome().problem


@pytest.mark.parametrize(
    "url",
    ["ftp://x.example/", "127.0.0.1:3000", "http://u:p@127.0.0.1/", "http://127.0.0.1/?a=1", "http://127.0.0.1/#a"],
)  # fmt: skip
def test_a_url_that_requests_cannot_go_on_to_is_refused(url):
    with pytest.raises(InvalidUrl):
        Forwarder(url, lambda *_: None)


def test_a_forwarder_knows_the_port_of_this_machine():
    here = [
        Forwarder(f"http://{host}:8080", print) for host in ("localhost", "127.0.0.1", "127.0.0.2", "[::1]")
    ]
    assert all(forwarder.leads_to(8080) and not forwarder.leads_to(8081) for forwarder in here)
    assert not Forwarder("http://192.0.2.1:8080", print).leads_to(8080)
