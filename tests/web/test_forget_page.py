"""Pages that forget a person: counts first, the number typed twice, and in no page and no address."""

from __future__ import annotations

import re

import pytest
from events import MT
from helpers import eventually

from postbacks import send_postback
from postbacks.operate import journal_entries
from postbacks.operate.forget.duty import ForgetDuty
from postbacks.operate.forget.request import Requests
from postbacks.web.pages import forget

NUMBER, OTHER = "15557654321", "15551234567"


@pytest.fixture
def sent(world, monkeypatch):
    """Ids of postbacks about the person, one of them delivered."""
    monkeypatch.setattr("postbacks.operate.forget.erasure.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("postbacks.operate.forget.rows.LOOK_EVERY_S", 0.001)
    world.account("acme")
    ids = [send_postback.delay("acme", MT | {"TO": number}).id for number in (NUMBER, OTHER)]
    world.rig.tick()
    world.rig.deliver()
    world.record()
    return ids


def pseudonym(page: str) -> str:
    return re.search(r'name="pseudonym" value="([^"]+)"', page)[1]


def test_a_person_is_forgotten_after_the_counts_and_the_number_once_more(world, sent, browse):
    browser = browse()
    assert 'href="/forget"' in browser.get("/system").text
    asked = browser.post("/forget/count", data={"number": "+1 (555) 765-4321", "why": f"letter of {NUMBER}"})
    assert "1 record of the broker" in asked.text
    assert "1 row of the history" in asked.text
    assert "are written anew" in asked.text
    assert not journal_entries(action="forget")
    name = pseudonym(asked.text)
    form = {"pseudonym": name, "number": NUMBER, "why": f"letter of {NUMBER}"}
    begun = browser.post("/forget/start", data=form)
    assert begun.status_code == 303
    assert re.fullmatch(r"/forget/[0-9a-f]{12}", begun.headers["location"])
    page = browser.get(begun.headers["location"]).text
    assert NUMBER not in page
    assert f"letter of {name}" in page
    assert name in browser.get("/forget").text
    (entry,) = journal_entries(action="forget")
    assert (entry.by, entry.subject) == ("ann", name)

    duty = ForgetDuty(world.recorder, world.client, world.settings)

    def has_ended() -> bool:
        world.recorder.turn()
        duty.turn()
        return Requests(world.client).read(begun.headers["location"].rpartition("/")[2]).ended_ms is not None

    eventually(has_ended, what="the end of the request")
    page = browser.get(begun.headers["location"]).text
    assert "All is done" in page
    assert "1 row erased" in page
    assert "backups of the broker" in page
    assert NUMBER.encode() not in (world.rig.record(sent[0]).xml or b"")
    assert OTHER.encode() in world.rig.record(sent[1]).xml


def test_a_number_stands_in_no_page(world, sent, browse):
    page = browse().post("/forget/count", data={"number": NUMBER, "now": "1"}).text
    assert NUMBER not in page
    assert 'name="now" value="1"' in page


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({}, "A person is named by one number or one e-mail address"),
        ({"number": NUMBER, "email": "ann@example.com"}, "give one of the two"),
        ({"number": "86717"}, "is no number of a person"),
        ({"email": "ann"}, "is no e-mail address"),
    ],
)
def test_whoever_is_nobody_is_refused_with_a_sentence(world, browse, typed, words):
    for path in ("/forget/count", "/forget/start"):
        refused = browse().post(path, data=typed)
        assert (refused.status_code, words in refused.text) == (400, True)


def test_another_number_than_the_one_that_was_counted_forgets_nobody(world, sent, browse):
    browser = browse()
    name = pseudonym(browser.post("/forget/count", data={"number": NUMBER}).text)
    refused = browser.post("/forget/start", data={"pseudonym": name, "number": OTHER})
    assert (refused.status_code, "nothing was done" in refused.text) == (400, True)
    assert Requests(world.client).open() == []


def test_where_nobody_would_do_the_work_nothing_is_begun(world, sent, browse, monkeypatch):
    monkeypatch.setattr(forget.operate, "goes_on", lambda: False)
    browser = browse()
    page = browser.post("/forget/count", data={"number": NUMBER}).text
    assert "postbacks history run" in page
    assert "/forget/start" not in page
    name = forget.operate.pseudonym(number=NUMBER)
    refused = browser.post("/forget/start", data={"pseudonym": name, "number": NUMBER})
    assert (refused.status_code, "postbacks history run" in refused.text) == (400, True)
    assert Requests(world.client).open() == []


def test_a_receipt_that_is_not_there_is_404(world, browse):
    assert browse().get("/forget/nine").status_code == 404
