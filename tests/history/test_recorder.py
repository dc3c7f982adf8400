"""The recorder: it copies what changes, once, whoever dies, freezes or is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from events import MT
from helpers import Rig, eventually, set_account
from recording import end_lease, ledger_rows, make_recorder, no_waiting, rows, settle, status_of
from sqlalchemy import event, text

from postbacks import keys, send_postbacks
from postbacks.devtools.stack import RecorderProcess
from postbacks.errors import HistoryUnavailable, HistoryUnfit
from postbacks.history import recorder as recorder_module
from postbacks.history.engine import connect
from postbacks.history.feed import Feed
from postbacks.history.recorder import Covered
from postbacks.history.status import ON, WAITING, read_feed
from postbacks.queue.tick import FEED_OFF_REASON, FEED_SILENT_MAX_MS

pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each turn do all that is done once a second."""
    no_waiting(monkeypatch)


def deliver(rig: Rig, receiver, count: int = 1) -> list[str]:
    """Accept postbacks and deliver them."""
    set_account("acme", url=receiver.url("/"))
    ids = send_postbacks("acme", [MT] * count)
    rig.tick()
    rig.deliver()
    return ids


def dead(count: int = 1) -> list[str]:
    """Send postbacks of an account that nobody knows; a tick lets them end at once."""
    return send_postbacks("nobody", [MT] * count)


# -- what is copied, and when -----------------------------------------------------------------------


def test_what_is_accepted_and_delivered_at_once_is_written_once(rig, receiver, history_url, quick):
    """Two changes, one reading: the row has the end."""
    recorder = make_recorder(rig.client, history_url)
    settle(recorder, rig.client)
    ids = deliver(rig, receiver, 3)
    assert sum(len(entry.ids) for entry in Feed(rig.client).read(100)[0]) == 6
    settle(recorder, rig.client)
    assert recorder.written == 3
    assert sorted(rows(history_url)) == sorted((postback_id, "delivered", 1) for postback_id in ids)
    recorder.close()


def test_a_reading_covers_the_changes_that_came_before_it(rig, receiver, sqlite_url, quick, monkeypatch):
    """A batch ends between acceptance and delivery: the second change is not read again."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    ids = deliver(rig, receiver, 3)
    monkeypatch.setattr(recorder_module, "BATCH_IDS", 3)
    settle(recorder, rig.client)
    assert recorder.written == 3
    assert sorted(rows(sqlite_url)) == sorted((postback_id, "delivered", 1) for postback_id in ids)
    recorder.close()


def test_changes_gather_for_a_moment_by_the_brokers_clock(rig, sqlite_url):
    """So long nothing is written; an old change, or a thousand, is written at once."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    dead()
    rig.tick()
    eventually(lambda: 0 < recorder.turn() <= recorder_module.GATHER_S, what="gathering")
    assert recorder.written == 0
    later = make_recorder(rig.client, sqlite_url, clock_offset_ms=1600)
    recorder.close()
    settle(later, rig.client)
    assert later.written == 1
    later.close()


@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
def test_a_clock_that_jumps_holds_nothing_up(rig, sqlite_url, monkeypatch, jump_s):
    """Gathering ends by this process's clock as well; what is recorded is right."""
    monkeypatch.setattr(recorder_module, "GATHER_S", 0.1)
    before = make_recorder(rig.client, sqlite_url)
    settle(before, rig.client)
    dead(2)
    rig.tick()
    recorder = make_recorder(rig.client, sqlite_url, clock_offset_ms=jump_s * 1000)
    eventually(lambda: recorder.turn() is not None and recorder.works, what="the lease after the jump")
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    recorder.close()
    before.close()


def test_a_brokers_clock_that_is_ahead_by_years_prunes_nothing(rig, sqlite_url, quick, monkeypatch):
    """The earlier of both clocks decides what is old."""
    recorder = make_recorder(rig.client, sqlite_url)
    dead(2)
    rig.tick()
    settle(recorder, rig.client)
    read = recorder_module.Feed.read
    years_ms = 10 * 365 * 86_400_000

    def read_ahead(feed: Feed, *arguments: object) -> tuple[list[object], int]:
        entries, now_ms = read(feed, *arguments)
        return entries, now_ms + years_ms

    monkeypatch.setattr(recorder_module.Feed, "read", read_ahead)
    for _ in range(3):
        recorder.turn()
    assert len(rows(sqlite_url)) == 2
    recorder.close()


def test_it_is_at_most_three_seconds_behind(rig, receiver, sqlite_url):
    """Steadily, a postback every 20 ms; with the times that it has in production."""
    recorder = make_recorder(rig.client, sqlite_url)
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stop,))
    thread.start()
    lags = []
    until_s = time.monotonic() + 2.5
    try:
        while time.monotonic() < until_s:
            dead()
            rig.tick()
            lags.append(read_feed(rig.client).lag_s or 0.0)
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join(60)
    assert max(lags) < 20
    assert rows(sqlite_url) == ledger_rows(rig.client)  # what has gathered is copied at its end
    assert Feed(rig.client).state().holder == ""


def test_an_idle_recorder_says_until_when_everything_is_recorded(rig, sqlite_url, quick):
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    before_ms = status_of(rig.client, sqlite_url).store.recorded_ms
    time.sleep(0.01)
    recorder.turn()
    assert status_of(rig.client, sqlite_url).store.recorded_ms > before_ms
    recorder.close()


def test_covered_ids_are_bounded_and_forgotten_with_the_feed(monkeypatch):
    """Readings up to the recorded entry cover nothing more; a broker that has lost changes makes all unsure."""
    from postbacks.history.feed import Entry

    monkeypatch.setattr(recorder_module, "COVERED_MAX", 3)
    covered = Covered()
    covered.add(["a", "b"], (9, 0), through=(5, 0))
    assert covered.without_covered([Entry("9-0", ("a", "c")), Entry("9-1", ("b",))]) == ["c", "b"]
    covered.add(["c", "d"], (11, 0), through=(8, 0))  # no room
    assert covered.without_covered([Entry("9-0", ("a", "c", "d"))]) == ["c", "d"]
    covered.add(["e"], (12, 0), through=(12, 0))
    assert not covered
    covered.add(["a"], (20, 0), through=(13, 0))
    covered.add(["b"], (15, 0), through=(14, 0))
    assert covered.without_covered([Entry("15-0", ("a", "b"))]) == ["a"]


# -- two recorders, frozen and killed ones ----------------------------------------------------------


def test_of_two_recorders_one_works_and_the_other_follows_at_once(rig, sqlite_url, quick):
    """The first gives its lease back as it ends."""
    first, second = (make_recorder(rig.client, sqlite_url) for _ in range(2))
    settle(first, rig.client)
    second.turn()
    assert (first.works, second.works) == (True, False)
    dead()
    rig.tick()
    first.close()
    second.turn()
    assert second.works
    settle(second, rig.client)
    assert second.written == 1
    second.close()


def test_a_frozen_recorder_writes_nothing_old_over_new(rig, receiver, history_url, quick):
    """Frozen between reading and writing, past its lease: another one has written the end meanwhile."""
    frozen = make_recorder(rig.client, history_url)
    settle(frozen, rig.client)
    set_account("acme", url=receiver.url("/"))
    (postback_id,) = send_postbacks("acme", [MT])
    rig.tick()
    other = make_recorder(rig.client, history_url)
    read_records = frozen._records.read

    def freeze(ids):
        answer = read_records(ids)
        frozen._records.read = read_records
        rig.deliver()
        end_lease(rig.client)
        settle(other, rig.client)
        return answer

    frozen._records.read = freeze
    eventually(lambda: frozen.turn() is not None and not frozen.works, what="the loss of the lease")
    assert rows(history_url) == [(postback_id, "delivered", 1)]
    frozen.turn()
    assert not frozen.works
    other.close()
    frozen.close()


def test_a_process_that_is_stopped_for_longer_than_its_lease_stands_by_afterwards(
    rig, sqlite_url, tmp_path, quick
):
    """SIGSTOP, another one takes over, SIGCONT."""
    env = {"POSTBACKS_HISTORY_URL": sqlite_url}
    with RecorderProcess(env=env, log_path=tmp_path / "recorder.log") as process:
        process.wait_for_log("history.resync_done", 90)
        process.pause()
        end_lease(rig.client)
        other = make_recorder(rig.client, sqlite_url)
        settle(other, rig.client)
        dead(2)
        rig.tick()
        settle(other, rig.client)
        process.resume()
        process.wait_for_log("history.lease_lost", 60)
        process.wait_for_log("history.standby", 60)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    other.close()


KILLED = """
import sys, threading
from postbacks import killpoints
from postbacks.broker.client import client
from postbacks.history import recorder
from postbacks.settings import load

recorder.GATHER_S = 0.0
killpoints.arm(sys.argv[1])
recorder.Recorder(client(), load()).run(threading.Event())
"""


@pytest.mark.parametrize("point", ["before:history-write", "after:history-write", "after:history-trim"])
def test_a_recorder_that_is_killed_leaves_no_gap_and_no_double(rig, receiver, sqlite_url, quick, point):
    """At each step of a batch; the next one does its work again."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    recorder.close()
    deliver(rig, receiver, 3)
    dead(2)
    rig.tick()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, point],
        env={**os.environ, "POSTBACKS_HISTORY_URL": sqlite_url}, timeout=90, check=False, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    end_lease(rig.client)
    dead()
    rig.tick()
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert len(rows(sqlite_url)) == 6
    recorder.close()


# -- what is away -----------------------------------------------------------------------------------


def test_a_recorder_that_was_away_catches_up(rig, receiver, history_url, quick):
    """All that has happened meanwhile stands in the feed; no resync is needed."""
    recorder = make_recorder(rig.client, history_url)
    settle(recorder, rig.client)
    recorder.close()
    deliver(rig, receiver, 5)
    status = status_of(rig.client, history_url)
    assert (status.state, status.ok) == (WAITING, False)
    assert "start one (`postbacks history run`)" in status.faults[0]
    recorder = make_recorder(rig.client, history_url)
    settle(recorder, rig.client)
    assert rows(history_url) == ledger_rows(rig.client)
    assert status_of(rig.client, history_url).ok
    recorder.close()


def test_a_broker_that_is_away_is_waited_for(own_broker, sqlite_url, quick, caplog):
    """The recorder says why once, and goes on by itself."""
    caplog.set_level("INFO")
    with own_broker.client() as client:
        recorder = make_recorder(client, sqlite_url)
        settle(recorder, client)
        own_broker.kill()
        waits_s = [recorder.turn() for _ in range(3)]
        assert waits_s == sorted(waits_s)
        assert not recorder.works
        own_broker.start()
        settle(recorder, client)
        recorder.close()
    assert caplog.text.count("history.waits") == 1
    assert caplog.text.count("history.resumed") == 1


def trouble_of(recorder, client, url) -> str:
    """Let it fail; return what it says, in the broker for all to see."""
    eventually(lambda: recorder.turn() is not None and not recorder.works, what="a failure")
    status = read_feed(client)
    assert status.state == WAITING
    assert status.waits_since_ms is not None
    return status.waits


def test_a_locked_database_is_waited_for(rig, sqlite_url, quick):
    """Somebody else writes for longer than is waited; what changes stays in the feed."""
    recorder = make_recorder(rig.client, sqlite_url)
    event.listen(
        recorder._engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 20")
    )
    settle(recorder, rig.client)
    dead()
    rig.tick()
    other = connect(sqlite_url)
    with other.connect() as connection:
        connection.exec_driver_sql("UPDATE facts SET value = value")
        assert "is locked by another process" in trouble_of(recorder, rig.client, sqlite_url)
        assert rig.client.xlen(keys.CHANGES) == 1
    other.dispose()
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    recorder.close()


def test_a_disk_without_room_is_waited_for(rig, sqlite_url, quick):
    """SQLite is told how many pages there may be, and says what it says of a full disk."""
    recorder = make_recorder(rig.client, sqlite_url)
    pages = "PRAGMA max_page_count = {}"
    settle(recorder, rig.client)
    with recorder._engine.connect() as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(pages.format(used))
    dead(200)
    rig.tick()
    assert "has no room left" in trouble_of(recorder, rig.client, sqlite_url)
    with recorder._engine.connect() as connection:
        connection.exec_driver_sql(pages.format(1_000_000))
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    recorder.close()


def test_a_database_that_is_away_is_waited_for(rig, postgres_url, quick):
    """PostgreSQL ends the connection and takes no new ones, as while it restarts."""
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    recorder = make_recorder(rig.client, postgres_url)
    settle(recorder, rig.client)
    dead()
    rig.tick()
    server = connect(postgres_url.replace(f"/{name}", "/postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        )
        assert trouble_of(recorder, rig.client, postgres_url)
        assert Feed(rig.client).state().holder == ""  # a recorder of another machine may reach it
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    server.dispose()
    settle(recorder, rig.client)
    assert rows(postgres_url) == ledger_rows(rig.client)
    assert read_feed(rig.client).state == ON
    recorder.close()


def test_a_database_that_cannot_be_used_ends_a_recorder_that_never_worked(rig, tmp_path):
    """Waiting would mend nothing; one that has worked waits, as somebody may be mending it."""
    foreign = tmp_path / "letters.db"
    foreign.write_text("Dear Sir or Madam, this is no database at all.\n" * 40)
    recorder = make_recorder(rig.client, f"sqlite:///{foreign}")
    with pytest.raises(HistoryUnfit, match="something else"):
        recorder.turn()
    recorder.close()


def test_deliveries_do_not_wait_for_a_recorder_that_fails(rig, receiver, sqlite_url, quick):
    """The database fails, and keeps failing: what is sent meanwhile is delivered."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)

    def fail(*_, **__):
        raise HistoryUnavailable("the disk is on fire")

    recorder._writer.write = fail
    deliver(rig, receiver, 2)
    assert trouble_of(recorder, rig.client, sqlite_url) == "the disk is on fire"
    assert {state for _, state, _ in ledger_rows(rig.client)} == {"delivered"}
    recorder.close()


# -- what cannot be read ----------------------------------------------------------------------------


def test_a_record_that_cannot_be_read_is_counted_and_holds_nothing_up(rig, receiver, sqlite_url, quick):
    """The others are written, the feed goes on, and status says so."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    ids = deliver(rig, receiver, 3)
    rig.client.hset(keys.record(ids[1]), "created_ms", "yesterday")
    settle(recorder, rig.client)
    assert {postback_id for postback_id, _, _ in rows(sqlite_url)} == {ids[0], ids[2]}
    status = status_of(rig.client, sqlite_url)
    assert status.store.unreadable == 1
    assert any("1 records could not be read" in fault for fault in status.faults)
    recorder.close()


def test_a_recorder_that_was_silent_for_a_week_turns_the_feed_on_again(rig, sqlite_url, quick):
    """Frozen, or the broker's clock has jumped; a feed that somebody has turned off stays off."""
    feed = Feed(rig.client)
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    rig.advance(FEED_SILENT_MAX_MS / 1000 + 60)
    dead(2)
    rig.tick()
    assert feed.state().off_reason == FEED_OFF_REASON
    settle(recorder, rig.client)
    assert feed.state().on_ms is not None
    assert rows(sqlite_url) == ledger_rows(rig.client)
    feed.turn_off("by hand")
    for _ in range(20):
        recorder.turn()
    assert feed.state().on_ms is None
    recorder.close()


def test_a_line_of_state_is_logged_once(rig, sqlite_url, quick, caplog):
    """Not one a turn."""
    caplog.set_level("INFO")
    first, second = (make_recorder(rig.client, sqlite_url) for _ in range(2))
    settle(first, rig.client)
    for _ in range(5):
        first.turn()
        second.turn()
    first.close()
    second.close()
    names = [record.event for record in caplog.records if hasattr(record, "event")]
    assert [name for name in names if name.startswith("history.")] == [
        "history.feed_on",
        "history.recording",
        "history.resync_started",
        "history.resync_done",
        "history.standby",
        "history.stopped",
    ]
