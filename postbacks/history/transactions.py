"""Transactions of the history's database, and what its drivers raise as sentences."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, exc, make_url

from postbacks.errors import HistoryError, HistoryUnavailable, HistoryUnfit
from postbacks.settings import load

#: Words of SQLite's error names, the class here and what is said instead.
_SQLITE: Final = (
    ("SQLITE_BUSY", HistoryUnavailable, "is locked by another process, which writes for too long; try again in a moment"),
    ("SQLITE_LOCKED", HistoryUnavailable, "is locked by another process, which writes for too long; try again in a moment"),
    ("SQLITE_INTERRUPT", HistoryUnavailable, "would take too long for this question; ask for less (a shorter time, one account)"),
    ("SQLITE_FULL", HistoryUnavailable, "has no room left; make room on its disk (df -h)"),
    ("SQLITE_IOERR", HistoryUnavailable, "cannot be read or written on its disk; see the machine's log (dmesg) and its room (df -h)"),
    ("SQLITE_READONLY", HistoryUnfit, "is read-only for this user; run as its owner, and see the mode of its file and directory"),
    ("SQLITE_PERM", HistoryUnfit, "may not be opened by this user; run as its owner"),
    ("SQLITE_CANTOPEN", HistoryUnfit, "cannot be opened; see its path and whether this user may read it"),
    ("SQLITE_CORRUPT", HistoryUnfit, "is damaged; move its file away, and `postbacks history run` begins a new one from what the broker has"),
    ("SQLITE_NOTADB", HistoryUnfit, "is a file of something else; name another in POSTBACKS_HISTORY_URL"),
)  # fmt: skip
#: Beginnings of PostgreSQL's SQLSTATE, the class and the sentence.
_STATES: Final = (
    ("53100", HistoryUnavailable, "has no room left; make room on its server's disk (df -h)"),
    ("53", HistoryUnavailable, "has no connection or memory left; see its max_connections"),
    (
        "55P03",
        HistoryUnavailable,
        "is locked by another process, which writes for too long; try again in a moment",
    ),
    (
        "57014",
        HistoryUnavailable,
        "would take too long for this question; ask for less (a shorter time, one account)",
    ),
    ("57", HistoryUnavailable, "is stopping or starting; try again in a moment"),
    ("40", HistoryUnavailable, "gave the transaction up, as another one was in its way; try again"),
    ("25P03", HistoryUnavailable, "ended the transaction, as it stood still for too long; try again"),
    ("25006", HistoryUnfit, "is read-only (a standby?); name its primary in POSTBACKS_HISTORY_URL"),
    ("58", HistoryUnavailable, "cannot be read or written on its server's disk; see the server's log"),
    ("28", HistoryUnfit, "refused the user or the password in POSTBACKS_HISTORY_URL"),
    ("3D000", HistoryUnfit, "does not exist; make it (createdb), or correct POSTBACKS_HISTORY_URL"),
    ("42501", HistoryUnfit, "does not let this user do so; let the user own the database"),
    ("54", HistoryUnfit, "refuses a value, as it is too large"),
    ("XX001", HistoryUnfit, "is damaged; restore it, or begin with an empty one"),
)
#: Words of libpq, whose errors of a connection have no SQLSTATE.
_WORDS: Final = (
    ("authentication failed", "28"),
    ("no password supplied", "28"),
    ("no pg_hba.conf entry", "28"),
    ("does not exist", "3D000"),
    ("too many clients", "53"),
    ("too many connections", "53"),
    ("is starting up", "57"),
    ("is shutting down", "57"),
)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that writes: committed at its end, rolled back by an error.

    SQLite's file is locked from its begin on: a transaction that reads first could fail at its first write.
    """
    with (
        database_errors(engine),
        engine.connect() as connection,
        connection.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin(),
    ):
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that reads."""
    with database_errors(engine), engine.connect() as connection:
        yield connection


def display(url: URL | str) -> str:
    """Return a history's URL as people may see it, and write it: without password, options and driver."""
    try:
        parts = make_url(url)
    except exc.ArgumentError:
        return "(unreadable URL)"
    if parts.database and parts.database.startswith("file://"):  # as engine.py gives it to SQLite
        parts = parts.set(database=unquote(urlsplit(parts.database).path))
    name = parts.drivername.partition("+")[0]
    return parts._replace(password=None, drivername=name).set(query={}).render_as_string()


@contextmanager
def database_errors(engine: Engine | None = None) -> Iterator[None]:
    """Turn what SQLAlchemy raises into one sentence; nothing of the statement's data is in it.

    Args:
        engine: the database's; where none is given, the settings' URL is named.

    Raises:
        HistoryUnavailable: it does not answer, is locked or full; the same may do later.
        HistoryUnfit: somebody must mend it.
    """
    try:
        yield
    except _database_errors() as error:
        raise _explained(
            error, f"The history {display(engine.url if engine else load().history_url)}"
        ) from None


def _database_errors() -> tuple[type[Exception], ...]:
    """Return what may be raised: SQLAlchemy's errors, and psycopg's own of a COPY, where it is loaded."""
    psycopg = sys.modules.get("psycopg")
    return (exc.SQLAlchemyError, *([psycopg.Error] if psycopg else []))


def _explained(error: Exception, history: str) -> HistoryError:
    if isinstance(error, exc.TimeoutError):
        return HistoryUnavailable(
            f"{history} has no connection left for this process; try again in a moment."
        )
    cause = getattr(error, "orig", None) if isinstance(error, exc.SQLAlchemyError) else error
    if isinstance(cause, sqlite3.Error):
        name = getattr(cause, "sqlite_errorname", "")
        for mark, kind, words in _SQLITE:
            if name.startswith(mark):
                return kind(f"{history} {words}.")
        if "no such table" in str(cause):
            return HistoryUnfit(f"{history} has no tables yet; `postbacks history run` makes them.")
    elif cause is not None:
        state = getattr(cause, "sqlstate", None) or ""
        text = " ".join(str(cause).split())
        if not state:
            state = next((code for words, code in _WORDS if words in text), "")
        if state == "42P01":
            return HistoryUnfit(f"{history} has no tables yet; `postbacks history run` makes them.")
        for mark, kind, words in _STATES:
            if state.startswith(mark):
                return kind(f"{history} {words}.")
        if {kind.__name__ for kind in type(cause).__mro__} & {"OperationalError", "InterfaceError"}:
            return HistoryUnavailable(
                f"{history} does not answer; start it, or correct POSTBACKS_HISTORY_URL."
            )
    return HistoryUnfit(
        f"{history} answered with an error ({type(cause or error).__name__}): {_first_line(cause)}."
    )


def _first_line(cause: BaseException | None) -> str:
    """Return the first line of a driver's error: PostgreSQL puts a row's data into those behind it."""
    lines = str(cause or "").strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else "no more is known"
