"""Schema of the history as docs/history.md describes it: every table, column and type, and nothing else."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal
from pathlib import Path

import pytest
from pages import cells
from records import make_record
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from postbacks.history import schema
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.transactions import reading
from postbacks.ledger.record import Attempt

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "history.md").read_text()
SCHEMA = PAGE.split("\n## Schema\n")[1].split("\n## ")[0]
SECTIONS = dict(re.findall(r"\n### (\w+)\n(.*?)(?=\n### |\Z)", SCHEMA, re.DOTALL))

#: 24 November 2026, the day that the page's examples ask for.
DAY_MS = 1_795_478_400_000
EXAMPLES = re.findall(r"```sql\n(SELECT.*?);?\n```", PAGE, re.DOTALL)
IDS = ("fa676d81-83f8-41c6-9a02-47f7aeedfd5a", "0123456789abcdef0123456789abcdef")
HOST = "hooks.acme.example"
#: Rows that each example finds in the history of ``filled``.
EXPECTED = [
    [("acme", "status", 1)],
    [("acme", 3, 33.3), ("beta", 1, 100.0)],
    [(HOST, 4, 30.0, 40)],
    [(DAY_MS // 1000, "SMS_MT", "N202", 4)],
    [(IDS[1], 1, "status", 503, "answered 503; only 200 counts", "busy")],
]


def columns_of(section: str) -> dict[str, str]:
    """Return the columns that a section's table describes, and the type of each."""
    rows = [cells(line) for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 and row[2] for row in rows)
    return {row[0].strip("`"): row[1] for row in rows}


def type_of(column) -> str:
    """Return a column's type as the page writes it: PostgreSQL's, SQLite's where it differs, ? where it may be NULL."""
    ours, theirs = (
        column.type.compile(dialect=dialect.dialect()).lower() for dialect in (postgresql, sqlite)
    )
    return (ours if ours == theirs else f"{ours} ({theirs})") + ("?" if column.nullable else "")


def test_the_page_has_every_table_and_no_other():
    assert SECTIONS.keys() - {"postbacks_readable"} == schema.metadata.tables.keys()


@pytest.mark.parametrize("name", sorted(schema.metadata.tables))
def test_the_page_has_every_column_of_a_table_with_its_type_and_a_meaning(name):
    table = schema.metadata.tables[name]
    assert columns_of(SECTIONS[name]) == {column.name: type_of(column) for column in table.columns}


def test_the_page_has_every_column_of_the_view(database):
    """In its order; types are those of the columns that it shows."""
    with reading(database) as connection:
        columns = connection.execute(text("SELECT * FROM postbacks_readable")).keys()
    assert list(columns) == list(columns_of(SECTIONS["postbacks_readable"]))


# -- examples of SQL -------------------------------------------------------------------------------


@pytest.fixture
def filled(database, writer):
    """History of a day: two that are delivered, one of them at the second attempt, and one that is dead."""
    failed = Attempt(
        1, DAY_MS + 10, "status", 503, 40, detail="answered 503; only 200 counts", excerpt="busy"
    )
    delivered = Attempt(2, DAY_MS + 300_050, "delivered", 200, 20)
    at_once = Attempt(1, DAY_MS + 10, "delivered", 200, 30)
    ended = {"accepted_ms": DAY_MS, "ended_ms": DAY_MS + 400_000}
    writer.write(
        [
            make_record("order-1", state="delivered", attempts=(at_once,), **ended),
            make_record(IDS[0], state="delivered", attempts=(failed, delivered), **ended),
            make_record(IDS[1], state="dead", attempts=(failed,), reason="status", **ended),
            make_record("order-2", account="beta", state="delivered", attempts=(at_once,), **ended),
        ]
    )
    return database


def test_each_example_of_the_page_finds_what_it_says(filled):
    """On both databases, as it stands; and ids and times of the view are for people."""
    with reading(filled) as connection:
        found = [connection.execute(text(example)).all() for example in EXAMPLES]
        rows = connection.execute(text("SELECT id, accepted FROM postbacks_readable")).all()
    assert [[tuple(map(plain, row)) for row in of_example] for of_example in found] == EXPECTED
    assert {row[0] for row in rows} == {"order-1", "order-2", *IDS}
    (accepted,) = {str(row[1]) for row in rows}
    assert accepted.startswith("2026-11-24")


def plain(value):
    """Return PostgreSQL's exact numbers as SQLite has them."""
    return float(value) if isinstance(value, Decimal) else value


# -- who may read ----------------------------------------------------------------------------------


@pytest.fixture
def guarded(postgres_url):
    """A database of PostgreSQL with the history's tables, and a way to ask it as a user of the page."""
    owner = connect(postgres_url)
    prepare(owner)
    name = owner.url.database
    roles = []

    def user(statements: str, role: str) -> Engine:
        # roles belong to the whole server, which other tests use
        unique = f"{role}_{uuid.uuid4().hex[:8]}"
        roles.append(unique)
        with owner.begin() as connection:
            for statement in filter(None, map(str.strip, statements.split(";"))):
                words = statement.replace("DATABASE postbacks", f"DATABASE {name}")
                words = words.replace("FOR ROLE postbacks", "FOR ROLE CURRENT_USER")
                connection.execute(text(words.replace(role, unique)))
        return create_engine(
            owner.url.set(drivername="postgresql+psycopg", username=unique, password="another password"),
            poolclass=NullPool,
        )

    yield user
    with owner.begin() as connection:
        for role in roles:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    owner.dispose()


def refused(engine: Engine, statement: str) -> bool:
    """Tell whether a user may not run a statement."""
    try:
        with engine.begin() as connection:
            connection.execute(text(statement))
    except ProgrammingError as error:
        if "permission denied" not in str(error):
            raise
        return True
    return False


def test_the_pages_reader_may_read_everything_and_write_nothing(guarded):
    (statements,) = re.findall(r"```sql\n(CREATE ROLE.*?)```", PAGE, re.DOTALL)
    engine = guarded(statements, "postbacks_reader")
    assert not refused(engine, "SELECT * FROM postbacks_readable")
    for name in schema.metadata.tables:
        assert not refused(engine, f"SELECT * FROM {name}"), name
        assert refused(engine, f"DELETE FROM {name}"), name
    assert refused(engine, "CREATE TABLE mine (id integer)")


def test_an_analyst_of_the_view_sees_no_document(guarded):
    """The view is its owner's, so it may be read without a right to what it is made of."""
    engine = guarded(
        "CREATE ROLE analyst LOGIN PASSWORD 'another password'; GRANT CONNECT ON DATABASE postbacks TO analyst; "
        "GRANT SELECT ON postbacks_readable TO analyst",
        "analyst",
    )
    assert not refused(engine, "SELECT * FROM postbacks_readable")
    for name in schema.metadata.tables:
        assert refused(engine, f"SELECT * FROM {name}"), name
