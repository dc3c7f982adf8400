"""Callers who mean harm, below the pages: those who hold connections, and paths that look like other sites."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.server import ServerState

from postbacks.settings import Settings
from postbacks.web import hasty
from postbacks.web.app import make_app
from postbacks.web.config import Config
from postbacks.web.documents import highlighted
from postbacks.web.server import WebServer

HEAD = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
FORM = HEAD + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    """Port of a dashboard that looks at its connections ten times a second."""
    monkeypatch.setattr(hasty, "LOOK_S", 0.1)
    server = WebServer(Config(Settings(web_token="t" * 16, web_key="k" * 16)))
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.port
    server.stop()
    thread.join(60)
    server.close()


def is_hung_up_on(port: int, begin: bytes, trickle: bytes) -> bool:
    """Tell whether a caller that begins so, and goes on byte by byte, is hung up on within 30 s."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as caller:
        caller.sendall(begin)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if not caller.recv(10_000):
                    return True
            try:
                caller.sendall(trickle)
            except OSError:
                return True
    return False


@pytest.mark.parametrize(
    ("begin", "trickle"),
    [(b"", b""), (b"GET / HTTP/1.1\r\nX: ", b"a"), (FORM, b"a"), (PROBE + b"GET / HT", b"")],
    ids=["nothing", "a header without end", "a form without end", "half a second request"],
)
def test_who_sends_no_whole_request_is_hung_up_on(port, begin, trickle):
    assert is_hung_up_on(port, begin, trickle)


def test_who_goes_on_asking_and_who_waits_for_an_answer_keep_their_connections():
    """Looks are made by hand here, so that no stall of this machine comes between two requests."""
    config = uvicorn.Config(make_app(Config(Settings(web_key="k" * 16))), log_config=None)
    protocol = hasty.Hasty(config, ServerState(), {}, asyncio.new_event_loop())
    with contextlib.closing(protocol.loop), socket.socket() as unused:
        protocol.transport = unused
        for is_answered in (True, True, False, False, False):
            if is_answered:
                protocol.cycle = SimpleNamespace(response_complete=True, more_body=False)
            else:
                protocol.cycle.response_complete = False
            protocol._look()
            assert unused.fileno() >= 0
        protocol.cycle.response_complete = True
        protocol._look()
        protocol._look()
        assert unused.fileno() == -1


def test_no_path_leads_a_visitor_of_another_site_elsewhere(browse):
    browser = browse(web_token="t" * 16, web_key="k" * 16)
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert 'content="0;url=/"' in browser.get("http://127.0.0.1//evil.example/", headers=headers).text


def test_a_login_with_a_name_of_a_megabyte_logs_a_line_of_ordinary_length(browse, caplog):
    browser = browse(web_token="t" * 16, web_key="k" * 16)
    assert browser.post("/login", data={"name": "n" * 900_000, "secret": "x"}).status_code == 401
    assert max(len(record.getMessage()) for record in caplog.records) < 2000


def test_a_document_of_begins_without_end_is_shown_in_no_time():
    began_s = time.thread_time()
    highlighted(b"<!" * 50_000)
    assert time.thread_time() - began_s < 2
