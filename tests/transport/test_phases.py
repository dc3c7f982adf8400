"""Phases of a POST: where its time went, by real sockets, and whom it went to."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from helpers import black_hole
from transport.certificates import Authority, Certificate
from transport.test_kept_connections import NO, OK, Listener

from postbacks.ledger.phases import Phases
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer

SETTINGS = Settings(allowed_networks="127.0.0.0/8", connect_timeout_s=20, answer_timeout_s=20)
#: Limit of a POST that runs into it.
LIMIT_S = 1.0
#: Time that a receiver takes where it is slow. What has nothing to wait for takes less, on a busy machine too.
SLOW_S = 0.6
SLOW_MS = 600


@pytest.fixture
def adapter() -> Iterator[CurlClient]:
    """Client whose connections are kept."""
    made = CurlClient(SETTINGS)
    yield made
    made.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Receiver that does what the path says."""

    def serve(connection: socket.socket, path: str) -> bool:
        if path == "/waits":
            time.sleep(SLOW_S)
        elif path == "/drips":
            connection.sendall(OK[:20])
            time.sleep(SLOW_S)
            connection.sendall(OK[20:])
            return True
        elif path == "/hangs":
            time.sleep(2 * LIMIT_S)
        connection.sendall(NO if path == "/no" else OK)
        return path != "/last"

    made = Listener(serve)
    yield made
    made.close()


def post(adapter: CurlClient, url: str, *, tls: Tls | None = None, limit_s: float = 20) -> Outcome:
    """Make a POST; its phases, where there are any, are as long as it was."""
    profile = Profile(limit_s, limit_s, tls=tls)
    outcome = adapter.post(Transfer(url, b"<POSTBACK/>", [], profile))
    if outcome.phases:
        assert sum(outcome.phases.gone_through.values()) == round(outcome.elapsed_s * 1000)
    return outcome


def gone_through(outcome: Outcome) -> list[str]:
    """Name the phases of a POST, in order."""
    assert outcome.phases is not None
    return list(outcome.phases.gone_through)


def longest(outcome: Outcome) -> str:
    """Name the phase that took the most time."""
    assert outcome.phases is not None
    return max(outcome.phases.gone_through.items(), key=lambda phase: phase[1])[0]


@pytest.mark.parametrize(("path", "name"), [("/", "delivered"), ("/no", "status"), ("/waits", "delivered")])
def test_each_post_has_its_phases_and_its_address(adapter, listener, path, name):
    outcome = post(adapter, listener.url(path))
    assert (outcome.name, outcome.address) == (name, "127.0.0.1")
    assert gone_through(outcome) == ["connect_ms", "wait_ms", "read_ms"]


def test_a_new_connection_has_a_connect_and_a_kept_one_has_none(adapter, listener):
    first, second = post(adapter, listener.url("/1")), post(adapter, listener.url("/2"))
    assert gone_through(first) == ["connect_ms", "wait_ms", "read_ms"]
    assert gone_through(second) == ["wait_ms", "read_ms"]
    assert (first.phases.over_kept_connection, second.phases.over_kept_connection) == (False, True)
    assert {first.address, second.address} == {"127.0.0.1"}


def test_a_kept_connection_that_died_is_a_new_connections_phase(adapter, listener):
    """The connect holds what was lost by trying it."""
    post(adapter, listener.url("/last"))
    while not listener.closed:
        time.sleep(0.01)
    outcome = post(adapter, listener.url("/"))
    assert outcome.name == "delivered"
    assert gone_through(outcome) == ["connect_ms", "wait_ms", "read_ms"]


def test_a_late_answer_is_a_wait_and_a_dripping_one_is_read_for_long(adapter, listener):
    waits, drips = (post(adapter, listener.url(path)) for path in ("/waits", "/drips"))
    assert (longest(waits), longest(drips)) == ("wait_ms", "read_ms")


def test_an_answer_that_never_comes_ends_in_the_wait(adapter, listener):
    outcome = post(adapter, listener.url("/hangs"), limit_s=LIMIT_S)
    assert outcome.name == "answer_timeout"
    assert gone_through(outcome) == ["connect_ms", "wait_ms"]
    assert longest(outcome) == "wait_ms"


def test_a_connection_that_never_stands_ends_in_the_connect(adapter):
    """The address is the one that was tried."""
    with black_hole() as port:
        outcome = post(adapter, f"http://127.0.0.1:{port}/", limit_s=LIMIT_S)
    assert outcome.name == "connect_timeout"
    assert gone_through(outcome) == ["connect_ms"]
    assert outcome.address == "127.0.0.1"


def test_a_refused_connection_has_the_address_and_a_blocked_one_has_none(adapter, listener):
    """The guard's own words name what it has refused."""
    url = listener.url("/")
    listener.close()
    refused, blocked = post(adapter, url), post(adapter, url.replace("127.0.0.1", "10.0.0.1"))
    assert (refused.name, refused.address) == ("refused", "127.0.0.1")
    assert (blocked.name, blocked.address) == ("blocked", "")
    assert "10.0.0.1" in blocked.detail


def test_what_cannot_be_tried_has_no_phases(adapter):
    outcome = post(adapter, "ftp://127.0.0.1/")
    assert (outcome.name, outcome.phases, outcome.address) == ("bad_url", None, "")


def test_a_look_up_is_a_phase(adapter, listener, monkeypatch):
    """Slow, then known, and at last one that finds nothing; the address is not in the URL."""

    def look_up(host: bytes, *_: object, **__: object) -> list[object]:
        time.sleep(SLOW_S)
        if host.startswith(b"none"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr("postbacks.transport.resolver.socket.getaddrinfo", look_up)
    named = listener.url("/").replace("127.0.0.1", "receiver.example")
    slow, known = post(adapter, named), post(adapter, named)
    none = post(adapter, named.replace("receiver", "none"))
    assert gone_through(slow) == ["lookup_ms", "connect_ms", "wait_ms", "read_ms"]
    assert longest(slow) == "lookup_ms"
    assert gone_through(known) == ["lookup_ms", "wait_ms", "read_ms"]
    assert known.phases.lookup_ms < slow.phases.lookup_ms
    assert (slow.address, known.address) == ("127.0.0.1", "127.0.0.1")
    assert (none.name, gone_through(none), none.address) == ("dns", ["lookup_ms"], "")
    assert none.phases.lookup_ms >= SLOW_MS - 5


def test_the_address_of_a_proxy_is_not_the_receivers(listener):
    """Nobody knows here what is behind it."""
    proxy = listener.url("").rstrip("/")
    adapter = CurlClient(SETTINGS.model_copy(update={"proxy_url": proxy}))
    try:
        outcomes = [post(adapter, f"http://receiver.example/{number}") for number in (1, 2)]
    finally:
        adapter.close()
    assert [(outcome.name, outcome.address) for outcome in outcomes] == [("delivered", "")] * 2
    assert [gone_through(outcome) for outcome in outcomes] == [
        ["connect_ms", "wait_ms", "read_ms"], ["wait_ms", "read_ms"],
    ]  # fmt: skip


# -- TLS -------------------------------------------------------------------------------------------


@contextmanager
def tls_listener(certificate: Certificate, slow_s: float = 0.0) -> Iterator[int]:
    """A port that takes its time before the handshake, and then answers 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            time.sleep(slow_s)
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                while some := secured.recv(65_536):
                    if some.endswith(b"<POSTBACK/>"):
                        secured.sendall(OK)
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


@pytest.mark.parametrize(
    ("slow_s", "is_trusted", "outcome", "phases"),
    [
        (SLOW_S, True, "delivered", ["connect_ms", "tls_ms", "wait_ms", "read_ms"]),
        (SLOW_S, False, "tls", ["connect_ms", "tls_ms"]),
        (2.0, True, "connect_timeout", ["connect_ms", "tls_ms"]),
    ],
)
def test_a_slow_handshake_is_told_from_a_slow_connect(adapter, tmp_path, slow_s, is_trusted, outcome, phases):
    """The outcome ``connect_timeout`` stands for both; the phases say which it was."""
    authority = Authority(tmp_path)
    with tls_listener(authority.issue("127.0.0.1"), slow_s) as port:
        url = f"https://127.0.0.1:{port}/"
        tls = Tls(ca_bundle=authority.pem) if is_trusted else None
        found = post(adapter, url, tls=tls, limit_s=LIMIT_S if outcome == "connect_timeout" else 20)
    assert (found.name, gone_through(found), found.address) == (outcome, phases, "127.0.0.1")
    assert longest(found) == "tls_ms"
    assert found.phases.over_kept_connection is False


def test_phases_that_are_none_are_told_from_those_of_no_time():
    """A look-up of 0 ms took place."""
    assert Phases(0, None, None, 3, 1).gone_through == {"lookup_ms": 0, "wait_ms": 3, "read_ms": 1}
