"""Names under an attacker's control: what counts is the address that the socket is opened to."""

from __future__ import annotations

import time

import pytest
from hostile_urls.forms import ZONE

from postbacks.devtools.receiver import Receiver
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

GLOBAL, PRIVATE = "8.8.8.8", "10.0.0.1"


def test_a_name_that_changes_between_check_and_use_gains_nothing(world):
    """The first look-up gives a global address, the next ones a private one: no second POST arrives."""
    zone = {"rebind.example": [[GLOBAL], ["127.0.0.1"], ["169.254.169.254"]]}
    seen = world.post("http://rebind.example/", zone=zone, times=3)
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["delivered", "blocked", "blocked"]
    assert "127.0.0.1: loopback" in seen["outcomes"][1]["detail"]
    assert "169.254.169.254: link-local" in seen["outcomes"][2]["detail"]
    assert [arrived["address"] for arrived in seen["arrived"]] == [GLOBAL]


@pytest.mark.parametrize(
    "addresses", [[GLOBAL, PRIVATE], [PRIVATE, GLOBAL], ["::1", GLOBAL], ["fd00::1", PRIVATE, GLOBAL]]
)
def test_of_several_addresses_only_those_that_may_be_are_tried(world, addresses):
    """Wherever the private one stands in the answer."""
    seen = world.post("http://several.example/", zone={"several.example": [addresses]})
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["delivered"]
    assert [arrived["address"] for arrived in seen["arrived"]] == [GLOBAL]


def test_where_no_address_may_be_reached_none_is(world):
    """libcurl goes on to the next address, and the guard says no to each."""
    zone = {"several.example": [["9.9.9.9", "127.0.0.1", "10.0.0.1"]]}
    seen = world.post("http://several.example:8080/", zone=zone, settings={"denied_networks": "9.9.9.9/32"})
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["blocked"]
    assert seen["arrived"] == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_an_address_that_was_put_into_the_resolvers_memory_is_guarded_too(address):
    """Whoever poisons it: the check is behind it, where the socket is opened."""
    settings = Settings(allowed_networks=())
    with Receiver() as receiver:
        adapter = CurlClient(settings)
        adapter._resolver._cache["rebind.example"] = ((address,), time.monotonic())
        url = f"http://rebind.example:{receiver.port}/"
        outcome = adapter.post(Transfer(url, b"<POSTBACK/>", [], Profile.default(settings)))
        adapter.close()
    assert outcome.name == "blocked"
    assert "loopback" in outcome.detail
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "[2606:4700::1111]", "global.example", "global6.example", "both.example"]
)
def test_the_checks_before_a_kept_connection_is_used_again_cost_an_honest_receiver_nothing(world, host):
    """20 POSTs over one connection, by IPv4 and IPv6, by address and by name."""
    seen = world.ask("keep", url=f"http://{host}:8080/", zone=ZONE)
    assert seen == {"outcomes": ["delivered"] * 20, "connections": 1}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/latest/", "http://8.8.4.4:8080/", "file:///etc/passwd"]
)
def test_a_redirect_is_not_followed(world, status, place):
    """Neither to the metadata address nor to one that could be reached: one request, a failed attempt."""
    answer = (
        f"HTTP/1.1 {status} Away\r\nLocation: {place}\r\nRefresh: 0;url={place}\r\nContent-Length: 0\r\n\r\n"
    )
    seen = world.post("http://global.example/", answer=answer)
    assert [(outcome["name"], outcome["status"]) for outcome in seen["outcomes"]] == [("status", status)]
    assert [(arrived["address"], arrived["port"]) for arrived in seen["arrived"]] == [(GLOBAL, 80)]
