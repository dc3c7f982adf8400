"""The dashboard as the broker's user ``operator`` of docs/settings.md: all of its pages and actions, and no right is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from broker.test_broker_rights import denials, make_users, url_of
from events import MT
from helpers import environment
from starlette.testclient import TestClient
from web.test_incident_pages import form_of

from postbacks import send_postback
from postbacks.accounts import secrets
from postbacks.operate import read_job
from postbacks.operate.links import Link, open_links

LOOKED_AT = (
    "/", "/incidents", "/postbacks", "/postbacks?q=state:waiting", "/postbacks?q=state:dead", "/postbacks.csv", "/filter?q=acc",
    "/story/1", "/accounts", "/accounts/acme", "/accounts/acme/change", "/accounts/acme/secrets", "/new-account", "/opt-outs",
    "/jobs", "/journal", "/system", "/forget",
)  # fmt: skip
LOOKED_AT_BY_CUSTOMER = ("/customer/", "/customer/postbacks", "/customer/postbacks.csv", "/customer/urls")


@pytest.fixture
def operator(world, broker, monkeypatch) -> Iterator[str]:
    """URL of the broker for the user of the page."""
    monkeypatch.setenv("POSTBACKS_ALLOWED_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("POSTBACKS_SECRET_KEY", secrets.new_key())
    monkeypatch.setenv("POSTBACKS_WEB_TOKEN", "t" * 16)
    make_users(world.client)
    world.client.acl_log_reset()
    yield url_of(broker, "operator")
    world.client.acl_deluser(*(name for name in world.client.acl_users() if name != "default"))


def actions(died: list[str], waiting: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each form of the operators' pages, with what is typed into it."""
    for do, postback_id in (("reveal", died[0]), ("curl", died[0]), ("resend", died[0]), ("cancel", waiting)):
        yield f"/postbacks/{postback_id}", {"do": do, "why": "ticket 812"}
    yield "/story/1", {"why": "ticket 812"}
    for do in ("pause", "resume", "ping"):
        yield f"/accounts/acme/{do}", {"why": "ticket 812"}
    yield "/accounts/acme/change/limits", {"rate": "50/s", "max_transfers": "4"}
    yield "/accounts/acme/secrets/rotate", {}
    yield "/accounts/acme/secrets/remove", {"typed": "acme"}
    yield "/forget/count", {"number": "15557654321"}
    yield "/new-account", {"name": "globex", "url": "https://globex.example/", "on": "SMS_MT"}


def look_as_customer(browser: TestClient, token: Callable[[TestClient, Link], str], died: str) -> None:
    """Make a link, use it for all that it may, and withdraw it."""
    assert browser.post("/accounts/acme/links", data={"days": "2", "resend": "1"}).status_code == 200
    (link,) = open_links("acme")
    assert browser.get(token(browser, link)).status_code == 303
    for address in (*LOOKED_AT_BY_CUSTOMER, f"/customer/postbacks/{died}"):
        assert browser.get(address).status_code == 200, address
    assert browser.post("/customer/ping").status_code == 200
    assert browser.post("/customer/resend/start", data={"id": died}).status_code == 303
    assert browser.post("/accounts/acme/links/withdraw", data={"id": link.id}).status_code == 303


def test_the_dashboard_needs_no_more_rights_than_the_page_gives_the_operator(world, operator, browse, token):
    """Every page once, and every action; ACL LOG stays empty."""
    died = world.dead("acme", 4)
    waiting = send_postback.delay("acme", MT).id
    world.rig.tick()
    world.record()
    with environment(POSTBACKS_BROKER_URL=operator):
        browser = browse()
        assert browser.post("/login", data={"secret": "t" * 16}).status_code == 303
        for address in (*LOOKED_AT, f"/postbacks/{died[0]}"):
            assert browser.get(address).status_code == 200, address
        for address, fields in actions(died, waiting):
            reply = browser.post(address, data=fields)
            assert reply.status_code in {200, 303}, (address, reply.text)
        asked = browser.post("/selection", data={"kind": "resend", "q": "state:dead", "all": "1"}).text
        began = browser.post("/selection/start", data=form_of(asked, "/selection/start"))
        address = began.headers["location"]
        world.freeze(read_job(address.removeprefix("/jobs/")))
        for change in ("pause", "resume", "stop"):
            changed = browser.post(f"{address}/{change}", data={"why": ""})
            assert changed.status_code == 303, (change, changed.text)
        look_as_customer(browser, token, died[3])
        assert browser.post("/logout").status_code == 303
    assert denials(world.client) == []


def test_a_right_that_is_missing_is_found(world, operator, browse):
    """The test above can fail."""
    world.client.execute_command("ACL", "SETUSER", "operator", "-set")
    with environment(POSTBACKS_BROKER_URL=operator):
        assert browse().post("/login", data={"secret": "t" * 16}).status_code == 503
    assert ("operator", "toplevel", "set") in denials(world.client)
