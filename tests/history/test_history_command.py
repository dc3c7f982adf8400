"""``postbacks history``: run, status, resync, prune and off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import MT
from helpers import Rig, environment, eventually
from recording import ledger_rows, make_recorder, no_waiting, rows, settle

from postbacks import keys, send_postbacks
from postbacks.cli import main
from postbacks.history import status as status_module
from postbacks.history.engine import reader
from postbacks.history.feed import ASKED, Feed
from postbacks.settings import load

pytestmark = pytest.mark.usefixtures("forked")

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))


@pytest.fixture
def history(rig, sqlite_url):
    """Environment with a history that a recorder has begun; yields its URL."""
    with environment(POSTBACKS_HISTORY_URL=sqlite_url):
        with pytest.MonkeyPatch.context() as patch:
            no_waiting(patch)
            recorder = make_recorder(rig.client, sqlite_url)
            settle(recorder, rig.client)
            recorder.turn()
            recorder.close()
        yield sqlite_url
        reader(load()).dispose()


def run(*arguments: str, **more):
    """Run the command in this process."""
    return CliRunner().invoke(main, ["history", *arguments], **more)


def dead(rig: Rig, count: int) -> list[str]:
    """Let postbacks of an account that nobody knows end at once."""
    ids = send_postbacks("nobody", [MT] * count)
    rig.tick()
    return ids


def old(rig: Rig, count: int) -> None:
    """Let postbacks end that were accepted two hours ago."""
    for postback_id in dead(rig, count):
        for field in ("created_ms", "ended_ms"):
            key = keys.record(postback_id)
            rig.client.hset(key, field, int(rig.client.hget(key, field)) - 7_200_000)


def working(rig: Rig) -> None:
    """Let a recorder hold the lease."""
    assert Feed(rig.client).acquire("host:1:abc", 600_000)


# -- run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_recorder_in_order(rig, sqlite_url, number):
    """The recorder copies what has gathered, the lease is given back, and its exit code is 0."""
    process = subprocess.Popen(
        [POSTBACKS, "history", "run"],
        env={**os.environ, "POSTBACKS_HISTORY_URL": sqlite_url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        eventually(lambda: Feed(rig.client).state().resynced_ms, what="the first resync")
        dead(rig, 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, b"")
    assert err.decode().count("history.recording") == 1
    assert err.decode().splitlines()[-1].partition("] ")[2].startswith("history.stopped")
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert Feed(rig.client).state().holder == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "set POSTBACKS_HISTORY_URL"),
        ("mysql://host/db", "not sqlite:///FILE"),
        ("sqlite:////no/such/directory/history.db", "is not there; make it"),
        ("postgresql://user@127.0.0.1:1", "names no database"),
    ],
)
def test_a_history_that_cannot_be_is_one_sentence(rig, url, says):
    """Exit code 2, no traceback, and what to do."""
    with environment(POSTBACKS_HISTORY_URL=url):
        result = run("run")
    assert result.exit_code == 2
    assert says in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["run"], ["prune"]])
def test_missing_drivers_are_one_sentence(rig, sqlite_url, monkeypatch, arguments):
    """With the extra to install."""
    monkeypatch.setattr(util, "find_spec", lambda name, package=None: None)
    with environment(POSTBACKS_HISTORY_URL=sqlite_url):
        result = run(*arguments)
    assert (result.exit_code, result.output) == (
        2,
        "Error: SQLAlchemy is not installed: pip install 'postbacks[history]', or 'postbacks[postgres]' for PostgreSQL.\n",
    )


# -- status -----------------------------------------------------------------------------------------


def test_status_where_there_is_no_history(rig):
    """Nothing is wrong with that; it says how to switch it on."""
    result = run("status")
    assert result.exit_code == 0
    assert result.output == (
        "history    off; set POSTBACKS_HISTORY_URL and run `postbacks history run` to switch it on\n"
    )
    assert json.loads(run("status", "--json").output)["state"] == "off"


def test_status_says_how_far_back_one_can_see_and_how_much_it_takes(rig, history):
    """And how far behind it is."""
    dead(rig, 3)
    recorder = make_recorder(rig.client, history, clock_offset_ms=2000)
    settle(recorder, rig.client)
    lines = dict(line.split(maxsplit=1) for line in run("status").output.splitlines())
    assert lines["history"].startswith(f"on, recorder {recorder.holder}; the feed is on since ")
    assert lines["behind"] == "by nothing: all that has changed is recorded"
    assert lines["database"] == history
    assert lines["holds"].startswith("3 postbacks, ")
    assert "attempts to " in lines["goes"]
    told = json.loads(run("status", "--json").output)
    assert (told["ok"], told["state"], told["rows"], told["lag_s"]) == (True, "on", 3, 0.0)
    assert told["disk_bytes"] > 10_000
    assert told["postbacks_from"] <= told["recorded"]
    with environment(POSTBACKS_HISTORY_URL=""):
        assert (
            "database   not set here (POSTBACKS_HISTORY_URL), so that nothing can be searched"
            in run("status").output
        )
    assert told["faults"] == []
    recorder.close()


def test_status_without_a_recorder_is_a_fault_that_says_what_to_do(rig, history):
    """Exit code 1, as of a health check; what waits in the feed is told."""
    dead(rig, 2)
    result = run("status")
    assert result.exit_code == 1
    assert "history    waiting; the feed is on since" in result.output
    assert "1 changes" in result.output
    assert "No recorder has given a sign of life since" in result.output
    assert "start one (`postbacks history run`)" in result.output


def test_status_where_broker_or_database_is_away_says_the_rest(rig, history):
    """The database is told of without the broker, and the other way round."""
    with environment(POSTBACKS_BROKER_URL="redis://127.0.0.1:1/0"):
        result = run("status")
    assert result.exit_code == 1
    assert "history    unknown, as the broker cannot be asked" in result.output
    assert "holds      0 postbacks" in result.output
    with environment(POSTBACKS_HISTORY_URL=history.replace("history.db", "other.db")):
        result = run("status", "--json")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert (told["state"], told["rows"]) == ("waiting", 0)  # as the recorder has counted them
    assert told["faults"][-1].endswith("other.db is not there yet; `postbacks history run` makes it.")


def test_status_of_a_recorder_that_is_far_behind(rig, history, monkeypatch):
    """First it catches up; after a minute it is a fault."""
    dead(rig, 1)
    working(rig)
    monkeypatch.setattr(status_module, "CATCHING_UP_FROM_S", 0.0)
    assert "history    catching up, recorder host:1:abc" in run("status").output
    assert run("status").exit_code == 0
    monkeypatch.setattr(status_module, "LAG_FAULT_S", 0.0)
    result = run("status")
    assert result.exit_code == 1
    assert "s behind: see its log" in result.output


# -- resync -----------------------------------------------------------------------------------------


def test_a_resync_is_asked_for_and_one_is_told_whether_a_recorder_runs(rig, history):
    result = run("resync")
    assert (result.exit_code, Feed(rig.client).state().resync) == (0, ASKED)
    assert "no recorder works now: start one" in result.output
    working(rig)
    assert "The recorder begins within a second or two" in run("resync").output
    assert "resync     wanted, as somebody has asked for it" in run("status").output


def test_a_resync_of_a_feed_that_is_off_says_what_turns_it_on(rig):
    result = run("resync")
    assert result.exit_code == 1
    assert "`postbacks history run` turns it on, and begins with a resync" in result.output


# -- prune ------------------------------------------------------------------------------------------


def test_prune_says_what_goes_asks_and_deletes_it(rig, history):
    """By the settings of this process; nothing goes without a yes."""
    old(rig, 3)
    recorder = make_recorder(rig.client, history, clock_offset_ms=2000)
    settle(recorder, rig.client)
    recorder.close()
    assert run("prune", "--yes").output == "Nothing is older than the settings keep.\n"
    days = "0.0000001"
    with environment(
        POSTBACKS_HISTORY_POSTBACKS_DAYS=days,
        POSTBACKS_HISTORY_ATTEMPTS_DAYS=days,
        POSTBACKS_HISTORY_DOCUMENTS_DAYS=days,
    ):
        result = run("prune")
        assert result.exit_code == 2
        assert "Older than the settings keep: 3 postbacks" in result.output
        assert "say --yes" in result.output
        assert len(rows(history)) == 3
        result = run("prune", "--yes", "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["postbacks"] == 3
    assert rows(history) == []
    assert Feed(rig.client).state().holder == ""


def test_prune_leaves_a_recorders_database_to_the_recorder(rig, history):
    """A recorder prunes by itself, with its own settings."""
    old(rig, 1)
    recorder = make_recorder(rig.client, history, clock_offset_ms=2000)
    settle(recorder, rig.client)
    with environment(POSTBACKS_HISTORY_POSTBACKS_DAYS="0.0000001"):
        result = run("prune", "--yes")
    assert result.exit_code == 2
    assert f"A recorder works ({recorder.holder}), and prunes by its own settings" in result.output
    assert len(rows(history)) == 1
    recorder.close()


# -- off --------------------------------------------------------------------------------------------


def test_off_says_what_it_does_asks_and_ends_the_feed(rig, history):
    """The database stays, and is told of; a recorder begins anew with a resync."""
    dead(rig, 1)
    result = run("off")
    assert result.exit_code == 2
    assert "The feed ends, with 1 changes that are not recorded. The database stays as it is" in result.output
    assert rig.client.exists(keys.CHANGES)
    result = run("off", "--yes")
    assert (result.exit_code, "The feed is off." in result.output.splitlines()) == (0, True)
    assert not rig.client.exists(keys.CHANGES)
    result = run("status")
    assert result.exit_code == 1
    assert "(asked)" in result.output
    assert run("off", "--yes").output == "The feed is off already.\n"
    recorder = make_recorder(rig.client, history, clock_offset_ms=2000)
    settle(recorder, rig.client)
    assert rows(history) == ledger_rows(rig.client)
    recorder.close()


def test_off_lets_a_recorder_stand_still_until_one_is_started_anew(rig, history, monkeypatch):
    """Neither it nor one that stood by turns the feed on again; a new one does."""
    no_waiting(monkeypatch)
    recorder, standby = (make_recorder(rig.client, history, clock_offset_ms=2000) for _ in range(2))
    settle(recorder, rig.client)
    standby.turn()
    result = run("off", "--yes")
    assert result.exit_code == 0
    assert f"The recorder {recorder.holder} stands still then, until one is started anew." in result.output
    dead(rig, 1)
    for _ in range(3):
        recorder.turn()
    assert not recorder.works
    recorder.close()
    for _ in range(3):
        standby.turn()
    assert not standby.works
    assert not rig.client.exists(keys.CHANGES)
    standby.close()
    anew = make_recorder(rig.client, history, clock_offset_ms=2000)
    settle(anew, rig.client)
    assert rows(history) == ledger_rows(rig.client)
    anew.close()
