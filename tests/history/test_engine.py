"""Engines of the history: what a URL may be, and each error as a sentence with what to do."""

from __future__ import annotations

import itertools
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import PostgresServer
from records import ACCEPTED_MS, delivered, make_record
from sqlalchemy import exc, text

from postbacks.errors import HistoryError, HistoryOff, HistoryUnavailable, HistoryUnfit
from postbacks.history import facts, migrations, schema
from postbacks.history.engine import connect, reader
from postbacks.history.transactions import database_errors, display, reading, writing
from postbacks.history.writer import Writer
from postbacks.ledger.phases import Phases
from postbacks.ledger.record import Attempt
from postbacks.settings import Settings


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root:secret@db/x", "cannot stand in 'mysql'; write sqlite:////directory"),
        ("nonsense", "cannot be read; write sqlite:////directory"),
        ("sqlite://", "wants a file"),
        ("sqlite:///:memory:", "wants a file"),
        ("sqlite:////no/such/directory/history.db", "directory /no/such/directory is not there; make it"),
        ("sqlite:////proc/history.db", "file /proc/history.db cannot be made or opened: "),
        ("postgresql://user:secret@db", "names no database"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url, words):
    """The password is not quoted."""
    with pytest.raises(HistoryUnfit) as error:
        connect(url)
    assert words in str(error.value)
    assert "secret" not in str(error.value)


def test_the_password_and_the_options_of_a_url_are_not_shown():
    """An option may hold a password, too."""
    shown = display("postgresql+psycopg://u:secret@db:5433/history?password=secret&sslmode=require")
    assert shown == "postgresql://u@db:5433/history"
    assert display("::") == "(unreadable URL)"


def test_a_missing_driver_is_named_with_its_extra():
    """In a process that cannot import it."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from postbacks.history.engine import connect\n"
        "from postbacks.errors import HistoryUnfit\n"
        "try: connect('postgresql://u:secret@h/d')\n"
        "except HistoryUnfit as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "The driver of PostgreSQL is not installed: pip install 'postbacks[postgres]'.\n"


def test_sqlite_makes_a_file_that_others_cannot_read(sqlite_url, tmp_path):
    """Nor its log; a commit is on the disk."""
    engine = connect(sqlite_url)
    migrations.prepare(engine)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"history.db": 0o600, "history.db-wal": 0o600, "history.db-shm": 0o600}
    with reading(engine) as connection:
        pragmas = ("journal_mode", "synchronous", "wal_autocheckpoint", "busy_timeout")
        assert [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas] == [
            "wal", 2, 16_000, 5_000,
        ]  # fmt: skip
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_spelling_of_postgresql_is_psycopg(prepared_postgres, scheme):
    """The older driver of that name is never asked for."""
    engine = connect(prepared_postgres.replace("postgresql", scheme, 1))
    with reading(engine) as connection:
        assert facts.number(connection, facts.SCHEMA) == schema.VERSION
    engine.dispose()


def test_a_reader_says_what_is_missing(sqlite_url, tmp_path):
    """No history, no file, no tables; it makes none itself."""
    with pytest.raises(HistoryOff, match="set POSTBACKS_HISTORY_URL"):
        reader(Settings())
    with pytest.raises(HistoryUnfit, match=r"not there yet; `postbacks history run` makes it"):
        reader(Settings(history_url=sqlite_url))
    assert list(tmp_path.iterdir()) == []
    connect(sqlite_url).dispose()
    with pytest.raises(HistoryUnfit, match="has no tables yet; `postbacks history run` makes them"):
        reader(Settings(history_url=sqlite_url))
    engine = connect(sqlite_url)
    migrations.prepare(engine)
    found = reader(Settings(history_url=sqlite_url))
    assert found is reader(Settings(history_url=sqlite_url))
    with reading(found) as connection:
        assert facts.number(connection, facts.SCHEMA) == schema.VERSION
    engine.dispose()
    found.dispose()


# -- versions -----------------------------------------------------------------------------------


def test_tables_are_made_once_by_whoever_comes_first(history_url):
    """Four at once; each finds them made or makes them."""
    failures: list[Exception] = []

    def prepare() -> None:
        engine = connect(history_url)
        try:
            migrations.prepare(engine)
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = connect(history_url)
    with reading(engine) as connection:
        states = connection.execute(text("SELECT name FROM states ORDER BY id")).scalars().all()
        migrations.check(connection)
    assert states == list(schema.STATES)
    engine.dispose()


def test_a_newer_schema_is_refused(database):
    """By the recorder and by readers alike."""
    with writing(database) as connection:
        facts.put(connection, {facts.SCHEMA: 99})
    with pytest.raises(
        HistoryUnfit, match=f"of schema 99, and this version knows up to {schema.VERSION}; use"
    ):
        migrations.prepare(database)
    with pytest.raises(HistoryUnfit, match="of schema 99"), reading(database) as connection:
        migrations.check(connection)


def test_an_older_schema_is_brought_forward(database, monkeypatch):
    """Step by step, in one transaction: a step that fails leaves all as it was."""
    now = schema.VERSION
    monkeypatch.setattr(schema, "VERSION", now + 2)
    with (
        reading(database) as connection,
        pytest.raises(HistoryUnfit, match=rf"of schema {now}, .* reads {now + 2}"),
    ):
        migrations.check(connection)

    def to_next(connection):
        connection.execute(text("UPDATE facts SET value = '7' WHERE name = 'lease'"))

    def broken(connection):
        connection.execute(text("UPDATE no_such_table SET x = 1"))

    monkeypatch.setattr(migrations, "_STEPS", {now: to_next, now + 1: broken})
    with pytest.raises(HistoryUnfit):
        migrations.prepare(database)
    with reading(database) as connection:
        assert facts.read(connection) == {"schema": str(now), "lease": "0", "last_row": "0"}
    monkeypatch.setattr(migrations, "_STEPS", {now: to_next, now + 1: lambda _: None})
    migrations.prepare(database)
    with reading(database) as connection:
        assert facts.read(connection) == {"schema": str(now + 2), "lease": "7", "last_row": "0"}


def test_attempts_of_schema_1_stay_and_later_ones_have_phases(database):
    """Made by a version that kept of an attempt no more than how long it took."""
    with writing(database) as connection:
        for table, name in itertools.product(("postbacks", "attempts"), ("phases", "address")):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {name}"))
        connection.execute(text("INSERT INTO attempts VALUES (7, 1, 5, 2, 503, 31, 0, 'answered 503', NULL)"))
        facts.put(connection, {facts.SCHEMA: 1})
    migrations.prepare(database)
    writer = Writer(database)
    writer.take_lease()
    later = Attempt(1, ACCEPTED_MS, "status", 503, 31, "answered 503", phases=Phases(1, 12, None, 17, 1))
    writer.write([make_record("later", state="parked", attempts=(later,))])
    with reading(database) as connection:
        migrations.check(connection)
        rows = connection.execute(text("SELECT detail, phases FROM attempts ORDER BY at_ms")).all()
        phases = connection.execute(text("SELECT phases FROM postbacks")).scalars().all()
    assert rows == [("answered 503", None), ("answered 503", "1,12,,17,1")]
    assert phases == ["1,12,,17,1"]


def test_a_database_of_somebody_else_is_left_alone(history_url):
    """A table of another program may have one of our names."""
    engine = connect(history_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE accounts (id INTEGER)"))
    with pytest.raises(HistoryUnfit, match=r"tables of somebody else \(accounts\); give it a database"):
        migrations.prepare(engine)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM accounts")).scalar() == 0
    engine.dispose()


def test_people_read_the_view(writer, database):
    """Names instead of numbers, ids and times as text."""
    given = ["0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679742540de944be07fc1f90ae7", "order-7"]
    writer.write([delivered(postback_id) for postback_id in given])
    columns = "id, account, origin, code, group_name, state, outcome, status, host, url"
    with reading(database) as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM postbacks_readable ORDER BY row_id")).all()
        accepted = connection.execute(text("SELECT accepted FROM postbacks_readable")).scalar()
    assert [row.id for row in rows] == given
    assert rows[0][1:] == (
        "acme", "SMS_MT", "N202", "mt", "delivered", "delivered", 200, "hooks.acme.example",
        "https://hooks.acme.example/postbacks",
    )  # fmt: skip
    assert str(accepted).replace(" ", "T").startswith("2026-05-28T20:30:00")


# -- errors -------------------------------------------------------------------------------------


def told(engine) -> str:
    """Read, and return what the error says, with its class."""
    with pytest.raises(HistoryError) as error, reading(engine) as connection:
        connection.execute(text("SELECT * FROM facts"))
    engine.dispose()
    assert error.value.__cause__ is None  # a traceback would show the statement's data
    return f"{type(error.value).__name__}: {error.value}"


def test_files_that_are_no_history_are_named(tmp_path):
    """A file of something else, one without tables, and a damaged one."""
    other = tmp_path / "other.db"
    other.write_bytes(b"This is a letter. " * 300)
    assert told(connect(f"sqlite:///{other}")) == (
        f"HistoryUnfit: The history sqlite:///{other} is a file of something else; name another in POSTBACKS_HISTORY_URL."
    )
    empty = tmp_path / "empty #1?.db"
    assert told(connect(f"sqlite:///{tmp_path}/empty %231.db".replace("%23", "#"))).endswith(
        "has no tables yet; `postbacks history run` makes them."
    )
    assert not empty.exists()
    damaged = tmp_path / "damaged.db"
    engine = connect(f"sqlite:///{damaged}")
    migrations.prepare(engine)
    engine.dispose()
    content = bytearray(damaged.read_bytes())
    content[4096:] = b"\xee" * (len(content) - 4096)
    damaged.write_bytes(content)
    assert "is damaged; move its file away" in told(connect(f"sqlite:///{damaged}"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that any user may read; each pytest that starts closes those above ``tmp_path`` again."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_file_of_another_user_is_named(open_folder):
    """In a process that is not root, which may do anything."""
    path = open_folder / "history.db"
    engine = connect(f"sqlite:///{path}")
    migrations.prepare(engine)
    engine.dispose()
    path.chmod(0o444)
    code = (
        "import os\nif os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "from sqlalchemy import text\n"
        "try:\n"
        f"    with writing(_engine('sqlite:///{path}', makes_file=False)) as connection: pass\n"
        "except HistoryUnfit as error: print(error)"
    )
    imports = (
        "from postbacks.history.engine import _engine\nfrom postbacks.history.transactions import writing\n"
        "from postbacks.errors import HistoryUnfit\n"
    )
    done = subprocess.run([sys.executable, "-c", imports + code], capture_output=True, text=True, check=False)
    assert "is read-only for this user; run as its owner" in done.stdout, done.stderr


def test_what_postgresql_refuses_is_told(postgres):
    """Password, database and user; nothing of the URL's password."""
    server, _, _ = postgres.rpartition("/")
    password = server.split(":")[2].split("@")[0]
    assert "refused the user or the password" in told(
        connect(server.replace(password, "wrong!") + "/postgres")
    )
    assert "does not exist; make it (createdb)" in told(connect(server + "/nowhere"))
    away = told(connect("postgresql://u:secret@127.0.0.1:1/history"))
    assert away == (
        "HistoryUnavailable: The history postgresql://u@127.0.0.1:1/history does not answer; start it, or correct "
        "POSTBACKS_HISTORY_URL."
    )


def test_a_standby_is_told(prepared_postgres):
    """Sessions of a standby are read-only."""
    engine = connect(prepared_postgres + "?options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(HistoryUnfit, match="is read-only"):
        Writer(engine).take_lease()
    engine.dispose()


def test_postgresql_stopped_is_waited_out():
    """The same writer goes on once it runs again; what it had learnt holds or is read again."""
    server = PostgresServer()
    try:
        engine = connect(server.url)
        migrations.prepare(engine)
        writer = Writer(engine)
        writer.take_lease()
        writer.write([delivered("before")])
        server.stop()
        for _ in range(2):
            with pytest.raises(HistoryUnavailable, match=r"does not answer|is stopping"):
                writer.write([delivered("during", account="new")])
        server.start()
        assert writer.write([delivered("during", account="new")], recorded_ms=1) == 1
        with reading(engine) as connection:
            rows = connection.execute(text("SELECT account FROM postbacks_readable ORDER BY row_id"))
            assert rows.scalars().all() == ["acme", "new"]
        engine.dispose()
    finally:
        server.remove()


def test_a_frozen_recorder_loses_its_transaction_on_postgresql(prepared_postgres, monkeypatch):
    """The server ends it, so that another recorder gets the lease's row."""
    from postbacks.history import engine as engines

    monkeypatch.setattr(engines, "_LOCK_MS", 200)
    monkeypatch.setattr(engines, "_IDLE_MS", 600)
    frozen, other = connect(prepared_postgres), connect(prepared_postgres)
    lock = text("SELECT value FROM facts WHERE name = 'lease' FOR UPDATE")
    with frozen.connect() as connection:
        connection.execute(lock)
        with pytest.raises(HistoryUnavailable, match="locked by another process"):
            Writer(other).take_lease()
        with writing(other) as waiting:
            waiting.execute(text("SET LOCAL lock_timeout = 20000"))
            waiting.execute(lock)
        with pytest.raises(HistoryUnavailable, match=r"does not answer|stood still"), database_errors(frozen):
            connection.execute(lock)
    frozen.dispose()
    other.dispose()


def test_a_connection_that_is_cut_while_rows_are_copied_is_told(prepared_postgres, monkeypatch):
    """The same writer goes on afterwards."""
    engine = connect(prepared_postgres)
    writer = Writer(engine)
    writer.take_lease()
    insert = writer._bulk.insert

    def cut(connection, table, rows):
        if table.name == "documents":
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            with engine.connect() as other:
                other.execute(text(f"SELECT pg_terminate_backend({pid})"))
        insert(connection, table, rows)

    with monkeypatch.context() as patch:
        patch.setattr(writer._bulk, "insert", cut)
        with pytest.raises(HistoryUnavailable):
            writer.write([delivered("cut")])
    assert writer.write([delivered("cut")]) == 1
    engine.dispose()


def test_an_error_never_quotes_a_statements_data():
    """PostgreSQL puts the row into the lines behind the first."""

    class DriverError(Exception):
        sqlstate = "22003"

    error = exc.DataError("INSERT …", {"to": "15552310137"}, DriverError("out of range\nDETAIL: 15552310137"))
    with pytest.raises(HistoryUnfit) as seen, database_errors(None):
        raise error
    assert "out of range" in str(seen.value)
    assert "15552310137" not in str(seen.value)
