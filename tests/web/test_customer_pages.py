"""Customers' pages: one account's, masked, without passwords and queries, in words of the receiver's developer."""

from __future__ import annotations

import csv
import html
import io
import re

import pytest
from events import MT
from harmless import EVIL, is_harmless
from helpers import set_account

from postbacks import keys, send_postback, settings
from postbacks.accounts.edit import AccountChange
from postbacks.operate import journal_entries, pause_account
from postbacks.operate import set_account as change_account
from postbacks.web.pages import customer

#: Words of our inside, which are no customer's.
INSIDE = re.compile(
    r"\b(lanes?|ledger|broker|ticks?|recorder|leases?|quarantine|redis|postbacks_\w+)\b", re.IGNORECASE
)
PASSWORD, QUERY = "hunter-two%21", "SECRET-of-the-query"


def shown(page: str) -> str:
    """Return a page's text without its markup."""
    return (
        re.sub(r"\s+([.,;:]?)", r" \1", html.unescape(re.sub(r"<[^>]*>", " ", page)))
        .replace(" :", ":")
        .replace(" .", ".")
    )


def pages_of(browser, *postback_ids: str) -> dict[str, str]:
    """Read every page of a customer, the files and the parts among them."""
    paths = [
        "/customer/", "/customer/postbacks", "/customer/postbacks?q=state:dead", "/customer/postbacks?q=account:beta",
        "/customer/postbacks.csv", "/customer/urls", "/customer/filter?q=s", "/customer/zone",
        *(f"/customer/postbacks/{postback_id}" for postback_id in postback_ids),
    ]  # fmt: skip
    found = {path: browser.get(path).text for path in paths}
    found["part"] = browser.get("/customer/", headers={"HX-Request": "true"}).text
    if browser.link.may_resend:
        found["resend"] = browser.post("/customer/resend", data={"id": postback_ids, "q": ""}).text
    found["ping"] = browser.post("/customer/ping").text
    return found


# -- what it says ----------------------------------------------------------------------------------


def test_the_first_page_says_how_the_receiver_does_and_what_to_do(world, visit):
    postback_ids = world.dead("acme", 2)
    browser = visit("acme")
    text = shown(browser.get("/customer/").text)
    assert "Your server fails" in text
    assert "your server answered 503; only 200 counts" in text
    assert "What to do: The receiver failed: look at its log." in text
    assert "2 given up" in text
    assert "status 200 alone" in text
    assert "10 s, to the end of the answer's header" in text
    assert any(
        f'href="/customer/postbacks/{postback_id}"' in browser.get("/customer/").text
        for postback_id in postback_ids
    )
    send_postback.delay("acme", MT)
    world.rig.tick()
    while world.rig.deliver():
        pass
    world.record()
    assert "Your server is well" in shown(visit("acme").get("/customer/").text)


def test_a_pause_is_told_without_who_and_why(world, visit):
    world.account("acme")
    pause_account("acme", by="ann-of-ours", reason="they do not pay")
    postback_id = send_postback.delay("acme", MT).id
    world.rig.tick()
    browser = visit("acme")
    page, one = browser.get("/customer/").text, browser.get(f"/customer/postbacks/{postback_id}").text
    assert "paused" in page
    assert "Sending to you is paused since" in one
    for text in (page, one):
        assert "ann-of-ours" not in text
        assert "do not pay" not in text


def test_limits_that_were_agreed_are_shown(world, visit):
    set_account("acme", url=world.receiver.url("/acme"), rate="20/s", max_transfers=4, answer_timeout_s=3)
    text = shown(visit("acme").get("/customer/").text)
    assert "20/s at most, as was agreed" in text
    assert "4 POSTs at most, as was agreed" in text
    assert "3 s, to the end" in text


def test_a_postback_shows_its_life_its_answer_and_its_document_masked(world, visit):
    (postback_id,) = world.dead("acme", 1)
    browser = visit("acme")
    page = browser.get(f"/customer/postbacks/{postback_id}").text
    text = shown(page)
    assert "given up: your server answered 503; only 200 counts" in text
    assert "oops" in text
    assert world.receiver.url("/acme") in text
    assert "1555…02" in text
    assert "15552312102" not in page
    assert 'class="node been now is-dead"' in page
    for word in ("Reveal", "curl", "Cancel", "Send again"):
        assert word not in text
    assert (
        browser.post(f"/customer/postbacks/{postback_id}", data={"do": "reveal", "why": "x"}).status_code
        == 405
    )


def test_one_that_waits_says_why_in_a_customers_words(world, visit):
    world.account("acme")
    sent = [send_postback.delay("acme", MT).id for _ in range(3)]
    world.rig.tick()
    text = shown(visit("acme").get(f"/customer/postbacks/{sent[2]}").text)
    assert "Why has it not been sent?" in text
    assert "2 of your postbacks go before it." in text
    assert "nothing at your end keeps it" in text


def test_one_that_will_be_sent_again_says_when(world, visit, monkeypatch):
    monkeypatch.setenv("POSTBACKS_MAX_RESENDS", "5")
    settings.load.cache_clear()
    world.rig.settings = settings.load()
    world.account("acme")
    world.answers["/acme"] = 500
    postback_id = send_postback.delay("acme", MT).id
    world.rig.tick()
    world.rig.deliver()
    text = shown(visit("acme").get(f"/customer/postbacks/{postback_id}").text)
    assert "will be sent again" in text
    assert re.search(r"POST 1 failed; POST 2 of 6 follows at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)


def test_the_list_has_the_filter_bar_the_count_and_the_strip(world, visit):
    world.dead("acme", 2)
    browser = visit("acme")
    page = browser.get("/customer/postbacks", params={"q": "state:dead since:1h"})
    assert "2 postbacks" in shown(page.text)
    assert "given up" in page.text
    assert "svg" in page.text
    assert 'data-live hx-get="/customer/postbacks?q=' in page.text
    assert 'href="/postbacks' not in page.text
    part = browser.get("/customer/postbacks", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    etag = {"HX-Request": "true", "If-None-Match": part.headers["ETag"]}
    assert browser.get("/customer/postbacks", headers=etag).status_code == 304
    assert browser.get("/customer/postbacks", params={"q": "tracking-id:1"}).text.count("data-row=") == 1
    assert "No postback of yours fits" in browser.get("/customer/postbacks", params={"q": "code:N202"}).text
    found = browser.get("/customer/postbacks", params={"q": "+15552312102"}, follow_redirects=False)
    assert found.status_code == 303
    mistake = browser.get("/customer/postbacks", params={"q": "+15552319999"})
    assert mistake.status_code == 400
    assert "number:" in mistake.text
    assert "a Postback-Id" in mistake.text
    offered = browser.get("/customer/filter", params={"q": ""}).text
    assert "state:" in offered
    for word in ("account:", "host:", "group:", "reason:", "outcome:"):
        assert word not in offered
        assert browser.get("/customer/postbacks", params={"q": f"{word}x"}).status_code == 400


def test_the_file_has_what_the_page_has(world, visit):
    postback_ids = world.dead("acme", 2)
    reply = visit("acme").get("/customer/postbacks.csv", params={"q": "state:dead"})
    assert reply.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert {row["id"] for row in rows} == set(postback_ids)
    assert {(row["state"], row["why"], row["status"], row["posts"]) for row in rows} == {
        ("given up", "your server answered 503; only 200 counts", "503", "1")
    }


def test_no_page_says_a_word_of_our_inside(world, visit):
    postback_ids = world.dead("acme", 1)
    world.account("acme")
    waiting = send_postback.delay("acme", MT).id
    world.rig.tick()
    found = pages_of(visit("acme", may_resend=True), *postback_ids, waiting)
    assert len(found) > 8
    told = {path: INSIDE.findall(shown(text)) for path, text in found.items()}
    assert {path: words for path, words in told.items() if words} == {}


# -- ping ------------------------------------------------------------------------------------------


def test_a_ping_says_what_to_mend_and_is_made_once_in_ten_seconds(world, visit, rig):
    world.account("acme")
    world.answers["/acme"] = 404
    browser = visit("acme")
    page = browser.post("/customer/ping")
    assert "answered 404: only 200 counts; a postback would be given up at once" in shown(page.text)
    assert "The path is not one that the receiver knows" in page.text
    (post,) = world.receiver.received
    assert post.headers["postback-test"] == "1"
    refused = browser.post("/customer/ping")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "10"
    another = visit("acme")
    assert another.post("/customer/ping").status_code == 429, "all links of an account share it"
    assert len(world.receiver.received) == 1
    assert 0 < rig.client.ttl(keys.WEB_PINGED + "acme") <= 10
    rig.client.delete(keys.WEB_PINGED + "acme")
    assert browser.post("/customer/ping").status_code == 200


def test_few_pings_of_customers_are_under_way_at_a_time(world, visit, rig):
    world.account("acme")
    browser = visit("acme")
    for _ in range(customer.PINGS_MAX):
        assert customer._pings.acquire(blocking=False)
    try:
        assert browser.post("/customer/ping").status_code == 429
    finally:
        customer._pings.release(customer.PINGS_MAX)
    assert world.receiver.received == []
    assert browser.post("/customer/ping").status_code == 200


def test_without_a_url_no_test_can_be_sent(world, visit):
    set_account("acme", mo_url=world.receiver.url("/mo"))
    reply = visit("acme").post("/customer/ping")
    assert reply.status_code == 400
    assert "ask whoever gave you the link" in reply.text


# -- sending again ---------------------------------------------------------------------------------


def test_what_was_given_up_is_sent_again_by_the_link(world, visit):
    postback_ids = world.dead("acme", 3)
    browser = visit("acme", may_resend=True)
    page = browser.post("/customer/resend", data={"id": postback_ids[:2], "q": "state:dead"})
    assert "2 postbacks will be sent again" in shown(page.text)
    assert world.state(postback_ids[0]) == "dead"
    done = browser.post("/customer/resend/start", data={"id": postback_ids[:2]})
    assert "2 postbacks wait to be sent again" in shown(done.text)
    one = browser.post("/customer/resend/start", data={"id": postback_ids[2]})
    assert one.status_code == 303
    assert "It was put back, to be sent again." in browser.get(one.headers["Location"]).text
    assert [world.state(postback_id) for postback_id in postback_ids] == ["waiting"] * 3
    entries = journal_entries(action="resend", account="acme")
    assert {(entry.by, entry.subject) for entry in entries} == {
        (f"link {browser.link.id}", each) for each in postback_ids
    }


def test_all_that_match_are_chosen_once_and_at_most_a_hundred(world, visit, monkeypatch):
    postback_ids = world.dead("acme", 3)
    browser = visit("acme", may_resend=True)
    page = browser.post("/customer/resend", data={"q": "tracking-id:1", "all": "1"}).text
    assert re.findall(r'name="id" value="([^"]+)"', page) == [postback_ids[1]]
    page = browser.post("/customer/resend", data={"q": "", "all": "1"}).text
    assert set(re.findall(r'name="id" value="([^"]+)"', page)) == set(postback_ids)
    assert 'name="all"' not in page
    assert (
        browser.post("/customer/resend/start", data={"id": [f"x{n}" for n in range(101)]}).status_code == 400
    )
    assert browser.post("/customer/resend/start", data={"all": "1", "q": ""}).status_code == 400
    monkeypatch.setattr("postbacks.web.pages.customer_postbacks.RESENDS_MAX", 2)
    page = browser.post("/customer/resend", data={"q": "state:dead", "all": "1"})
    assert "more than 2" in page.text
    assert 'name="id"' not in page.text


def test_delivered_and_waiting_ones_are_left_alone(world, visit):
    world.account("acme")
    postback_ids = [send_postback.delay("acme", MT).id for _ in range(2)]
    world.rig.tick()
    browser = visit("acme", may_resend=True)
    assert (
        "Nothing of it can be sent again" in browser.post("/customer/resend", data={"id": postback_ids}).text
    )
    while world.rig.deliver():
        pass
    done = browser.post("/customer/resend/start", data={"id": postback_ids})
    assert "0 postbacks wait to be sent again. 2 others could not be." in re.sub(
        r"\s+", " ", shown(done.text)
    )
    assert world.state(postback_ids[0]) == "delivered"
    assert journal_entries(action="resend") == []


def test_a_link_for_looking_alone_sends_nothing(world, visit):
    (postback_id,) = world.dead("acme", 1)
    browser = visit("acme")
    assert "/customer/resend" not in browser.get("/customer/postbacks").text
    assert "/customer/resend" not in browser.get(f"/customer/postbacks/{postback_id}").text
    for path in ("/customer/resend", "/customer/resend/start"):
        assert browser.post(path, data={"id": postback_id}).status_code == 403
    assert world.state(postback_id) == "dead"


def test_what_has_left_the_broker_is_sent_again_too(world, visit):
    postback_ids = world.dead("acme", 1)
    world.leave(postback_ids)
    browser = visit("acme", may_resend=True)
    assert "data-resend" in browser.get(f"/customer/postbacks/{postback_ids[0]}").text
    assert browser.post("/customer/resend/start", data={"id": postback_ids}).status_code == 303
    assert world.state(postback_ids[0]) == "waiting"


# -- another account -------------------------------------------------------------------------------


@pytest.fixture
def theirs(world) -> list[str]:
    """Postbacks of another account at the same receiver, which have died; one of ours beside them."""
    theirs = world.dead("beta-of-others", 3)
    world.dead("acme", 1)
    return theirs


def test_another_accounts_postback_is_as_one_that_is_not_there(theirs, world, visit):
    browser = visit("acme", may_resend=True)
    nowhere = "7c0e1f3a-1111-4222-8333-444455556666"
    for known in (theirs[0], theirs[1]):
        for path in (
            "/customer/postbacks/{}",
            "/customer/postbacks/{}?done=resent",
            "/customer/postbacks/{}?account=beta-of-others",
        ):
            real, none = browser.get(path.format(known)), browser.get(path.format(nowhere))
            assert (real.status_code, none.status_code) == (404, 404)
            assert real.text.replace(known, nowhere) == none.text
        for path in ("/customer/resend", "/customer/resend/start"):
            fields = {"q": "", "account": "beta-of-others"}
            real, none = (browser.post(path, data=fields | {"id": each}) for each in (known, nowhere))
            assert real.status_code == none.status_code == 200
            assert real.text.replace(known, nowhere) == none.text
        world.leave([known])
    assert {world.state(each) for each in theirs} <= {"dead", ""}


def test_no_filter_finds_or_counts_what_is_anothers(theirs, visit):
    browser = visit("acme")
    wanted = {
        "": 1, "state:dead": 1, "tracking-id:0": 1, "tracking-id:2": 0, "number:15552312102": 1, "undelivered": 1,
        "status:503": 1, "code:N202": 0, "attempts:1": 1, "since:1h": 1,
    }  # fmt: skip
    for q, count in wanted.items():
        page = browser.get("/customer/postbacks", params={"q": q, "account": "beta-of-others"}).text
        assert page.count("data-row=") == count, q
        assert ("1 postback</b>" in page) is (count == 1), q
        assert "beta" not in shown(page)
        rows = list(csv.reader(io.StringIO(browser.get("/customer/postbacks.csv", params={"q": q}).text)))
        assert len(rows) == 1 + count, q
        for postback_id in theirs:
            assert postback_id not in page
    for q in (
        "account:beta-of-others",
        'account:"beta-of-others"',
        "host:127.0.0.1",
        "ACCOUNT:beta-of-others",
    ):
        for path in ("/customer/postbacks", "/customer/postbacks.csv"):
            reply = browser.get(path, params={"q": q})
            assert reply.status_code == 400
            assert "There is no filter" in reply.text
    assert browser.get("/customer/filter", params={"q": "account:"}).text.strip() == ""


def test_a_cursor_of_another_list_leads_to_nothing_of_it(theirs, world, visit):
    from postbacks.history import Query, search

    cursor = search(Query(account="beta-of-others", limit=1)).next
    assert cursor
    browser = visit("acme")
    page = browser.get("/customer/postbacks", params={"cursor": cursor})
    assert not [each for each in theirs if each in page.text]


def test_health_ping_and_urls_are_of_the_links_account(theirs, world, visit):
    change_account(AccountChange("beta-of-others", url=world.receiver.url("/elsewhere-of-beta")))
    browser = visit("acme")
    for path in ("/customer/", "/customer/urls"):
        page = browser.get(path, params={"account": "beta-of-others", "name": "beta-of-others"}).text
        assert "beta" not in shown(page)
        assert "elsewhere" not in page
    assert "<b>1</b>postbacks for you" in browser.get("/customer/").text
    world.forget_posts()
    browser.post("/customer/ping", data={"name": "beta-of-others", "account": "beta-of-others"})
    assert len(world.posts("acme")) == 1
    assert world.posts("beta-of-others") == []
    for path in (
        "/customer/story/1",
        f"/customer/story/{theirs[0]}",
        "/customer/accounts/beta-of-others",
        "/customer/incidents",
    ):
        assert browser.get(path).status_code == 404


# -- passwords and queries -------------------------------------------------------------------------


@pytest.fixture
def secretive(world, visit):
    """Customer whose URL has a user, a password and a query, and whose receiver repeats all of it in its answers."""
    host = world.receiver.url("/acme").removeprefix("http://").partition("/")[0]
    url = f"http://user:{PASSWORD}@{host}/acme?key={QUERY}&plain"
    change_account(
        AccountChange("acme", url=url.replace("/acme", "/before").replace(QUERY, "OLD" + QUERY)),
        by="ann-of-ours",
    )
    change_account(
        AccountChange("acme", url=url, headers={"X-Api-Key": "value-of-a-header"}), by="ann-of-ours"
    )
    change_account(AccountChange("acme", url=url.replace("hunter", "hunter-3")), by="ann-of-ours")
    change_account(AccountChange("acme", url=url), by="ann-of-ours")
    for path in (f"/acme?key={QUERY}&plain", f"/own?key={QUERY}&plain&call=OF-THE-CALL"):
        world.answers |= {path: 500, path.partition("?")[0]: 500}
    basic = "dXNlcjpodW50ZXItdHdvIQ=="  # user:hunter-two!
    world.body = (
        f"cannot POST {url} hunter-two! Basic {basic} value-of-a-header OF-THE-CALL key={QUERY} until here {QUERY[:9]}"
    ).encode()
    postback_ids = [send_postback.delay("acme", MT).id]
    postback_ids.append(
        send_postback.delay("acme", MT, url=url.replace("/acme", "/own") + "&call=OF-THE-CALL").id
    )
    world.rig.tick()
    while world.rig.deliver():
        pass
    world.record()
    return visit("acme", may_resend=True), postback_ids


def test_no_page_has_a_password_or_a_query_of_a_url(secretive, world):
    browser, postback_ids = secretive
    found = pages_of(browser, *postback_ids)
    assert "cannot POST http://" in found[f"/customer/postbacks/{postback_ids[0]}"], "the answer is shown"
    assert "until here" in found[f"/customer/postbacks/{postback_ids[1]}"], "all of it"
    assert "Your answer begins" in found["ping"]
    assert "/before" in found["/customer/urls"]
    assert "OF-THE-CALL" not in found[f"/customer/postbacks/{postback_ids[1]}"], "of its own URL"
    for path, text in found.items():
        unescaped = html.unescape(text)
        for secret in (
            PASSWORD,
            "hunter",
            QUERY,
            "SECRET",
            "OLD",
            "user:",
            "?key=",
            "plain",
            "dXNlcjpod",
            "value-of-a-header",
            "ann-of-ours",
        ):
            assert secret not in unescaped, (path, secret)


def test_the_history_of_the_url_says_what_changed_and_when(secretive):
    browser, _ = secretive
    page = browser.get("/customer/urls").text
    text = shown(page)
    assert page.count("<tr>") == 1 + 4
    assert "with another user, password or query" in text
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d postbacks . http://\S+/before", text), "the first one"
    assert re.search(r"postbacks http://\S+/before http://\S+/acme ", text)
    assert re.search(r"Postbacks go to http://\S+/acme ", text)


def test_hostile_answers_are_harmless_on_a_customers_page(world, visit):
    world.body = ("</pre><script>alert(1)</script>" + EVIL.replace("\ud800", "").replace("\x00", "")).encode()
    (postback_id,) = world.dead("acme", 1)
    browser = visit("acme")
    pages = [
        browser.get(f"/customer/postbacks/{postback_id}").text,
        browser.get("/customer/postbacks", params={"q": "<script>alert(1)</script>"}).text,
        browser.get("/customer/").text,
    ]
    assert "alert(1)" in pages[0]
    for page in pages:
        assert "<script>alert" not in page
        assert is_harmless(page.replace("\t", ""))


def test_what_changes_anything_comes_from_our_own_page(world, visit):
    world.account("acme")
    browser = visit("acme", may_resend=True)
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ):
        for path in ("/customer/ping", "/customer/resend/start"):
            assert browser.post(path, headers=headers).status_code == 403
    assert browser.get("/customer/", headers={"Host": "evil.example"}).status_code == 421
    assert world.receiver.received == []


def test_the_zone_is_the_customers_own(world, visit):
    world.account("acme")
    browser = visit("acme")
    reply = browser.get("/customer/zone", params={"name": "Asia/Tokyo", "back": "/customer/urls"})
    assert (reply.status_code, reply.headers["Location"]) == (303, "/customer/urls")
    assert 'data-zone="Asia/Tokyo"' in browser.get("/customer/").text
    assert 'action="/customer/zone"' in browser.get("/customer/zone").text
