"""Costs of the history, in counts that no busy machine changes; `make bench` has the times.

Each bound is about one and a half times what was counted when it was set, as in tests/delivery/test_costs.py.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from events import MT
from recording import make_recorder, no_waiting, settle
from records import delivered, make_record
from sqlalchemy import Engine, event

from benchmarks.history_rows import Rows, account_name, fill
from postbacks import send_postbacks
from postbacks.broker.client import client_for
from postbacks.history import Query, count, search
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.timeline import story
from postbacks.history.writer import Writer
from postbacks.ledger.record import Attempt

#: No broker answers there.
AWAY = client_for("redis://127.0.0.1:1/0", 1.0)
POSTBACKS = 1_000


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that the block runs, one with many rows once."""
    ran: list[str] = []

    def note(_connection, _cursor, statement, _parameters, _context, _executemany):
        ran.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield ran
    finally:
        event.remove(engine, "before_cursor_execute", note)


# -- the recorder ------------------------------------------------------------------------------------


def test_a_batch_costs_the_broker_a_command_a_postback_and_a_few_more(rig, sqlite_url, monkeypatch):
    """A thousand postbacks: HGETALL of each, and the commands of the feed, the lease and the note. Python calls stand for time."""
    no_waiting(monkeypatch)
    recorder = make_recorder(rig.client, sqlite_url)
    settle(recorder, rig.client)
    send_postbacks("nobody", [MT] * POSTBACKS)  # they end at once
    rig.tick()
    batches, written, python_calls = recorder.batches, recorder.written, 0

    def on_event(_frame, event, _argument):
        nonlocal python_calls
        python_calls += event in {"call", "c_call"}

    rig.client.config_resetstat()
    sys.setprofile(on_event)
    try:
        while recorder.written - written < POSTBACKS:
            recorder.turn()
    finally:
        sys.setprofile(None)
    calls = Counter(
        {
            name.removeprefix("cmdstat_"): stat["calls"]
            for name, stat in rig.client.info("commandstats").items()
        }
    )
    recorder.close()
    assert recorder.batches - batches == 1
    assert calls.pop("hgetall") <= POSTBACKS + 10
    assert calls["xrange"] <= 4
    assert calls["xtrim"] <= 1
    assert calls.total() <= 45
    assert python_calls / POSTBACKS <= 170


def test_a_batch_is_a_few_statements_however_many_postbacks_it_has(database: Engine, writer: Writer):
    """New postbacks, of an account and an hour that are known: as many statements for a thousand as for a hundred."""
    writer.write([delivered() for _ in range(10)], recorded_id="1-0", recorded_ms=1)
    ran = []
    for number in (100, POSTBACKS):
        with statements_of(database) as statements:
            writer.write([delivered() for _ in range(number)], recorded_id="2-0", recorded_ms=2)
        ran.append(len(statements))
    assert ran[1] <= ran[0] + 3  # SQLite asks for ids a few hundred at a time
    assert ran[1] <= 14


def test_what_ends_is_changed_in_a_few_statements(database: Engine, writer: Writer):
    """Postbacks that waited and were delivered by their second POST."""
    ids = [f"postback-{number}" for number in range(POSTBACKS)]
    writer.write([make_record(postback_id) for postback_id in ids])
    attempts = (
        Attempt(1, 1_780_000_200_100, "status", 500, 12, "the answer was 500", "oops"),
        Attempt(2, 1_780_000_500_100, "delivered", 200, 12),
    )
    ended = [
        make_record(postback_id, state="delivered", attempts=attempts, ended_ms=1_780_000_500_200)
        for postback_id in ids
    ]
    with statements_of(database) as statements:
        writer.write(ended)
    assert len(statements) <= 14


# -- searches ----------------------------------------------------------------------------------------

FEW, MANY = 4_000, 16_000


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> Iterator[tuple[Engine, Engine]]:
    """Histories of two days with few postbacks and with four times as many."""
    engines = []
    for number in (FEW, MANY):
        engine = connect(f"sqlite:///{tmp_path_factory.mktemp('costs')}/history.db")
        prepare(engine)
        fill(engine, Rows(number, days=2))
        engines.append(engine)
    yield tuple(engines)
    for engine in engines:
        engine.dispose()


@cache
def known(engine: Engine) -> str:
    """Return a TRACKINGID that a history has."""
    candidates = (f"MT{number:012d}" for number in range(700, FEW))
    return next(
        one for one in candidates if search(Query(tracking_id=one), client=AWAY, engine=engine).postbacks
    )


def steps_of(engine: Engine, work) -> int:
    """Count the steps of SQLite's virtual machine, in tens: one row of an index that is read takes one or two of these."""
    work(engine)  # what is read once is read
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with engine.connect() as connection:
        driver = connection.connection.driver_connection
    driver.set_progress_handler(step, 10)
    try:
        work(engine)
    finally:
        driver.set_progress_handler(None, 10)
    return steps


@pytest.mark.parametrize(
    ("work", "at_most"),
    [
        (lambda engine: search(Query(account=account_name(0)), client=AWAY, engine=engine), 270),
        (lambda engine: search(Query(code="N202", state="delivered"), client=AWAY, engine=engine), 360),
        (lambda engine: search(Query(state="dead"), client=AWAY, engine=engine), 350),
        (lambda engine: search(Query(tracking_id=known(engine)), client=AWAY, engine=engine), 100),
        (lambda engine: story(known(engine), client=AWAY, engine=engine), 230),
    ],
    ids=["newest of an account", "newest of a code and a state", "newest dead", "by TRACKINGID", "story"],
)
def test_a_page_reads_no_more_because_there_is_more(worlds, work, at_most):
    """Four times as many postbacks: the same steps, in tens."""
    few, many = (steps_of(engine, work) for engine in worlds)
    assert 0 < few <= at_most
    assert many <= 1.2 * few + 5


@pytest.mark.parametrize(
    "query", [Query(code="N202"), Query(state="dead", status=503)], ids=["code", "state and status"]
)
def test_a_count_without_account_reads_counts_by_the_hour(worlds, query):
    """Four times as many postbacks of the same hours: kinds of ends that an hour has, and not postbacks."""
    few, many = (
        steps_of(engine, lambda engine: count(query, client=AWAY, engine=engine)) for engine in worlds
    )
    assert many <= 2.5 * few
    assert many <= MANY / 4
