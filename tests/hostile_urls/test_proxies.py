"""With an egress proxy: what it gets, what is refused before it, and that its words are not the receiver's."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hostile_urls.forms import REFUSED
from hostile_urls.proxy import Proxy
from transport.certificates import Authority
from transport.toxic_receiver import Toxic

from postbacks.devtools.receiver import Receiver
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer

REFUSED_EARLY = [form for form in REFUSED if form.early and form.outcome == "blocked"]


def post(url: str, proxy_url: str, tls: Tls | None = None, limit_s: float = 10) -> Outcome:
    """Make one POST through a proxy; no network is allowed that is not by default."""
    settings = Settings(
        proxy_url=proxy_url, allowed_networks=(), connect_timeout_s=limit_s, answer_timeout_s=limit_s
    )
    adapter = CurlClient(settings)
    profile = replace(Profile.default(settings), tls=tls)
    outcome = adapter.post(Transfer(url, b"<POSTBACK/>", ["X-Test: yes"], profile))
    adapter.close()
    return outcome


def test_an_http_postback_goes_through_the_proxy_though_that_is_on_a_private_address():
    """The proxy gets the request with the whole URL, resolves the name itself, and its address is let through."""
    with Receiver() as receiver, Proxy(receiver.port) as proxy:
        assert post("http://receiver.example/in?a=b", proxy.url).delivered
    (head,) = proxy.heads
    assert head.startswith("POST http://receiver.example/in?a=b HTTP/1.1\r\n")
    assert [received.path for received in receiver.received] == ["/in?a=b"]


def test_an_https_postback_is_secured_from_end_to_end_through_the_proxy(tmp_path):
    """The proxy sees a CONNECT; the receiver's certificate is checked behind it."""
    authority = Authority(tmp_path)
    good, other = authority.issue("receiver.example"), authority.issue("other.example")
    for certificate, name in ((good, "delivered"), (other, "tls")):
        with Toxic({"tls": certificate.server()}) as receiver, Proxy(receiver.ports["tls"]) as proxy:
            outcome = post("https://receiver.example/honest", proxy.url, Tls(ca_bundle=authority.pem))
        assert outcome.name == name
        (head,) = proxy.heads
        assert head.startswith("CONNECT receiver.example:443 HTTP/1.1\r\n")
        assert "X-Test" not in head


def test_a_proxys_user_and_password_are_for_the_proxy_alone():
    """They do not reach the receiver behind a tunnel, nor does the receiver's basic auth reach the CONNECT."""
    with Proxy(answer=b"HTTP/1.1 407 No\r\n\r\n") as proxy:
        secret = proxy.url.replace("http://", "http://us:secret@")
        outcome = post("https://user:password@receiver.example/", secret)
    (head,) = proxy.heads
    assert "Proxy-Authorization: Basic dXM6c2VjcmV0\r\n" in head
    assert "\nAuthorization" not in head
    assert "secret" not in outcome.detail
    assert "dXM6" not in outcome.detail


def test_an_accounts_authorization_is_for_the_receiver_behind_the_tunnel_alone(tmp_path):
    """The CONNECT does not carry it."""
    authority = Authority(tmp_path)
    certificate = authority.issue("receiver.example")
    settings = Settings(allowed_networks=(), connect_timeout_s=2, answer_timeout_s=2)
    profile = replace(
        Profile.default(settings),
        tls=Tls(ca_bundle=authority.pem),
        authorization=("Authorization: Bearer x",),
    )
    with Toxic({"tls": certificate.server()}) as receiver, Proxy(receiver.ports["tls"]) as proxy:
        adapter = CurlClient(settings.model_copy(update={"proxy_url": proxy.url}))
        assert adapter.post(
            Transfer("https://receiver.example/honest", b"<POSTBACK/>", [], profile)
        ).delivered
        adapter.close()
    assert [head.split()[0] for head in proxy.heads] == ["CONNECT"]
    assert "uthorization" not in proxy.heads[0]


@pytest.mark.parametrize("form", REFUSED_EARLY, ids=lambda form: ascii(form.url)[1:60])
def test_what_needs_no_look_up_is_still_refused_before_the_proxy(form):
    """Literal addresses that are not global, this machine's names and closed ports: the proxy never hears."""
    with Proxy(answer=b"") as proxy:
        outcome = post(form.url, proxy.url)
        assert (outcome.name, proxy.heads) == ("blocked", [])
    assert form.says in outcome.detail


def test_where_a_name_leads_is_the_proxys_business():
    """The one thing that the guard cannot see then, as docs/security.md says."""
    with Receiver() as receiver, Proxy(receiver.port) as proxy:
        assert post("http://private.example/", proxy.url).delivered
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("status", [200, 301, 403, 407, 500, 502])
@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_a_proxys_answer_to_connect_is_never_taken_for_the_receivers(status, after):
    """Not even its 200, and not what it sends behind it instead of TLS."""
    answer = b"HTTP/1.1 %d Said by the proxy\r\nContent-Length: 0\r\n\r\n" % status
    with Proxy(answer=answer + after) as proxy:
        outcome = post("https://receiver.example/", proxy.url)
    assert (outcome.name, outcome.status) == ("tls" if status == 200 else "refused", None)


@pytest.mark.parametrize(("url", "name"), [("https://receiver.example/", "connect_timeout"), ("http://receiver.example/", "answer_timeout")])  # fmt: skip
def test_a_proxy_that_says_nothing_is_left_at_the_limit(url, name):
    """The tunnel belongs to the connection, the forwarded request to the answer."""
    began_s = time.monotonic()
    with Proxy(answer=b"") as proxy:
        assert post(url, proxy.url, limit_s=0.5).name == name
    assert time.monotonic() - began_s < 0.5 + 0.5 + 20
