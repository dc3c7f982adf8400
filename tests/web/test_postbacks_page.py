"""Page *Postbacks*, its CSV, its completion, and jobs of what is selected."""

from __future__ import annotations

import csv
import html
import re
import shlex
from urllib.parse import parse_qs, urlsplit

import pytest
from events import MT, example

from postbacks import history, send_postback, send_postbacks
from postbacks.catalogue import EVENTS, event_type
from postbacks.operate import all_jobs, journal_entries, pause_account, read_job
from postbacks.operate.jobs.job import ENDED, Job
from postbacks.web.pages import postbacks as page_module
from postbacks.web.pages import selection

ID = re.compile(r'name="id" value="([^"]+)"')


@pytest.fixture(autouse=True)
def _nothing_is_shared(monkeypatch):
    """Let each look read anew."""
    monkeypatch.setattr(page_module, "ROWS_FRESH_S", 0.0)
    monkeypatch.setattr(page_module, "STRIP_FRESH_S", 0.0)
    monkeypatch.setattr(page_module, "NAMES_FRESH_S", 0.0)


def job_of(answer) -> Job:
    """Return the job to whose page an answer leads."""
    assert answer.status_code == 303, answer.text
    return read_job(answer.headers["Location"].removeprefix("/jobs/"))


def test_the_bar_finds_counts_and_says_its_command(world, browse):
    dead = world.dead("acme", 3)
    world.dead("globex", 1)
    page = browse().get("/postbacks", params={"q": "account:acme state:dead to:15552312102"})
    assert page.status_code == 200
    assert sorted(ID.findall(page.text)) == sorted(dead)
    assert "3 postbacks" in page.text
    command = html.unescape(re.search(r'<pre class="command">(.*?)</pre>', page.text)[1])
    assert shlex.split(command)[2:] == ["--account", "acme", "--state", "dead", "--number", "15552312102"]
    assert "1555…02" in page.text


def test_a_bad_word_is_a_sentence_on_the_page(world, browse):
    page = browse().get("/postbacks", params={"q": "acount:<b>acme"})
    assert page.status_code == 400
    assert "Did you mean account?" in page.text
    assert "<b>" not in page.text
    unknown = browse().get("/postbacks", params={"q": "code:N999"})
    assert unknown.status_code == 400
    assert "There is no code" in unknown.text


@pytest.mark.parametrize(
    ("typed", "bar"),
    [
        ("+1 (555) 231-2102", 'number:"+1 (555) 231-2102"'),
        ("TX-4711", "tracking-id:TX-4711"),
        ("acme", "account:acme"),
        ("acme since:2h", "account:acme since:2h"),
    ],
)
def test_a_value_from_a_mail_leads_to_its_postbacks(world, browse, typed, bar):
    world.account("acme")
    send_postback.delay("acme", MT | {"TRACKINGID": "TX-4711"})
    world.rig.tick()
    world.record()
    browser = browse()
    page = browser.get("/postbacks", params={"q": typed})
    assert page.status_code == 303
    assert parse_qs(urlsplit(page.headers["Location"]).query) == {"q": [bar]}
    assert len(ID.findall(browser.get(page.headers["Location"]).text)) == 1


def test_a_value_that_nothing_has_is_said_to_be_none(world, browse):
    world.dead("acme", 1)
    page = browse().get("/postbacks", params={"q": "4711 4712"})
    assert page.status_code == 400
    assert "No postback was found by any of these" in page.text
    assert "number:&#34;4711 4712&#34;" in page.text


def test_rows_of_a_paused_account_say_why_they_wait(world, browse):
    world.account("acme")
    pause_account("acme", reason="they move, ticket 4128", by="priya")
    send_postback.delay("acme", MT)
    world.rig.tick()
    browser = browse()
    page = browser.get("/postbacks", params={"q": "account:acme"}).text
    assert re.search(r"is paused since .* by priya \(they move, ticket 4128\); 1 wait", page)
    assert "is paused" not in browser.get("/postbacks").text


def test_a_click_chooses_yesterday(world, browse):
    world.dead("acme", 1)
    page = browse().get("/postbacks", params={"q": "account:acme dead since:2h"}).text
    assert "q=account%3Aacme+dead+since%3Ayesterday+until%3Ayesterday" in page
    chosen = browse().get("/postbacks", params={"q": "since:yesterday until:yesterday"}).text
    assert (
        '<a href="/postbacks?q=since%3Ayesterday+until%3Ayesterday" aria-current="true">yesterday</a>'
        in chosen
    )


def test_each_page_has_a_search_and_the_list_its_bar_alone(world, browse):
    world.record()
    browser = browse()
    for address in ("/", "/accounts", "/jobs"):
        assert browser.get(address).text.count("data-find") == 1
    assert "data-find" not in browser.get("/postbacks").text


def test_pages_follow_each_other_to_the_last(world, browse):
    world.account("acme")
    sent = send_postbacks("acme", [MT | {"TRACKINGID": str(n)} for n in range(page_module.ROWS + 3)])
    world.rig.tick()
    world.record()
    browser, found, address = browse(), [], "/postbacks?q=account%3Aacme"
    for _ in range(3):
        page = browser.get(address).text
        found += ID.findall(page)
        following = re.search(r'<a rel="next" href="([^"]+)"', page)
        if not following:
            break
        address = html.unescape(following[1])
    assert sorted(found) == sorted(sent)
    assert "First page" in page


def test_the_strip_narrows_down(world, browse):
    world.account("acme")
    first = send_postback.delay("acme", MT).id
    world.rig.tick()
    world.rig.scripts.clock_offset_ms += 60_000
    second = send_postback.delay("acme", MT).id
    world.rig.tick()
    world.record()
    browser = browse()
    page = browser.get("/postbacks", params={"q": "account:acme"}).text
    links = re.findall(r'<a href="([^"]+)"[^>]*><g><title>', page)
    assert len(links) == 2
    found = [ID.findall(browser.get(html.unescape(link)).text) for link in links]
    assert found == [[first], [second]]


def test_what_is_empty_says_which_filter_leaves_nothing(world, browse):
    world.dead("acme", 1)
    page = browse().get("/postbacks", params={"q": "account:acme state:delivered"})
    assert page.status_code == 200
    assert "none delivered" in page.text


def test_a_live_part_comes_once_and_then_304(world, browse):
    world.dead("acme", 1)
    browser = browse()
    part = browser.get("/postbacks", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    again = browser.get("/postbacks", headers={"HX-Request": "true", "If-None-Match": part.headers["ETag"]})
    assert again.status_code == 304


def test_an_id_in_the_bar_leads_to_its_page(world, browse):
    (postback_id,) = world.dead("acme", 1)
    answer = browse().get("/postbacks", params={"q": f" {postback_id}"})
    assert answer.headers["Location"] == f"/postbacks/{postback_id}"


def test_values_are_offered(world, browse):
    world.dead("acme", 1)
    browser = browse()
    assert 'value="account:acme"' in browser.get("/filter", params={"q": "account:a"}).text
    assert 'value="host:127.0.0.1"' in browser.get("/filter", params={"q": "host:"}).text
    assert 'value="state:"' in browser.get("/filter", params={"q": "st"}).text


def test_csv_has_all_that_match(world, browse, monkeypatch):
    monkeypatch.setattr(page_module, "PAGE", 2)
    dead = world.dead("acme", 5)
    world.dead("globex", 1)
    answer = browse().get("/postbacks.csv", params={"q": "account:acme"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Cache-Control"] == "no-store"
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert sorted(row["id"] for row in rows) == sorted(dead)
    assert {row["state"] for row in rows} == {"dead"}


def test_csv_of_opt_outs_is_a_proof_of_every_attempt_with_the_person_masked(world, browse):
    world.account("acme")
    event = example(event_type("SUB", "N302"))
    opt_out = send_postback.delay("acme", event).id
    send_postback.delay("acme", MT)
    world.rig.tick()
    while world.rig.deliver():
        pass
    world.record()
    browser = browse()
    assert "/postbacks.csv?q=opt-outs" in browser.get("/opt-outs").text
    answer = browser.get("/postbacks.csv", params={"q": "opt-outs since:24h"})
    (row,) = csv.DictReader(answer.text.splitlines())
    assert (row["id"], row["attempt"], row["outcome"], row["status"]) == (opt_out, "1", "delivered", "200")
    assert row["delivered"]
    assert "…" in row["person"]
    assert event["MOBILE"] not in answer.text


# -- jobs ------------------------------------------------------------------------------------------


def test_selected_ones_are_sent_again_after_it_was_said(world, browse):
    first, second, third = world.dead("acme", 3)
    browser = browse()
    asked = browser.post("/selection", data={"q": "account:acme", "kind": "resend", "id": [first, second]})
    assert asked.status_code == 200
    assert "2 postbacks will be sent again" in asked.text
    assert not all_jobs()
    job = job_of(
        browser.post(
            "/selection/start",
            data={
                "q": "account:acme",
                "kind": "resend",
                "id": [first, second],
                "total": "2",
                "why": "ticket 1",
            },
        )
    )
    assert (job.kind, job.ids, job.why) == ("resend", 2, "ticket 1")
    assert world.run(world.freeze(job)).state == ENDED
    assert [world.state(postback_id) for postback_id in (first, second, third)] == [
        "delivered",
        "delivered",
        "dead",
    ]


def test_a_resend_says_before_it_begins_which_account_is_not_well(world, browse):
    selected = {"q": "account:acme", "kind": "resend", "id": world.dead("acme", 2)}
    assert ">failing</a> since" in browse().post("/selection", data=selected).text
    pause_account("acme", reason="they move", by="priya")
    page = browse().post("/selection", data=selected).text
    assert re.search(r'acme: 2, and this account is <a href="/accounts/acme">paused</a> since', page)


def test_all_that_match_are_what_the_bar_found_then(world, browse):
    dead = world.dead("acme", 3)
    browser = browse()
    asked = browser.post("/selection", data={"q": "account:acme since:1h", "kind": "resend", "all": "1"})
    assert "3 postbacks will be sent again" in asked.text
    fixed = html.unescape(re.search(r'name="q" value="([^"]+)"', asked.text)[1])
    assert re.fullmatch(r"account:acme since:\S+Z until:\S+Z", fixed)
    later = world.dead("acme", 1)
    job = job_of(
        browser.post("/selection/start", data={"q": fixed, "kind": "resend", "all": "1", "total": "3"})
    )
    assert world.run(world.freeze(job)).total == 3
    assert {world.state(postback_id) for postback_id in dead} == {"delivered"}
    assert {world.state(postback_id) for postback_id in later} == {"dead"}


def test_many_want_their_number_typed(world, browse, monkeypatch):
    world.dead("acme", 1)
    browser = browse()
    fields = {"q": "account:acme", "kind": "resend", "all": "1", "total": "101"}
    refused = browser.post("/selection/start", data=fields)
    assert refused.status_code == 400
    assert "Type the number, 101" in refused.text
    assert not all_jobs()
    assert job_of(browser.post("/selection/start", data=fields | {"typed": "101"}))


def test_what_waits_is_cancelled(world, browse):
    world.account("acme")
    sent = [send_postback.delay("acme", MT).id for _ in range(2)]
    world.rig.tick()
    world.record()
    browser = browse()
    asked = browser.post("/selection", data={"q": "account:acme", "kind": "cancel", "all": "1"})
    assert "2 postbacks will not be sent any more" in asked.text
    fixed = html.unescape(re.search(r'name="q" value="([^"]+)"', asked.text)[1])
    job = job_of(
        browser.post("/selection/start", data={"q": fixed, "kind": "cancel", "all": "1", "total": "2"})
    )
    assert world.run(world.freeze(job)).state == ENDED
    assert {world.state(postback_id) for postback_id in sent} == {"cancelled"}


def test_nothing_selected_and_nothing_to_move_are_sentences(world, browse):
    world.dead("acme", 1)
    browser = browse()
    nothing = browser.post("/selection", data={"q": "", "kind": "resend"})
    assert nothing.status_code == 400
    assert "Nothing is selected" in nothing.text
    none = browser.post("/selection", data={"q": "account:acme", "kind": "cancel", "all": "1"})
    assert "Nothing of it can be cancelled" in none.text
    wrong = browser.post("/selection", data={"q": "state:waiting", "kind": "resend", "all": "1"})
    assert wrong.status_code == 400
    assert "cannot be sent again" in wrong.text


def test_support_sends_a_hundred_again_and_cancels_none(world, browse_as, monkeypatch):
    monkeypatch.setattr(selection, "SUPPORT_RESENDS_MAX", 2)
    dead = world.dead("acme", 3)
    browser = browse_as("support")
    too_many = browser.post("/selection", data={"q": "account:acme", "kind": "resend", "all": "1"})
    assert "may send up to 2 postbacks again" in too_many.text
    assert "/selection/start" not in too_many.text
    fields = {"q": "account:acme", "kind": "resend", "total": "1"}
    for chosen in ({"all": "1"}, {"id": dead}):
        refused = browser.post("/selection/start", data=fields | chosen)
        assert refused.status_code == 403
    assert not all_jobs()
    job = job_of(browser.post("/selection/start", data=fields | {"id": dead[:2]}))
    assert (job.by, job.ids) == ("ann-support", 2)
    assert browser.post("/selection", data=fields | {"kind": "cancel", "all": "1"}).status_code == 403
    assert journal_entries(action="resend")[0].by == "ann-support"


def test_a_viewer_selects_nothing(world, browse_as):
    world.dead("acme", 1)
    browser = browse_as("viewer")
    assert 'name="id"' not in browser.get("/postbacks").text
    assert browser.post("/selection", data={"q": "", "kind": "resend", "all": "1"}).status_code == 403


def test_events_of_the_catalogue_are_found_by_their_code(world, browse):
    """Codes that no postback has yet are known, too."""
    assert ("SUB", "N302") in EVENTS
    page = browse().get("/postbacks", params={"q": "code:N302"})
    assert page.status_code == 200
    assert history.count(history.Query(code="N302")).postbacks == 0
