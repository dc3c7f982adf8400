"""Sessions: their cookie, their ends, and several web processes."""

from __future__ import annotations

import time

import pytest
from itsdangerous import URLSafeTimedSerializer, timed

from postbacks import keys
from postbacks.web.security import passwords, sessions, users

TOKEN = "a-token-of-32-characters-in-all."
PASSWORD = "correct horse battery"
KEY = "k" * 32


@pytest.fixture
def browser(rig, browse):
    """Browser that has logged in."""
    browser = browse(web_token=TOKEN, web_key=KEY)
    assert browser.post("/login", data={"secret": TOKEN}).status_code == 303
    return browser


@pytest.fixture
def later(monkeypatch):
    """Move the clock of sessions and of their signatures."""
    moved = [0.0]
    real = time.time
    monkeypatch.setattr(sessions.time, "time", lambda: real() + moved[0])
    monkeypatch.setattr(timed.TimestampSigner, "get_timestamp", lambda _self: int(real() + moved[0]))

    def move(seconds: float) -> None:
        moved[0] += seconds

    return move


def is_in(browser) -> bool:
    """Tell whether a page is shown."""
    return browser.get("/zone").status_code == 200


def test_the_cookie_is_for_this_site_and_no_script(browse):
    reply = browse(web_token=TOKEN, web_key=KEY).post("/login", data={"secret": TOKEN})
    name, _, rest = reply.headers["set-cookie"].partition("=")
    assert name == "postbacks"
    assert set(rest.split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Strict"}


@pytest.mark.parametrize(
    ("base_url", "headers"),
    [("https://127.0.0.1", {}), ("http://127.0.0.1", {"X-Forwarded-Proto": "https"})],
    ids=["TLS here", "TLS at the proxy"],
)
def test_over_https_the_cookie_is_secure(rig, browse, base_url, headers):
    browser = browse(web_token=TOKEN, web_key=KEY, base_url=base_url)
    reply = browser.post("/login", data={"secret": TOKEN}, headers=headers)
    name, _, rest = reply.headers["set-cookie"].partition("=")
    assert name == "__Host-postbacks"
    assert set(rest.split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}
    cookie = {"Cookie": f"{name}={rest.partition(';')[0]}"}
    assert browser.get("/zone", headers=headers | cookie).status_code == 200


def test_it_ends_when_no_page_is_opened_for_the_idle_time(browser, later):
    later(3500)
    assert is_in(browser)  # and so it goes on
    later(3500)
    assert is_in(browser)
    later(3602)
    assert not is_in(browser)


def test_a_live_part_does_not_keep_it(browser, later):
    for _ in range(4):
        later(1000)
        browser.get("/", headers={"HX-Request": "true"})
    assert not is_in(browser)


def test_it_ends_after_its_time_in_any_case(browser, later):
    for _ in range(14):
        later(3000)
        assert is_in(browser)
    later(3000)
    assert not is_in(browser)


def test_the_logout_ends_it_for_all_web_processes(rig, browse, browser):
    cookie = {"Cookie": f"postbacks={browser.cookies['postbacks']}"}
    other = browse(web_token=TOKEN, web_key=KEY)
    reply = browser.post("/logout")
    assert (reply.status_code, reply.headers["Location"]) == (303, "/login")
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert not is_in(browser)
    assert browser.get("/zone", headers=cookie).status_code == 303  # whoever has copied it
    assert other.get("/zone", headers=cookie).status_code == 303
    assert rig.client.zcard(keys.WEB_ENDED) == 1


def test_ended_sessions_are_kept_no_longer_than_they_would_have_lasted(rig, browse, browser):
    rig.client.zadd(keys.WEB_ENDED, {"long-ago": time.time() - 1})
    browser.post("/logout")
    assert b"long-ago" not in rig.client.zrange(keys.WEB_ENDED, 0, -1)


def test_a_restart_and_another_process_go_on_with_it(rig, browse):
    """The broker keeps the key where none is set."""
    first = browse(web_token=TOKEN)
    first.post("/login", data={"secret": TOKEN})
    cookie = {"Cookie": f"postbacks={first.cookies['postbacks']}"}
    assert browse(web_token=TOKEN).get("/zone", headers=cookie).status_code == 200
    assert len(rig.client.get(keys.WEB_KEY)) == 64
    rig.client.set(keys.WEB_KEY, "another")
    assert browse(web_token=TOKEN).get("/zone", headers=cookie).status_code == 303


def test_another_token_ends_it(rig, browse, browser):
    cookie = {"Cookie": f"postbacks={browser.cookies['postbacks']}"}
    assert browse(web_token=TOKEN, web_key=KEY).get("/zone", headers=cookie).status_code == 200
    assert browse(web_token=TOKEN[::-1], web_key=KEY).get("/zone", headers=cookie).status_code == 303


@pytest.mark.parametrize("change", ["removed", "another password", "another role"])
def test_a_change_of_the_user_ends_it(rig, browse, tmp_path, change):
    path = tmp_path / "users"
    users.write(path, "ann", "admin", passwords.hashed(PASSWORD))
    browser = browse(web_users=str(path), web_key=KEY)
    browser.post("/login", data={"name": "ann", "secret": PASSWORD})
    assert is_in(browser)
    if change == "removed":
        users.remove(path, "ann")
    elif change == "another password":
        users.write(path, "ann", "admin", passwords.hashed("another password"))
    else:
        users.write(path, "ann", "viewer", users.read(path)["ann"].hash)
    assert not is_in(browser)


def test_a_forged_one_is_none(rig, browse, browser):
    good = browser.cookies["postbacks"]
    signer = URLSafeTimedSerializer("x" * 32, salt="postbacks.web.session")
    link = browser.app.state.signers.signer("link").dumps(["id", "", "mark", int(time.time())])
    for forged in (good[:-2] + "AA", "x" + good, signer.dumps(["id", "", "mark", 0]), link, "", "a.b.c", "é"):
        browser.cookies.clear()
        reply = browser.get("/zone", headers={"Cookie": f"postbacks={forged}".encode()})
        assert reply.status_code == 303, forged


def test_a_stranger_hears_nothing_of_a_broker_that_is_away(browse, caplog):
    browser = browse(web_token=TOKEN, broker_url="redis://inside:secret@127.0.0.1:1/0")
    for path in ("/", "/login"):
        reply = browser.get(path, headers={"Cookie": "postbacks=a.b.c"})
        assert reply.status_code == 503
        assert "the broker does not answer" in reply.text
        assert "inside" not in reply.text
        assert "127.0.0.1:1" not in reply.text
    assert "web.session_unread" in caplog.text


def test_a_link_from_another_site_finds_the_session_that_goes_on(browse):
    """SameSite=Strict sends no cookie with it: our own page asks once more, with it."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    reply = browse(web_token=TOKEN, web_key=KEY).get('/postbacks?q="><script>', headers=headers)
    assert reply.status_code == 200
    assert 'content="0;url=/postbacks?q=' in reply.text
    assert "<script>" not in reply.text


def test_a_login_begins_another_session(browse):
    browser = browse(web_token=TOKEN, web_key=KEY)
    browser.post("/login", data={"secret": TOKEN})
    first = browser.cookies["postbacks"]
    browser.post("/login", data={"secret": TOKEN})
    signer = browser.app.state.signers.signer("session")
    assert signer.loads(first)[0] != signer.loads(browser.cookies["postbacks"])[0]
