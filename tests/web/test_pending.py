"""Parts that take longer: the page answers without them, and its live part has them."""

from __future__ import annotations

import pytest

from postbacks.history.days import DayByAccount, DayOfAccount
from postbacks.web import facts
from postbacks.web.pages import accounts, postbacks

LIVE = {"HX-Request": "true"}
RELOADS = '<noscript><meta http-equiv="refresh" content="1"></noscript>'


@pytest.fixture
def browser(world, browse, monkeypatch):
    """Open the dashboard whose pages wait for nothing."""
    world.dead("acme", 3)
    monkeypatch.setattr(facts, "PATIENCE_S", 0.0)
    return browse()


@pytest.mark.parametrize(
    ("address", "words"),
    [("/postbacks", "3 postbacks"), ("/accounts", ">0.0%<"), ("/accounts/acme", "<b>3</b>accepted")],
)
def test_a_page_answers_before_it_has_counted_and_its_live_part_has_the_count(browser, address, words):
    page = browser.get(address).text
    assert "Being counted: it comes in a moment." in page
    assert words not in page
    assert "acme" in page
    assert 'hx-trigger="load, every 2s"' in page
    assert RELOADS in page
    part = browser.get(address, headers=LIVE).text
    assert words in part
    assert "Being counted" not in part


def test_a_page_that_has_all_asks_for_no_more(browser, monkeypatch):
    monkeypatch.setattr(facts, "PATIENCE_S", 30)
    page = browser.get("/postbacks").text
    assert "3 postbacks" in page
    assert 'hx-trigger="every 2s"' in page
    assert "refresh" not in page.partition("</head>")[0].replace("refreshOnHistoryMiss", "")


def test_an_older_page_is_counted_once_and_not_live(browser, monkeypatch):
    monkeypatch.setattr(postbacks, "ROWS", 2)
    monkeypatch.setattr(postbacks, "STRIP_FRESH_S", 0.0)
    older = (
        browser.get("/postbacks")
        .text.partition('rel="next" href="')[2]
        .partition('"')[0]
        .replace("&amp;", "&")
    )
    page = browser.get(older).text
    assert 'hx-trigger="load"' in page
    monkeypatch.setattr(facts, "PATIENCE_S", 30)
    assert 'id="live"' not in browser.get(older).text


def test_hours_that_were_counted_are_kept_between_looks(browser, monkeypatch):
    monkeypatch.setattr(accounts, "DAY_FRESH_S", 0.0)
    monkeypatch.setattr(accounts, "FRESH_S", 0.0)
    made = []
    for kind in (DayByAccount, DayOfAccount):
        monkeypatch.setattr(kind, "__init__", _noting(kind.__init__, made))
    for _ in range(2):
        browser.get("/accounts", headers=LIVE)
        browser.get("/accounts/acme", headers=LIVE)
    assert len(made) == 2


def _noting(init, made):
    def noting(self, *args):
        made.append(self)
        init(self, *args)

    return noting
