"""The pages' port against those who only hold it: few connections, one deadline, and a scrape gets through."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from helpers import dripping, eventually
from scraping import page

from postbacks import settings
from postbacks.errors import BadSetting
from postbacks.monitor import server as module
from postbacks.monitor.metrics import FRESH_S
from postbacks.monitor.server import CLIENTS_MAX, MonitorServer

DRIPPING = 900
FEW = 32


@contextmanager
def served(**more: object) -> Iterator[MonitorServer]:
    """A server in this process."""
    server = MonitorServer("127.0.0.1", 0, [], settings.load(), **more)
    server.start()
    try:
        yield server
    finally:
        server.close()


def is_open(connection: socket.socket) -> bool:
    """Tell whether the other end has not closed."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_scrape_gets_through_while_900_clients_drip():
    """The oldest that keep us waiting have made room: a place each is all that they take, of threads and descriptors."""
    before = threading.active_count()
    with served() as server, dripping(server.port, DRIPPING) as connections:
        assert page(server.port, "/metrics")[0] == 200
        assert page(server.port, "/healthz") == (200, "alive\n")
        eventually(lambda: sum(map(is_open, connections)) <= FEW, what="the end of those past the bound")
        assert threading.active_count() - before <= FEW
        youngest = connections[-1]
        youngest.setblocking(True)
        youngest.sendall(b"\r\n\r\n")
        assert youngest.recv(100).startswith(b"HTTP/1.0 200 ")


def test_one_deadline_holds_for_the_whole_request(monkeypatch):
    """A byte now and then renews nothing, neither in the header nor before it."""
    monkeypatch.setattr(module, "CLIENT_TIMEOUT_S", 1.0)
    with served() as server, dripping(server.port, 3, b"G") as connections:
        began_s = time.monotonic()

        def all_closed() -> bool:
            for connection in connections:
                connection.setblocking(True)
                try:
                    connection.sendall(b"E")
                except OSError:
                    continue
            return not any(map(is_open, connections))

        eventually(all_closed, what="the end of those that drip")
        assert time.monotonic() - began_s >= 0.9


def test_a_client_whose_answer_is_being_made_keeps_its_place():
    """A client that has asked in full keeps its place. Where all places are such ones, who comes is closed at once."""
    release = threading.Event()
    with served(alive=lambda: release.wait(30)) as server:
        asked = b"GET /healthz HTTP/1.1\r\n\r\n"
        with dripping(server.port, CLIENTS_MAX, asked) as connections:
            places = server._server._clients
            eventually(lambda: sum(client.is_answered for client in places.values()) == CLIENTS_MAX)
            late = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            with late, suppress(ConnectionResetError):
                assert late.recv(1) == b""
            release.set()
            for connection in connections:
                assert connection.recv(100).startswith(b"HTTP/1.0 200 ")


def test_a_closed_server_holds_no_connection():
    """Clients see the end, though they had not asked yet."""
    with served() as server, dripping(server.port, 3) as connections:
        eventually(lambda: len(server._server._clients) == 3)
        server.close()
        eventually(lambda: not any(map(is_open, connections)), what="their end")


def test_who_asks_again_and_again_whether_the_system_is_well_asks_the_broker_once_a_second(rig):
    """A look may take the broker long where many accounts wait, and nobody who asks gives a password."""
    with served() as server:
        rig.client.config_resetstat()
        began_s = time.monotonic()
        answers = [page(server.port, "/readyz") for _ in range(30)]
        looks = rig.client.info("commandstats")["cmdstat_eval_ro"]["calls"]
        assert looks <= 1 + (time.monotonic() - began_s) / FRESH_S
    assert {status for status, _ in answers} == {503}


@pytest.mark.parametrize("host", ["", "\u202e", "a\x00b", f"{'a' * 300}."])
def test_an_address_that_cannot_be_one_gets_a_sentence(host):
    """An empty one would be all interfaces, which nobody has asked for."""
    with pytest.raises(BadSetting, match=r"cannot be had: |An address to listen on is empty: "):
        MonitorServer(host, 0, [], settings.load())
