"""Reading of both databases by ``python -m crash``: it finds in real rows what was spoilt in them."""

from __future__ import annotations

from records import delivered, make_record
from sqlalchemy import text

from crash.history_reading import compare_all, told_by_hash
from postbacks.history import schema
from postbacks.ledger.record import Attempt

FAILED = Attempt(1, 1_780_000_200_500, "status", 500, 12, "answered 500", "down")
#: Of each kind: a row alone, with attempts, with a URL of its own, without a POST.
RECORDS = [
    delivered("plain"),
    make_record("dead", state="dead", attempts=(FAILED,), reason="status", ended_ms=1_780_000_201_000),
    make_record("own", state="dead", url="https://user:word@own.example/?key=1", own="1"),
    make_record("skipped", state="skipped", reason="origin_off", ended_ms=1_780_000_200_001),
]
#: Row of the dead one, which alone has an attempt in the table of them.
DEAD = "row_id = (SELECT row_id FROM attempts)"
COLUMNS = ", ".join(column.name for column in schema.postbacks.columns if column.name != "row_id")
#: What is done to the rows, one after the other, and what is reported then.
SPOILT = [
    ("UPDATE counts SET postbacks = 2 WHERE state = 2", "1 counts of the history are not its rows: "),
    ("DELETE FROM counts WHERE state = 4", "2 counts of the history are not its rows: "),
    ("UPDATE attempts SET excerpt = NULL", "1 wrong in the history: dead (attempts)"),
    (f"UPDATE postbacks SET reason = '' WHERE {DEAD}", "1 wrong in the history: dead (reason, attempts)"),
    ("UPDATE urls SET url = 'https://own.example/' WHERE own = 1", "2 wrong in the history: "),
    ("DELETE FROM documents", "4 wrong in the history: "),
    (
        f"INSERT INTO postbacks (row_id, {COLUMNS}) SELECT row_id + 100, {COLUMNS} FROM postbacks WHERE {DEAD}",
        "1 twice in the history: dead",
    ),
    ("DELETE FROM postbacks WHERE state = 4", "1 missing in the history: skipped"),
]


def test_what_was_written_is_what_the_ledger_says_until_it_is_spoilt(writer, database):
    """A count, an attempt, a field, a URL, a document, a second row, no row."""
    writer.write(RECORDS)
    ledger = {name: told_by_hash(name, fields) for name, fields in RECORDS}
    history = compare_all(ledger, database)
    assert (history.rows, history.violations()) == (4, [])
    for statement, found in SPOILT:
        with database.begin() as connection:
            connection.execute(text(statement))
        sentences = compare_all(ledger, database).violations()
        assert any(sentence.startswith(found) for sentence in sentences), (statement, sentences)
