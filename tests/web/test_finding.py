"""Facts that somebody in a hurry looks for stand where they look, or are one click away."""

from __future__ import annotations

import html
import re
from urllib.parse import urlsplit

from events import EVENT, MO, MT

from postbacks import send_postback
from postbacks.operate import journal, pause_account
from postbacks.operate.journal_words import details_words
from postbacks.operate.links import make_link


def test_an_account_leads_to_its_postbacks_and_says_once_since_when_all_fails(world, browse):
    world.dead("acme", 1)
    world.answers["/acme"] = 503
    send_postback.delay("acme", MO)
    world.rig.tick()
    world.rig.deliver()
    page = html.unescape(browse().get("/accounts/acme").text)
    for words in ("", "+dead", "+undelivered", "+opt-outs"):
        assert f'<a href="/postbacks?q=account%3Aacme{words}">' in page
    assert page.count("every attempt of group") == len(
        set(re.findall(r"has failed since <time datetime=\"(.*?)\"", page))
    )


def test_a_postback_says_in_words_what_its_state_means_and_when_it_was_answered(world, browse):
    world.account("acme")
    postback_id = send_postback.delay("acme", MT).id
    world.rig.tick()
    browser = browse()
    assert "waiting</span>: it waits for its turn" in browser.get(f"/postbacks/{postback_id}").text
    world.rig.deliver()
    page = browser.get(f"/postbacks/{postback_id}").text
    assert re.search(
        r"delivered</span>: POST 1 was answered 200 at <time [^>]*>[\d: -]+</time> UTC</p>", page
    )
    assert "kept of failures alone" in page


def test_the_journal_leads_to_what_was_done_to(world, browse):
    journal.write("account.set", "acme")
    (postback_id,) = world.dead("acme", 1)
    journal.write("job.stop", "8adc95f9")
    journal.write("incident.mute", "7")
    journal.write("reveal", postback_id)
    journal.write("reveal", "TX 4711")
    page = browse().get("/journal").text
    for address in ("/accounts/acme", "/jobs/8adc95f9", "/incidents/7", f"/postbacks/{postback_id}"):
        assert f'<td data-label="To what"><a href="{address}">' in page
    assert '<td data-label="To what">TX 4711</td>' in page


def test_times_of_the_journal_are_told_as_times():
    words = details_words({"filters": {"account": "acme", "since_ms": 1_795_784_180_540}})
    assert words == "filters (account acme, since 2026-11-27T12:56:20.540Z)"


def test_an_opt_out_of_a_paused_account_says_why_it_waits(world, browse):
    world.account("acme")
    pause_account("acme")
    send_postback.delay("acme", EVENT | {"CODE": "N302"})
    world.rig.tick()
    world.record()
    page = browse().get("/opt-outs").text
    assert '<td data-label="Why">its account is paused</td>' in page
    assert 'href="/postbacks.csv?q=opt-outs+since%3A24h"' in page


def test_a_customer_finds_what_it_typed_without_a_name_and_nothing_of_others(world, browse):
    for account, tracking_id in (("acme", "TX-4711"), ("globex", "TX-4712")):
        world.account(account)
        send_postback.delay(account, MT | {"TRACKINGID": tracking_id})
    world.rig.tick()
    world.record()
    browser = browse()
    browser.get(urlsplit(browser.app.state.links.address(make_link("acme", days=1), "http://127.0.0.1")).path)
    found = browser.get("/customer/postbacks", params={"q": "TX-4711"})
    assert (found.status_code, found.headers["Location"]) == (
        303,
        "/customer/postbacks?q=tracking-id%3ATX-4711",
    )
    others = browser.get("/customer/postbacks", params={"q": "TX-4712"})
    assert others.status_code == 400
    assert "No postback was found by any of these" in others.text
