"""Hostile forms of URLs: refused, and nothing arrives; honest ones arrive where they should."""

from __future__ import annotations

import pycurl
import pytest
from hostile_urls.forms import PASSING, REFUSED

from postbacks.settings import Settings
from postbacks.transport.handle import CurlHandle

OPEN = {"allowed_networks": "0.0.0.0/0,::/0", "allowed_ports": "1-65535"}


def shown(form) -> str:
    """A form's URL as the name of its test."""
    return ascii(form.url)[1:60]


def test_the_tables_are_as_large_as_promised():
    """60 forms or more that must be refused, 20 or more that must pass, none twice."""
    assert len({form.url for form in REFUSED}) == len(REFUSED) >= 60
    assert len({form.url for form in PASSING}) == len(PASSING) >= 20


@pytest.mark.parametrize("form", REFUSED, ids=shown)
def test_a_hostile_url_is_refused_and_nothing_arrives(world, form):
    """No connection comes, though a receiver listens at every address; the attempt says why."""
    seen = world.post(form.url)
    assert seen["arrived"] == []
    (outcome,) = seen["outcomes"]
    assert (outcome["name"], outcome["status"]) == (form.outcome, None)
    assert form.says in outcome["detail"]


@pytest.mark.parametrize("form", [form for form in REFUSED if form.reaches], ids=shown)
def test_the_same_url_would_have_arrived_with_the_guard_open(world, form):
    """The listener would have noticed: with every network and port allowed a connection comes."""
    assert world.post(form.url, settings=OPEN)["arrived"]


@pytest.mark.parametrize("form", REFUSED, ids=shown)
def test_what_is_told_early_is_what_the_socket_would_say(world, form):
    """When the URL is set, all is told that needs no look-up, in the same words."""
    seen = world.post(form.url)
    assert bool(seen["early"]) is form.early
    if form.early and form.outcome == "blocked":
        assert seen["early"] in seen["outcomes"][0]["detail"]


@pytest.mark.parametrize("form", PASSING, ids=shown)
def test_an_honest_url_arrives_where_it_should(world, form):
    """Address, port, target and host are as written; nothing is said early, nothing injected."""
    seen = world.post(form.url, settings=dict(form.settings))
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["delivered"]
    assert seen["early"] is None
    (arrived,) = seen["arrived"]
    assert (arrived["address"], arrived["port"]) == (form.address, form.port)
    request_line, *headers = arrived["request"].split("\r\n\r\n")[0].split("\r\n")
    assert request_line == f"POST {form.target} HTTP/1.1"
    assert not form.host or f"Host: {form.host}" in headers
    assert not any(line.startswith("X-Injected") for line in headers)


@pytest.mark.parametrize("form", [form for form in PASSING if not form.settings], ids=shown)
def test_a_denied_network_is_refused_even_where_it_is_allowed(world, form):
    """The denial wins, also for the IPv4 address inside an IPv6 one, and nothing arrives."""
    denied = "8.0.0.0/8,2606:4700::/32" if form.address.startswith(("8.", "2606", "64:", "2002:")) else ""
    settings = {"denied_networks": denied or f"{form.address}/32", **OPEN}
    seen = world.post(form.url, settings=settings)
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["blocked"]
    assert "denied" in seen["outcomes"][0]["detail"]
    assert seen["arrived"] == []


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "http://global.example/", "HTTP://[2606:4700::1111]/"])
def test_with_https_only_nothing_goes_out_in_the_clear(world, url):
    """An http URL is refused, early and at the POST; an https one is connected to."""
    settings = {"https_only": True}
    seen = world.post(url, settings=settings)
    assert seen["early"] == "only https is allowed (POSTBACKS_HTTPS_ONLY)"
    assert seen["early"] in seen["outcomes"][0]["detail"]
    assert seen["arrived"] == []
    assert world.post("https://8.8.8.8/", settings=settings)["arrived"]


@pytest.mark.parametrize("url", [form.url for form in REFUSED if ":" in form.url and form.url[:4] != "http"])
def test_the_handle_itself_speaks_http_and_https_only(url):
    """Should a URL of another scheme ever come so far, libcurl refuses it."""
    curl = CurlHandle(Settings(allowed_networks=())).curl
    curl.setopt(pycurl.URL, url.strip())
    with pytest.raises(pycurl.error) as refused:
        curl.perform()
    assert refused.value.args[0] in {
        pycurl.E_UNSUPPORTED_PROTOCOL,
        pycurl.E_URL_MALFORMAT,
        pycurl.E_COULDNT_CONNECT,
    }
    curl.close()
