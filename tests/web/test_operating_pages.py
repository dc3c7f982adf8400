"""Pages of jobs, the journal, the system, accounts and opt-outs."""

from __future__ import annotations

import re

import pytest
from events import MO, MT
from helpers import remove_account, set_account

from postbacks import send_postback
from postbacks.history import Query
from postbacks.ledger.journal import REFUSED
from postbacks.operate import journal, paused_accounts, read_job, start_resend
from postbacks.web.security import passwords, users
from postbacks.web.security.roles import ROLES

# -- jobs ------------------------------------------------------------------------------------------

ROWS = re.compile(r'<tr data-row="(.*?)"')


def test_a_job_shows_its_progress_and_its_parts_and_can_be_paused_resumed_and_stopped(world, browse):
    world.dead("acme", 3)
    world.dead("beta", 2)
    browser = browse()
    job = world.freeze(start_resend(Query(state="dead"), why="their gateway was down"))
    listed = browser.get("/jobs").text
    assert f'<a href="/jobs/{job.id}" data-open>' in listed
    assert "their gateway was down" in listed
    address = f"/jobs/{job.id}"
    assert browser.post(f"{address}/pause", data={"why": "not now"}).headers["location"] == address
    page = browser.get(address).text
    assert "is-paused" in page
    assert "by ann" in page
    browser.post(f"{address}/resume", data={"why": ""})
    assert read_job(job.id).state == "running"
    refused = browser.post(f"{address}/resume", data={"why": ""})
    assert (refused.status_code, "nothing of it is paused" in refused.text) == (400, True)
    browser.post(f"{address}/pause", data={"why": ""})
    browser.post(f"{address}/stop", data={"why": "enough"})
    assert read_job(job.id).state == "stopped"
    page = browser.get(address).text
    assert "Stopped by ann: enough." in page
    assert f'action="{address}/stop"' not in page
    assert '<a href="/accounts/beta">beta</a>' in page


def test_no_job_says_how_one_begins_and_an_unknown_one_is_404(world, browse):
    browser = browse()
    assert "select them on" in browser.get("/jobs").text
    assert browser.get("/jobs/nine").status_code == 404


# -- journal ---------------------------------------------------------------------------------------


def test_the_journal_is_filtered_and_says_where_older_entries_are(world, browse):
    for number in range(103):
        journal.write("account.set", "acme", why=f"ticket {number}", details={"rate": "20/s"}, by="ann")
    journal.write("resend", "x1", why="<script>alert(1)</script>", details={"account": "beta"}, by="bob")
    world.record()
    browser = browse()
    page = browser.get("/journal").text
    assert page.count("<tr data-row") == 100
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    older = page.split('<p><a href="')[1].split('"')[0].replace("&amp;", "&")
    assert "ticket 0" in browser.get(older).text
    assert browser.get("/journal?by=bob").text.count("<tr data-row") == 1
    assert browser.get("/journal?account=beta&action=resend&since=2h").text.count("<tr data-row") == 1
    assert "no such entry" in browser.get("/journal?by=nobody").text
    assert browser.get("/journal?until=yesterday").text.count("<tr data-row") == 0
    assert "is no time: try" in browser.get("/journal?since=soon").text


def test_an_empty_journal_says_what_comes_here(world, browse):
    assert "The journal has no entry yet" in browse().get("/journal").text


# -- system ----------------------------------------------------------------------------------------


def test_the_system_says_who_works_how_full_the_broker_is_and_how_far_back_one_sees(world, browse):
    world.dead("acme", 1)
    page = browse().get("/system").text
    assert "none is heard of" in page  # no worker runs here
    assert "the last one finished" in page
    assert "Postbacks back to</dt><dd><time" in page
    assert "1 dead" in page
    assert 'aria-label="Memory of the broker"' in page


def test_the_system_without_a_history_says_so(world, browse):
    page = browse(history_url="").get("/system")
    assert (page.status_code, "none is set (POSTBACKS_HISTORY_URL)" in page.text) == (200, True)


# -- accounts --------------------------------------------------------------------------------------


def test_accounts_show_their_health_and_are_filtered(world, browse):
    world.dead("acme", 2)
    world.account("beta")
    send_postback.delay("beta", MT)
    world.rig.tick()
    world.rig.deliver()
    world.record()
    browser = browse()
    page = browser.get("/accounts").text
    assert page.count("<tr data-row") == 2
    assert "is-failing" in page
    assert "100.0%" in page
    assert browser.get("/accounts?ill=1").text.count("<tr data-row") == 1
    assert browser.get("/accounts?q=BET").text.count("<tr data-row") == 1
    assert "None of the 2 accounts fits" in browser.get("/accounts?q=nine").text


def test_accounts_are_ordered_by_what_one_looks_for(world, browse):
    world.dead("acme", 1)
    world.dead("beta", 2)
    browser = browse()
    assert ROWS.findall(browser.get("/accounts").text) == ["acme", "beta"]
    page = browser.get("/accounts?by=dead&q=a").text
    assert ROWS.findall(page) == ["beta", "acme"]
    assert 'href="/accounts?q=a&amp;by=open"' in page
    assert browser.get("/accounts?by=__class__").status_code == 200


def test_an_account_shows_its_rates_its_limits_its_secrets_by_name_and_its_changes(world, browse):
    world.dead("acme", 2)
    set_account("acme", url="https://bob:hunter2@acme.example/?key=k3y", rate="20/s", max_transfers=4)
    journal.write("account.set", "acme", why="ticket 812", details={"rate": "20/s"}, by="bob")
    world.record()
    page = browse().get("/accounts/acme").text
    assert "<b>2</b>accepted" in page
    assert "<b>0.0%</b>delivered at the first try" in page
    assert "20/s" in page
    assert "4 POSTs" in page
    assert "hunter2" not in page
    assert "k3y" not in page
    assert "its POSTs are not signed" in page
    assert "ticket 812" in page
    assert "every attempt of group mt has failed since" in page


def test_a_backlog_tells_when_it_ends_at_the_present_rate(world, browse):
    world.account("acme")
    for number in range(20):
        send_postback.delay("acme", MT | {"TRACKINGID": str(number)})
    world.rig.tick()
    world.rig.deliver()
    send_postback.delay("acme", MT)
    world.rig.tick()
    world.record()
    assert "At the present rate" in browse().get("/accounts/acme").text


def test_an_account_is_paused_and_resumed_and_leads_back_to_where_the_form_was(world, browse):
    world.account("acme")
    browser = browse()
    paused = browser.post(
        "/accounts/acme/pause", data={"until": "2h", "why": "they move", "back": "/incidents/1"}
    )
    assert (paused.status_code, paused.headers["location"]) == (303, "/incidents/1")
    pause = paused_accounts()["acme"]
    assert (pause.reason, pause.by) == ("they move", "ann")
    page = browser.get("/accounts/acme").text
    assert "they move" in page
    away = browser.post("/accounts/acme/resume", data={"why": "", "back": "https://elsewhere.example/"})
    assert away.headers["location"] == "/"
    assert paused_accounts() == {}
    assert browser.post("/accounts/acme/pause", data={"until": "yesterday"}).status_code == 400
    assert browser.post("/accounts/nine/pause", data={}).status_code == 404


def test_an_action_whose_entry_the_log_alone_has_says_so(world, browse, monkeypatch):
    world.account("acme")
    monkeypatch.setattr(journal, "append", lambda *_: REFUSED)
    browser = browse()
    address = browser.post("/accounts/acme/pause", data={"why": "they move"}).headers["location"]
    assert address == "/accounts/acme?logged_only=1"
    assert "the journal could not be written" in browser.get(address).text
    assert "could not be written" not in browser.get("/accounts/acme").text


def test_a_ping_shows_its_steps_and_what_to_mend(world, browse):
    world.account("acme")
    browser = browse()
    assert "Delivered: answered 200" in browser.post("/accounts/acme/ping", data={}).text
    world.answers["/acme"] = 404
    page = browser.post("/accounts/acme/ping", data={"back": "/incidents/1"}).text
    assert "The path is not one that the receiver knows" in page
    assert '<a href="/incidents/1">Back</a>' in page
    assert "<pre>oops</pre>" in page


def test_no_account_says_how_one_is_made_and_an_unknown_one_is_404(world, browse):
    browser = browse()
    assert "There is no account yet" in browser.get("/accounts").text
    assert browser.get("/accounts/nine").status_code == 404
    assert browser.get("/accounts/n%20ine").status_code == 400
    world.dead("gone", 1)
    remove_account("gone")
    assert "the store does not have this account any more" in browser.get("/accounts/gone").text


# -- opt-outs --------------------------------------------------------------------------------------


def test_opt_outs_stand_by_their_age_against_the_limit(world, browse):
    world.account("acme")
    world.answers["/acme"] = 503
    ids = [send_postback.delay("acme", MO | {"FROM": f"1555231210{number}"}).id for number in range(2)]
    world.rig.tick()
    world.rig.deliver()
    world.answers["/acme"] = 200
    send_postback.delay("acme", MO | {"FROM": "15552312109"})
    world.rig.tick()
    world.rig.deliver()
    world.record()
    page = browse().get("/opt-outs").text
    assert "No opt-out is late." in page
    assert sum(f'<tr data-row="{postback_id}">' in page for postback_id in ids) == 2
    assert page.count("<tr data-row") == 2
    assert "<b>1</b>delivered" in page
    assert "0 ms to 3 min 45 s" not in page  # whole minutes alone
    assert page.index(ids[0]) < page.index(ids[1])
    late = browse(opt_out_late_s=0.001).get("/opt-outs").text
    assert "2 opt-outs are not delivered in time" in late
    assert "2 of them dead" in late
    assert '<td class="n bad"' in late


def test_no_opt_out_says_that_all_are_delivered(world, browse):
    assert "Every opt-out that history knows is delivered" in browse().get("/opt-outs").text


# -- roles -----------------------------------------------------------------------------------------

#: Address of a form -> the role that it takes.
ROLE_OF = {
    "/accounts/acme/ping": "support",
    "/accounts/acme/pause": "operator",
    "/accounts/acme/resume": "operator",
    "/incidents/1/mute": "operator",
    "/incidents/1/unmute": "operator",
    "/jobs/nine/pause": "operator",
    "/jobs/nine/resume": "operator",
    "/jobs/nine/stop": "operator",
}


@pytest.mark.parametrize("role", ROLES)
def test_a_form_is_for_those_who_have_its_role_and_others_do_not_see_it(world, browse, tmp_path, role):
    path = tmp_path / "users"
    users.write(path, "ann", role, passwords.hashed("correct horse battery"))
    browser = browse(web_users=str(path), web_key="k" * 16)
    browser.post("/login", data={"name": "ann", "secret": "correct horse battery"})
    world.account("acme")
    may = {address: ROLES.index(role) >= ROLES.index(of) for address, of in ROLE_OF.items()}
    page = browser.get("/accounts/acme").text
    for address in ("/accounts/acme/ping", "/accounts/acme/pause"):
        assert (f'action="{address}"' in page) is may[address]
    for address, is_allowed in may.items():
        assert (browser.post(address, data={"until": "2h"}).status_code != 403) is is_allowed, address
