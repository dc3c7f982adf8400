"""Ten seconds to connect, then ten seconds to the whole header of the answer."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pycurl
import pytest
from events import EVENT
from helpers import black_hole, ended, running, set_account
from transfers import judged
from transport.certificates import Authority

from postbacks import send_postback
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer


def test_a_host_that_takes_the_connection_but_never_answers_ends_at_the_limit(broker, tmp_path):
    """The kernel accepts, nobody reads: answer_timeout, not connect_timeout."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        env = {"POSTBACKS_ANSWER_TIMEOUT_S": "0.5", "POSTBACKS_MAX_RESENDS": "0"}
        with running(broker, tmp_path, env=env):
            set_account("acme", url=f"http://127.0.0.1:{silent.getsockname()[1]}/")
            record = ended(broker.client(), send_postback.delay("acme", EVENT).id)
    assert [attempt.outcome for attempt in record.attempts] == ["answer_timeout"]
    assert 450 <= record.attempts[0].elapsed_ms < 9000


def test_a_time_out_is_told_apart_by_whether_the_connection_was_made():
    """28 is libcurl's one code for both."""
    assert judged(pycurl.E_OPERATION_TIMEDOUT).name == "connect_timeout"
    assert judged(pycurl.E_OPERATION_TIMEDOUT, connected_s=1.0).name == "answer_timeout"


@contextmanager
def serving(converse):
    """Take each connection on a thread, and yield the port."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


def post(url: str, profile: Profile):
    """Make one POST and return its outcome."""
    client = CurlClient(Settings(allowed_networks="127.0.0.0/8"))
    try:
        return client.post(Transfer(url, b"<POSTBACK/>", [], profile))
    finally:
        client.close()


def test_by_default_there_are_ten_seconds_to_connect_and_ten_to_answer():
    """Each POST is made with both, unless its account has others."""
    settings = Settings()
    assert (settings.connect_timeout_s, settings.answer_timeout_s) == (10, 10)
    profile = Profile.default(settings)
    assert (profile.connect_timeout_s, profile.answer_timeout_s) == (10, 10)


def is_silent(connection: socket.socket) -> None:
    """Take the connection and say nothing."""
    with connection:
        connection.recv(65_536)
        connection.recv(65_536)


def sends_half_a_header(connection: socket.socket) -> None:
    """Begin a header of 200 and send no more of it."""
    with connection:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        connection.recv(65_536)


@pytest.mark.parametrize(
    ("scheme", "converse", "outcome", "limit_s"),
    [
        ("http", None, "connect_timeout", 0.3),
        ("https", is_silent, "connect_timeout", 0.3),
        ("http", is_silent, "answer_timeout", 0.6),
        ("http", sends_half_a_header, "answer_timeout", 0.6),
    ],
    ids=["no connection", "no TLS", "no answer", "half a header"],
)
def test_what_does_not_come_within_its_limit_ends_the_attempt_there(scheme, converse, outcome, limit_s):
    """The handshake of TLS is part of the connection, the whole header part of the answer."""
    with black_hole() if converse is None else serving(converse) as port:
        seen = post(f"{scheme}://127.0.0.1:{port}/", Profile(0.3, 0.6))
    assert seen.name == outcome, seen.detail
    assert limit_s - 0.05 <= seen.elapsed_s < limit_s + 8  # a busy machine is late, and the default is 10


def test_the_answers_limit_begins_when_the_connection_stands(tmp_path):
    """A connection of 2 s and an answer after 2 s both keep a limit of 3.8 s."""
    authority = Authority(tmp_path)
    certificate = authority.issue("127.0.0.1")
    context = certificate.server()

    def converse(connection: socket.socket) -> None:
        time.sleep(2)
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65_536)
            time.sleep(2)
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(converse) as port:
        seen = post(f"https://127.0.0.1:{port}/", Profile(3.8, 3.8, tls=Tls(ca_bundle=authority.pem)))
    assert seen.delivered, seen.detail
    assert seen.elapsed_s > 3.8
