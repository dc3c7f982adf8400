"""An attempt is one POST: a receiver that ends a kept connection in the middle gets six of them and no more."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from events import MO
from helpers import Rig, eventually, set_account
from transport.certificates import Authority

from postbacks import send_postback
from postbacks.settings import Settings
from postbacks.transport import acks
from postbacks.transport.client import CurlClient
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer

EVENT = MO | {"TEXT": "x" * 60_000}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Conversation:
    """Connection of the receiver, and the request that it has begun to read."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.requests = 0
        self.head = b""
        self._body_bytes = 0

    def read_head(self) -> None:
        """Read the head of the next request.

        Raises:
            EOFError: there is none.
        """
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.connection.recv(1024)
            if not piece:
                raise EOFError
            data += piece
        self.head, _, body = data.partition(b"\r\n\r\n")
        self._body_bytes = len(body)
        self.requests += 1

    def header(self, name: bytes) -> int:
        """Return a header's number."""
        line = next(line for line in self.head.split(b"\r\n") if line.startswith(name + b": "))
        return int(line.partition(b": ")[2])

    def read_body(self, share: float = 1.0) -> None:
        """Read the body, or a share of it."""
        while self._body_bytes < self.header(b"Content-Length") * share:
            piece = self.connection.recv(1024)
            if not piece:
                raise EOFError
            self._body_bytes += len(piece)

    def reset(self) -> None:
        """End the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def closes(conversation: Conversation) -> None:
    """Read the request and close."""
    conversation.read_body()


def resets(conversation: Conversation) -> None:
    """Read the request and reset."""
    conversation.read_body()
    conversation.reset()


def closes_in_the_body(conversation: Conversation) -> None:
    """Read half of the body and close."""
    conversation.read_body(0.5)


def resets_in_the_body(conversation: Conversation) -> None:
    """Read half of the body and reset."""
    conversation.read_body(0.5)
    conversation.reset()


def is_silent(conversation: Conversation) -> None:
    """Read the request and say nothing more."""
    conversation.read_body()
    conversation.connection.recv(1)


def says_and_closes(said: bytes) -> Callable[[Conversation], None]:
    """Read the request, say this and close."""

    def behave(conversation: Conversation) -> None:
        conversation.read_body()
        conversation.connection.sendall(said)

    return behave


#: What it does with a request -> what the ledger says of the attempt.
BEHAVIOURS = {
    "closes after reading": (closes, "was closed without an answer"),
    "resets after reading": (resets, "was reset without an answer"),
    "closes after half of the body": (closes_in_the_body, "without an answer"),
    "resets after half of the body": (resets_in_the_body, "without an answer"),
    "closes in the status line": (says_and_closes(b"HTTP/1.1 20"), ""),
    # What bare libcurl takes for success.
    "closes in the header": (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"), "whole"),
    "closes before the header's end": (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"), "whole"),
}


class Receiver:
    """Answers 200 to ``/warm`` and keeps the connection; to what comes next over it, it behaves."""

    def __init__(self, behave: Callable[[Conversation], None], context: ssl.SSLContext | None) -> None:
        self.attempts: list[int] = []
        self.over_kept: list[bool] = []
        self._behave = behave
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
        )  # so that half of a body is not all
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                conversation = Conversation(connection)
                while True:
                    conversation.read_head()
                    if not conversation.head.startswith(b"POST /warm "):
                        break
                    conversation.read_body()
                    connection.sendall(OK)
                self.attempts.append(conversation.header(b"Postback-Attempt"))
                self.over_kept.append(conversation.requests > 1)
                self._behave(conversation)

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def receiving(behave: Callable[[Conversation], None], authority: Authority | None) -> Iterator[Receiver]:
    """A receiver, with a certificate where there is an authority."""
    receiver = Receiver(behave, authority and authority.issue("127.0.0.1").server())
    try:
        yield receiver
    finally:
        receiver.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_receiver_that_ends_a_kept_connection_in_the_middle_gets_six_posts(
    rig: Rig, tmp_path, scheme, behaviour
):
    """As many as the ledger has attempts, numbered 1 to 6, each over a connection that had been kept."""
    behave, words = BEHAVIOURS[behaviour]
    authority = Authority(tmp_path) if scheme == "https" else None
    bundle = None if authority is None else authority.pem
    warm = Profile(5, 5, tls=None if bundle is None else Tls(ca_bundle=bundle))
    with receiving(behave, authority) as receiver:
        set_account("acme", url=f"{receiver.url}/acme", ca_bundle=bundle)
        result = send_postback.delay("acme", EVENT)
        for _ in range(6):
            rig.tick()
            assert rig.adapter.post(Transfer(f"{receiver.url}/warm", b"<POSTBACK/>", [], warm)).delivered
            assert rig.deliver() == 1
            rig.advance(301)
        rig.tick()
        assert rig.deliver() == 0
        assert receiver.attempts == [1, 2, 3, 4, 5, 6]
        assert all(receiver.over_kept)
    record = rig.record(result.id)
    assert record.state == "dead"
    assert [attempt.number for attempt in record.attempts] == [1, 2, 3, 4, 5, 6]
    assert {attempt.outcome for attempt in record.attempts} == {"broken_answer"}
    assert all(words in attempt.detail for attempt in record.attempts)
    assert rig.adapter.renewals == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_where_the_system_counts_nothing_kept_connections_serve_and_an_end_is_one_post(
    tmp_path, scheme, monkeypatch
):
    """As on gVisor, which hands out the state of a connection beside zeros."""
    read = acks.read_tcp_info
    monkeypatch.setattr(acks, "read_tcp_info", lambda own: read(own)[:1].ljust(acks._TCP_INFO.size, b"\0"))
    authority = Authority(tmp_path) if scheme == "https" else None
    profile = Profile(5, 5, tls=authority and Tls(ca_bundle=authority.pem))
    adapter = CurlClient(Settings(allowed_networks="127.0.0.0/8"))
    try:
        with receiving(closes, authority) as receiver:
            for path in ("/warm", "/warm", "/acme"):
                post = Transfer(f"{receiver.url}{path}", b"<POSTBACK/>", ["Postback-Attempt: 1"], profile)
                outcome = adapter.post(post)
                assert outcome.delivered == (path == "/warm"), outcome
        assert adapter.connections == 1
        assert receiver.attempts == [1]
    finally:
        adapter.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_descriptor_is_left_of_a_request_over_a_kept_connection(tmp_path, scheme):
    """However it ends: answered, not answered, too late, or still open when its adapter is closed."""
    settings = Settings(allowed_networks="127.0.0.0/8", answer_timeout_s=0.3)
    authority = Authority(tmp_path)
    tls = Tls(ca_bundle=authority.pem) if scheme == "https" else None
    issuer = authority if scheme == "https" else None
    behaviours = [closes, resets, is_silent, *(behave for behave, _ in BEHAVIOURS.values())]
    CurlClient(settings).close()
    before = Counter(open_sockets())
    for behave in behaviours:
        adapter = CurlClient(settings)
        with receiving(behave, issuer) as receiver:

            def transfer(path: str, url: str = receiver.url) -> Transfer:
                lines = ["Postback-Attempt: 1"]
                profile = Profile(20, 20 if path == "/warm" else 0.3, tls=tls)  # one of them is too late
                return Transfer(f"{url}{path}", b"<POSTBACK/>", lines, profile)

            for _ in range(3):
                assert adapter.post(transfer("/warm")).delivered
            assert not adapter.post(transfer("/acme")).delivered
            assert adapter.post(transfer("/warm")).delivered
            still_open = transfer("/acme")
            adapter.start(still_open)
            while not still_open.sends:
                adapter.wait(0.01)
            adapter.close()
        eventually(lambda: Counter(open_sockets()) <= before, what="no socket left")


def open_sockets() -> list[str]:
    """List the sockets that this process has open, each descriptor once."""
    sockets: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:"):
                sockets.append(target)
    return sockets
