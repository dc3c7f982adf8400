"""Logging in and out in the browser, and what each role sees."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from stage import PASSWORD

from postbacks.devtools.receiver import Answer
from postbacks.operate import pause_account
from postbacks.web.security import passwords, users

pytestmark = pytest.mark.browser


def log_in(page: Page, name: str, secret: str) -> None:
    """Fill the form in and send it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(secret)
    page.get_by_role("button", name="Log in").click()


def test_whoever_logs_in_comes_to_the_page_that_was_asked_for_and_out_again(desk):
    page = desk.page("")
    page.goto("/postbacks?q=state%3Adead")
    expect(page).to_have_title(re.compile("Log in"))
    expect(page.get_by_label("Name")).to_be_focused()
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_count(0)
    log_in(page, "ann-support", "wrong")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("ann-support")
    expect(page.get_by_label("Password")).to_have_value("")
    log_in(page, "ann-support", PASSWORD)
    page.wait_for_url("**/postbacks?q=state%3Adead")
    expect(page.get_by_text("ann-support (support)")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.goto("/accounts")
    expect(page).to_have_title(re.compile("Log in"))
    page.go_back()  # what the browser would show from its memory is asked for again
    expect(page.get_by_text("ann-support (support)")).to_have_count(0)


def test_a_session_that_ends_elsewhere_ends_an_open_page_within_seconds(stage, desk):
    users.write(stage.users_path, "bob", "viewer", passwords.hashed(PASSWORD))
    desk.expected += ("Response Status Error Code 401",)
    page = desk.page("")
    page.goto("/")
    log_in(page, "bob", PASSWORD)
    expect(page.get_by_text("bob (viewer)")).to_be_visible()
    users.write(stage.users_path, "bob", "operator", passwords.hashed(PASSWORD))
    expect(page).to_have_title(re.compile("Log in"))  # by itself


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("viewer", set()),
        ("support", {"resend", "reveal", "ping"}),
        ("operator", {"resend", "reveal", "ping", "pause", "cancel"}),
        ("admin", {"resend", "reveal", "ping", "pause", "cancel", "change"}),
    ],
)
def test_each_role_sees_what_it_may_do_and_no_more(stage, desk, role, may):
    stage.account("acme", Answer(500))
    stage.account("later")
    pause_account("later")
    (dead,), (waiting,) = stage.send("acme"), stage.send("later")
    stage.reached(dead, "dead")
    stage.reached(waiting, "waiting")
    page = desk.page(role)
    page.goto(f"/postbacks/{dead}")
    main = page.get_by_role("main")
    expect(main).to_contain_text("dead: answered 500")

    def sees(name: str) -> bool:
        return bool(main.get_by_role("button", name=name).count())

    seen = {"resend": sees("Send again"), "reveal": sees("Reveal")}
    page.goto(f"/postbacks/{waiting}")
    expect(main).to_contain_text("Why has it not been sent?")
    seen["cancel"] = sees("Cancel")
    page.goto("/accounts/acme")
    seen["ping"] = sees("Ping")
    seen["pause"] = bool(page.locator("summary", has_text="Pause").count())
    seen["change"] = bool(page.locator('a[href$="/accounts/acme/change"]').count())
    assert {name for name, is_seen in seen.items() if is_seen} == may
    page.goto("/postbacks")
    expect(page.locator("[data-row]").first).to_be_visible()
    assert bool(page.get_by_role("checkbox").count()) == ("resend" in may)
    if role == "viewer":
        assert page.get_by_role("main").get_by_role("button").all_inner_texts() == ["Search"]
