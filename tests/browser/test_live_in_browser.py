"""Live parts in the browser: they change by themselves, and stand still for whoever reads, selects, types or is away."""

from __future__ import annotations

import pytest
from helpers import eventually
from playwright.sync_api import expect
from watch import link_to

from postbacks.operate import pause_account

pytestmark = pytest.mark.browser


@pytest.fixture
def page(stage, desk):
    """List of an account's postbacks, in which one stands."""
    stage.account("acme")
    pause_account("acme")
    page = desk.page("operator")
    page.goto("/postbacks?q=account%3Aacme")
    return page


def live_requests(desk) -> int:
    """Count what the live part has asked for."""
    return sum("hx-request" in response.request.headers for response in desk.responses)


def test_a_change_is_shown_within_seconds_and_no_change_is_answered_304(stage, desk, page):
    rows = page.locator("[data-row]")
    before = rows.count()
    stage.send("acme")
    expect(rows).to_have_count(before + 1)
    stage.recorded(before + 1, account="acme")
    eventually(lambda: page.wait_for_timeout(200) or desk.statuses("/postbacks")[304], 60, "a 304")


def test_it_stands_still_while_something_is_selected(stage, desk, page):
    stage.send("acme")
    rows = page.locator("[data-row]")
    expect(rows).not_to_have_count(0)
    rows.first.get_by_role("checkbox").check()
    page.wait_for_timeout(500)  # what was on its way has come
    before, asked = rows.count(), live_requests(desk)
    (sent,) = stage.send("acme")
    page.wait_for_timeout(5000)
    assert live_requests(desk) == asked
    expect(rows).to_have_count(before)
    rows.first.get_by_role("checkbox").uncheck()
    expect(link_to(page, sent)).to_be_visible()


def test_it_stands_still_while_the_tab_is_hidden(stage, desk, page):
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.wait_for_timeout(500)
    asked = live_requests(desk)
    (sent,) = stage.send("acme")
    page.wait_for_timeout(5000)
    assert live_requests(desk) == asked
    page.evaluate("delete document.hidden")
    expect(link_to(page, sent)).to_be_visible()


def test_the_focus_stays_where_it_is_when_the_part_is_read_again(stage, desk, page):
    (first,) = stage.send("acme")
    link = link_to(page, first)
    link.focus()
    (second,) = stage.send("acme")
    expect(link_to(page, second)).to_be_visible()
    expect(link).to_be_focused()


def test_a_text_that_is_marked_stays(stage, desk, page):
    (first,) = stage.send("acme")
    link = link_to(page, first)
    expect(link).to_be_visible()
    link.evaluate("(element) => getSelection().selectAllChildren(element)")
    stage.send("acme")
    page.wait_for_timeout(5000)
    assert page.evaluate("getSelection().toString()") == link.text_content()


def test_a_server_that_is_gone_is_told_and_its_return_too(desk, page):
    stale = page.get_by_text("Not live: the page could not be read again.")
    expect(stale).to_be_hidden()
    desk.expected = ("ERR_FAILED", "htmx:")
    page.route("**/postbacks*", lambda route: route.abort())
    expect(stale).to_be_visible()
    page.unroute_all()
    expect(stale).to_be_hidden()
