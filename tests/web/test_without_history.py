"""Pages where there is no history, and where the history gives a question up: what can be shown is, and a sentence says what to do."""

from __future__ import annotations

import pytest
from helpers import set_account
from sqlalchemy import Engine, text

from postbacks.history import engine as engine_module
from postbacks.history import migrations
from postbacks.history.engine import connect
from postbacks.web import reading

#: Address -> status and words of the page without a history, and whether what it shows comes from the broker alone.
PAGES = {
    "/": (200, "The last hour, by the minute"),
    "/system": (200, "<dt>Waiting</dt>"),
    "/jobs": (200, "There is no job."),
    "/accounts": (200, ">acme</a>"),
    "/accounts/acme": (200, "0 wait, 0 are being sent"),
    "/postbacks?q=account:acme": (503, 'value="account:acme"'),
    "/opt-outs": (503, "Service Unavailable"),
    "/incidents": (503, "Service Unavailable"),
    "/incidents/1": (503, "Service Unavailable"),
    "/journal": (503, "Service Unavailable"),
    "/story/MT1": (503, "Service Unavailable"),
    "/postbacks.csv": (503, "Service Unavailable"),
}
OFF = "set POSTBACKS_HISTORY_URL (sqlite:////directory/history.db)"
GIVEN_UP = "would take too long for this question; ask for less (a shorter time, one account)"


@pytest.mark.parametrize("address", PAGES)
def test_without_a_history_each_page_shows_what_the_broker_knows_or_what_to_do(rig, browse, address):
    set_account("acme", url="https://acme.example/")
    rig.tick()
    status, words = PAGES[address]
    page = browse().get(address)
    assert page.status_code == status
    assert words in page.text
    if address == "/system":
        assert "none is set (POSTBACKS_HISTORY_URL)" in page.text
    elif address != "/jobs":
        assert OFF in page.text


def test_a_postback_is_shown_without_a_history_and_an_unknown_one_says_who_would_know(rig, browse):
    page = browse().get("/postbacks/none")
    assert page.status_code == 404
    assert "No history is set (POSTBACKS_HISTORY_URL), which would know" in page.text


def test_without_a_history_a_customer_sees_what_the_broker_knows_and_nothing_of_our_inside(rig, visit):
    set_account("acme", url="https://acme.example/")
    rig.tick()
    browser = visit("acme")
    pages = {path: browser.get(f"/customer/{path}") for path in ("", "urls", "postbacks", "postbacks.csv")}
    assert [page.status_code for page in pages.values()] == [200, 200, 503, 503]
    assert "10 s, to the end of the answer" in pages[""].text
    assert "https://acme.example/" in pages["urls"].text
    assert 'name="q"' in pages["postbacks"].text
    for page in pages.values():
        assert "POSTBACKS_" not in page.text
        assert "history" not in page.text.replace("historyCacheSize", "").replace("refreshOnHistoryMiss", "")


def _prepare(database: Engine) -> None:
    """Make the tables of a history that knows the account."""
    migrations.prepare(database)
    with database.begin() as connection:
        connection.execute(text("INSERT INTO accounts (name) VALUES ('acme')"))


@pytest.fixture(params=["sqlite", "postgresql"])
def given_up(request, rig, browse, monkeypatch, tmp_path):
    """Open the dashboard with a history that gives up whatever reads postbacks."""
    set_account("acme", url="https://acme.example/")
    rig.tick()
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/history.db"
        monkeypatch.setenv("POSTBACKS_HISTORY_URL", url)
        database = connect(url)
        _prepare(database)
        monkeypatch.setattr(reading, "STATEMENT_MS", 0)
        browser = browse()
        browser.get("/filter?q=account:a")  # the connection is made
        monkeypatch.setattr(engine_module, "_STEPS", 1)
        yield browser
        database.dispose()
        return
    url = request.getfixturevalue("postgres_url")
    monkeypatch.setenv("POSTBACKS_HISTORY_URL", url)
    database = connect(url)
    _prepare(database)
    monkeypatch.setattr(reading, "STATEMENT_MS", 300)
    with database.begin() as connection:
        connection.execute(text("LOCK TABLE postbacks, incidents, journal IN ACCESS EXCLUSIVE MODE"))
        yield browse()
    database.dispose()


def test_a_customer_hears_nothing_of_our_database(given_up, visit):
    browser = visit("acme", given_up)
    for address, status in (("/customer/", 200), ("/customer/postbacks", 503)):
        page = browser.get(address)
        assert (address, page.status_code) == (address, status)
        assert "This cannot be shown just now." in page.text
        assert "history" not in page.text.lower().replace("historycache", "").replace("historymiss", "")


def test_what_the_history_gives_up_is_a_sentence_and_the_rest_is_shown(given_up):
    for address, (status, words) in PAGES.items():
        page = given_up.get(address)
        assert (address, page.status_code) == (address, status)
        assert words in page.text
        if address != "/jobs":
            assert GIVEN_UP in page.text, address
