"""Every URL that is accepted is sent to: at the host and port that were read."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import PROPERTY

from postbacks.errors import InvalidUrl
from postbacks.guard import early_refusal
from postbacks.settings import Settings
from postbacks.transport.handle import prepare
from postbacks.urls import endpoint_of, read_url

OPEN = {"allowed_networks": "0.0.0.0/0,::/0", "allowed_ports": "1-65535"}
GLOBAL = Settings(allowed_networks=(), allowed_ports="1-65535")
#: Every name has this address; the world's server listens on all of them.
ZONE = {"*": [["8.8.8.8"]]}

_labels = st.one_of(
    st.sampled_from(
        ["a-b", "a--", "-a", "a_b", "A", "xn--ls8h", "XN--BCHER-KVA", "xn--a", "a|b", "a~b", "a!"]
    ),
    st.sampled_from(["💩", "bücher", "straße", "ｆｕｌｌ", "☃", "≠", "日本", "ς", "①", "ẞ", "º"]),  # noqa: RUF001
    st.sampled_from(["אב", "אב1", "אבa", "ي", "0x7f", "08", "%61", "%F0%9F%92%A9", "%00", "%zz"]),
    st.sampled_from(["a\u200db", "क्\u200dष", "\u0308a", "a\u00ad", "a" * 63, "a" * 64, "ü" * 60]),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=4),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12),
)
_dots = st.sampled_from([".", ".", ".", "。", "．", "｡", ".."])  # noqa: RUF001
_names = st.tuples(
    _labels, st.lists(st.tuples(_dots, _labels), max_size=3), st.sampled_from(["", "", ".", "。"])
).map(lambda parts: parts[0] + "".join(dot + label for dot, label in parts[1]) + parts[2])
_addresses = st.one_of(
    st.ip_addresses(v=4, network="8.0.0.0/7").map(str),
    st.ip_addresses(v=4, network="8.0.0.0/7").map(lambda address: hex(int(address))),
    st.ip_addresses(v=6, network="2000::/16").map(lambda address: f"[{address}]"),
    st.ip_addresses(v=4, network="8.0.0.0/8").map(lambda address: f"[::ffff:{address}]"),
    st.sampled_from(["8.1", "010.8.8", "[2606:4700:0::1]", "[::1%25lo]", "1.2.3.4.5", "8.8.8.256"]),
)
_targets = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("/?#%&=;[]|^{}\"'<>`"), max_size=12
)
_urls = st.tuples(
    st.sampled_from(["http://", "HTTP://"]),
    st.sampled_from(["", "", "user@", "us%40er:p@ss@", "ü:%zz@"]),
    st.one_of(_names, _addresses),
    st.sampled_from(["", ":", ":80", ":8080", ":008080", ":65535"]),
    st.one_of(st.just(""), _targets.map(lambda text: "/" + text), _targets.map(lambda text: "?" + text)),
).map("".join)


@settings(PROPERTY, max_examples=120, suppress_health_check=[HealthCheck.filter_too_much])
@given(_urls)
def test_every_url_that_is_accepted_arrives_at_the_host_that_was_read(world, url):
    """Prepared, looked up and connected to as it was read when it was set; the Host header says the same."""
    try:
        wanted = read_url(url)
    except InvalidUrl:
        assume(False)
    assume(early_refusal(url, GLOBAL) is None)  # 0.0.0.0, multicast and this machine are the guard's business
    seen = world.post(url, zone=ZONE, settings=OPEN)
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["delivered"], seen["outcomes"]
    (arrived,) = seen["arrived"]
    address = ip_address(wanted.host if wanted.is_address else "8.8.8.8")
    assert ip_address(arrived["address"]) == (getattr(address, "ipv4_mapped", None) or address)
    assert arrived["port"] == wanted.port
    assert set(seen["asked"]) == (set() if wanted.is_address else {wanted.host})
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    assert f"\r\nHost: {host}{'' if wanted.port == 80 else f':{wanted.port}'}\r\n" in arrived["request"]
    assert endpoint_of(url) == f"http://{wanted.host}:{wanted.port}"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://💩.example/hook", "xn--ls8h.example"),
        ("http://bücher。example/", "xn--bcher-kva.example"),
        ("http://straße.example/", "xn--strae-oqa.example"),
    ],
)
def test_what_a_browser_sends_arrives(world, url, host):
    """Names that IDNA 2008 alone refuses, or IDNA 2003 reads otherwise."""
    seen = world.post(url, zone={host: [["8.8.8.8"]]})
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["delivered"]
    assert f"Host: {host}\r\n" in seen["arrived"][0]["request"]


@settings(PROPERTY, max_examples=500)
@given(_urls, st.booleans())
def test_what_may_be_set_can_be_prepared_and_what_is_prepared_may_be_set(url, secure):
    """Setting and sending have one reader: neither refuses what the other takes, and both find the same place."""
    url = url.replace("http", "https", 1).replace("HTTP", "HTTPS", 1) if secure else url
    try:
        wanted = read_url(url)
    except InvalidUrl as refused:
        with pytest.raises(InvalidUrl, match=f"^{re.escape(str(refused))}$"):
            prepare(url)
        return
    prepared = prepare(url)
    again = read_url(prepared.url)
    assert again[:1] + again[2:4] == wanted[:1] + wanted[2:4]
    assert prepare(prepared.url).url == prepared.url
    assert prepared.host == ("" if wanted.is_address or wanted.is_local else wanted.host)
