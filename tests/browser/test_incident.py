"""An incident in the browser, from its first failure to the resend of what died of it."""

from __future__ import annotations

import re

from helpers import eventually
from playwright.sync_api import expect

from postbacks.devtools.receiver import Answer


def test_an_incident_from_its_first_failure_to_the_resend_of_what_died(stage, desk):
    stage.account("acme", Answer(503, b"<h1>Down for maintenance</h1>"))
    page = desk.page("operator")
    page.goto("/")
    expect(page.get_by_text("No incident is open.")).to_be_visible()
    sent = stage.send("acme", 3)

    # The first page tells of it by itself, and one click leads to the reason and the remedy.
    incident = page.get_by_role("region", name="Open incidents").get_by_role(
        "link", name=re.compile("fails$")
    )
    incident.click()
    page.wait_for_url("**/incidents/*")
    address = page.url
    main = page.get_by_role("main")
    expect(main).to_contain_text("it answers 503; every attempt has failed since")
    expect(main).to_contain_text("The receiver failed: look at its log.")
    expect(main).to_contain_text("<h1>Down for maintenance</h1>")
    expect(main.locator("svg.strip a")).to_have_count(6)
    expect(main.get_by_role("button", name="Resend what died")).to_have_count(0)
    page.get_by_role("button", name="Ping").click()
    expect(main).to_contain_text("Not delivered")
    page.get_by_role("link", name="Back", exact=True).click()

    # The receiver is mended: the incident ends by itself while somebody looks at it.
    stage.recorded(3, state="dead")
    stage.answers["/acme"] = Answer()
    stage.send("acme", TRACKINGID="well")
    page.goto(address)
    resend = main.get_by_role("button", name="Resend what died: 3 postbacks…")
    expect(resend).to_be_visible()
    expect(main.locator(".sentence")).to_contain_text("ended")

    # What it will do is said first, with the count and the reason filled in.
    resend.click()
    expect(main).to_contain_text("3 postbacks will be sent again")
    expect(page.get_by_label("Why, for the journal")).to_have_value(f"incident {address.rpartition('/')[2]}")
    page.get_by_role("button", name="Send again: 3 postbacks").click()
    page.wait_for_url("**/jobs/*")
    expect(main).to_contain_text("3 of 3 postbacks put back: 3 delivered, 0 failed")
    eventually(
        lambda: set(sent) <= {post.postback_id for post in stage.posts("acme") if post.attempt > 2},
        60, "the third POST of each",
    )  # fmt: skip
    page.get_by_role("link", name="Journal").click()
    expect(page.get_by_role("row", name=re.compile("ann-operator.*resend.*incident"))).to_be_visible()
