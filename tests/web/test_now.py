"""Page *Now*: the sentence of health, the last hour, incidents, what waits and jobs."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from events import MT
from helpers import refusing_port, set_account
from operate.incident_world import IncidentWorld

from postbacks import send_postback
from postbacks.history import Query
from postbacks.monitor import health
from postbacks.operate import start_resend
from postbacks.web import facts, render
from postbacks.web.pages import accounts, incidents, jobs, now, opt_outs, postbacks, system

LIVE = {"HX-Request": "true"}


def test_the_first_page_says_how_it_is(world, browse):
    world.rig.tick()
    page = browse().get("/")
    assert page.status_code == 200
    assert "the last tick finished" in page.text
    assert 'aria-current="page">Now' in page.text
    for words in ("No incident is open.", "Nothing waits for its turn.", "No job runs."):
        assert words in page.text


def test_the_last_hour_counts_delivered_late_and_failed(world, browse):
    world.dead("down", 3)
    world.account("acme")
    for _ in range(2):
        send_postback.delay("acme", MT)
    world.rig.tick()
    while world.rig.deliver():
        pass
    world.record()
    page = browse().get("/").text
    assert "2 delivered, 0 late, 3 failed, 0 open." in page
    assert page.count("<g>") == 60
    assert '<rect class="bad"' in page


def test_what_waits_stands_by_group_with_the_age_of_the_oldest(world, browse):
    world.account("acme")
    for _ in range(4):
        send_postback.delay("acme", MT)
    world.rig.tick()
    page = browse().get("/").text
    assert '<td class="lead" data-label="Group">mt</td>\n<td data-label="Wait" class="n">4</td>' in page
    assert '<td data-label="In lane">acme/mt</td>' in page


def test_a_job_that_runs_is_shown_with_its_counts(world, browse):
    world.dead("acme", 3)
    job = start_resend(Query(account="acme", state="dead"), why="<b>fixed</b>", by="ann")
    page = browse().get("/").text
    assert f'href="/jobs/{job.id}"' in page
    assert "ann" in page
    assert "No job runs." not in page


def test_the_live_part_comes_once_and_then_304(world, browse):
    world.rig.tick()
    browser = browse()
    part = browser.get("/", headers=LIVE)
    assert part.status_code == 200
    assert "<html" not in part.text
    again = browser.get("/", headers=LIVE | {"If-None-Match": part.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    weak = {"If-None-Match": f"W/{part.headers['ETag']}"}  # as a proxy that compresses gives it
    assert browser.get("/", headers=LIVE | weak).status_code == 304
    assert browser.get("/", headers=LIVE | {"If-None-Match": '"another"'}).status_code == 200


def test_an_idle_system_answers_304_whatever_the_age_of_its_last_tick(world, browse, monkeypatch):
    """Look at an idle system again and again; each look reads anew, as the one before is too old."""
    monkeypatch.setattr(facts, "FRESH_S", 0.0)
    for page in (now, postbacks, accounts, incidents, jobs, opt_outs, system):
        for name in ("FRESH_S", "ROWS_FRESH_S", "STRIP_FRESH_S", "_FRESH_S", "_LATEST_S"):
            if hasattr(page, name):
                monkeypatch.setattr(page, name, 0.0)
    world.dead("acme", 2)
    browser, etags = browse(), {}
    # However long the looks take here, they are of one minute, and the tick was just now.
    minute_ms = time.time_ns() // 60_000_000_000 * 60_000
    monkeypatch.setattr(now, "time", SimpleNamespace(time=lambda: minute_ms / 1000 + 59))
    monkeypatch.setattr(health, "_MOMENT_S", 600)
    monkeypatch.setattr(render, "steady_now_ms", lambda ms, _now_ms: max(ms, minute_ms))
    for look in range(4):
        world.rig.tick()
        world.record()
        for address in (
            "/",
            "/postbacks",
            "/accounts",
            "/accounts/acme",
            "/incidents",
            "/jobs",
            "/opt-outs",
            "/system",
        ):
            part = browser.get(address, headers=LIVE | {"If-None-Match": etags.get(address, "")})
            assert part.status_code == (304 if look else 200), (address, part.text)
            etags[address] = part.headers["ETag"]


def test_without_broker_or_history_the_page_says_so(browse):
    page = browse(broker_url="redis://127.0.0.1:1/0", broker_timeout_s=0.5)
    text = page.get("/")
    assert text.status_code == 200
    assert "Our side is not well: " in text.text
    assert "No history is set" in text.text


@pytest.fixture
def failing(broker, tmp_path, monkeypatch):
    """System whose clock moves on, so that incidents open."""
    made = IncidentWorld(broker, f"sqlite:///{tmp_path}/history.db", monkeypatch)
    yield made
    made.close()


def test_an_open_incident_says_since_when_why_and_how_many_wait_and_died(failing, browse):
    set_account("acme", url=f"http://127.0.0.1:{refusing_port()}/")
    for _ in range(3):
        send_postback.delay("acme", MT)
    failing.watch(8)
    (incident,) = failing.incidents()
    page = browse(history_url=failing.settings.history_url).get("/").text
    assert f'href="/incidents/{incident.id}"' in page
    assert 'href="/accounts/acme"' in page
    assert "the connection was refused" in page
    assert "every attempt has failed since" not in page  # that stands in the columns
    assert "No incident is open." not in page
    assert page.index("1 incident is open</a>; the oldest began") < page.index("Our side is")
    assert "3 wait for the next try: " in page
