"""Keys of the dashboard: rows, filter, selection, resend and help without a pointer."""

from __future__ import annotations

import re

import pytest
from every_page import Facts, put_on_stage
from playwright.sync_api import expect

from postbacks.devtools.receiver import Answer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def facts(stage) -> Facts:
    return put_on_stage(stage)


def test_a_postback_is_found_selected_and_resent_by_keys_alone(stage, desk, facts):
    stage.account("fox", Answer(500))
    sent = stage.send("fox", 4)
    stage.recorded(4, account="fox", state="dead")
    stage.answers["/fox"] = Answer()
    page = desk.page("operator")
    page.goto("/postbacks")
    keys = page.keyboard
    keys.press("/")
    expect(page.get_by_label("Filter")).to_be_focused()
    keys.type("account:fox state:dead jkxr?")  # none of them is a key while somebody types
    for _ in range(6):
        keys.press("Backspace")
    keys.press("Enter")
    page.wait_for_url("**/postbacks?q=*")
    rows = page.locator("[data-row]")
    expect(rows).to_have_count(4)
    for pressed, row in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
        keys.press(pressed)
        expect(rows.nth(row)).to_have_class("current")
        expect(page.locator(".current")).to_have_count(1)
    keys.press("x")
    expect(rows.nth(0).get_by_role("checkbox")).to_be_checked()
    keys.press("j")
    keys.press("x")
    keys.press("x")
    expect(rows.nth(1).get_by_role("checkbox")).not_to_be_checked()
    keys.press("r")
    main = page.get_by_role("main")
    expect(main).to_contain_text("1 postback will be sent again")
    page.go_back()
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_have_class("current")  # where they were
    for _ in range(4):
        keys.press("j")
    chosen = rows.nth(3).get_attribute("data-row")
    keys.press("Enter")
    page.wait_for_url("**/postbacks/*")
    opened = page.url.rpartition("/")[2]
    assert chosen.startswith(opened)
    assert opened in sent
    keys.press("r")
    expect(page.get_by_role("status").filter(has_text="It was put back, to be sent again.")).to_be_visible()
    stage.recorded(1, account="fox", state="delivered")


LISTS = {
    "/": r"/incidents/\d+",
    "/incidents": r"/incidents/\d+",
    "/postbacks": r"/postbacks/[0-9a-f-]{36}",
    "/story/{facts.dead}": r"/postbacks/[0-9a-f-]{36}",
    "/accounts": r"/accounts/[\w-]+",
    "/jobs": r"/jobs/[\w-]+",
    "/opt-outs": r"/postbacks/[0-9a-f-]{36}",
    "/journal": r"/journal\?by=.+",
}


@pytest.mark.parametrize("address", LISTS)
def test_the_first_row_of_each_list_is_opened_by_keys(desk, facts, address):
    page = desk.page("operator")
    page.goto(address.format(facts=facts))
    page.keyboard.press("j")
    expect(page.locator("[data-row]").first).to_have_class("current")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"{LISTS[address]}$"))


def test_help_opens_closes_and_gives_the_focus_back(stage, desk):
    page = desk.page("viewer")
    page.goto("/postbacks")
    page.get_by_role("link", name="Accounts").focus()
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    expect(help_).to_be_visible()
    page.keyboard.press("j")  # does nothing behind it
    expect(page.locator(".current")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    expect(page.get_by_role("link", name="Accounts")).to_be_focused()
    for close in (lambda: page.keyboard.press("?"), lambda: page.get_by_role("button", name="Close").click()):
        page.keyboard.press("?")
        expect(help_).to_be_visible()
        close()
        expect(help_).to_be_hidden()


def test_keys_with_a_modifier_are_the_browsers(stage, desk):
    page = desk.page("viewer")
    page.goto("/accounts")
    for combination in ("Control+j", "Alt+j", "Meta+j", "Control+/"):
        page.keyboard.press(combination)
    expect(page.locator(".current")).to_have_count(0)
    expect(page.get_by_label("Name")).not_to_be_focused()
