"""Work of support clerks and operators in the browser: find, reveal, resend, cancel, pause, resume."""

from __future__ import annotations

import re

import pytest
from helpers import eventually
from playwright.sync_api import Page, expect
from watch import link_to

from postbacks.devtools.receiver import Answer
from postbacks.operate import journal_entries, pause_account

pytestmark = pytest.mark.browser


def search(page: Page, words: str) -> None:
    """Type words into the filter bar and search."""
    page.goto("/postbacks")
    page.get_by_label("Filter").fill(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/postbacks?q=*")


def test_a_postback_is_found_by_its_number_and_revealed_with_a_reason(stage, desk):
    stage.account("clinic")
    (sent,) = stage.send("clinic", TO="15552310137")
    stage.send("clinic", 3, TO="15559990000")
    stage.recorded(4, account="clinic", state="delivered")
    page = desk.page("support")
    search(page, "+1 (555) 231-0137")  # as it stands in a mail: the name of the filter is found
    main = page.get_by_role("main")
    expect(main).to_contain_text("1 postback")
    link_to(page, sent).click()
    page.wait_for_url(f"**/postbacks/{sent}")
    document = page.locator("pre.xml")
    expect(document).to_contain_text("<TO>1555…37")
    page.get_by_role("button", name="Reveal").click()
    expect(page.get_by_label("Why it is to be revealed")).to_be_focused()  # the browser wants a reason
    expect(document).not_to_contain_text("15552310137")
    page.get_by_label("Why it is to be revealed").fill("ticket 4711")
    page.get_by_role("button", name="Reveal").click()
    expect(document).to_contain_text("<TO>15552310137</TO>")
    (entry,) = journal_entries(action="reveal")
    assert (entry.subject, entry.by, entry.why) == (sent, "ann-support", "ticket 4711")
    page.goto(page.url)
    expect(document).to_contain_text("<TO>1555…37")  # no address reveals
    page.goto("/journal")
    expect(page.get_by_role("row", name=re.compile("ann-support.*reveal.*ticket 4711")).first).to_be_visible()


def test_many_are_selected_previewed_and_resent_by_a_job_whose_progress_is_seen(stage, desk):
    stage.account("bulk", Answer(500, b"out of memory"))
    sent = stage.send("bulk", 8)
    stage.recorded(8, account="bulk", state="dead")
    stage.answers["/bulk"] = Answer()
    page = desk.page("operator")
    search(page, "account:bulk state:dead")
    main = page.get_by_role("main")
    for postback_id in sent[:2]:
        page.get_by_role("checkbox", name=f"Select {postback_id}").check()
    page.get_by_role("button", name="Send again…").click()
    expect(main).to_contain_text("2 postbacks will be sent again")
    for postback_id in sent[:2]:
        expect(link_to(page, postback_id)).to_be_visible()
    page.get_by_role("link", name="Back", exact=True).click()
    page.get_by_label("All 8 postbacks that match").check()
    page.get_by_role("button", name="Send again…").click()
    expect(main).to_contain_text("8 postbacks will be sent again")
    page.get_by_label("Why, for the journal").fill("they have more memory now")
    page.get_by_label("At most so many a second").fill("1")
    page.get_by_role("button", name="Send again: 8 postbacks").click()
    page.wait_for_url("**/jobs/*")
    progress = page.get_by_role("progressbar", name="Progress")
    seen: list[float] = []

    def look() -> bool:
        seen.append(float(progress.get_attribute("value")) if progress.count() else 0.0)
        return seen[-1] == 8

    eventually(look, 120, "the end of the job")
    assert seen == sorted(seen)
    assert len(set(seen)) > 2, "the bar has moved by itself"
    expect(main).to_contain_text("8 of 8 postbacks put back: 8 delivered, 0 failed")
    expect(main.locator(".sentence")).to_contain_text("ended")
    page.goto("/jobs")
    expect(page.get_by_role("row", name=re.compile("they have more memory now"))).to_contain_text("8 of 8")


def test_what_waits_is_cancelled_one_by_one_and_all_that_match(stage, desk):
    stage.account("later")
    pause_account("later", reason="their maintenance")
    sent = stage.send("later", 4)
    stage.recorded(4, account="later", state="waiting")
    page = desk.page("operator")
    page.goto(f"/postbacks/{sent[0]}")
    main = page.get_by_role("main")
    expect(main).to_contain_text("Why has it not been sent?")
    expect(main).to_contain_text("their maintenance")
    page.get_by_label("Why, for the journal").fill("sent by mistake")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").filter(has_text="cancelled")).to_be_visible()
    stage.recorded(1, account="later", state="cancelled")
    search(page, "account:later")
    page.get_by_label("All 4 postbacks that match").check()
    page.get_by_role("button", name="Cancel…").click()
    expect(main).to_contain_text("3 postbacks will not be sent any more")
    page.get_by_role("button", name="Cancel: 3 postbacks").click()
    page.wait_for_url("**/jobs/*")
    expect(main.locator(".sentence")).to_contain_text("ended")
    stage.recorded(4, account="later", state="cancelled")
    assert stage.posts("later") == []


def test_an_account_is_paused_and_resumed_on_its_page(stage, desk):
    stage.account("bluebird")
    page = desk.page("operator")
    page.goto("/accounts")
    page.get_by_role("link", name="bluebird").click()
    page.wait_for_url("**/accounts/bluebird")
    main, sentence = page.get_by_role("main"), page.locator(".sentence")
    expect(sentence).to_contain_text("well")
    page.locator("summary", has_text="Pause").click()
    page.get_by_label("Until").fill("2h")
    page.get_by_label("Why").fill("they asked by phone")
    page.get_by_role("button", name="Pause bluebird").click()
    expect(sentence).to_contain_text(re.compile("paused.*by ann-operator, until .*they asked by phone"))
    sent = stage.send("bluebird", 3)
    expect(main).to_contain_text("3 wait")
    expect(main).to_contain_text("They wait for the end of the pause.")
    assert stage.posts("bluebird") == []
    page.locator("summary", has_text="Resume").click()
    page.get_by_label("Why").first.fill("they are back")
    page.get_by_role("button", name="Resume bluebird").click()
    expect(sentence).not_to_contain_text("paused")
    eventually(
        lambda: [post.postback_id for post in stage.posts("bluebird")] == sent, 60, "their POSTs, in order"
    )
    for words in ("they asked by phone", "they are back"):
        expect(page.get_by_role("row").filter(has_text=words)).to_be_visible()
