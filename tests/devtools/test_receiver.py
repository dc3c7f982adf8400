"""The test receiver: what it notes, and how it answers, over real sockets."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections import Counter

import pytest

from postbacks.devtools.receiver import MAX_BYTES, Answer, Received, Receiver, dead_port, fail_first


class Client:
    """Raw connection, so that every byte is the test's own."""

    def __init__(self, receiver):
        self.sock = socket.create_connection(("127.0.0.1", receiver.port), timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def post(self, body: bytes = b"<POSTBACK/>", path: str = "/", **headers: str) -> tuple[int, bytes]:
        """POST over the connection; underscores in header names become dashes."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        self.send(head.encode() + body)
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        """Read one answer; its status and body."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._some()
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        while len(body) < (int(length[1]) if length else 0):
            body += self._some()
        return int(head.split()[1]), body

    def rest(self) -> bytes:
        """Everything until the receiver closes."""
        data = b""
        while some := self.sock.recv(65_536):
            data += some
        return data

    def _some(self) -> bytes:
        some = self.sock.recv(65_536)
        if not some:
            raise EOFError("the receiver closed the connection")
        return some


def test_a_post_is_written_down_as_it_came():
    """Method, target, headers and body arrive unchanged, header names in lower case."""
    before = time.time()
    with Receiver() as receiver, Client(receiver) as client:
        assert client.post(
            b"<POSTBACK/>",
            "/hook?a=1",
            Postback_Id="id-1",
            Postback_Attempt="2",
            Postback_Sequence="7",
            Postback_Created="2025-01-02T03:04:05Z",
        ) == (200, b"OK")
        [received] = receiver.received
    assert (received.method, received.path, received.body) == ("POST", "/hook?a=1", b"<POSTBACK/>")
    assert received.headers["host"] == "test"
    assert (
        received.postback_id,
        received.attempt,
        received.sequence,
        received.created,
    ) == ("id-1", 2, 7, "2025-01-02T03:04:05Z")
    assert (received.number, received.connection) == (1, 1)
    assert before <= received.at <= time.time()


def test_a_request_of_another_kind_has_no_postback_headers():
    """A request without our headers reads as such and not as an error."""
    received = Received(1, 0.0, 0.0, "POST", "/", {}, b"", 1)
    assert (received.postback_id, received.attempt, received.sequence, received.created) == ("", 0, None, "")


def test_tags_are_the_document_read_back():
    """Documents that the sender rendered can be asserted tag by tag."""
    document = b"<POSTBACK><ORIGIN>GENERAL</ORIGIN><CODE>X</CODE></POSTBACK>"
    tags = Received(1, 0.0, 0.0, "POST", "/", {}, document, 1).tags
    assert (tags["ORIGIN"], tags["CODE"]) == ("GENERAL", "X")


def test_a_request_is_written_down_before_it_is_answered():
    """Whoever has the answer finds the request in ``received``."""
    with Receiver() as receiver, Client(receiver) as client:
        for number in range(1, 51):
            client.post()
            assert number == len(receiver.received)


def test_connections_are_counted_and_reused():
    """Requests of one connection carry its number, and keeping it open opens no other."""
    with Receiver() as receiver, Client(receiver) as first, Client(receiver) as second:
        for client in (first, second, first):
            client.post()
        assert [received.connection for received in receiver.received] == [1, 2, 1]
        assert receiver.connections == 2


@pytest.mark.parametrize("status", [200, 201, 204, 302, 404, 500, 599])
def test_the_answer_function_decides_the_status(status):
    """Every status can be given, named or not, and the connection lives on."""
    with Receiver(lambda _: Answer(status, b"why", {"X-Why": "so"})) as receiver, Client(receiver) as client:
        for _ in range(2):
            assert (status, b"" if status == 204 else b"why") == client.post()
        assert receiver.connections == 1


def test_the_answer_function_sees_the_request():
    """Answers can differ by path on one connection."""
    statuses = {"/good": 200, "/bad": 503}
    with Receiver(lambda received: Answer(statuses[received.path])) as receiver, Client(receiver) as client:
        assert [client.post(path=path)[0] for path in ("/bad", "/good", "/bad")] == [503, 200, 503]


def test_an_error_of_the_answer_function_reaches_the_test():
    """The sender gets a 500, and nobody passes over the mistake."""

    def answer(_):
        raise LookupError("my mistake")

    receiver = Receiver(answer)
    receiver.start()
    with Client(receiver) as client:
        assert client.post()[0] == 500
    with pytest.raises(LookupError, match="my mistake"):
        receiver.wait_for(2, timeout_s=60)
    with pytest.raises(LookupError, match="my mistake"):
        receiver.stop()


def test_a_delayed_answer_does_not_hold_up_others():
    """Only the request with the delay waits."""
    delays_s = {"/slow": 0.5, "/slower": 60.0, "/fast": 0.0}
    answer = lambda received: Answer(delay_s=delays_s[received.path])  # noqa: E731
    with Receiver(answer) as receiver, Client(receiver) as slower, Client(receiver) as other:
        begun_s = time.monotonic()
        slower.send(b"POST /slower HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        receiver.wait_for(1, timeout_s=60)
        assert other.post(path="/fast")[0] == 200
        assert time.monotonic() - begun_s < delays_s["/slower"]
        begun_s = time.monotonic()
        assert other.post(path="/slow")[0] == 200
        assert time.monotonic() - begun_s >= delays_s["/slow"]


def test_hang_reads_the_request_and_never_answers():
    """The request is noted, the connection stays open, not a byte comes."""
    with Receiver(lambda _: Answer(action="hang")) as receiver, Client(receiver) as client:
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.post()
        assert receiver.count == 1


def test_reset_sends_rst():
    """The sender sees its connection reset after the request was read."""
    with Receiver(lambda _: Answer(action="reset")) as receiver, Client(receiver) as client:
        with pytest.raises(ConnectionResetError):
            client.post()
        assert receiver.count == 1


def test_close_ends_the_connection_without_a_byte():
    """The sender sees an orderly end and no answer."""
    with Receiver(lambda _: Answer(action="close")) as receiver, Client(receiver) as client:
        with pytest.raises(EOFError):
            client.post()
        assert receiver.count == 1


def test_garbage_is_no_http():
    """The sender gets bytes that no HTTP client can take for an answer."""
    with Receiver(lambda _: Answer(action="garbage")) as receiver, Client(receiver) as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert not client.rest().startswith(b"HTTP/")


def test_an_answer_can_be_cut_off():
    """Too large a content-length and a close make a body that ends early."""
    headers = {"Content-Length": "10", "Connection": "close"}
    with Receiver(lambda _: Answer(200, b"short", headers)) as receiver, Client(receiver) as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert b"content-length: 10\r\nconnection: close\r\n\r\nshort" in client.rest().lower()


def test_fail_first_counts_by_postback():
    """Each postback fails n times, however the attempts of several mix."""
    with Receiver(fail_first(2, 503)) as receiver, Client(receiver) as client:
        order = ["a", "b", "a", "a", "b", "b", "a"]
        statuses = [client.post(Postback_Id=postback_id)[0] for postback_id in order]
        assert statuses == [503, 503, 503, 200, 503, 200, 200]
        assert {name: len(group) for name, group in receiver.by_id().items()} == {"a": 4, "b": 3}


@pytest.mark.parametrize("piece", [1, 7, 10_000], ids=lambda size: f"in pieces of {size}")
@pytest.mark.parametrize(
    "encoded",
    [b"5\r\n<POST\r\n6;x=y\r\nBACK/>\r\n0\r\n\r\n", b"B\r\n<POSTBACK/>\r\n0\r\nTrailer: x\r\n\r\n"],
    ids=["extension", "trailer"],
)
def test_chunks_are_joined(encoded, piece):
    """A chunked body arrives decoded, however the bytes are cut, and the next request is found behind it."""
    request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + encoded
    with Receiver() as receiver, Client(receiver) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), piece):
            client.send(request[start : start + piece])
        assert client.answer()[0] == 200
        assert client.post(b"next")[0] == 200
        assert [received.body for received in receiver.received] == [b"<POSTBACK/>", b"next"]


def test_pipelined_requests_are_answered_one_after_another():
    """A thousand requests in one write get a thousand answers, in order, also behind a delayed one."""
    answer = lambda received: Answer(body=b"%d;" % received.number, delay_s=0.05 * (received.number == 1))  # noqa: E731
    with Receiver(answer) as receiver, Client(receiver) as client:
        request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
        client.send(request * 999 + request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        bodies = re.findall(rb"\r\n\r\n(\d+);", client.rest())
    assert list(range(1, 1001)) == [int(body) for body in bodies]


def test_expect_continue_is_answered_with_100():
    """A sender that asks first is told to go on, then gets its answer."""
    with Receiver() as receiver, Client(receiver) as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer()[0] == 100
        client.send(b"body")
        assert client.answer()[0] == 200
        assert receiver.received[0].body == b"body"


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/2\r\n\r\n",
        b"POST  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nSpace : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        CHUNKED + b"Content-Length: 3\r\n\r\n",
        CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_a_malformed_request_gets_400_and_the_connection_ends(request_bytes):
    """A request that is no clean HTTP is refused, and not noted."""
    with Receiver() as receiver, Client(receiver) as client:
        client.send(request_bytes)
        assert client.rest().startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert receiver.count == 0


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_body_over_the_limit_gets_413(announced):
    """The sender reads the 413 even while it is still sending; a body of just the limit is taken."""
    size = MAX_BYTES + 1
    how = (
        b"Content-Length: %d\r\n\r\n" % size
        if announced
        else b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
    )
    with Receiver() as receiver, Client(receiver) as client:
        client.send(b"POST / HTTP/1.1\r\n" + how + b"x" * size)
        assert client.answer()[0] == 413
        assert receiver.count == 0
    with Receiver() as receiver, Client(receiver) as client:
        assert client.post(b"x" * MAX_BYTES)[0] == 200


def test_wait_for_returns_what_it_waited_for():
    """Waiting can be limited to some requests, and gives back all of these."""
    with Receiver() as receiver, Client(receiver) as client:
        for path in ("/a", "/b", "/a"):
            client.post(path=path)
        found = receiver.wait_for(2, timeout_s=60, where=lambda received: received.path == "/a")
    assert [received.number for received in found] == [1, 3]


def test_wait_for_says_how_many_came():
    """The sentence of a failed wait has the numbers that one looks for first."""
    with Receiver() as receiver, Client(receiver) as client:
        client.post()
        sentence = "0 of the 3 requests asked for came in 0.01 s (1 in all, over 1 connections)."
        with pytest.raises(TimeoutError, match=re.escape(sentence)):
            receiver.wait_for(3, timeout_s=0.01, where=lambda received: received.path == "/other")


def test_a_receiver_that_keeps_nothing_still_counts():
    """For long loads: no memory a request, and waiting still works."""
    with Receiver(keep=False) as receiver, Client(receiver) as client:
        for _ in range(3):
            client.post()
        assert receiver.wait_for(3, timeout_s=60) == []
        assert receiver.count == 3


def test_stopping_cuts_connections_and_frees_the_port():
    """After stop() the same port can be listened on again, though connections were open."""
    with Receiver(lambda _: Answer(action="hang")) as receiver, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(receiver)) for _ in range(10)]
        clients[0].send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        receiver.wait_for(1, timeout_s=60)
        receiver.stop()
        assert clients[0].rest() == b""
        with Receiver(port=receiver.port) as again, Client(again) as client:
            assert client.post()[0] == 200


def test_a_port_in_use_is_the_callers_error():
    """Two receivers cannot share a port, and the second says so at once."""
    with Receiver() as receiver, pytest.raises(OSError, match="in use"):
        Receiver(port=receiver.port).start()


def test_a_receiver_serves_in_the_foreground_until_stopped():
    """serve_forever() returns when another thread stops the receiver."""
    with Receiver() as receiver:
        stopper = threading.Timer(0.05, receiver.stop)
        stopper.start()
        receiver.serve_forever()
        stopper.join()
        with pytest.raises(ConnectionRefusedError):
            Client(receiver)


def test_many_connections_stay_open_at_once():
    """Hundreds of idle connections do not disturb the busy one."""
    with Receiver() as receiver, contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(Client(receiver))
        with Client(receiver) as client:
            assert Counter({200: 100}) == Counter(client.post()[0] for _ in range(100))
        assert receiver.connections == 301


def test_a_dead_port_refuses_connections():
    """Nothing listens there, and nobody else is given the port meanwhile."""
    with dead_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=60)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_a_sender_that_went_away_does_no_harm():
    """A delayed answer to a connection that was reset meanwhile is dropped."""
    with Receiver(lambda _: Answer(delay_s=0.05)) as receiver, Client(receiver) as other:
        with Client(receiver) as client:
            client.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            receiver.wait_for(1, timeout_s=60)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert other.post()[0] == 200
