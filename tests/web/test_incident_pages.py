"""Pages of incidents, from the first failure to the resend of what died."""

from __future__ import annotations

import re
from datetime import UTC
from html import unescape

import pytest
from events import MT
from helpers import set_account

from postbacks import send_postback
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import UnknownIncident
from postbacks.operate import read_incident, read_job
from postbacks.operate.incidents.finder import Finder
from postbacks.settings import load
from postbacks.web import zones


class Finding:
    """Finder over a world, with its clock."""

    def __init__(self, world) -> None:
        self.world = world
        self.finder = Finder(world.recorder, world.client, world.settings)

    def watch(self, minutes: int) -> None:
        """Work and look for so many minutes."""
        for _ in range(minutes):
            self.world.rig.advance(60)
            self.finder.clock_offset_ms = self.world.rig.scripts.clock_offset_ms
            self.world.rig.tick()
            self.world.rig.deliver_lanes()
            self.world.record()
            self.finder.turn()


@pytest.fixture
def finding(world):
    """Account whose receiver has failed for six minutes, and of whose postbacks three have died."""
    world.account("acme")
    world.answers["/acme"] = 503
    for number in range(3):
        send_postback.delay("acme", MT | {"TRACKINGID": str(number)})
    world.rig.tick()
    world.rig.deliver_lanes()
    world.record()
    found = Finding(world)
    found.watch(6)
    return found


def recover(finding) -> None:
    """Let the receiver answer 200 until the incident has ended."""
    finding.world.answers["/acme"] = 200
    send_postback.delay("acme", MT | {"TRACKINGID": "well"})
    finding.watch(7)


def test_an_incident_is_listed_and_shows_reason_remedy_and_evidence(finding, browse):
    browser = browse()
    listed = browser.get("/incidents").text
    assert '<a href="/incidents/1" data-open>' in listed
    assert "it answers 503" in listed
    page = browser.get("/incidents/1").text
    assert "The receiver failed: look at its log." in page
    assert "First failure" in page
    assert page.count('class="bad" x=') == 3  # the strip has a bar a POST
    assert "<pre>oops</pre>" in page
    assert "What happens next" in page
    assert 'action="/accounts/acme/ping"' in page
    assert 'action="/accounts/acme/pause"' in page
    assert "opened" in page  # the notice


def test_times_within_sentences_are_in_the_zone_of_the_page(finding, browse):
    (account,) = read_incident(1).incident.accounts
    since_ms = read_incident(1).incident.since_ms
    in_utc, in_tokyo = (
        f"every attempt has failed since {zones.written(since_ms, zone, '%H:%M')} {name}"
        for zone, name in ((UTC, "UTC"), (zones.ZoneInfo("Asia/Tokyo"), "JST"))
    )
    browser = browse()

    def read(address: str) -> str:
        return re.sub(r"(yesterday|tomorrow) ", "", browser.get(address).text)

    addresses = ("/", "/incidents", "/incidents/1", f"/accounts/{account}")
    for address in addresses[1:]:
        assert in_utc in read(address)
    browser.get("/zone", params={"name": "Asia/Tokyo"})
    for address in addresses[1:]:
        assert in_tokyo in read(address)
    assert not any(" UTC" in read(address) for address in addresses)
    assert " UTC" in read_incident(1).incident.sentence  # what is stored, and the command line's


def form_of(page: str, address: str) -> dict[str, str]:
    """Read the hidden fields of the form that goes to an address."""
    form = page.split(f'action="{address}"')[1].split("</form>", maxsplit=1)[0]
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
    return {name: unescape(value) for name, value in hidden}


def test_after_recovery_what_died_is_resent_with_the_count_filled_in(finding, browse):
    assert "Resend what died" not in browse().get("/incidents/1").text
    recover(finding)
    browser = browse()
    page = browser.get("/incidents/1").text
    assert "Resend what died: 3 postbacks" in page
    asked = browser.post("/selection", data=form_of(page, "/selection")).text
    assert "3 postbacks will be sent again" in asked
    assert 'value="incident 1"' in asked
    fields = form_of(asked, "/selection/start")
    began = browser.post("/selection/start", data=fields | {"why": "ticket 812", "rate": "50"})
    assert began.status_code == 303
    job_id = began.headers["location"].removeprefix("/jobs/")
    job = read_job(job_id)
    assert (job.why, job.rate, job.query.account, job.query.state) == ("ticket 812", 50, "acme", "dead")
    finding.world.run(job)
    page = browser.get(f"/jobs/{job_id}").text
    assert "3 of 3 postbacks put back: 3 delivered, 0 failed" in page
    assert re.search(r'<a href="/postbacks\?q=[^"]*account%3Aacme', page)
    finding.world.record()
    page = browse().get("/incidents/1").text
    assert "Resend what died" not in page
    assert "None of what died is dead any more." in page


def test_a_mute_and_its_end(finding, browse):
    browser = browse()
    muted = browser.post("/incidents/1/mute", data={"until": "2h", "why": "rang +15559876501"})
    assert (muted.status_code, muted.headers["location"]) == (303, "/incidents/1")
    assert (
        read_incident(1).incident.mute_reason == "rang 1555…01 ·" + read_incident(1).incident.mute_reason[-4:]
    )
    assert "is-muted" in browser.get("/incidents/1").text
    wrong = browser.post("/incidents/1/mute", data={"until": ""})
    assert (wrong.status_code, "A mute needs its end" in wrong.text) == (400, True)
    assert "is no time to come" in browser.post("/incidents/1/mute", data={"until": "soon"}).text
    browser.post("/incidents/1/unmute", data={"why": "they do not"})
    assert read_incident(1).incident.muted_until_ms is None


def test_an_unknown_incident_is_404_and_none_says_what_finds_them(world, browse):
    browser = browse()
    for number in ("99", "99999999999999999999"):
        assert browser.get(f"/incidents/{number}").status_code == 404
    with pytest.raises(UnknownIncident):
        read_incident(99)
    assert "There was no incident yet" in browser.get("/incidents").text
    assert "No incident is open" in browser.get("/incidents?open=1").text


def test_a_live_part_of_what_stands_still_is_the_same(finding, browse):
    browser = browse()
    for address in ("/incidents", "/incidents/1"):
        part = browser.get(address, headers={"HX-Request": "true"})
        assert re.match(r"\s*<", part.text)
        assert "<html" not in part.text
        same = browser.get(address, headers={"HX-Request": "true", "If-None-Match": part.headers["etag"]})
        assert same.status_code == 304


def test_a_hostile_answer_is_shown_harmlessly(world, browse):
    hostile = "<script>alert(1)</script>\u202egnp.exe </pre><img src=x onerror=alert(2)>" + "x" * 10_000
    with Receiver(lambda _: Answer(503, hostile.encode())) as receiver:
        set_account("acme", url=receiver.url("/acme"))
        send_postback.delay("acme", MT)
        Finding(world).watch(7)
        browser = browse()
        pages = [browser.get("/incidents/1").text, browser.post("/accounts/acme/ping", data={}).text]
    for page in pages:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202egnp.exe &lt;/pre&gt;" in page
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "\u202e" not in page
        assert len(page) < 30_000


def test_the_oldest_postback_that_waits_says_why_and_when(world, browse, monkeypatch):
    monkeypatch.setenv("POSTBACKS_MAX_RESENDS", "5")
    load.cache_clear()
    monkeypatch.setattr(world.rig, "settings", load())
    world.account("acme")
    world.answers["/acme"] = 503
    postback_id = send_postback.delay("acme", MT).id
    Finding(world).watch(7)
    page = browse().get("/incidents/1").text
    assert f'<a href="/postbacks/{postback_id}" class="id">' in page
    assert re.search(
        r"attempt \d failed \(answered 503\); attempt \d of 6 is due at \d\d:\d\d:\d\d UTC", page
    )
    assert "the first postback dies, if nothing changes" in page
    assert "it ends once nothing of it has stood for 5 min" in page
    browser = browse()
    browser.get("/zone", params={"name": "Asia/Tokyo"})
    for address in ("/incidents/1", f"/postbacks/{postback_id}"):
        assert re.search(r"attempt \d of 6 is due at \d\d:\d\d:\d\d JST", browser.get(address).text)
