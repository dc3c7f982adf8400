"""Figures of the history: what metrics and health say of it by what the broker knows, and that no database holds them up."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from events import EVENT
from helpers import environment, set_account
from prometheus_client import CollectorRegistry, generate_latest
from scraping import samples

from postbacks import keys, send_postbacks, settings
from postbacks.cli import main
from postbacks.history.feed import Feed
from postbacks.monitor import snapshot
from postbacks.monitor.metrics import SystemCollector

LEASE_MS = 10_000
#: A database that no packet comes back from: whoever asked it would wait.
NOWHERE = "postgresql://postbacks:secret@192.0.2.1/postbacks"


@pytest.fixture(autouse=True)
def _clock(rig, monkeypatch):
    """Read by the rig's clock."""
    read = snapshot.read
    monkeypatch.setattr(
        snapshot,
        "read",
        lambda client, settings, **options: read(
            client, settings, **{"clock_offset_ms": rig.scripts.clock_offset_ms, **options}
        ),
    )


def page() -> dict[tuple[str, ...], float]:
    """Read the page of metrics anew."""
    registry = CollectorRegistry()
    registry.register(SystemCollector(settings.load()))
    return samples(generate_latest(registry).decode())


def figures() -> dict[str, float]:
    """Return the history's figures by the end of their names."""
    prefix = "postbacks_history_"
    return {
        name.removeprefix(prefix): value for (name, *_), value in page().items() if name.startswith(prefix)
    }


def health() -> dict[str, object]:
    """Ask ``postbacks health``; a rig ticks when it is told to, and has neither workers nor beats."""
    done = CliRunner().invoke(
        main,
        ["health", "--json", "--max-tick-age", "100000", "--max-waiting-age", "100000"],
        prog_name="postbacks",
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def feed_of(rig) -> Feed:
    """Return the feed, by the rig's clock."""
    return Feed(rig.client, clock_offset_ms=rig.scripts.clock_offset_ms)


def change(rig) -> None:
    """Have a postback accepted."""
    set_account("acme", url="http://127.0.0.1:8080/")
    send_postbacks("acme", [EVENT])
    rig.tick()


def test_without_a_history_there_are_no_figures_of_one_and_one_question_is_asked(rig):
    rig.tick()
    rig.client.config_resetstat()
    assert figures() == {}
    asked = rig.client.info("commandstats")
    assert not {name for name in asked if name.startswith(("cmdstat_x", "cmdstat_memory"))}
    assert health()["history"] == []


def test_a_feed_that_nobody_reads_is_told_and_makes_no_system_unwell(rig):
    """Lag, entries and bytes are on the page; health says so behind its line, exit code 0."""
    rig.tick()
    feed_of(rig).register()
    change(rig)
    rig.advance(120)
    seen = figures()
    assert (seen["on"], seen["up"], seen["resync_wanted"], seen["gaps_total"]) == (1, 0, 1, 0)
    assert seen["lag_seconds"] == pytest.approx(120, abs=20)
    assert seen["feed_entries"] >= 1
    assert 0 < seen["feed_bytes"] < seen["feed_limit_bytes"]
    assert not {"rows", "disk_bytes", "recorder_age_seconds"} & seen.keys()
    (sentence,) = health()["history"]
    assert sentence.startswith("No recorder has given a sign of life")
    line = CliRunner().invoke(main, ["health", "--max-tick-age", "1000", "--max-waiting-age", "1000"]).output
    assert line.startswith("well: ")
    assert "; history: No recorder has given a sign of life" in line


def test_a_recorder_that_works_shows_what_it_has(rig):
    feed = feed_of(rig)
    feed.register()
    assert feed.acquire("here:1", LEASE_MS)
    feed.note("here:1", json.dumps({"rows": 3, "disk_bytes": 4096}))
    rig.tick()
    seen = figures()
    assert (seen["on"], seen["up"], seen["rows"], seen["disk_bytes"]) == (1, 1, 3, 4096)
    assert seen["recorder_age_seconds"] < 20
    assert health()["history"] == []


def test_why_a_recorder_waits_is_told_by_health(rig):
    """A database that is away: the recorder notes it, so nobody else has to ask."""
    feed = feed_of(rig)
    feed.register()
    feed.acquire("here:1", LEASE_MS)
    feed.note(
        "here:1", json.dumps({"waits": "The database does not answer.", "waits_since_ms": 1795478400000})
    )
    rig.tick()
    assert figures()["up"] == 0
    (sentence,) = health()["history"]
    assert "2026-11-24T00:00:00" in sentence
    assert sentence.endswith("The database does not answer.")


def test_gaps_are_counted_and_told(rig):
    feed_of(rig).register()
    rig.client.hset(
        keys.HISTORY, mapping={"resync": "gap", "gaps": 2, "gap_entries": 40, "gap_ms": 1795478400000}
    )
    rig.tick()
    seen = figures()
    assert (seen["gaps_total"], seen["resync_wanted"]) == (2, 1)
    assert any(
        "40 changes were dropped before they were read" in sentence for sentence in health()["history"]
    )


def test_a_database_that_is_away_holds_up_neither_a_scrape_nor_health(rig):
    """Though its URL is set: no name of it is looked up, and no connection is tried."""
    feed_of(rig).register()
    rig.tick()
    with environment(POSTBACKS_HISTORY_URL=NOWHERE):
        assert page()["postbacks_broker_up",] == 1
        assert figures()["on"] == 1
        assert health()["broker"] is True
