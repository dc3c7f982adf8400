"""The doctor examines the history: its feed, its database, and whether it is on."""

from __future__ import annotations

import re

from helpers import environment
from ward import doctor_of, turn_feed_on

from postbacks.doctor import history_checks
from postbacks.history import facts
from postbacks.history.engine import connect
from postbacks.history.feed import Feed
from postbacks.history.migrations import prepare
from postbacks.settings import load


def test_a_feed_that_has_used_much_of_its_memory_is_wrong(ward, monkeypatch):
    turn_feed_on(ward)
    Feed(ward.client).acquire("here:1", 600_000)
    monkeypatch.setattr(history_checks, "NEARLY_FULL", 0.0)
    assert "of what they may take" in doctor_of(ward.rig).examine().findings("history-feed")[""]


def test_a_history_that_is_set_and_off_is_worth_a_word(ward, tmp_path):
    """And that its database cannot be read from here is wrong: nobody has made it."""
    with environment(POSTBACKS_HISTORY_URL=f"sqlite:///{tmp_path}/history.db"):
        ward.rig.settings = load()
        report = doctor_of(ward.rig).examine()
        assert report.findings("history-off") == {"": "no recorder has ever turned it on"}
        assert "is not there yet" in report.findings("history-database")[""]
        turn_feed_on(ward)
        Feed(ward.client).turn_off("asked")
        words = doctor_of(ward.rig).examine().findings("history-off")[""]
        assert re.fullmatch(r"since \S+Z, asked", words)


def test_a_history_of_a_newer_schema_is_wrong_and_its_password_is_not_shown(ward, tmp_path):
    engine = connect(f"sqlite:///{tmp_path}/history.db")
    prepare(engine)
    with environment(POSTBACKS_HISTORY_URL=f"sqlite:///{tmp_path}/history.db"):
        ward.rig.settings = load()
        assert doctor_of(ward.rig).examine().findings("history-database") == {}
        with engine.begin() as connection:
            facts.put(connection, {facts.SCHEMA: 99})
        engine.dispose()
    with environment(POSTBACKS_HISTORY_URL="postgresql://postbacks:hunter2@127.0.0.1:1/postbacks"):
        ward.rig.settings = load()
        words = doctor_of(ward.rig).examine().findings("history-database")[""]
        assert "127.0.0.1" in words
        assert "hunter2" not in words
