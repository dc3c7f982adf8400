"""State of TCP after a request has left: only a FIN that acknowledges nothing proves that nothing arrived."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from helpers import eventually

from postbacks.transport import acks
from postbacks.transport.acks import AckWatch, Ending

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The two ends of a TCP connection that is kept: ours, the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with ours, server:
            ours.sendall(b"POST / HTTP/1.1")
            server.recv(100)
            server.sendall(b"HTTP/1.1 200 OK")
            ours.recv(100)
            yield ours, server


def reset(connection: socket.socket) -> None:
    """End a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wait_for_state(connection: socket.socket, state: int) -> None:
    """Wait until a connection has come to a state."""
    eventually(lambda: connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == state)


def test_a_fin_that_acknowledges_nothing_proves_that_nothing_arrived(pair: Pair):
    """The server had closed; also where a reset has come since, and where TLS had said goodbye before the FIN."""
    ours, server = pair
    watches = [AckWatch(ours) for _ in range(2)]
    server.sendall(b"goodbye")
    server.close()
    wait_for_state(ours, 8)
    assert watches[0].settle() is Ending.CROSSED
    ours.recv(100)
    ours.send(b"POST / HTTP/1.1")
    wait_for_state(ours, 7)
    assert watches[1].settle() is Ending.CROSSED


def test_a_fin_is_remembered_though_the_error_of_the_reset_behind_it_has_been_taken(pair: Pair):
    """As libcurl takes it when it writes TLS's goodbye."""
    ours, server = pair
    watch = AckWatch(ours)
    server.close()
    wait_for_state(ours, 8)
    ours.send(b"POST / HTTP/1.1")
    wait_for_state(ours, 7)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert watch.settle() is Ending.CROSSED


def test_a_fin_behind_an_acknowledgement_proves_nothing(pair: Pair):
    """The server had read the request, or a part of it."""
    ours, server = pair
    watch = AckWatch(ours)
    ours.send(b"POST / HTTP/1.1")
    server.recv(100)
    server.close()
    wait_for_state(ours, 8)
    assert watch.settle() is Ending.CLOSED


@pytest.mark.parametrize("said", [b"", b"a session ticket"])
def test_a_reset_proves_nothing_whatever_came_before_it(pair: Pair, said: bytes):
    """Bytes may come that are no answer, and the acknowledgement of the request with the reset."""
    ours, server = pair
    watch = AckWatch(ours)
    if said:
        server.sendall(said)
        ours.recv(100)
    reset(server)
    wait_for_state(ours, 7)
    assert watch.settle() is Ending.RESET


def test_where_the_system_does_not_tell_nothing_is_proven(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """Systems other than Linux have no such counters, or others at their place."""
    ours, server = pair
    monkeypatch.setattr(acks.sys, "platform", "darwin")
    watch = AckWatch(ours)
    server.close()
    wait_for_state(ours, 8)
    assert watch.has_received()
    assert watch.settle() is Ending.CLOSED


@pytest.mark.parametrize("counts", [(0, 0), (1, 0)], ids=["zeros", "the SYN alone"])
def test_counters_that_count_nothing_prove_nothing(
    pair: Pair, counts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    """gVisor fills in the state and leaves the counters zero; of what sockmap carries TCP sees the handshake alone."""
    ours, server = pair
    read = acks.read_tcp_info
    monkeypatch.setattr(
        acks, "read_tcp_info", lambda connection: acks._TCP_INFO.pack(read(connection)[0], *counts, 0)
    )
    watch = AckWatch(ours)
    ours.send(b"POST / HTTP/1.1")
    server.recv(100)
    server.close()
    wait_for_state(ours, 8)
    assert watch.has_received()
    assert watch.settle() is Ending.CLOSED


def test_a_watch_that_is_settled_or_released_holds_no_descriptor(pair: Pair):
    """Twice does no harm."""
    ours, _ = pair
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    watches = [AckWatch(ours) for _ in range(2)]
    watches[0].settle()
    for watch in watches:
        watch.release()
        watch.release()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
