"""Host of a request: loopback's names, --host's, and those of POSTBACKS_WEB_HOSTS."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8910", "localhost:8910", "LOCALHOST", "[::1]:8910", "127.8.8.8"]
)
def test_loopback_is_answered_by_its_names(browse, host):
    assert browse().get("/zone", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1@evil.example",
     "127.0.0.1, evil.example", "0.0.0.0", "[::1", "evil.example:127"],
)  # fmt: skip
def test_a_foreign_name_is_misdirected(browse, host):
    reply = browse().get("/zone", headers={"Host": host})
    assert reply.status_code == 421
    assert "POSTBACKS_WEB_HOSTS" in reply.text


def test_names_can_be_given(browse):
    browser = browse(host="10.0.0.5", web_hosts="Postbacks.example, [fd00::5]", web_token="t" * 16)
    for host in ("postbacks.example", "POSTBACKS.example:443", "10.0.0.5", "[fd00::5]:80"):
        assert browser.get("/login", headers={"Host": host}).status_code == 200, host
    assert browser.get("/login", headers={"Host": "other.example"}).status_code == 421


def test_all_interfaces_are_nobodys_name(browse):
    browser = browse(host="0.0.0.0", web_token="t" * 16)
    assert browser.get("/login", headers={"Host": "0.0.0.0"}).status_code == 421


def test_a_probe_may_ask_by_any_name(browse):
    reply = browse().get("/healthz", headers={"Host": "10.1.2.3:8910"})
    assert (reply.status_code, reply.text) == (200, "alive\n")


def test_a_form_of_a_foreign_name_does_nothing(browse):
    browser = browse(web_token="t" * 16)
    reply = browser.post("/login", data={"secret": "t" * 16}, headers={"Host": "evil.example"})
    assert reply.status_code == 421
    assert "set-cookie" not in reply.headers
