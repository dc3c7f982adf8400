"""Strangers' texts in the browser: answers, names, ids, tags, URLs and reasons that try to do something."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from events import MO
from harmless import EVIL
from helpers import eventually
from playwright.sync_api import Page, expect
from watch import TOO_WIDE, link_to

from postbacks import send_postback
from postbacks.devtools.receiver import Answer
from postbacks.history import Query
from postbacks.operate import all_incidents, pause_account, resume_account, start_resend

pytestmark = pytest.mark.browser
#: Each part sets a title or asks for something where it is obeyed.
MARKUP = (
    '"><img src=x onerror="document.title=1"><script>document.title=1</script>'
    "</pre></textarea></title><svg onload=document.title=1><iframe src=//evil.example></iframe>"
    "<style>*{display:none}</style><link rel=stylesheet href=//evil.example/x.css>"
    "<meta http-equiv=refresh content=0;url=//evil.example>{{7*7}}${7*7}javascript:alert(1)"
)
TURNED = "\u202egpj.exe\u202c \u2066isolated\u2069 \u200f\u061c"
LONG = "W" * 10_000
TEXT = MARKUP + TURNED + LONG
#: Ids are printable ASCII without spaces.
ID = 'x"><img/src=x/onerror=alert(1)>' + "W" * 200
NAME = "a" + "W" * 127
#: Elements that no page has of its own.
FOREIGN = "main :is(script, img, iframe, style, link, meta, object, embed, [onerror], [onload], [style])"


@pytest.fixture(scope="module")
def hostile(stage) -> dict[str, str]:
    """Pages that show what a receiver, a customer and a colleague have written."""
    body = (TEXT + EVIL.replace("\ud800", "")).encode()
    stage.account(
        NAME, Answer(503, body), url=stage.failing.url(f"/{NAME}?x=%22%3E%3Cimg%20src=x%3E" + "&q" * 500)
    )
    stage.answers[f"/{NAME}?x=%22%3E%3Cimg%20src=x%3E" + "&q" * 500] = Answer(503, body)
    send_postback.apply_async(args=[NAME, MO | {"TEXT": TEXT}], task_id=ID)
    stage.send(NAME, TRACKINGID=MARKUP[:200] + TURNED)
    stage.recorded(2, state="dead")
    (incident,) = eventually(all_incidents, 60, "an incident")
    pause_account(NAME, reason=MARKUP, by=MARKUP[:60])
    resume_account(NAME, why=TURNED + MARKUP, by="ann")
    pause_account(NAME, reason=(TURNED + MARKUP)[:500], by=MARKUP[:60])
    job = start_resend(Query(account=NAME, state="dead"), why=MARKUP, by=MARKUP[:60])
    return {
        "now": "/",
        "incident": f"/incidents/{incident.id}",
        "incidents": "/incidents",
        "postbacks": "/postbacks",
        "postback": f"/postbacks/{quote(ID, safe='')}",
        "story": f"/story/{quote(MARKUP[:200] + TURNED, safe='')}",
        "story-none": f"/story?value={quote(TEXT[:3000])}",
        "filter": f"/postbacks?q={quote('account:' + NAME + ' tracking-id:' + chr(34) + MARKUP[2:150].replace(chr(34), '') + chr(34))}",
        "mistake": f"/postbacks?q={quote(MARKUP + TURNED + 'W' * 3000)}",
        "account": f"/accounts/{NAME}",
        "accounts": f"/accounts?q={quote(MARKUP)}",
        "jobs": "/jobs",
        "job": f"/jobs/{job.id}",
        "journal": "/journal",
        "journal-filter": f"/journal?by={quote(MARKUP + TURNED)}",
        "missing": f"/no/{quote(MARKUP, safe='')}",
        "zone": f"/zone?back={quote(MARKUP)}",
        "login": f"/login?next={quote('//evil.example/' + MARKUP)}",
    }


PAGES = [
    *("now", "incident", "incidents", "postbacks", "postback", "story", "story-none", "filter", "mistake"),
    *("account", "accounts", "jobs", "job", "journal", "journal-filter", "missing", "zone", "login"),
]


def check_harmless(page: Page) -> None:
    """Check that a page has nothing of a stranger's but text, and keeps its form."""
    assert page.title().endswith("· postbacks")
    assert page.locator(FOREIGN).count() == 0
    text = page.locator("body").inner_text()
    assert not {"\u202e", "\u2066", "\u200f", "\x1b", "\x00"} & set(text)
    assert page.get_by_role("navigation").is_visible()
    assert page.evaluate(TOO_WIDE) == []


@pytest.mark.parametrize("name", PAGES)
def test_hostile_texts_are_shown_as_texts(desk, hostile, name):
    page = desk.page("admin", viewport={"width": 360, "height": 740})
    page.goto(hostile[name])
    for summary in page.locator("summary").all():
        summary.click()
    check_harmless(page)
    page.set_viewport_size({"width": 1280, "height": 740})
    check_harmless(page)


def test_a_hostile_document_is_revealed_harmlessly(desk, hostile):
    page = desk.page("admin", viewport={"width": 360, "height": 740})
    for button, words in (("Reveal", "<TEXT>"), ("Show as curl", "--data-binary")):
        page.goto(hostile["postback"])
        page.get_by_label("Why it is to be revealed").fill(MARKUP)
        page.get_by_role("button", name=button).click()
        main = page.get_by_role("main")
        expect(main).to_contain_text(words)
        expect(main).to_contain_text("&lt;script&gt;document.title=1")  # as XML has it
        check_harmless(page)


def test_a_hostile_answer_to_a_ping_is_shown_harmlessly(desk, hostile):
    page = desk.page("admin", viewport={"width": 360, "height": 740})
    page.goto(hostile["account"])
    page.get_by_role("button", name="Ping").click()
    expect(page.get_by_role("main")).to_contain_text("Not delivered")
    expect(page.get_by_role("main")).to_contain_text("<script>document.title=1</script>")
    check_harmless(page)


def test_a_hostile_selection_is_previewed_harmlessly(desk, hostile):
    page = desk.page("admin", viewport={"width": 360, "height": 740})
    page.goto("/postbacks")
    expect(link_to(page, quote(ID, safe="/")).or_(page.locator("[data-open]")).first).to_be_visible()
    page.get_by_role("checkbox", name="Select").first.check()
    page.get_by_role("button", name="Send again…").click()
    expect(page.get_by_role("heading", name="Send again")).to_be_visible()
    check_harmless(page)
