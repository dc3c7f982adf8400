"""Both databases of the history: SQLite in a file, and a real PostgreSQL, each test in an empty database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import new_database
from sqlalchemy import Engine, event, text

from postbacks.history import facts, migrations
from postbacks.history.engine import connect
from postbacks.history.schema import VERSION, metadata
from postbacks.history.writer import Writer


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    """URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path}/history.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of each kind."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture(scope="session")
def prepared_postgres(postgres: str) -> Iterator[str]:
    """URL of a database with the history's tables, which all tests of this process use: to make one takes a third of a second."""
    with new_database(postgres) as url:
        engine = connect(url)
        migrations.prepare(engine)
        engine.dispose()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Engine of a database with the history's tables, empty, of each kind."""
    if request.param == "sqlite":
        engine = connect(request.getfixturevalue("sqlite_url"))
        # what is in it is gone with the run, as PostgreSQL's
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    else:
        engine = connect(request.getfixturevalue("prepared_postgres"))
        tables = ", ".join(table for table in metadata.tables if table not in {"states", "outcomes"})
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
            facts.put(connection, {facts.SCHEMA: VERSION, **migrations.FIRST_FACTS})
    migrations.prepare(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database: Engine) -> str:
    """URL of the database, as the settings name it."""
    is_sqlite = database.dialect.name == "sqlite"
    return request.getfixturevalue("sqlite_url" if is_sqlite else "prepared_postgres")


@pytest.fixture
def writer(database: Engine) -> Writer:
    """Writer that has the lease."""
    writer = Writer(database)
    writer.take_lease()
    return writer
