"""Files of the history's database written anew, so that their free pages have nothing any more of what was erased.

Both ways lock the database: deliveries go on, the recorder waits, and on PostgreSQL searches of a table wait as well.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from postbacks.errors import HistoryError, HistoryUnavailable
from postbacks.history.transactions import database_errors

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: Tables of PostgreSQL that an erasure changes; each is locked while it is written anew.
TABLES: Final = ("documents", "attempts", "business_values", "urls", "postbacks")
#: Bytes that SQLite needs on the disk for one of the file: the copy, and the log through which it comes back.
_COPIES: Final = 2.2
#: Seconds for which a lock, or the end of a search that holds the log, is waited for.
_WAIT_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.2
_MB: Final = 1_000_000


def compact(engine: Engine) -> str:
    """Write a database anew; return what came of it as a clause, a failure as well: what was erased stays so."""
    began_s = time.monotonic()
    try:
        with database_errors(engine):
            connection: Any = engine.raw_connection()
            try:
                words = _sqlite(connection) if engine.dialect.name == "sqlite" else _postgresql(connection)
            finally:
                connection.invalidate()  # its settings are not those of the others
    except HistoryError as error:
        return f"free pages not rewritten: {error} The same command tries it again."
    return f"{words}, in {time.monotonic() - began_s:.1f} s"


def _sqlite(connection: Any) -> str:
    driver = connection.driver_connection
    file = Path(driver.execute("PRAGMA database_list").fetchone()[2])
    needed, free = int(file.stat().st_size * _COPIES), shutil.disk_usage(file.parent).free
    if free < needed:
        return f"free pages not rewritten: it takes {needed // _MB:,} MB of disk, and {free // _MB:,} MB are free"
    driver.execute("PRAGMA temp_store = FILE")
    _until_free(lambda: driver.execute("VACUUM"))
    deadline_s = time.monotonic() + _WAIT_S
    while driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline_s:
            return "free pages rewritten, but not the write-ahead log: a search has held it for a minute"
        time.sleep(_LOOK_AGAIN_S)
    return "file and write-ahead log rewritten"


def _postgresql(connection: Any) -> str:
    driver = connection.driver_connection
    driver.autocommit = True
    for table in TABLES:
        _until_free(lambda table=table: driver.execute(f"VACUUM FULL {table}"))
    return (
        "tables and indexes rewritten; the server's write-ahead log is reused in its own time, "
        "and its disk may keep blocks of the former files"
    )


def _until_free(run: Any) -> None:
    """Run a statement again while another process writes, for a minute."""
    deadline_s = time.monotonic() + _WAIT_S
    while True:
        try:
            with database_errors():
                run()
        except HistoryUnavailable:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return
