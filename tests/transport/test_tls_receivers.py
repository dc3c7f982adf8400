"""TLS of an account: its own authority, its client certificate, its pinned keys; and nothing that turns it off."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pycurl
import pytest
from transport.certificates import Authority
from transport.conftest import ToxicProcess

from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.handle import CurlHandle
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer
from postbacks.transport.trust import system_trust_store

SETTINGS = Settings(allowed_networks="127.0.0.0/8", connect_timeout_s=30, answer_timeout_s=30)
WRONG_PIN = "sha256//" + "A" * 43 + "="


@pytest.fixture
def adapter() -> Iterator[CurlClient]:
    """Client for the POSTs of a test: their connections and TLS sessions are kept."""
    made = CurlClient(SETTINGS)
    yield made
    made.close()


@contextmanager
def keeping(context: ssl.SSLContext) -> Iterator[int]:
    """A port that answers 200 to each request of one TLS connection after the other, and keeps it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                    data = b""
                    while some := connection.recv(65_536):
                        data += some
                        if data.endswith(b"<POSTBACK/>"):
                            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                            data = b""

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def post(adapter: CurlClient, toxic: ToxicProcess, port: str, tls: Tls | None) -> Outcome:
    """Make one POST of an account with this TLS; None is the default."""
    profile = replace(Profile.default(SETTINGS), tls=tls)
    return adapter.post(Transfer(toxic.url("honest", port), b"<POSTBACK/>", [], profile))


def test_an_own_authority_is_trusted_by_its_account_alone(adapter, toxic):
    """The same receiver in turn: unknown issuer, delivered, and again unknown over a fresh connection."""
    own = Tls(ca_bundle=toxic.certificates.authority.pem)
    outcomes = [post(adapter, toxic, "good", tls) for tls in (None, own, None, own)]
    assert [outcome.name for outcome in outcomes] == ["tls", "delivered", "tls", "delivered"]
    assert "the issuer of the server's certificate is not known" in outcomes[0].detail


def test_a_kept_connection_serves_the_same_account_again(adapter):
    """No handshake a postback."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        context = authority.issue("127.0.0.1").server()
        with keeping(context) as port:
            profile = replace(Profile.default(SETTINGS), tls=Tls(ca_bundle=authority.pem))
            for _ in range(5):
                url = f"https://127.0.0.1:{port}/"
                assert adapter.post(Transfer(url, b"<POSTBACK/>", [], profile)).delivered
    assert adapter.connections == 1


def test_an_own_authority_stands_instead_of_the_systems(adapter, toxic):
    """A bundle of another authority trusts neither ours nor anything of the system's."""
    other = Tls(ca_bundle=toxic.certificates.good.pem.replace("A", "B"))
    assert post(adapter, toxic, "good", other).name == "tls"


@pytest.mark.parametrize("order", ["right first", "wrong first"])
def test_a_pinned_key_decides_also_when_a_connection_is_already_there(adapter, toxic, order):
    """The account's pin is checked though others of the same endpoint were just delivered to."""
    trusting = Tls(ca_bundle=toxic.certificates.authority.pem)
    right = replace(trusting, pinned_keys=(toxic.certificates.good.pin,))
    either = replace(trusting, pinned_keys=(WRONG_PIN, toxic.certificates.good.pin))
    wrong = replace(trusting, pinned_keys=(WRONG_PIN,))
    plan = [(trusting, "delivered"), (right, "delivered"), (wrong, "tls"), (either, "delivered")]
    for tls, name in plan if order == "right first" else plan[::-1]:
        outcome = post(adapter, toxic, "good", tls)
        assert outcome.name == name
        assert name == "delivered" or "the server's key is not the pinned one" in outcome.detail


@pytest.mark.parametrize("port", ["mutual", "mutual-1.2"])
def test_a_client_certificate_is_shown_by_its_account_alone(adapter, toxic, port):
    """With ours it is delivered; with none, or with one of a stranger's, the handshake says what is missing."""
    given = toxic.certificates
    trusting = Tls(ca_bundle=given.authority.pem)
    ours = replace(trusting, client_cert=given.client.pem, client_key=given.client.key)
    foreign = replace(trusting, client_cert=given.foreign_client.pem, client_key=given.foreign_client.key)
    for tls, name in (
        (trusting, "tls"),
        (ours, "delivered"),
        (trusting, "tls"),
        (foreign, "tls"),
        (ours, "delivered"),
    ):
        assert post(adapter, toxic, port, tls).name == name
    assert "certificate" in post(adapter, toxic, port, trusting).detail


@pytest.mark.parametrize("broken", ["ca_bundle", "client_cert", "client_key"])
def test_tls_settings_that_cannot_be_used_are_an_outcome_and_send_nothing(adapter, toxic, broken):
    """A bundle, certificate or key that is none: ``tls``, never a POST without it."""
    given = toxic.certificates
    whole = Tls(given.authority.pem, given.client.pem, given.client.key)
    before = toxic.served("honest")
    outcome = post(adapter, toxic, "mutual", replace(whole, **{broken: "no PEM"}))
    assert outcome.name == "tls"
    assert "the account's" in outcome.detail
    assert toxic.served("honest") == before


def test_what_is_checked_cannot_be_turned_off():
    """No setting has to do with it; a trust store is there."""
    names = " ".join(Settings.model_fields)
    assert not any(word in names for word in ("verify", "insecure", "tls", "ssl"))
    with open(system_trust_store(), encoding="ascii") as store:  # noqa: PTH123
        assert "BEGIN CERTIFICATE" in store.read()


def test_a_handle_that_served_one_accounts_tls_serves_no_other(toxic):
    """A client certificate could not be left behind: the handle is thrown away."""
    handle = CurlHandle(SETTINGS)
    tls = Tls(toxic.certificates.authority.pem)
    handle.load(Transfer(toxic.url("honest", "good"), b"x", [], replace(Profile.default(SETTINGS), tls=tls)))
    assert not handle.reusable
    handle.curl.close()
    assert pycurl.version_info()[5].startswith("OpenSSL/")
