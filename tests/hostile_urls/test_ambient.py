"""Surroundings of the worker decide nothing: the environment, the home directory, what receivers ask to keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hostile_urls.proxy import Proxy

from postbacks.devtools.receiver import Answer, Receiver
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

SETTINGS = Settings(allowed_networks="127.0.0.0/8,::1/128", connect_timeout_s=10)


def post(*urls: str, limit_s: float = 10) -> list[str]:
    """POST to these in turn over one adapter; returns the outcomes."""
    adapter = CurlClient(SETTINGS)
    profile = replace(Profile.default(SETTINGS), connect_timeout_s=limit_s)
    names = [adapter.post(Transfer(url, b"x", [], profile)).name for url in urls]
    adapter.close()
    return names


@pytest.mark.parametrize(
    "name", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
)
def test_the_environments_proxy_is_not_used(monkeypatch, name):
    """Only POSTBACKS_PROXY_URL names one."""
    with Receiver() as receiver, Proxy(answer=b"") as proxy:
        monkeypatch.setenv(name, proxy.url)
        https = receiver.url().replace("http:", "https:")
        assert post(receiver.url()) == ["delivered"]
        assert post(https, limit_s=0.3) == ["connect_timeout"]  # it speaks no TLS
        assert proxy.heads == []
    assert len(receiver.received) == 1


def test_the_environments_exceptions_do_not_lead_past_the_proxy(monkeypatch):
    """no_proxy is of no use to anybody either."""
    with Receiver() as receiver, Proxy(receiver.port) as proxy:
        monkeypatch.setenv("no_proxy", "*")
        adapter = CurlClient(SETTINGS.model_copy(update={"proxy_url": proxy.url}))
        assert adapter.post(Transfer(receiver.url(), b"x", [], Profile.default(SETTINGS))).delivered
        adapter.close()
        assert len(proxy.heads) == 1


def test_a_netrc_gives_no_password_away(monkeypatch, tmp_path):
    """Neither to the machine that it names nor by default."""
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login us password secret\ndefault login us password x\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with Receiver(lambda _: Answer(401, headers={"WWW-Authenticate": 'Basic realm="a"'})) as receiver:
        assert post(receiver.url(), receiver.url()) == ["status", "status"]
    assert len(receiver.received) == 2
    assert not any("authorization" in received.headers for received in receiver.received)


def test_a_curlrc_is_not_read(monkeypatch, tmp_path):
    """A .curlrc is for the command curl, not for the library."""
    (tmp_path / ".curlrc").write_text("location\nproxy = 127.0.0.1:1\nheader = X-Injected:yes\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CURL_HOME", str(tmp_path))
    with Receiver() as receiver:
        assert post(receiver.url()) == ["delivered"]
    assert "x-injected" not in receiver.received[0].headers


def test_what_a_receiver_asks_to_be_kept_is_forgotten():
    """No alternative service, no strict transport, no cookie, no other place next time."""
    with Receiver() as other:
        kept = {
            "Alt-Svc": f'http/1.1="127.0.0.1:{other.port}"; ma=3600, h2=":{other.port}"; ma=3600',
            "Strict-Transport-Security": "max-age=3600; includeSubDomains",
            "Set-Cookie": "session=1; Path=/; Domain=127.0.0.1",
            "Location": other.url(),
            "Content-Location": other.url(),
            "Refresh": f"0;url={other.url()}",
        }
        with Receiver(lambda _: Answer(headers=kept)) as receiver:
            assert post(receiver.url(), receiver.url("/again")) == ["delivered", "delivered"]
        assert other.connections == 0
    assert [received.path for received in receiver.received] == ["/", "/again"]
    assert not any("cookie" in received.headers for received in receiver.received)
