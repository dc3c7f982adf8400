"""Resyncs: what the feed does not tell is read from the broker's records."""

from __future__ import annotations

import json
import uuid

import pytest
import redis
from events import MT
from helpers import Rig, eventually, set_account
from recording import ledger_rows, make_recorder, no_waiting, rows, settle, status_of

from postbacks import keys, send_postbacks
from postbacks.history import facts
from postbacks.history import resync as resync_module
from postbacks.history.engine import connect
from postbacks.history.feed import ASKED, DATABASE, GAP, OLDER, REGISTERED, Feed
from postbacks.history.status import RESYNC, read_feed
from postbacks.queue.scripts import Scripts


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each turn do all that is done once a second; pages are small, so that there are several."""
    no_waiting(monkeypatch)
    monkeypatch.setattr(resync_module, "PAGE", 3)


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture):
    """Why resyncs were begun, in the words of the log."""
    caplog.set_level("INFO")
    return lambda: [
        record.fields["why"]
        for record in caplog.records
        if getattr(record, "event", "") == "history.resync_started"
    ]


def dead(rig: Rig, count: int) -> list[str]:
    """Let postbacks of an account that nobody knows end at once."""
    ids = send_postbacks("nobody", [MT] * count)
    rig.tick()
    return ids


def waiting(rig: Rig, count: int) -> list[str]:
    """Accept postbacks that wait."""
    set_account("acme", url="http://127.0.0.1:9999/")
    ids = send_postbacks("acme", [MT] * count)
    rig.tick()
    return ids


def drop_feed(rig: Rig) -> None:
    """Let the feed take nearly nothing, as a tick does that finds it too large: a gap."""
    assert rig.scripts.limit_changes(1, 10**9, "never")[0] > 0


def test_the_feed_begins_with_what_the_broker_has(rig, history_url, reasons):
    """Postbacks from before any recorder, in all states; the keyspace is read in pages."""
    dead(rig, 10)
    waiting(rig, 7)
    recorder = make_recorder(rig.client, history_url)
    settle(recorder, rig.client)
    assert rows(history_url) == ledger_rows(rig.client)
    assert len(rows(history_url)) == 17
    assert reasons() == ["the feed was turned on"]
    assert Feed(rig.client).state().resync == ""
    recorder.close()


def test_a_gap_is_told_and_closed_by_a_resync(rig, sqlite_url, reasons):
    """The recorder was away, and the feed took more than its share."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    recorder.close()
    dead(rig, 5)
    drop_feed(rig)
    status = status_of(rig.client, sqlite_url)
    assert (status.feed.resync, status.feed.gaps, status.feed.gap_entries) == (GAP, 1, 1)
    assert status.feed.gap_ms is not None
    assert any(fault.startswith("1 changes were dropped before they were read") for fault in status.faults)
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    status = status_of(rig.client, sqlite_url)
    assert (status.ok, status.feed.resync, status.feed.gaps) == (True, "", 1)
    assert reasons()[1:] == ["changes were dropped before they were read"]
    recorder.close()


def test_a_row_whose_record_left_the_broker_in_a_gap_is_forgotten(rig, history_url):
    """The end of the one is not known; another that is still there, and one that has ended, stay as they are."""
    gone, stays = waiting(rig, 2)
    (ended,) = dead(rig, 1)
    recorder = make_recorder(rig.client, history_url)
    settle(recorder, rig.client)
    rig.client.delete(keys.record(gone), keys.record(ended))
    Feed(rig.client).want_resync(ASKED)
    settle(recorder, rig.client)
    states = {postback_id: state for postback_id, state, _ in rows(history_url)}
    assert states == {gone: "forgotten", stays: "waiting", ended: "dead"}
    recorder.close()


def test_a_row_of_an_earlier_acceptance_is_forgotten_too(rig, sqlite_url):
    """The broker has a record of that id: a later one, which another row has."""
    (postback_id,) = waiting(rig, 1)
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    created_ms = int(rig.client.hget(keys.record(postback_id), "created_ms"))
    rig.client.hset(keys.record(postback_id), "created_ms", created_ms + 5000)
    Feed(rig.client).want_resync(ASKED)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == [(postback_id, "forgotten", 0), (postback_id, "waiting", 0)]
    recorder.close()


def test_changes_are_recorded_while_a_resync_goes_on(rig, sqlite_url):
    """Between two of its pages; status says how far it is."""
    dead(rig, 30)
    recorder = make_recorder(rig.client, sqlite_url)
    eventually(lambda: recorder.turn() is not None and len(rows(sqlite_url)) > 1, what="a first page")
    assert read_feed(rig.client).state == RESYNC
    assert 0 < read_feed(rig.client).resync_records < 30
    fresh = dead(rig, 2)
    eventually(lambda: recorder.turn() is not None and not rig.client.xlen(keys.CHANGES), what="the changes")
    assert recorder._resync is not None
    assert set(fresh) <= {postback_id for postback_id, _, _ in rows(sqlite_url)}
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    recorder.close()


def test_a_recorder_that_starts_anew_begins_the_resync_again(rig, sqlite_url, reasons):
    """The place where it was is not remembered."""
    dead(rig, 30)
    first = make_recorder(rig.client, sqlite_url)
    eventually(lambda: first.turn() is not None and len(rows(sqlite_url)) > 1, what="a first page")
    first.close()
    second = make_recorder(rig.client, sqlite_url)
    settle(second, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert reasons() == ["the feed was turned on"] * 2
    second.close()


def test_a_gap_during_a_resync_wants_another_one(rig, sqlite_url, reasons):
    """Entries that were dropped may be of records that it had read already."""
    dead(rig, 30)
    recorder = make_recorder(rig.client, sqlite_url)
    eventually(lambda: recorder.turn() is not None and recorder._resync is not None, what="its begin")
    dead(rig, 1)
    drop_feed(rig)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert reasons() == ["the feed was turned on", "changes were dropped before they were read"]
    recorder.close()


@pytest.mark.parametrize("other", ["new", "older copy"])
def test_another_database_wants_a_resync(rig, tmp_path, reasons, other):
    """The feed was read into another one; a copy from a backup lacks what came later."""
    one, two = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two"))
    recorder = make_recorder(rig.client, one)
    dead(rig, 2)
    settle(recorder, rig.client)
    if other == "older copy":
        engine = connect(one)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        (tmp_path / "two.db").write_bytes((tmp_path / "one.db").read_bytes())
    dead(rig, 3)
    settle(recorder, rig.client)
    recorder.close()
    recorder = make_recorder(rig.client, two)
    settle(recorder, rig.client)
    assert rows(two) == ledger_rows(rig.client)
    assert len(rows(two)) == 5
    assert reasons()[-1] == "the database is another one than before, or an older copy of it"
    recorder.close()


def test_a_recorder_that_starts_anew_on_its_own_database_wants_none(rig, sqlite_url, reasons):
    """Though nothing has changed yet, or all is recorded."""
    for _ in range(2):
        recorder = make_recorder(rig.client, sqlite_url)
        settle(recorder, rig.client)
        recorder.turn()
        recorder.close()
        dead(rig, 1)
    assert reasons() == ["the feed was turned on"]


def test_a_broker_that_has_lost_changes_wants_a_resync(rig, sqlite_url, reasons):
    """The broker was brought back from a copy: what history has later than that may never have been."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    copy = rig.client.dump(keys.CHANGES), rig.client.dump(keys.HISTORY)
    lost = waiting(rig, 1)
    settle(recorder, rig.client)
    recorder.close()
    rig.client.flushdb()
    for key, value in zip((keys.CHANGES, keys.HISTORY), copy, strict=True):
        rig.client.restore(key, 0, value)
    recorder = make_recorder(rig.client, sqlite_url)
    Feed(rig.client).release(Feed(rig.client).state().holder)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == [(lost[0], "forgotten", 0)]
    assert reasons()[-1] == "the broker has lost its latest changes"
    recorder.close()


def test_an_emptied_broker_turns_the_feed_on_anew(rig, sqlite_url, reasons):
    """While the recorder runs; it notices within a second."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    rig.client.flushdb()
    eventually(lambda: recorder.turn() is not None and Feed(rig.client).state().on_ms, what="the feed")
    dead(rig, 1)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert reasons() == ["the feed was turned on"] * 2
    recorder.close()


@pytest.mark.parametrize("starts_anew", [False, True])
def test_another_process_of_the_broker_wants_a_resync(rig, sqlite_url, reasons, starts_anew):
    """Brought back from a copy, with changes since then: the latest id is no older than what is recorded."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    lost, *_ = waiting(rig, 3)
    settle(recorder, rig.client)
    note = json.loads(rig.client.hget(keys.HISTORY, "recorder"))
    assert note["broker"] == rig.client.info("server")["run_id"]
    rig.client.delete(keys.record(lost))
    waiting(rig, 1)
    if starts_anew:
        recorder.close()
        rig.client.hset(keys.HISTORY, "recorder", json.dumps(note | {"broker": "that before"}))
        recorder = make_recorder(rig.client, sqlite_url)
    else:
        recorder._note["broker"] = "that before"
    eventually(lambda: recorder.turn() is not None and len(reasons()) == 2, what="a resync")
    settle(recorder, rig.client)
    assert [row for row in rows(sqlite_url) if row[0] == lost] == [(lost, "forgotten", 0)]
    assert len(rows(sqlite_url)) == 4
    assert reasons()[-1].startswith("the broker was restarted")
    recorder.close()


def test_a_database_that_has_lost_its_latest_transactions_wants_a_resync(rig, sqlite_url, reasons):
    """As after a power cut: the recorder had no time to note in the broker how far it was."""
    recorder = make_recorder(rig.client, sqlite_url)
    dead(rig, 1)
    settle(recorder, rig.client)
    engine = connect(sqlite_url)
    with engine.connect() as connection:
        before = facts.get(connection, facts.RECORDED_ID)
    note = rig.client.hget(keys.HISTORY, "recorder")
    dead(rig, 1)
    settle(recorder, rig.client)
    recorder.close()
    rig.client.hset(keys.HISTORY, "recorder", note)
    with engine.begin() as connection:
        facts.put(connection, {facts.RECORDED_ID: before})
        connection.exec_driver_sql("UPDATE postbacks SET state = 0 WHERE row_id = 2")
    engine.dispose()
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert reasons()[-1] == "the database is another one than before, or an older copy of it"
    recorder.close()


def test_a_change_that_is_refused_during_a_resync_wants_another_one(rig, sqlite_url, reasons):
    """For the same reason: the resync under way may have read its record before."""
    recorder = make_recorder(rig.client, sqlite_url)
    ids = waiting(rig, 7)
    settle(recorder, rig.client)
    rules = {"keys": ["*"], "categories": ["+@all"], "commands": ["-xadd"]}
    rig.client.acl_setuser("former", enabled=True, passwords=["+secret"], **rules)
    address = rig.client.connection_pool.connection_kwargs
    with redis.Redis(address["host"], address["port"], username="former", password="secret") as client:
        moves = Scripts(client)
        moves.cancel(ids[0], 60)
        eventually(lambda: recorder.turn() is not None and recorder._resync, what="a resync")
        eventually(lambda: recorder.turn() is not None and recorder._resync._scanned, what="all records read")
        moves.cancel(ids[1], 60)
        settle(recorder, rig.client)
    rig.client.acl_deluser("former")
    assert rows(sqlite_url) == ledger_rows(rig.client)
    assert len(reasons()) == 3
    recorder.close()


def test_a_broker_that_is_emptied_during_a_resync_is_read_again(rig, sqlite_url, reasons):
    """Whatever the resync has behind it."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    waiting(rig, 10)
    settle(recorder, rig.client)
    Feed(rig.client).want_resync(REGISTERED)
    eventually(lambda: recorder.turn() is not None and recorder._resync, what="a resync")
    eventually(lambda: recorder.turn() is not None and recorder._resync._last_row, what="a page of open rows")
    rig.client.flushdb()
    settle(recorder, rig.client)
    assert {state for _, state, _ in rows(sqlite_url)} == {"forgotten"}
    recorder.close()


def test_a_resync_goes_on_over_what_is_no_record(rig, sqlite_url):
    """Keys that somebody has made by hand, and a record that was damaged after it was recorded."""
    recorder = make_recorder(rig.client, sqlite_url)
    ids = waiting(rig, 4)
    settle(recorder, rig.client)
    rig.client.set(keys.record("text"), "x")
    rig.client.hset(keys.RECORD.encode() + b"\xff\xc3\xa9", "schema", "1")
    rig.client.hset(keys.record(ids[0]), "created_ms", "soon")
    rig.client.hset(keys.record(ids[1]), mapping={"state": "cancelled", "ended_ms": 1_780_000_000_000})
    Feed(rig.client).want_resync(ASKED)
    settle(recorder, rig.client)
    states = {postback_id: state for postback_id, state, _ in rows(sqlite_url)}
    assert states == dict.fromkeys(ids, "waiting") | {ids[1]: "cancelled"}
    recorder.close()


@pytest.mark.parametrize("starts_anew", [False, True])
def test_workers_of_an_older_version_are_followed_by_a_resync(rig, sqlite_url, reasons, starts_anew):
    """They tell the feed nothing, which status says; a recorder that was away when they ended knows of them."""
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    (postback_id,) = waiting(rig, 1)
    settle(recorder, rig.client)
    silent = str(uuid.uuid4())  # the token of a loop of 0.1.0
    rig.client.zadd(keys.CLAIMERS, {silent: 10**14})
    recorder.turn()
    status = status_of(rig.client, sqlite_url)
    assert status.feed.older == ("0.1.0",)
    assert any("Workers of version 0.1.0 are at work" in fault for fault in status.faults)
    ended_ms = rig.client.hget(keys.record(postback_id), "created_ms")
    # as one of them may do
    rig.client.hset(keys.record(postback_id), mapping={"state": "dead", "ended_ms": ended_ms})
    settle(recorder, rig.client)
    assert rows(sqlite_url) == [(postback_id, "waiting", 0)]
    if starts_anew:
        recorder.close()
        recorder = make_recorder(rig.client, sqlite_url)
    rig.client.zrem(keys.CLAIMERS, silent)
    recorder.turn()
    settle(recorder, rig.client)
    assert rows(sqlite_url) == [(postback_id, "dead", 0)]
    assert len(reasons()) == 2
    assert "does not tell the history" in reasons()[1]
    assert status_of(rig.client, sqlite_url).ok
    recorder.close()


def test_every_reason_has_its_words():
    """Reasons that the moves note as well."""
    from postbacks.history.feed import REASONS

    assert {REGISTERED, GAP, ASKED, OLDER, DATABASE, "refused"} <= set(REASONS)
