"""``postbacks ping`` over TLS: what is wrong with a certificate is said, and what is in order is described."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import struct
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from helpers import environment, set_account
from identities import Identity, authority
from pinging import call, pinged

from postbacks.devtools.receiver import Answer, Receiver
from postbacks.ping.diagnose import diagnose
from postbacks.ping.observe import observe
from postbacks.settings import load
from postbacks.transport.outcomes import Outcome
from postbacks.transport.probe import Certificate, Probe
from postbacks.transport.profile import Profile, Tls


class Https(http.server.ThreadingHTTPServer):
    """A server that speaks TLS and answers 200."""

    daemon_threads = True

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), _Ok)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request, client_address):
        """A client that ends the handshake is no error of ours."""


class _Ok(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def https(context):
    """A TLS receiver; gives its URL."""
    server = Https(context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


@pytest.mark.parametrize(
    ("identity", "phrase", "todo"),
    [
        (Identity("alone"), "self-signed", "--ca-bundle FILE"),
        (Identity("child", issuer=authority()), "issuer", "intermediate certificates"),
    ],
    ids=["self-signed", "unknown issuer"],
)
def test_a_certificate_that_nobody_knows(tmp_path, identity, phrase, todo):
    with https(identity.server_context(tmp_path)) as url:
        said = pinged(url)
        shown = call(url)
    assert said["outcome"] == "tls"
    assert phrase in said["verdict"]
    assert todo in said["advice"]
    assert "  !!  TLS" in shown.stdout


@pytest.mark.parametrize(
    ("days", "host", "phrase", "todo"),
    [(-1, "127.0.0.1", "has expired", "Renew"), (30, "other.example", "for another host", "names this host")],
)
def test_a_certificate_that_is_wrong(broker, tmp_path, days, host, phrase, todo):
    del broker
    server = Identity("server", days=days, issuer=authority(), host=host)
    with https(server.server_context(tmp_path)) as url:
        set_account("acme", url=url, ca_bundle=authority().cert_pem)
        said = pinged("acme")
    assert phrase in said["verdict"]
    assert todo in said["advice"]


def test_an_own_ca_bundle_passes_and_the_certificate_is_described(broker, tmp_path):
    del broker
    server = Identity("server", days=3.5, issuer=authority())
    with https(server.server_context(tmp_path)) as url:
        set_account("acme", url=url, ca_bundle=authority().cert_pem)
        said = pinged("acme", code=0)
        shown = call("acme")
    tls = said["tls"]
    assert tls["version"] == "TLSv1.3"
    assert (tls["names"], tls["issuer"], tls["days_left"]) == (["127.0.0.1"], "postbacks test authority", 3)
    assert said["notes"] == ["the certificate ends in 3 days: renew it"]
    assert list(said["steps"]) == ["dns_ms", "tcp_ms", "tls_ms", "request_ms", "answer_ms", "total_ms"]
    assert "TLSv1.3, certificate for 127.0.0.1 by postbacks test authority, 3 days left" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "Note: the certificate ends in 3 days: renew it."


def test_a_client_certificate_is_wanted_and_given(broker, tmp_path):
    del broker
    client = Identity("client", issuer=authority())
    context = Identity("server", issuer=authority()).server_context(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority().cert_pem)
    with https(context) as url:
        set_account("without", url=url, ca_bundle=authority().cert_pem)
        set_account(
            "acme",
            url=url,
            ca_bundle=authority().cert_pem,
            client_cert=client.cert_pem,
            client_key=client.key_pem,
        )
        said = pinged("without")
        # The server learns of it last: its alert and the end of the connection race each other.
        assert said["outcome"] in {"tls", "broken_answer"}
        assert "--client-cert FILE" in said["advice"]
        assert pinged("acme", code=0)["outcome"] == "delivered"


def refusing(context, ends):
    """A server that wants a client certificate of its own authority, and ends what it does not trust in one way."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                connection.settimeout(5)
                with contextlib.suppress(OSError), connection:
                    try:
                        with context.wrap_socket(connection, server_side=True) as secured:
                            secured.recv(65_536)
                            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    except ssl.SSLError:
                        ends(connection)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def drain(connection):
    """Let the alert arrive."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65_536):
        pass


def reset(connection):
    """Let the alert be lost with a reset, where it has not arrived yet."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("ends", [drain, reset])
def test_a_missing_intermediate_certificate_of_the_client_is_named_each_time(tmp_path, version, ends):
    """The leaf alone, 50 times, however the server's alert and the end of the connection race each other."""
    middle = Identity("middle authority", issuer=authority(), is_authority=True)
    client = Identity("client", issuer=middle)
    context = Identity("server", issuer=authority()).server_context(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority().cert_pem)
    context.minimum_version = context.maximum_version = version
    with environment(POSTBACKS_CONNECT_TIMEOUT_S="5", POSTBACKS_ANSWER_TIMEOUT_S="5"):
        profile, settings = Profile.default(load()), load()
    leaf = Tls(authority().cert_pem, client.cert_pem, client.key_pem)
    chain = replace(leaf, client_cert=client.cert_pem + middle.cert_pem)
    with refusing(context, ends) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"

        def ping(tls):
            return diagnose(observe(url, b"<POSTBACK/>", replace(profile, tls=tls), settings, 0), settings)

        said = [ping(leaf) for _ in range(50)]
        assert ping(chain).verdict.startswith("answered 200")
    unsaid = [
        advice for advice in said if "without that of its issuer (CN=middle authority)" not in advice.todo
    ]
    assert unsaid == []
    assert not any("Set one for the account" in advice.todo for advice in said)


def test_a_client_certificate_with_its_chain_is_no_cause():
    """The issuer is sent along, or stands in the bundle, from which OpenSSL adds it."""
    middle = Identity("middle authority", issuer=authority(), is_authority=True)
    client = Identity("client", issuer=middle)
    for tls in (
        Tls(None, client.cert_pem + middle.cert_pem, client.key_pem),
        Tls(middle.cert_pem, client.cert_pem, client.key_pem),
    ):
        profile = replace(Profile.default(load()), tls=tls)
        outcome = Outcome("tls", detail="the server does not trust our client certificate (x)")
        seen = Probe("https://x.example/", "x", profile, profile, outcome)
        assert diagnose(seen, load()).todo == "Let the server trust the authority that has issued it."


@pytest.mark.parametrize("status", [400, 403])
def test_a_missing_intermediate_certificate_is_named_where_the_server_says_it_in_http(status):
    """nginx ends the handshake well and answers 400."""
    client = Identity("client", issuer=Identity("middle authority", issuer=authority(), is_authority=True))
    profile = replace(Profile.default(load()), tls=Tls(None, client.cert_pem, client.key_pem))
    outcome = Outcome("status", status)
    seen = Probe("https://x.example/", "x", profile, profile, outcome, status=status)
    assert "(CN=middle authority)" in diagnose(seen, load()).todo


def test_a_server_that_says_nothing_when_tls_is_asked_for():
    with Receiver(lambda _: Answer(action="hang")) as receiver:
        said = pinged(receiver.url().replace("http:", "https:"))
    assert "no TLS within 1.2 s" in said["verdict"] or said["outcome"] == "tls"


@pytest.mark.parametrize(
    ("ends_in", "words"),
    [
        (timedelta(days=13, hours=1), "in 13 days"),
        (timedelta(days=1, hours=1), "in 1 day:"),
        (timedelta(hours=5), "within a day"),
        (timedelta(days=15), None),
    ],
)
def test_a_certificate_is_warned_of_in_the_last_two_weeks(ends_in, words):
    profile = Profile.default(load())
    ends = datetime.now(UTC) + ends_in
    seen = Probe("https://x.example/", "x", profile, profile, certificate=Certificate((), "x", ends))
    said = " ".join(diagnose(seen, load()).noticed)
    assert (words in said) if words else said == ""
