"""Copies: what the history gives back of a record is what the ledger had."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import ACCEPTED_MS, delivered, make_document, make_record
from sqlalchemy import text

from postbacks.history import copies_of
from postbacks.history.transactions import reading, writing
from postbacks.ledger.phases import Phases
from postbacks.ledger.record import Attempt, Record

DAY_MS = 86_400_000
FAILED = Attempt(1, ACCEPTED_MS + 5, "status", 500, 31, "answered 500; only 200 counts", "oops \x1b 😀")
TIMED_OUT = Attempt(
    2, ACCEPTED_MS + 300_000, "connect_timeout", None, 10_000, "no connection", "", shared=True
)
#: Attempts whose course is known (``ledger/phases.py``).
AT_ONCE = Attempt(
    1, ACCEPTED_MS + 5, "delivered", 200, 14, phases=Phases(0, None, None, 13, 1), address="192.0.2.7"
)
AGAIN = Attempt(
    2, ACCEPTED_MS + 300_000, "delivered", 200, 14, phases=Phases(None, 2, 9, 2, 1), address="2001:db8::7"
)
LAST = Attempt(3, ACCEPTED_MS + 600_000, "delivered", 200, 12)


def write(writer, *records):
    writer.write(list(records), recorded_id="1-1", recorded_ms=ACCEPTED_MS + DAY_MS)


@pytest.mark.parametrize(
    "record",
    [
        delivered("plain"),
        make_record(
            "later", state="delivered", attempts=(FAILED, TIMED_OUT, LAST), ended_ms=ACCEPTED_MS + 600_012
        ),
        make_record("at-once", state="delivered", attempts=(AT_ONCE,), ended_ms=ACCEPTED_MS + 20),
        make_record("again", state="delivered", attempts=(FAILED, AGAIN), ended_ms=ACCEPTED_MS + 600_012),
        make_record(
            "dead",
            state="dead",
            reason="connect_timeout",
            attempts=(FAILED, TIMED_OUT),
            ended_ms=ACCEPTED_MS + 9,
        ),
        make_record("skipped", state="skipped", reason="origin_off", url="", ended_ms=ACCEPTED_MS),
        make_record(
            "own", state="dead", reason="x", own="1", url="https://u:p@h.example/a?b=c", ended_ms=ACCEPTED_MS
        ),
        make_record("twin", state="dead", reason="id_taken", first_id="other", ended_ms=ACCEPTED_MS),
    ],
    ids=lambda record: record[0],
)
def test_a_copy_is_the_record_that_the_ledger_had(writer, database, record):
    """All but what is not copied: its digest, which is made of the rest, and when it is due."""
    write(writer, record)
    recorded = copies_of(record[0], engine=database)
    (copy,) = recorded.copies
    expected = Record.from_hash(*record)
    assert copy.record == replace(expected, digest=None, next_ms=None)
    assert (copy.begun, copy.no_document) == (len(expected.attempts), "")
    assert recorded.recorded_ms == ACCEPTED_MS + DAY_MS
    assert recorded.since_ms == ACCEPTED_MS // 3_600_000 * 3_600_000


def test_a_first_post_that_delivers_stands_in_its_postbacks_row_until_there_is_another(writer, database):
    """A row of its own for nearly each attempt would double the history."""
    ended_ms = ACCEPTED_MS + 600_000
    write(writer, make_record("again", state="delivered", attempts=(AT_ONCE,), ended_ms=ended_ms))
    with reading(database) as connection:
        assert connection.execute(text("SELECT count(*) FROM attempts")).scalar() == 0
    write(writer, make_record("again", state="delivered", attempts=(AGAIN,), begun=2, ended_ms=ended_ms))
    assert copies_of("again", engine=database).copies[0].record.attempts == (AT_ONCE, AGAIN)
    with writing(database) as connection:
        connection.execute(text("DELETE FROM attempts"))
    assert copies_of("again", engine=database).copies[0].record.attempts == (AGAIN,)


def test_each_acceptance_of_an_id_has_a_copy_the_newest_first(writer, database):
    write(writer, delivered("twice"), delivered("other"))
    write(
        writer,
        make_record("twice", state="dead", reason="dns", accepted_ms=ACCEPTED_MS + 2 * DAY_MS, ended_ms=1),
    )
    copies = copies_of("twice", engine=database).copies
    assert [(copy.record.created_ms, copy.record.state) for copy in copies] == [
        (ACCEPTED_MS + 2 * DAY_MS, "dead"), (ACCEPTED_MS, "delivered"),
    ]  # fmt: skip
    assert copies_of("nobody", engine=database).copies == ()


def test_a_copy_without_document_says_why(writer, database):
    message = {
        "group": "",
        "origin": "",
        "code": "",
        "account": "",
        "url": "",
        "document": b"",
        "raw": b"\x80\x00",
    }
    write(
        writer,
        make_record(
            "stub",
            state="dead",
            reason="backlog_full",
            document=b"",
            sequence=None,
            stub="1",
            url="",
            ended_ms=1,
        ),
        make_record("unreadable", state="dead", reason="the body is no JSON", ended_ms=1, **message),
        make_record("pruned", state="dead", reason="dns", ended_ms=ACCEPTED_MS),
    )
    assert copies_of("unreadable", engine=database).copies[0].record.raw == b"\x80\x00"
    with writing(database) as connection:
        connection.execute(text("DELETE FROM documents"))
    words = {name: copies_of(name, engine=database).copies[0] for name in ("stub", "unreadable", "pruned")}
    assert words["stub"].record.is_stub
    assert [copy.no_document.split()[-1] for copy in words.values()] == [
        "kept", "read", "POSTBACKS_HISTORY_DOCUMENTS_DAYS",
    ]  # fmt: skip
    assert all(copy.record.xml == b"" for copy in words.values())


def test_a_damaged_document_leaves_the_rest_of_the_copy(writer, database):
    write(writer, make_record("damaged", state="dead", reason="dns", ended_ms=1, document=make_document("t")))
    with writing(database) as connection:
        connection.execute(text("UPDATE documents SET packing = 99"))
    (copy,) = copies_of("damaged", engine=database).copies
    assert (copy.record.state, copy.record.xml, "packing 99" in copy.no_document) == ("dead", b"", True)


def test_of_pruned_attempts_the_latest_is_known_from_the_postback_itself(writer, database):
    write(writer, make_record("old", state="dead", reason="status", attempts=(FAILED, TIMED_OUT), ended_ms=1))
    with writing(database) as connection:
        connection.execute(text("DELETE FROM attempts"))
    (copy,) = copies_of("old", engine=database).copies
    assert copy.record.attempts == (TIMED_OUT._replace(detail="", shared=False),)
    assert copy.begun == 2
