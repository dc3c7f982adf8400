"""Users whom a proxy names, from its own addresses alone."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from postbacks.settings import Settings
from postbacks.web.app import make_app
from postbacks.web.config import Config

PROXY = "10.0.0.9"
BEHIND = {"web_proxy_header": "X-Forwarded-User", "web_proxy_addresses": "10.0.0.0/24"}


@pytest.fixture
def ask():
    """Open a page of a dashboard behind a proxy."""

    def get(address=PROXY, headers=(), **settings):
        config = Config(Settings(**BEHIND | settings))
        with TestClient(
            make_app(config), base_url="http://127.0.0.1", client=(address, 1), follow_redirects=False
        ) as browser:
            return browser.get("/zone", headers=list(headers))

    return get


def test_whom_the_proxy_names_is_in_as_a_viewer(ask):
    page = ask(headers=[("X-Forwarded-User", "ann@example.com")])
    assert page.status_code == 200
    assert "ann@example.com (viewer)" in page.text
    assert "Log out" not in page.text


def test_the_role_is_the_settings_or_the_files(ask, tmp_path):
    named = [("X-Forwarded-User", "ann")]
    assert "ann (operator)" in ask(headers=named, web_proxy_role="operator").text
    path = tmp_path / "users"
    path.write_text("ann:admin:\n")
    assert "ann (admin)" in ask(headers=named, web_users=str(path)).text


@pytest.mark.parametrize("address", ["10.0.1.9", "127.0.0.1", "::1", "testclient"])
def test_from_another_address_the_header_says_nothing(ask, address):
    reply = ask(address, [("X-Forwarded-User", "ann")])
    assert reply.status_code == 401
    assert "ann (" not in reply.text


def test_an_address_of_ipv4_in_ipv6_is_the_same(ask):
    assert ask(f"::ffff:{PROXY}", [("X-Forwarded-User", "ann")]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [[], [("X-Forwarded-User", "")], [("X-Forwarded-User", "ann"), ("X-Forwarded-User", "root")],
     [("X-Forwarded-User", "a:b")], [("X-Forwarded-User", "a" * 101)], [("X-Other", "ann")]],
)  # fmt: skip
def test_a_proxy_that_names_nobody_or_two_lets_nobody_in(ask, headers):
    assert ask(headers=headers).status_code == 401


def test_beside_a_proxy_one_may_log_in(ask):
    reply = ask("10.0.1.9", web_token="t" * 16)
    assert reply.status_code == 303
    assert reply.headers["Location"].startswith("/login")


def test_without_a_login_nobody_comes_through_a_proxy(browse):
    """A proxy that passes strangers on to loopback would give them all rights."""
    reply = browse().get("/zone", headers={"X-Forwarded-For": "203.0.113.9"})
    assert reply.status_code == 403
    assert "POSTBACKS_WEB_USERS" in reply.text


def test_wrong_logins_are_counted_by_the_address_that_the_proxy_has_seen(browse):
    config = Config(Settings(web_token="t" * 16, **BEHIND))
    with TestClient(make_app(config), base_url="http://127.0.0.1", client=(PROXY, 1)) as browser:
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        seen = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
        for number in range(6):
            reply = browser.post("/login", data={"name": f"user{number}", "secret": "x"}, headers=seen)
        assert reply.status_code == 429
        other = {"X-Forwarded-For": "6.6.6.6, 203.0.113.10"}
        assert browser.post("/login", data={"name": "u", "secret": "x"}, headers=other).status_code == 401
