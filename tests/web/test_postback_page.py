"""Pages *Postback* and *Story*: what is known of one postback and its message, and what can be done with it."""

from __future__ import annotations

import html
import re

import pytest
from events import MO, MT
from harmless import EVIL, is_harmless
from starlette.testclient import TestClient

from postbacks import keys, send_postback
from postbacks.ledger.phases import Phases
from postbacks.ledger.record import Attempt, Record, Resend
from postbacks.operate import journal_entries
from postbacks.web.charts import course
from postbacks.web.documents import highlighted
from postbacks.web.lifeline import Step, diagram, posts_of, steps_of

HOSTILE = "</pre><script>alert(1)</script>\" onload='x" + EVIL.replace("\ud800", "").replace("\x00", "")


def read(browser: TestClient, postback_id: str, **query: str) -> str:
    page = browser.get(f"/postbacks/{postback_id}", params=query)
    assert page.status_code == 200, page.text
    return page.text


def shown(page: str) -> str:
    """Return a page's text without its markup."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def test_a_dead_one_shows_its_life_its_attempts_and_why(world, browse):
    (postback_id,) = world.dead("acme", 1)
    page = read(browse(), postback_id)
    text = shown(page)
    assert "answered 503; only 200 counts" in text
    assert "oops" in text
    assert world.receiver.url("/acme") in text
    assert 'class="node been now is-dead"' in page
    assert re.search(r"waiting at \d\d:\d\d:\d\d, then sending at \d\d:\d\d:\d\d, then dead at", page)
    assert "Why has it not been sent?" not in text
    assert "POST 1: 503 after" in text, "its story stands beside it"
    assert "1555…02" in text
    assert "15552312102" not in page


COURSE = r"connect [\d,]+ ms, wait [\d,]+ ms, read [\d,]+ ms, to 127\.0\.0\.1"


def test_an_attempt_shows_its_phases_in_words_and_as_a_bar(world, browse):
    """From the broker and from the history; the bar says nothing that the words do not."""
    (postback_id,) = world.dead("acme", 1)
    pages = [read(browse(), postback_id)]
    world.leave([postback_id])
    pages.append(read(browse(), postback_id))
    for page in pages:
        assert re.search(COURSE, shown(page))
        (bar,) = re.findall(r'<svg class="course" aria-hidden="true".*?</svg>', page)
        assert re.findall(r'class="(\w+)" x=', bar) == ["connect", "wait", "read"]
        assert "style" not in bar
    assert "the history, recorded until" in pages[1]


def test_an_attempt_without_phases_has_no_bar(world, browse):
    """Draw none of a note of version 0.1.0."""
    world.account("acme")
    postback_id = send_postback.delay("acme", MT).id
    world.rig.tick()
    world.rig.deliver()
    (attempt,) = world.rig.record(postback_id).attempts
    note = attempt._replace(phases=None, address="").to_json()
    world.rig.client.hset(keys.record(postback_id), "attempt:1", note)
    page = read(browse(), postback_id)
    assert "delivered 200" in shown(page)
    assert 'class="course"' not in page


def test_bars_of_a_postbacks_attempts_have_one_scale():
    """The longest attempt takes the whole width; a phase of no time is still to be seen."""
    wide = str(course(Phases(0, 5, None, 995), 1000))
    small = str(course(Phases(0, 5, None, 5), 1000))
    ends = [
        float(x) + float(width)
        for chart in (wide, small)
        for x, width in re.findall(r'x="([\d.]+)" width="([\d.]+)"', chart)[-1:]
    ]
    assert 285 < ends[0] <= 300
    assert ends[1] < 15
    assert all(float(width) > 0 for width in re.findall(r'width="([\d.]+)"', wide + small))
    assert "<title>wait 995 ms</title>" in wide


def test_one_that_waits_says_why_it_has_not_been_sent(world, browse):
    world.account("acme")
    sent = [send_postback.delay("acme", MT).id for _ in range(3)]
    world.rig.tick()
    page = read(browse(), sent[2])
    assert "Why has it not been sent?" in page
    assert "its lane is ready" in page
    assert "data-live" in page
    assert "comes a few seconds after it" in page, "the history has not read it yet"
    part = browse().get(f"/postbacks/{sent[2]}", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert "its lane is ready" in part.text


def test_an_id_that_nobody_has_is_not_there(world, browse):
    page = browse().get("/postbacks/7c0e1f3a-1111-4222-8333-444455556666")
    assert page.status_code == 404
    assert "never existed" in page.text


def test_one_that_has_left_the_broker_comes_from_the_history(world, browse):
    postback_ids = world.dead("acme", 1)
    world.leave(postback_ids)
    text = shown(read(browse(), postback_ids[0]))
    assert "the history, recorded until" in text
    assert "answered 503" in text


def test_resend_and_cancel(world, browse):
    (postback_id,) = world.dead("acme", 1)
    browser = browse()
    assert "data-resend" in read(browser, postback_id)
    answer = browser.post(f"/postbacks/{postback_id}", data={"do": "resend", "why": "ticket 1"})
    assert answer.status_code == 303
    assert "It was put back, to be sent again." in browser.get(answer.headers["Location"]).text
    assert world.state(postback_id) == "waiting"
    answer = browser.post(f"/postbacks/{postback_id}", data={"do": "cancel", "why": "ticket 2"})
    assert "It is cancelled." in browser.get(answer.headers["Location"]).text
    assert world.state(postback_id) == "cancelled"
    again = browser.post(f"/postbacks/{postback_id}", data={"do": "resend"})
    assert again.status_code == 400
    assert "is cancelled; only a dead or skipped one" in again.text
    written = {entry.action: (entry.subject, entry.why) for entry in journal_entries()}
    assert written["resend"] == (postback_id, "ticket 1")
    assert written["cancel"] == (postback_id, "ticket 2")


def test_reveal_wants_a_reason_that_the_journal_has(world, browse):
    (postback_id,) = world.dead("acme", 1)
    browser = browse()
    for why in ("", "  "):
        refused = browser.post(f"/postbacks/{postback_id}", data={"do": "reveal", "why": why})
        assert refused.status_code == 400
        assert "15552312102" not in refused.text
    assert not journal_entries(action="reveal")
    revealed = browser.post(f"/postbacks/{postback_id}", data={"do": "reveal", "why": "ticket 4711"})
    assert "15552312102" in revealed.text
    assert "data-live" not in revealed.text
    (entry,) = journal_entries(action="reveal")
    assert (entry.subject, entry.why, entry.by) == (postback_id, "ticket 4711", "ann")
    assert "15552312102" not in read(browser, postback_id), "the next look is masked again"


def test_curl_is_the_command_lines(world, browse):
    (postback_id,) = world.dead("acme", 1)
    page = browse().post(f"/postbacks/{postback_id}", data={"do": "curl", "why": "for their developer"})
    command = html.unescape(
        re.search(r'<pre class="command" tabindex="0">(.*?)</pre>', page.text, re.DOTALL)[1]
    )
    assert command.startswith(f"# POST 1 of postback {postback_id}")
    assert "--data-binary @-" in command
    assert "<TO>15552312102</TO>" in command
    assert journal_entries(action="reveal")


def test_each_act_has_its_role(world, browse_as):
    (postback_id,) = world.dead("acme", 1)
    viewer, support = browse_as("viewer"), browse_as("support")
    assert '<form method="post" action="/postbacks' not in viewer.get(f"/postbacks/{postback_id}").text
    for what in ("resend", "cancel", "reveal", "curl"):
        assert viewer.post(f"/postbacks/{postback_id}", data={"do": what, "why": "x"}).status_code == 403
    assert support.post(f"/postbacks/{postback_id}", data={"do": "cancel", "why": "x"}).status_code == 403
    assert support.post(f"/postbacks/{postback_id}", data={"do": "forget", "why": "x"}).status_code == 400
    assert world.state(postback_id) == "dead"
    assert support.post(f"/postbacks/{postback_id}", data={"do": "resend"}).status_code == 303
    assert journal_entries(action="resend")[0].by == "ann-support"


# -- hostile texts ---------------------------------------------------------------------------------


@pytest.fixture
def hostile_id(world) -> str:
    """Dead postback whose receiver has answered what a browser or a terminal would obey, and whose document has it."""
    world.body = HOSTILE.encode() + b"x" * 10_000
    world.account("acme")
    world.answers["/acme"] = 500
    text = "</XML><script>alert(2)</script>\u202e" + "y" * 7000
    postback_id = send_postback.delay("acme", MO | {"TEXT": text}).id
    world.rig.tick()
    while world.rig.deliver():
        pass
    world.record()
    assert world.state(postback_id) == "dead"
    return postback_id


def test_hostile_answers_and_documents_are_harmless_everywhere(world, browse, hostile_id):
    browser = browse()
    pages = [
        browser.get(f"/postbacks/{hostile_id}"),
        browser.post(f"/postbacks/{hostile_id}", data={"do": "reveal", "why": HOSTILE}),
        browser.post(f"/postbacks/{hostile_id}", data={"do": "curl", "why": "x"}),
        browser.get("/postbacks"),
        browser.post("/selection", data={"q": "account:acme", "kind": "resend", "id": hostile_id}),
        browser.get(f"/story/{hostile_id}"),
        browser.post(f"/story/{hostile_id}", data={"why": "x"}),
        browser.get("/postbacks", params={"q": HOSTILE}),
        browser.get("/postbacks", params={"q": f'tracking-id:"{HOSTILE[:20]}"'}),
        browser.get("/filter", params={"q": HOSTILE}),
        browser.get("/story", params={"value": ""}),
        browser.get(f"/story/{HOSTILE[:30].replace('/', '')}"),
    ]
    for page in pages:
        assert page.status_code in {200, 400, 404}, page.text
        assert "<script>alert" not in page.text
        assert "onload='" not in page.text
        assert is_harmless(page.text.replace("\t", "")), page.url
    assert "alert(1)" in pages[0].text, "the answer is shown, as text"
    assert "alert(2)" not in pages[0].text, "the person's words are masked"
    assert "alert(2)" in pages[1].text, "and revealed as text"
    assert "\\u202e" in pages[0].text


def test_a_document_is_an_element_a_line_and_all_of_it_is_escaped():
    document = b"<?xml version='1.0'?>\n<POSTBACK><ORIGIN>SMS_MO</ORIGIN><CONTENT><FILE>a&lt;b</FILE></CONTENT><E/></POSTBACK>"
    text = html.unescape(re.sub(r"<[^>]*>", "", str(highlighted(document))))
    assert text.split("\n") == [
        "<?xml version='1.0'?>",
        "<POSTBACK>",
        "  <ORIGIN>SMS_MO</ORIGIN>",
        "  <CONTENT>",
        "    <FILE>a&lt;b</FILE>",
        "  </CONTENT>",
        "  <E/>",
        "</POSTBACK>",
    ]
    for hostile in (
        b"<script>alert(1)</script>",
        b"(12 bytes) <b onclick=x>\xe2\x80\xae\x00",
        b"\xff<" * 20,
        b"<A" * 9000,
    ):
        shown_document = str(highlighted(hostile))
        assert "<script" not in shown_document
        assert "<b " not in shown_document
        assert is_harmless(shown_document)


# -- life ------------------------------------------------------------------------------------------


def record_of(
    state: str, *attempts: Attempt, ended_ms: int | None = None, resends: tuple[Resend, ...] = ()
) -> Record:
    return Record(
        id="p", state=state, account="acme", group="mt", origin="SMS_MT", code="N201", url="http://h/", xml=b"",
        created_ms=1000, sequence=1, reason="", attempts=attempts, failures=0, next_ms=None, ended_ms=ended_ms, raw=None,
        resends=resends,
    )  # fmt: skip


FAILED = [Attempt(number, number * 10_000, "status", 503, 100) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("record", "steps"),
    [
        (record_of("waiting"), ["waiting"]),
        (record_of("held"), ["waiting"]),
        (record_of("sending"), ["waiting", "sending"]),
        (record_of("skipped", ended_ms=1000), ["waiting", "skipped"]),
        (record_of("parked"), ["waiting", "parked"]),
        (record_of("parked", FAILED[0]), ["waiting", "sending", "parked"]),
        (record_of("delivered", Attempt(1, 2000, "delivered", 200, 5), ended_ms=2005), ["waiting", "sending", "delivered"]),
        (
            record_of("dead", *FAILED[:2], ended_ms=20_100),
            ["waiting", "sending", "parked", "waiting", "sending", "dead"],
        ),
        (record_of("cancelled", FAILED[0], ended_ms=15_000), ["waiting", "sending", "cancelled"]),
        (
            record_of("waiting", FAILED[0], resends=(Resend(1, 15_000, "ann", ""),)),
            ["waiting", "sending", "dead", "waiting"],
        ),
        (
            record_of("dead", *FAILED[:2], ended_ms=20_100, resends=(Resend(1, 15_000, "ann", ""),)),
            ["waiting", "sending", "dead", "waiting", "sending", "dead"],
        ),
        (
            record_of("dead", FAILED[0], ended_ms=10_100, resends=(Resend(0, 5000, "ann", ""),)),
            ["waiting", "dead", "waiting", "sending", "dead"],
        ),
        (record_of("forgotten", FAILED[0], ended_ms=20_000), ["waiting", "sending", "parked", "forgotten"]),
    ],
)  # fmt: skip
def test_a_life_is_told_by_its_attempts_and_resends(record, steps):
    found = steps_of(record)
    assert [step.state for step in found] == steps
    assert [step.at_ms for step in found] == sorted(step.at_ms for step in found)
    drawn = str(diagram(found, 60_000, str))
    assert drawn.count(" now ") == 1
    assert "been now" in drawn


def test_phases_of_an_attempt_are_the_wait_and_the_post():
    record = record_of("dead", *FAILED, resends=(Resend(2, 25_000, "ann", ""),))
    assert [(post.waited_ms, post.attempt.elapsed_ms, post.is_resent) for post in posts_of(record)] == [
        (9000, 100, False),
        (9900, 100, False),
        (5000, 100, True),
    ]


def test_the_diagram_says_how_long_each_state_has_lasted():
    drawn = str(
        diagram(
            [Step("waiting", 0), Step("sending", 2000), Step("parked", 2300)], 62_300, lambda ms: f"at {ms}"
        )
    )
    assert ">2 s<" in drawn
    assert ">300 ms<" in drawn
    assert ">1 min<" in drawn


# -- story -----------------------------------------------------------------------------------------


def test_a_story_is_told_by_tracking_id(world, browse):
    world.dead("acme", 2)
    browser = browse()
    answer = browser.get("/story", params={"value": "1"})
    assert answer.headers["Location"] == "/story/1"
    page = browser.get("/story/1")
    assert "POST 1: 503 after" in page.text
    assert "15552312102" not in page.text
    assert "TRACKINGID" in page.text
    missing = browser.get("/story/none%2Fof%20these")
    assert missing.status_code == 404
    assert "no postback" in missing.text


def test_a_story_is_revealed_with_a_reason(world, browse, browse_as):
    world.dead("acme", 2)
    refused = browse().post("/story/1", data={"why": " "})
    assert refused.status_code == 400
    revealed = browse_as("support").post("/story/1", data={"why": "ticket 812"})
    assert "15552312102" in revealed.text
    (entry,) = journal_entries(action="reveal")
    assert (entry.subject, entry.why, entry.by) == ("1", "ticket 812", "ann-support")
    assert browse_as("viewer").post("/story/1", data={"why": "x"}).status_code == 403


def test_ids_of_any_form_have_a_page(world, browse):
    """An id is 1 to 255 printable ASCII characters, slashes and question marks among them."""
    world.account("acme")
    postback_id = 'a/b?c#d"<e>&'
    send_postback.apply_async(args=["acme", MT | {"TRACKINGID": "t/1?x"}], task_id=postback_id)
    world.rig.tick()
    world.record()
    assert world.client.exists(keys.record(postback_id))
    browser = browse()
    (link,) = re.findall(r'data-open href="([^"]+)"', browser.get("/postbacks").text)
    page = browser.get(html.unescape(link))
    assert page.status_code == 200
    assert html.escape(postback_id, quote=False).replace('"', "&#34;") in page.text
    story = browser.get("/story", params={"value": "t/1?x"})
    assert browser.get(story.headers["Location"]).status_code == 200
