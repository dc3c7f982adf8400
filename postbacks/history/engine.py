"""Engines of the history's database: SQLite in a file, or PostgreSQL by psycopg 3, and their errors as sentences.

A commit is on the disk before it returns (SQLite: ``synchronous=FULL``; PostgreSQL: its default), as the broker's feed is
trimmed after it: with ``NORMAL`` a power cut could take the last commits, of which the feed has nothing any more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import NullPool, QueuePool

from postbacks.errors import HistoryOff, HistoryUnfit
from postbacks.history import migrations
from postbacks.history.transactions import database_errors as database_errors
from postbacks.history.transactions import display, reading
from postbacks.settings import Settings, load

FORM: Final = "write sqlite:////directory/history.db or postgresql://user:password@host/database"

#: ms that SQLite waits for a lock, and PostgreSQL for that of a row: the recorder asks again, and says what it waits for.
_LOCK_MS: Final = 5_000
#: ms after which PostgreSQL ends the transaction of a process that does not go on: it would hold the lease's row.
_IDLE_MS: Final = 30_000
#: Price of a page that PostgreSQL reads out of order, beside one that it reads in order: that of a disk without moving parts.
_RANDOM_PAGE_COST: Final = 1.1
#: Seconds for a connection to PostgreSQL.
_CONNECT_S: Final = 5
#: Pages of the write-ahead log, 64 MB, after which they are brought into the file: pages that change often go there once.
_CHECKPOINT_PAGES: Final = 16_000
#: Bytes that the write-ahead log keeps on the disk once it is in the file.
_LOG_BYTES: Final = 64 * 1024 * 1024
#: KB of the file that a connection keeps in memory.
_CACHE_KB: Final = 32 * 1024

#: Settings of SQLite's connections: of those that may write, of those that only read, and of all.
_WRITER: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    f"journal_size_limit = {_LOG_BYTES}",
)
_ONLY_READS: Final = ("query_only = ON",)
_ALL: Final = (f"cache_size = -{_CACHE_KB}", "temp_store = MEMORY")

_POSTGRES: Final = frozenset({"postgres", "postgresql", "postgresql+psycopg"})


#: Steps of SQLite's machine between two looks at the clock, about a tenth of a millisecond.
_STEPS: Final = 10_000

#: Engine that readers of this context use instead of the process's own (``using``).
_of_context: Final[ContextVar[Callable[[], Engine | None] | None]] = ContextVar(
    "history_engine", default=None
)


def connect(url: str) -> Engine:
    """Make the engine of a history's URL; SQLite's file is made where it is not there, for its owner alone.

    Raises:
        HistoryUnfit: the URL cannot be, its driver is not installed, or its file cannot be made.
    """
    return _engine(url, makes_file=True)


def reader(settings: Settings | None = None) -> Engine:
    """Return the engine that searches use; the same one for each call of a process.

    Raises:
        HistoryOff: no history is set.
        HistoryUnfit: the history is not there yet, or its schema is another version's.
        HistoryUnavailable: its database does not answer.
    """
    if (of_context := _of_context.get()) is not None and (engine := of_context()) is not None:
        return engine
    return _reader(_url_of(settings or load()))


def read_only(settings: Settings, *, statement_ms: int, connections: int) -> Engine:
    """Make an engine that can write nothing and gives each statement up after a time, for a process that many ask.

    Args:
        settings: name the database.
        statement_ms: for which a statement may run.
        connections: open at a time at most.

    Raises:
        HistoryOff: no history is set.
        HistoryUnfit: the history is not there yet, or its schema is another version's.
        HistoryUnavailable: its database does not answer.
    """
    engine = _engine(_url_of(settings), makes_file=False, statement_ms=statement_ms, connections=connections)
    try:
        with reading(engine) as connection:
            migrations.check(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def using(engine: Callable[[], Engine | None]) -> Iterator[None]:
    """Let whoever reads in this context use the engine that a function returns; None for the process's own."""
    token = _of_context.set(engine)
    try:
        yield
    finally:
        _of_context.reset(token)


def _url_of(settings: Settings) -> str:
    if not settings.history_url:
        raise HistoryOff(
            "No history is set: set POSTBACKS_HISTORY_URL (sqlite:////directory/history.db) and run "
            "`postbacks history run`; `postbacks up` does both."
        )
    return settings.history_url


@lru_cache(maxsize=8)
def _reader(url: str) -> Engine:
    engine = _engine(url, makes_file=False)
    with reading(engine) as connection:
        migrations.check(connection)
    return engine


def _engine(
    url: str, *, makes_file: bool, statement_ms: int | None = None, connections: int | None = None
) -> Engine:
    """Make an engine; with ``statement_ms`` one that only reads."""
    try:
        parts = make_url(url)
    except exc.ArgumentError:
        raise HistoryUnfit(f"POSTBACKS_HISTORY_URL cannot be read; {FORM}.") from None
    if parts.drivername in _POSTGRES:
        return _postgresql(parts.set(drivername="postgresql+psycopg"), statement_ms, connections)
    if parts.drivername != "sqlite":
        raise HistoryUnfit(f"The history cannot stand in {parts.drivername!r}; {FORM}.")
    return _sqlite(parts, makes_file, statement_ms, connections)


def _postgresql(url: URL, statement_ms: int | None, connections: int | None) -> Engine:
    try:
        import psycopg  # noqa: F401, PLC0415 - an extra brings it
    except ImportError:
        raise HistoryUnfit(
            "The driver of PostgreSQL is not installed: pip install 'postbacks[postgres]'."
        ) from None
    if not url.database:
        raise HistoryUnfit(f"The history {display(url)} names no database; {FORM}.")
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            **({} if connections is None else {"pool_size": connections, "max_overflow": 0}),
            hide_parameters=True,
            connect_args={"connect_timeout": _CONNECT_S} if "connect_timeout" not in url.query else {},
        )
    except exc.SQLAlchemyError:
        raise HistoryUnfit(f"The history {display(url)} has options that cannot be; {FORM}.") from None

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        """Bound how long a connection waits, and how long others wait for it when its process stands still.

        The default price of a page read out of order is that of a disk that turns. With it the planner reads all of
        ``postbacks`` where a number has 2% of them: three times as long (measured, 10 million rows).
        """
        autocommit, connection.autocommit = connection.autocommit, True
        connection.execute(
            f"SET lock_timeout = {_LOCK_MS}; SET idle_in_transaction_session_timeout = {_IDLE_MS}; "
            f"SET random_page_cost = {_RANDOM_PAGE_COST}"
        )
        if statement_ms is not None:
            connection.execute(
                f"SET default_transaction_read_only = on; SET statement_timeout = {statement_ms}"
            )
        connection.autocommit = autocommit

    return engine


def _sqlite(url: URL, makes_file: bool, statement_ms: int | None, connections: int | None) -> Engine:
    if not url.database or url.database == ":memory:" or url.query:
        raise HistoryUnfit(f"The history wants a file, without options; {FORM}.")
    path = Path(url.database)
    if not path.parent.is_dir():
        raise HistoryUnfit(
            f"The history's directory {path.parent} is not there; make it, or correct POSTBACKS_HISTORY_URL."
        )
    if makes_file:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise HistoryUnfit(
                f"The history's file {path} cannot be made or opened: {error.strerror}."
            ) from None
    elif not path.exists():
        raise HistoryUnfit(f"The history's file {path} is not there yet; `postbacks history run` makes it.")
    mode = "rw" if statement_ms is None else "ro"
    engine = create_engine(
        URL.create("sqlite", database=path.absolute().as_uri(), query={"mode": mode, "uri": "true"}),
        hide_parameters=True,
        connect_args={"timeout": _LOCK_MS / 1000, "cached_statements": 256},
        # Who searches keeps no connection: nobody ends a program's reader, and Python 3.13 warns of one left open.
        poolclass=QueuePool if makes_file or connections else NullPool,
        **({"pool_size": connections, "max_overflow": 0} if connections else {}),
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below, not sqlite3's own
        for pragma in (*(_WRITER if statement_ms is None else _ONLY_READS), *_ALL):
            try:
                connection.execute(f"PRAGMA {pragma}").close()
            except sqlite3.Error:
                connection.close()  # the pool never gets it
                raise

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    if statement_ms is not None:
        _limit_statements(engine, statement_ms / 1000)
    return engine


def _limit_statements(engine: Engine, limit_s: float) -> None:
    """Let SQLite, which has no limit of its own, give up what runs for too long: it looks at the clock as it runs."""

    @event.listens_for(engine, "before_cursor_execute")
    def start(connection: Connection, *_: object) -> None:
        driver: Any = connection.connection.driver_connection
        deadline_s = time.monotonic() + limit_s
        driver.set_progress_handler(lambda: time.monotonic() > deadline_s, _STEPS)
