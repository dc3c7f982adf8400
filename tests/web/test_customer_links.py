"""Customers' links: who comes in by one, how it ends, and that it opens nothing else."""

from __future__ import annotations

import logging
import re
import time

import pytest
from starlette.routing import Route

from postbacks import keys
from postbacks.errors import PostbacksError, UnknownAccount
from postbacks.operate import (
    journal_entries,
    make_link,
    open_links,
    remove_account,
    withdraw_links,
)
from postbacks.operate import links as stored
from postbacks.web import zones
from postbacks.web.pages import all_routes
from postbacks.web.security import links, slowing

TOKEN = "a-token-of-32-characters-in-all."
KEY = "k" * 32
PAGES = ["/customer/", "/customer/postbacks", "/customer/urls", "/customer/postbacks.csv", "/customer/filter", "/customer/zone",
         "/customer/postbacks/some-id"]  # fmt: skip
POSTS = ["/customer/ping", "/customer/resend", "/customer/resend/start"]


@pytest.fixture(autouse=True)
def _acme(world):
    """Account of the links."""
    world.account("acme")


@pytest.fixture
def at_once(monkeypatch):
    """Let each request ask the broker for its link."""
    monkeypatch.setattr(links, "FRESH_S", 0.0)


# -- the address and the cookie --------------------------------------------------------------------


def test_a_link_opens_the_pages_and_its_token_stays_in_no_address(browse, token):
    browser = browse()
    path = token(browser, make_link("acme"))
    reply = browser.get(path)
    assert path.startswith("/c/")
    assert (reply.status_code, reply.headers["Location"], reply.text) == (303, "/customer/", "")
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["Cache-Control"] == "no-store"
    name, _, rest = reply.headers["Set-Cookie"].partition("=")
    assert name == "postbacks-customer"
    assert set(rest.split("; ")[1:]) == {"Path=/customer", "HttpOnly", "SameSite=Strict"}
    page = browser.get("/customer/")
    assert page.status_code == 200
    assert path.removeprefix("/c/") not in page.text
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_over_https_the_cookie_is_secure(browse, token):
    browser = browse(base_url="https://127.0.0.1")
    reply = browser.get(token(browser, make_link("acme")))
    assert reply.headers["Set-Cookie"].startswith("__Secure-postbacks-customer=")
    assert "; Secure" in reply.headers["Set-Cookie"]
    assert browser.get("/customer/").status_code == 200


def test_from_a_mail_in_a_browser_our_own_page_leads_on(browse, token):
    """A browser sends no SameSite=Strict cookie where another site's link leads on."""
    browser = browse()
    path = token(browser, make_link("acme"))
    reply = browser.get(path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert reply.status_code == 200
    assert 'content="0;url=/customer/"' in reply.text
    assert path.removeprefix("/c/") not in reply.text
    assert browser.get("/customer/").status_code == 200


def test_no_token_comes_into_a_log(browse, token, caplog, monkeypatch):
    browser = browse()
    path = token(browser, make_link("acme"))
    caplog.set_level(logging.INFO)
    browser.get(path)
    monkeypatch.setattr(links, "open_link", None)
    assert browser.get(path).status_code == 500
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("postbacks")]
    assert {line.partition(" ")[0] for line in ours} >= {"web.link_opened", "web.failed"}
    assert [line for line in ours if path.removeprefix("/c/") in line] == []


@pytest.mark.parametrize("login", [{}, {"web_token": TOKEN}], ids=["no login", "a login"])
@pytest.mark.parametrize("key", [{}, {"web_key": KEY}], ids=["the broker's key", "a key of its own"])
def test_it_is_the_same_with_and_without_a_login(browse, visit, login, key):
    browser = visit("acme", browse(**login, **key))
    for path in PAGES[:-1]:
        assert browser.get(path).status_code == 200, path
    assert "has all rights" not in browser.get("/customer/").text


def test_a_visit_ends_and_the_link_begins_another(visit, token, monkeypatch):
    browser = visit("acme")
    real = time.time
    monkeypatch.setattr("itsdangerous.timed.TimestampSigner.get_timestamp", lambda _: int(real() + 43_300))
    reply = browser.get("/customer/")
    assert reply.status_code == 403
    assert "open the link that you were given again" in reply.text
    assert browser.get(token(browser, browser.link)).status_code == 303
    assert browser.get("/customer/").status_code == 200


# -- whoever has none ------------------------------------------------------------------------------


@pytest.mark.parametrize("as_operator", [True, False], ids=["an operator", "nobody"])
def test_without_a_link_nobody_sees_a_customers_page(browse, as_operator):
    browser = browse(web_token=TOKEN, web_key=KEY)
    if as_operator:
        browser.post("/login", data={"secret": TOKEN})
        assert browser.get("/accounts/acme").status_code == 200
    replies = [browser.get(path) for path in PAGES] + [browser.post(path) for path in POSTS]
    assert {reply.status_code for reply in replies} == {403}
    for reply in replies:
        assert "Open the link that you were given" in reply.text
        assert "acme" not in reply.text


def test_without_a_login_all_rights_are_none_there(browse):
    """On loopback everybody is an admin; the customers' pages are a link's all the same."""
    assert {browse().get(path).status_code for path in PAGES} == {403}


def test_each_operators_page_is_closed_to_a_customer(browse, visit):
    browser = visit("acme", browse(web_token=TOKEN, web_key=KEY))
    cookie = {"Cookie": "; ".join(f"{name}={browser.cookies[name]}" for name in browser.cookies)}
    assert "postbacks-customer" in cookie["Cookie"]
    routes = [
        route for route in all_routes() if isinstance(route, Route) and hasattr(route.endpoint, "needs")
    ]
    assert len(routes) > 30
    for route in routes:
        path = route.path
        for parameter, value in {
            "{name}": "acme",
            "{number:int}": "1",
            "{postback_id:path}": "p",
            "{value:path}": "p",
        }.items():
            path = path.replace(parameter, value)
        for method in route.methods - {"HEAD"}:
            reply = browser.request(
                method, path.replace("{id}", "j").replace("{job_id}", "j"), headers=cookie
            )
            is_login = reply.headers.get("Location", "").startswith("/login?")
            assert (reply.status_code, is_login) in {(303, True), (401, False)}, (method, path)
            assert "acme" not in reply.text


def test_a_customers_cookie_is_no_session_and_a_session_no_visit(browse, visit):
    browser = visit("acme", browse(web_token=TOKEN, web_key=KEY))
    value = browser.cookies["postbacks-customer"]
    assert browser.get("/zone", headers={"Cookie": f"postbacks={value}"}).status_code == 303
    browser.cookies.clear()
    browser.post("/login", data={"secret": TOKEN})
    session = browser.cookies["postbacks"]
    token = browser.app.state.links.address(browser.link, "").removeprefix("/c/")
    for forged in (session, token, value[:-2] + "AA", "a.b.c", "é"):
        headers = {"Cookie": f"postbacks-customer={forged}".encode()}
        assert browser.get("/customer/", headers=headers).status_code == 403, forged


@pytest.mark.parametrize("path", ["/c/", "/c/a/b", "/customer/nothing", "/customers"])
def test_what_is_no_page_is_none(browse, path):
    assert browse().get(path).status_code == 404


# -- wrong ones ------------------------------------------------------------------------------------


def test_wrong_addresses_are_slowed_and_the_right_one_is_not(browse, token, caplog):
    browser = browse()
    path = token(browser, make_link("acme"))
    for _ in range(slowing.FREE):
        reply = browser.get(path + "x")
        assert reply.status_code == 403
        assert "no link of ours" in reply.text
    reply = browser.get(path + "x")
    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) >= 1
    assert "web.link_refused" in caplog.text
    assert browser.get(path).status_code == 303


def test_another_keys_link_is_none_of_ours(browse, token):
    path = token(browse(web_key="x" * 32), make_link("acme"))
    assert browse(web_key=KEY).get(path).status_code == 403


# -- its end ---------------------------------------------------------------------------------------


def test_past_its_end_a_sentence_says_so_and_nothing_else_is_shown(
    browse, visit, token, monkeypatch, at_once
):
    browser = visit("acme", browse(web_session_s=1e6), days=1)
    real = time.time
    monkeypatch.setattr(links.time, "time", lambda: real() + 86_401)
    for path in (token(browser, browser.link), *PAGES):
        reply = browser.get(path)
        assert reply.status_code == 410, path
        assert "This link ended on" in reply.text
        assert "Ask whoever gave you the link for a new one." in reply.text
        assert "acme" not in reply.text
    browser.cookies.set(zones.COOKIE, "Asia/Tokyo")
    assert re.search(r"ended on [\d-]+ [\d:]+ JST\.", browser.get(PAGES[0]).text)


def test_the_broker_keeps_a_link_no_longer_than_it_lasts(rig):
    link = make_link("acme", days=1)
    ttl_ms = rig.client.pttl(keys.WEB_LINK + link.id)
    assert 86_000_000 < ttl_ms <= stored.DAY_MS
    rig.client.zadd(keys.WEB_LINKS, {"gone": link.made_ms - 1})
    rig.client.zadd(keys.WEB_LINKS_USED, {"gone": 0})
    other = make_link("acme")
    assert {each.id for each in open_links()} == {link.id, other.id}
    assert rig.client.zcard(keys.WEB_LINKS) == rig.client.zcard(keys.WEB_LINKS_USED) == 2


def test_one_that_was_withdrawn_opens_nothing_in_any_web_process(browse, visit, token):
    browser, other = visit("acme"), browse()
    cookie = {"Cookie": f"postbacks-customer={browser.cookies['postbacks-customer']}"}
    assert other.get("/customer/", headers=cookie).status_code == 200
    withdraw_links("acme", browser.link.id)
    deadline = time.monotonic() + 30
    while other.get("/customer/", headers=cookie).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    for path in (token(browser, browser.link), *PAGES):
        reply = other.get(path, headers=cookie)
        assert reply.status_code == 410, path
        assert "was withdrawn" in reply.text
        assert "acme" not in reply.text
    assert other.post("/customer/ping", headers=cookie).status_code == 410


def test_it_ends_with_its_account(visit, at_once):
    browser = visit("acme")
    remove_account("acme")
    assert open_links() == []
    assert browser.get("/customer/").status_code == 410
    assert [entry.action for entry in journal_entries(account="acme")][:2] == [
        "link.withdraw",
        "account.remove",
    ]


def test_an_account_that_the_store_has_lost_shows_nothing(visit, rig, at_once):
    browser = visit("acme")
    rig.client.hdel(keys.ACCOUNTS, "acme")
    assert browser.get("/customer/").status_code == 410


def test_a_broker_that_is_away_is_a_sentence_without_our_inside(browse, visit, monkeypatch, at_once):
    browser = visit("acme")
    monkeypatch.setattr(
        links, "find_link", lambda _: (_ for _ in ()).throw(links.BrokerError("redis://host: away"))
    )
    reply = browser.get("/customer/")
    assert reply.status_code == 503
    assert "Try again in a minute" in reply.text
    assert "redis" not in reply.text


# -- making, listing, withdrawing ------------------------------------------------------------------


def test_what_is_made_is_listed_used_and_withdrawn_with_a_journal(visit):
    first = make_link("acme", days=3, may_resend=True, by="ann", why="ticket 812")
    browser = visit("acme", by="bob")
    browser.get("/customer/")
    found = {link.id: link for link in open_links("acme")}
    assert found[first.id].to_public_dict() | {"made": "", "ends": ""} == {
        "id": first.id, "account": "acme", "by": "ann", "made": "", "ends": "", "resend": True, "used": None,
    }  # fmt: skip
    assert found[first.id].ends_ms - found[first.id].made_ms == 3 * stored.DAY_MS
    assert found[browser.link.id].used_ms is not None
    assert open_links("another") == []
    assert [link.id for link in withdraw_links("acme", first.id, by="ann", why="sent to the wrong one")] == [
        first.id
    ]
    with pytest.raises(PostbacksError, match="has no open link"):
        withdraw_links("acme", first.id)
    assert [link.id for link in withdraw_links("acme")] == [browser.link.id]
    assert withdraw_links("acme") == []
    told = [
        (entry.by, entry.action, entry.subject, entry.why)
        for entry in journal_entries(account="acme", action="link")
    ]
    assert told[::-1][0] == ("ann", "link.make", first.id, "ticket 812")
    assert told[::-1][2] == ("ann", "link.withdraw", first.id, "sent to the wrong one")
    assert len(told) == 4


def test_use_brings_nothing_back_that_was_withdrawn(rig):
    link = make_link("acme")
    withdraw_links("acme")
    stored.note_use(link)
    assert list(rig.client.keys("postbacks:web-link*")) == []


@pytest.mark.parametrize("days", [0, -1, 91])
def test_its_days_have_bounds(days):
    with pytest.raises(PostbacksError, match="1 to 90 days"):
        make_link("acme", days=days)


def test_an_account_that_is_none_has_no_link_and_one_has_so_many():
    with pytest.raises(UnknownAccount):
        make_link("nobody")
    for _ in range(stored.OPEN_MAX):
        make_link("acme")
    with pytest.raises(PostbacksError, match="withdraw one first"):
        make_link("acme")


# -- on the operators' page ------------------------------------------------------------------------


def test_an_admin_makes_and_withdraws_them_on_the_account_page(browse_as, visit):
    admin, viewer = browse_as("admin"), browse_as("viewer")
    page = admin.post("/accounts/acme/links", data={"days": "2", "resend": "1", "why": "ticket 9"})
    assert page.status_code == 200
    (link,) = open_links("acme")
    assert (link.by, link.may_resend) == ("ann-admin", True)
    # Its signature has the second in which it was made.
    (path,) = re.findall(r"http://127\.0\.0\.1(/c/[\w.-]+)", page.text)
    assert admin.app.state.links.read(path.removeprefix("/c/")) == (link.id, link.ends_ms // 1000)
    assert browse_as("operator").get(path).status_code == 303
    for browser, is_admin in ((admin, True), (viewer, False)):
        text = browser.get("/accounts/acme").text
        assert link.id in text
        assert path.removeprefix("/c/") not in text
        assert ("/links/withdraw" in text) is is_admin
    for address in ("/accounts/acme/links", "/accounts/acme/links/withdraw"):
        assert browse_as("operator").post(address, data={"days": "2"}).status_code == 403
    for days in ("", "x", "1.5", "0", "91", "9999"):
        assert admin.post("/accounts/acme/links", data={"days": days}).status_code == 400
    assert admin.post("/accounts/acme/links/withdraw", data={"id": link.id}).status_code == 303
    assert open_links("acme") == []


def test_the_page_gives_the_address_that_is_set(browse):
    page = browse(web_url="https://postbacks.example/").post("/accounts/acme/links", data={"days": "2"})
    assert "https://postbacks.example/c/" in page.text
