"""Engine of a process that only looks: it writes nothing, and gives up what takes too long."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text

from postbacks.errors import HistoryError, HistoryOff, HistoryUnavailable
from postbacks.history.engine import read_only, reader, using
from postbacks.history.transactions import reading, writing
from postbacks.settings import Settings

SLOW = {
    "sqlite": (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000) SELECT count(*) FROM n"
    ),
    "postgresql": "SELECT pg_sleep(60)",
}


@pytest.fixture
def engine(database, database_url):
    """Engine that reads, with half a second for a statement."""
    made = read_only(Settings(history_url=database_url), statement_ms=500, connections=2)
    yield made
    made.dispose()


def test_it_writes_nothing(engine, database):
    for statement in ("INSERT INTO accounts (name) VALUES ('acme')", "DELETE FROM facts", "DROP TABLE facts"):
        with pytest.raises(HistoryError, match="read-only"), writing(engine) as connection:
            connection.execute(text(statement))
    with reading(database) as connection:
        assert connection.execute(text("SELECT count(*) FROM accounts")).scalar() == 0
        assert connection.execute(text("SELECT count(*) FROM facts")).scalar() > 0


def test_it_reads_what_others_write_meanwhile(engine, database):
    with writing(database) as connection:
        connection.execute(text("INSERT INTO accounts (name) VALUES ('acme')"))
    with reading(engine) as connection:
        assert connection.execute(text("SELECT name FROM accounts")).scalars().all() == ["acme"]


def test_a_statement_that_takes_too_long_is_given_up_with_a_sentence(engine):
    began_s = time.monotonic()
    with (
        pytest.raises(HistoryUnavailable, match="too long for this question; ask for less"),
        reading(engine) as connection,
    ):
        connection.execute(text(SLOW[engine.dialect.name]))
    assert time.monotonic() - began_s < 20
    with reading(engine) as connection:  # and the next one has its own time
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_whoever_reads_in_a_context_uses_its_engine(engine, database_url):
    settings = Settings(history_url=database_url)
    with using(lambda: engine):
        assert reader(settings) is engine
    with using(lambda: None):
        assert reader(settings) is not engine
    reader(settings).dispose()


def test_without_a_history_there_is_none():
    with pytest.raises(HistoryOff, match="POSTBACKS_HISTORY_URL"):
        read_only(Settings(history_url=""), statement_ms=500, connections=2)
