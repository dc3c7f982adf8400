"""Beat while the broker is away: one line, then one a minute, and one when it is back."""

from __future__ import annotations

import logging
import time

import pytest
from helpers import environment
from kombu import Connection
from kombu.exceptions import OperationalError

from postbacks.app import app
from postbacks.celeryext import beat
from postbacks.celeryext.beat import SteadyScheduler
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import dead_port


@pytest.fixture
def scheduler():
    """Beat's scheduler, as Celery makes it."""
    import postbacks.tasks  # noqa: F401 - the tick is known by its name

    return SteadyScheduler(app=app)


class Clock:
    """Seconds that can be moved on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def said(caplog) -> list[tuple[str, object]]:
    """Events of beat's log, each with how long it has been so."""
    return [
        (record.event, record.fields.get("for_s", record.fields.get("after_s")))
        for record in caplog.records
        if record.name == "postbacks.celeryext.beat"
    ]


def test_a_broker_that_is_away_is_told_once_a_minute(scheduler, monkeypatch, caplog):
    """However many entries are due; a line with another kind of fault at once, and one when it takes them again."""
    clock = Clock()
    monkeypatch.setattr(beat.time, "monotonic", clock)
    entry = next(iter(scheduler.schedule.values()))
    caplog.set_level(logging.INFO, "postbacks.celeryext.beat")
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        for _ in range(130):
            scheduler.apply_entry(entry)
            clock.now_s += 1
    assert said(caplog) == [("beat.not_sent", None), ("beat.not_sent", 60), ("beat.not_sent", 120)]
    assert not any(record.exc_info for record in caplog.records)
    with EmbeddedBroker() as broker, broker.client() as client:
        client.config_set("requirepass", "secret")
        with environment(POSTBACKS_BROKER_URL=broker.url):
            scheduler.apply_entry(entry)
        with environment(POSTBACKS_BROKER_URL=broker.url.replace("//", "//:secret@")):
            scheduler.apply_entry(entry)
            scheduler.apply_entry(entry)
    assert said(caplog)[3:] == [("beat.not_sent", 130), ("beat.sent_again", 130)]


def test_before_the_first_tick_the_same_is_told_and_the_broker_is_tried_every_second(
    scheduler, monkeypatch, caplog
):
    """Celery's own would try every thirty seconds in the end, and say each."""
    monkeypatch.setitem(app.conf, "broker_connection_max_retries", 3)
    with dead_port() as port, Connection(f"redis://127.0.0.1:{port}/0") as connection:
        scheduler.__dict__["connection"] = connection
        began_s = time.monotonic()
        with pytest.raises(OperationalError):
            scheduler._ensure_connected()
        assert time.monotonic() - began_s < 11  # Celery's: after 2, 4 and 6 s
    assert said(caplog) == [("beat.not_sent", None)]
    assert "does not answer" in caplog.text
