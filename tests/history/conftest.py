"""Both databases of the history: SQLite in a file, and a real PostgreSQL, each test in an empty database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from postgres import new_database, shared_server
from sqlalchemy import Engine

from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.writer import Writer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the run's PostgreSQL, as its superuser."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    with shared_server(directory) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    """URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path}/history.db"


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """URL of an empty database."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of each kind."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
def database(history_url: str) -> Iterator[Engine]:
    """Engine of a database with the history's tables, of each kind."""
    engine = connect(history_url)
    prepare(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def writer(database: Engine) -> Writer:
    """Writer that has the lease."""
    writer = Writer(database)
    writer.take_lease()
    return writer
