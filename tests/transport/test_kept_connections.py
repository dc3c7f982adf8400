"""Receivers that misuse a connection that we keep: nothing reaches another postback, and no attempt makes a second
POST.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers import eventually

from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.handle import MAX_IDLE_S
from postbacks.transport.outcomes import Outcome
from postbacks.transport.poller import PollFallback
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

SETTINGS = Settings(allowed_networks="127.0.0.0/8", connect_timeout_s=30, answer_timeout_s=30)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"


class Listener:
    """Hands each request to ``serve(connection, path)``; while that says True, the connection is kept."""

    def __init__(
        self,
        serve: Callable[[socket.socket, str], bool],
        *,
        busy: bool = False,
        end: bytes = b"<POSTBACK/>",
    ) -> None:
        self.paths: list[str] = []
        self.connections = 0
        self.closed = 0
        self._serve = serve
        self._end = end
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=0 if busy else 64)
        # Without room in its queue the kernel of whoever connects asks again, in a second.
        self._fillers = [socket.socket() for _ in range(3 if busy else 0)]
        for filler in self._fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(self._socket.getsockname())
        if not busy:
            self.accept()

    def accept(self) -> None:
        """Begin to accept connections."""
        for filler in self._fillers:
            filler.close()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str) -> str:
        """Return the URL to POST to."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}{path}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self._serve_all(connection)
        self.closed += 1

    def _serve_all(self, connection: socket.socket) -> None:
        kept = True
        while kept:
            data = b""
            while not data.endswith(self._end):
                some = connection.recv(65_536)
                if not some:
                    return
                data += some
            path = data.split(b" ", 2)[1].decode()
            self.paths.append(path)
            kept = self._serve(connection, path)

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def listening(serve: Callable[[socket.socket, str], bool]) -> Iterator[tuple[Listener, CurlClient]]:
    """A listener, and an adapter to POST to it."""
    listener, adapter = Listener(serve), CurlClient(SETTINGS)
    try:
        yield listener, adapter
    finally:
        adapter.close()
        listener.close()


@pytest.fixture(params=[True, False], ids=["epoll", "no epoll"])
def poll(request, monkeypatch):
    """Both ways to wait for descriptors; systems without epoll use the plain one."""
    if not request.param:
        monkeypatch.setattr("postbacks.transport.client.make_poller", PollFallback)


def transfer(url: str) -> Transfer:
    """Make a transfer."""
    return Transfer(url, b"<POSTBACK/>", [], Profile.default(SETTINGS))


def together(adapter: CurlClient, urls: list[str]) -> list[Outcome]:
    """Make all at the same time."""
    for url in urls:
        adapter.start(transfer(url))
    ended: list[Outcome] = []
    while len(ended) < len(urls):
        ended += [outcome for _, outcome in adapter.wait(0.1)]
    return ended


@pytest.mark.parametrize("more", [OK, OK * 50, b"HTTP/1.1 200", b"\r\n", b"junk"])
def test_what_comes_behind_an_answer_is_not_the_next_postbacks(more):
    """Answered 200 twice: the second one is nobody's, and the next POST gets its own 500."""

    def serve(connection: socket.socket, path: str) -> bool:
        connection.sendall(OK + more if path == "/twice" else NO)
        return True

    with listening(serve) as (listener, adapter):
        assert adapter.post(transfer(listener.url("/twice"))).name == "delivered"
        outcome = adapter.post(transfer(listener.url("/no")))
        assert (outcome.name, outcome.status) == ("status", 500)
        assert listener.connections == 2, "a connection with something unread was used again"


def test_a_second_answer_that_comes_while_the_connection_rests_is_not_the_next_postbacks():
    """The second answer arrives later than the first, before the next POST begins."""
    sent = threading.Event()

    def serve(connection: socket.socket, path: str) -> bool:
        connection.sendall(OK if path == "/twice" else NO)
        if path == "/twice":
            threading.Event().wait(0.05)  # behind the adapter's reading of the first
            connection.sendall(OK)
            sent.set()
        return True

    with listening(serve) as (listener, adapter):
        assert adapter.post(transfer(listener.url("/twice"))).name == "delivered"
        assert sent.wait(60)
        assert adapter.post(transfer(listener.url("/no"))).status == 500


@pytest.mark.usefixtures("poll")
def test_kept_connections_that_all_died_cost_no_postback_its_attempt():
    """A receiver that restarts closes all of them at once; each POST then goes over a new one."""
    meeting = threading.Barrier(8)

    def serve(connection: socket.socket, path: str) -> bool:
        if path == "/warm":
            meeting.wait(60)
        connection.sendall(OK)
        return path != "/warm"  # closed without a word

    with listening(serve) as (listener, adapter):
        assert {one.name for one in together(adapter, [listener.url("/warm")] * 8)} == {"delivered"}
        eventually(lambda: listener.closed == 8, what="the end of all connections")
        assert {one.name for one in together(adapter, [listener.url("/next")] * 8)} == {"delivered"}
        assert listener.paths.count("/next") == 8


@pytest.mark.usefixtures("poll")
def test_a_connection_that_took_its_time_is_kept_like_any_other():
    """As every one to another machine: it does not stand yet when libcurl begins to wait for it."""

    def serve(connection: socket.socket, path: str) -> bool:
        connection.sendall(OK)
        return True

    profile = Profile(10, 10)
    listener, adapter = Listener(serve, busy=True), CurlClient(SETTINGS)
    try:
        first, second = (Transfer(listener.url(path), b"<POSTBACK/>", [], profile) for path in ("/1", "/2"))
        adapter.start(first)
        assert adapter.wait(0.05) == []
        assert first.connected_s is None
        listener.accept()
        ended: list[tuple[Transfer, Outcome]] = []
        while not ended:
            ended = adapter.wait(0.1)
        assert [ended[0][1].name, adapter.post(second).name] == ["delivered"] * 2
        assert adapter.connections == 1
    finally:
        adapter.close()
        listener.close()


def test_a_connection_that_has_rested_for_too_long_is_not_used_again(monkeypatch):
    """Receivers are told for how long to keep theirs, so that we leave first."""
    page = (Path(__file__).parents[2] / "docs" / "receiving.md").read_text()
    assert f"rested for {MAX_IDLE_S} seconds" in page
    monkeypatch.setattr("postbacks.transport.handle.MAX_IDLE_S", 1)

    def serve(connection: socket.socket, path: str) -> bool:
        connection.sendall(OK)
        return True

    with listening(serve) as (listener, adapter):
        assert [adapter.post(transfer(listener.url("/"))).name for _ in range(3)] == ["delivered"] * 3
        assert adapter.connections == 1
        threading.Event().wait(2.1)
        assert adapter.post(transfer(listener.url("/"))).name == "delivered"
        assert adapter.connections == 2


def test_a_receiver_that_closes_kept_connections_gets_one_post_and_no_more_time():
    """Eight are kept; each would be closed after 0.7 s without an answer, and libcurl would try five more."""
    meeting = threading.Barrier(8)

    def serve(connection: socket.socket, path: str) -> bool:
        if path == "/warm":
            meeting.wait(60)
            connection.sendall(OK)
            return True
        threading.Event().wait(0.7)
        return False

    with listening(serve) as (listener, adapter):
        together(adapter, [listener.url("/warm")] * 8)
        outcome = adapter.post(transfer(listener.url("/hostile")))
        assert (outcome.name, outcome.detail) == (
            "broken_answer",
            "the kept connection was closed without an answer",
        )
        assert outcome.elapsed_s < SETTINGS.answer_timeout_s
        assert listener.paths.count("/hostile") == 1
        assert listener.connections == 8, "another one was opened for nothing"
