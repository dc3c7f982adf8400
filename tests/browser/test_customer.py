"""A customer's link in the browser, from the mail that it came by to the resend of what was given up."""

from __future__ import annotations

import re

import pytest
from helpers import eventually
from playwright.sync_api import expect

from postbacks.devtools.receiver import Answer
from postbacks.operate import make_link, withdraw_links
from postbacks.settings import load
from postbacks.web.security.key import Signers
from postbacks.web.security.links import Links


@pytest.mark.browser
@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_a_customers_developer_finds_what_is_wrong_mends_it_and_has_it_sent_again(stage, desk, javascript):
    account = f"acme-{javascript}".lower()
    stage.account(account, Answer(404, b"no such path: /wrong"), rate="50/s")
    sent = stage.send(account, 3)
    stage.recorded(3, state="dead", account=account)
    link = make_link(account, may_resend=True)
    address = Links(load(), Signers(load())).address(link, stage.url)
    page = desk.page("", java_script_enabled=javascript, viewport={"width": 1100, "height": 900})
    main = page.get_by_role("main")

    # Another site's link, as a mail in a browser: the cookie comes all the same, and the token stays in no address.
    page.set_content(f'<a href="{address}">Your postbacks</a>')
    page.get_by_role("link").click()
    page.wait_for_url(f"{stage.url}/customer/")
    expect(main).to_contain_text("Your server fails")
    expect(main).to_contain_text("your server answered 404; only 200 counts")
    expect(main).to_contain_text("The path is not one that the receiver knows")
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("history.length") <= 3
    page.get_by_role("link", name="What your server answered").click()
    expect(main).to_contain_text("no such path: /wrong")
    assert page.evaluate("document.referrer") == ""

    # The receiver is mended, and tested: the form comes without an origin.
    stage.answers[f"/{account}"] = Answer()
    page.get_by_role("link", name="Your receiver").click()
    page.get_by_role("button", name="Test your receiver").click()
    expect(main).to_contain_text("answered 200")
    assert stage.posts(account)[-1].headers["postback-test"] == "1"

    # What was given up is sent again.
    page.get_by_role("link", name="Postbacks").click()
    page.get_by_role("link", name="given up", exact=True).click()
    page.get_by_role("checkbox", name=re.compile("All that match")).check()
    page.get_by_role("button", name="Send again…").click()
    expect(main).to_contain_text("3 postbacks will be sent again")
    page.get_by_role("button", name="Send again: 3 postbacks").click()
    expect(main).to_contain_text("3 postbacks wait to be sent again")
    eventually(
        lambda: set(sent) <= {post.postback_id for post in stage.posts(account) if post.attempt > 2},
        60, "the third POST of each",
    )  # fmt: skip
    page.get_by_role("link", name="Your URL").click()
    expect(main).to_contain_text(f"/{account}")

    # The link is withdrawn: the page that stands open goes by itself.
    page.goto("/customer/")
    expect(main).to_contain_text("How your receiver does")
    withdraw_links(account)
    if not javascript:
        eventually(lambda: page.reload().status == 410, 60, "the withdrawal")
    expect(main).to_contain_text("This link was withdrawn")
    expect(main).not_to_contain_text("How your receiver does")
    # htmx says so of each answer from 400 on.
    desk.wrong = [line for line in desk.wrong if "Response Status Error Code 410" not in line]
