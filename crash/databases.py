"""Databases of a run's history, and what can be done to them."""

from __future__ import annotations

import shutil
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg

from crash.plan import HISTORY_KINDS, Kinds
from tests.postgres import PostgresServer

#: ms that a lock is waited for that a run wants for itself.
LOCK_MS: Final = 200


class Database(ABC):
    """Database that a recorder writes to, up until it is killed.

    Args:
        folder: where its file or its log is in the end.

    Attributes:
        kinds: of faults that can be done to the recorders and to it.
        url: ``POSTBACKS_HISTORY_URL``.
        is_up: False from its death until it is started again.
    """

    kinds: ClassVar[Kinds] = HISTORY_KINDS
    url: str
    is_up = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locker: Any = None

    def lock(self) -> bool:
        """Lock it for all who write, until ``unlock``; False where that cannot be done now."""
        if self._locker is not None or not self.is_up:
            return False
        try:
            self._locker = self._lock()
        except (sqlite3.Error, psycopg.Error):  # down, without tables, or somebody frozen has it
            return False
        return True

    def unlock(self) -> None:
        """Let others write again."""
        self._locker.close()
        self._locker = None

    @abstractmethod
    def _lock(self) -> Any:
        """Return a connection that lets nobody write until it is closed."""

    def kill(self) -> None:  # noqa: B027 - a file does not run
        """Kill it."""

    def start(self) -> None:  # noqa: B027
        """Start it again, and wait until it answers."""

    def remove(self) -> None:  # noqa: B027
        """Remove what stands outside its folder."""


class SqliteDatabase(Database):
    """File, of which no process could be killed but the recorder."""

    kinds = {kind: numbers for kind, numbers in HISTORY_KINDS.items() if kind != "database killed"}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "history.db"
        self.url = f"sqlite:///{self._path.absolute()}"

    def _lock(self) -> Any:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            timeout=LOCK_MS / 1000,
            isolation_level=None,
            uri=True,
        )
        return _locked(connection, "BEGIN IMMEDIATE")


class PostgresDatabase(Database):
    """Server that syncs each commit, as it does by default."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = PostgresServer(fsync="on", full_page_writes="on", synchronous_commit="on")
        self.url = self._server.url

    def _lock(self) -> Any:
        connection = psycopg.connect(self.url, connect_timeout=2, options=f"-c lock_timeout={LOCK_MS}")
        return _locked(connection, "SELECT value FROM facts WHERE name = 'lease' FOR UPDATE")

    def kill(self) -> None:
        """Kill the server; its sessions notice, and end in the midst of what they do."""
        self._server.kill()
        self.is_up = False

    def start(self) -> None:
        """Start it again; it reads its log first."""
        self._server.start()
        self.is_up = True

    def remove(self) -> None:
        """Remove the server; its log stays."""
        shutil.copy(self._server.directory / "log", self._folder / "postgres.log")
        self._server.remove()


DATABASES: Final[dict[str, type[Database]]] = {"sqlite": SqliteDatabase, "postgresql": PostgresDatabase}


def _locked(connection: Any, statement: str) -> Any:
    """Return the connection once a statement has taken the lock; close it where it has not."""
    try:
        connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection
