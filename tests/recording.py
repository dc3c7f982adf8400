"""Recorders in the tests' own process, and what the history has afterwards."""

from __future__ import annotations

import pytest
import redis
from helpers import eventually
from sqlalchemy import text

from postbacks import keys
from postbacks.history import recorder as recorder_module
from postbacks.history.engine import connect, reader
from postbacks.history.feed import Feed
from postbacks.history.recorder import Recorder
from postbacks.history.status import Status, read
from postbacks.ledger.record import Record
from postbacks.settings import Settings, load

#: A row as ``rows`` returns it: id, state, attempts.
Row = tuple[str, str, int]

#: Mark of a test that is tried on both databases of the history.
both = pytest.mark.parametrize("history_url", ["sqlite", "postgresql"], indirect=True)


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each turn do all that is done once a second, or once in ten."""
    for name in ("GATHER_S", "LOOK_FOR_OLDER_S", "NOTE_EVERY_S", "PRUNE_EVERY_S", "MEASURE_EVERY_S"):
        monkeypatch.setattr(recorder_module, name, 0.0)
    monkeypatch.setattr(recorder_module, "EVERY_S", 0.001)


def make_recorder(client: redis.Redis, url: str, *, clock_offset_ms: int = 0) -> Recorder:
    """Make a recorder that writes to this database."""
    settings = load().model_copy(update={"history_url": url})
    return Recorder(client, settings, clock_offset_ms=clock_offset_ms)


def settings_of(url: str) -> Settings:
    """Return the settings with this history."""
    return load().model_copy(update={"history_url": url})


def end_lease(client: redis.Redis) -> None:
    """End the lease of the recorder that works, as if it had been silent for so long."""
    feed = Feed(client)
    feed.release(feed.state().holder)


def status_of(client: redis.Redis, url: str) -> Status:
    """Read the status; close what a process would keep open for its next look."""
    status = read(client, settings_of(url))
    reader(settings_of(url)).dispose()
    return status


def settle(recorder: Recorder, client: redis.Redis) -> None:
    """Let it turn until nothing is left to record."""

    def is_settled() -> bool:
        recorder.turn()
        return recorder.works and not client.xlen(keys.CHANGES) and not Feed(client).state().resync

    eventually(is_settled, what="the end of what is to be recorded")


def rows(url: str) -> list[Row]:
    """Read what history has, in order of acceptance."""
    query = "SELECT id, state, attempts FROM postbacks_readable ORDER BY accepted_ms, id"
    engine = connect(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


def ledger_rows(client: redis.Redis) -> list[Row]:
    """Read the same of all records of the broker; what is sent waits."""
    records = []
    for key in client.scan_iter(f"{keys.RECORD}*"):
        postback_id = key.decode().removeprefix(keys.RECORD)
        fields = client.hgetall(key)
        record = Record.from_hash(postback_id, fields)
        state = "waiting" if record.state in {"sending", "held"} else record.state
        records.append((record.created_ms, postback_id, state, int(fields[b"attempts"])))
    return [row[1:] for row in sorted(records)]
