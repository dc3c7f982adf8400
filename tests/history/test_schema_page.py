"""Schema of the history as docs/history.md describes it: every table, column and type, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import cells
from sqlalchemy.dialects import postgresql, sqlite

from postbacks.history import schema

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "history.md").read_text()
SCHEMA = PAGE.split("\n## Schema\n")[1].split("\n## ")[0]
SECTIONS = dict(re.findall(r"\n### (\w+)\n(.*?)(?=\n### |\Z)", SCHEMA, re.DOTALL))


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
