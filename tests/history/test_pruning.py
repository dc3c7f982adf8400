"""Pruning: what ended longer ago than the days goes, all of it and nothing else, and counts stay exact."""

from __future__ import annotations

import random

import pytest
from records import ACCEPTED_MS, delivered, make_document, make_record
from sqlalchemy import text
from test_writer import FAILED, assert_counts_are_exact, row_of, rows_of, scalar

from postbacks.history import documents, facts, ids, pruning, values
from postbacks.history.schema import HOUR_MS
from postbacks.history.transactions import reading
from postbacks.ledger.record import Attempt
from postbacks.settings import Settings

DAY_MS = 24 * HOUR_MS
SETTINGS = Settings(history_postbacks_days=10, history_attempts_days=5, history_documents_days=2)


def prune_all(writer, now_ms: int, at_most: int = 2_000) -> int:
    """Prune until nothing is due; return the calls that it took."""
    calls = 0
    while writer.prune(now_ms, SETTINGS, at_most):
        calls += 1
        assert calls < 1_000
    return calls


def document_of(database, postback_id: str):
    """Document of an id; None where it is pruned."""
    with reading(database) as connection:
        return documents.read(connection, row_of(database, postback_id).row_id)


def test_each_part_goes_after_its_own_days(writer, database):
    """Documents first, then attempts, then the postback with its values, counts, hour and URL."""
    failed = make_record(
        "x", state="dead", attempts=(FAILED,), ended_ms=ACCEPTED_MS + 1000, own="1", reason="status",
        url="https://cb.example/?token=7", account="other",
    )  # fmt: skip
    writer.write([failed, delivered("young", accepted_ms=ACCEPTED_MS + 20 * DAY_MS, account="other")])
    due_ms = ACCEPTED_MS + HOUR_MS
    assert prune_all(writer, due_ms + 2 * DAY_MS) == 0
    assert document_of(database, "x") is not None

    assert prune_all(writer, due_ms + 2 * DAY_MS + 2_000) == 1
    assert document_of(database, "x") is None
    assert scalar(database, "SELECT count(*) FROM attempts") == 1
    with reading(database) as connection:
        from_ms = facts.number(connection, facts.DOCUMENTS_FROM_MS)
    assert from_ms is not None
    assert pruning.due_ms(ACCEPTED_MS, ACCEPTED_MS + 1000) < from_ms

    prune_all(writer, due_ms + 5 * DAY_MS + 2_000)
    assert scalar(database, "SELECT count(*) FROM attempts") == 0
    row = row_of(database, "x")
    assert (row.state, row.outcome, row.status, row.url) == (
        "dead", "status", 500, "https://cb.example/?token=7",
    )  # fmt: skip
    assert_counts_are_exact(database)

    prune_all(writer, due_ms + 10 * DAY_MS + 2_000)
    assert rows_of(database, "x") == []
    assert_counts_are_exact(database)
    assert scalar(database, "SELECT count(*) FROM urls WHERE own = 1") == 0
    assert document_of(database, "young") is not None
    # business values follow hours later
    assert scalar(database, "SELECT count(*) FROM business_values") == 6
    prune_all(writer, due_ms + 10 * DAY_MS + 4 * HOUR_MS)
    assert scalar(database, "SELECT count(*) FROM business_values") == 3
    # and the URL may come again
    writer.write(
        [delivered("z", url="https://cb.example/?token=7", own="1", accepted_ms=ACCEPTED_MS + 30 * DAY_MS)]
    )
    assert row_of(database, "z").url == "https://cb.example/?token=7"


def test_what_is_not_at_its_end_is_never_pruned(writer, database):
    """Nor its document, its attempts and its values, however old it is."""
    writer.write([make_record("open", state="parked", attempts=(FAILED,)), delivered("ended")])
    now_ms = ACCEPTED_MS + 400 * DAY_MS
    prune_all(writer, now_ms)
    assert [ids.unpack(row.packed) for row in rows_of(database)] == ["open"]
    assert document_of(database, "open") is not None
    assert scalar(database, "SELECT count(*) FROM attempts") == 1
    assert scalar(database, "SELECT count(*) FROM business_values") == 3
    # it ends long after its acceptance: its days begin then
    success = Attempt(2, now_ms, "delivered", 200, 5)
    writer.write([make_record("open", state="delivered", attempts=(FAILED, success), ended_ms=now_ms + 10)])
    prune_all(writer, now_ms + DAY_MS)
    assert document_of(database, "open") is not None
    prune_all(writer, now_ms + 11 * DAY_MS)
    assert rows_of(database) == []
    assert scalar(database, "SELECT count(*) FROM documents") == 0
    prune_all(writer, now_ms + 12 * DAY_MS)
    assert scalar(database, "SELECT count(*) FROM business_values") == 0
    assert_counts_are_exact(database)


def test_slices_add_up(writer, database):
    """600 postbacks over 20 days in any order, 50 a slice; another number of them shares one ms."""
    chance = random.Random(1)
    records = []
    for number in range(600):
        accepted_ms = ACCEPTED_MS + (0 if number < 130 else chance.randrange(20 * DAY_MS))
        took_ms = chance.choice([80, 80, 80, 20 * 60_000, 3 * HOUR_MS, 4 * DAY_MS])
        attempts = (FAILED, Attempt(2, accepted_ms + took_ms - 5, "delivered", 200, 5))
        record = (
            delivered(f"p-{number}", accepted_ms=accepted_ms, ended_ms=accepted_ms + took_ms)
            if took_ms == 80
            else make_record(
                f"p-{number}",
                state="delivered",
                attempts=attempts,
                accepted_ms=accepted_ms,
                ended_ms=accepted_ms + took_ms,
            )
        )
        records.append((record, pruning.due_ms(accepted_ms, accepted_ms + took_ms)))
    chance.shuffle(records)
    for first in range(0, 600, 90):
        writer.write([record for record, _ in records[first : first + 90]])
    now_ms = ACCEPTED_MS + 20 * DAY_MS
    due = [sum(due_ms < now_ms - days * DAY_MS for _, due_ms in records) for days in (2, 5, 10)]
    with reading(database) as connection:
        assert list(pruning.count_due(connection, now_ms, SETTINGS)) == due
    assert prune_all(writer, now_ms, at_most=50) > 5
    with reading(database) as connection:
        assert pruning.count_due(connection, now_ms, SETTINGS) == (0, 0, 0)
    kept = {record[0] for record, due_ms in records if due_ms >= now_ms - 10 * DAY_MS}
    rows = {ids.unpack(row.packed): row for row in rows_of(database)}
    assert rows.keys() == kept
    assert_counts_are_exact(database)
    with reading(database) as connection:
        with_attempts = set(connection.execute(text("SELECT DISTINCT row_id FROM attempts")).scalars())
        with_documents = {
            postback_id
            for postback_id, row in rows.items()
            if documents.read(connection, row.row_id) is not None
        }
    keep_attempts = {
        record[0]
        for record, due_ms in records
        if due_ms >= now_ms - 5 * DAY_MS and record[1][b"attempts"] == b"2"
    }
    assert {rows[postback_id].row_id for postback_id in keep_attempts} == with_attempts
    # a pack is kept while one of it is to be; all of it is due within a day
    young = [{record[0] for record, due_ms in records if due_ms >= now_ms - days * DAY_MS} for days in (2, 3)]
    assert young[0] <= with_documents <= young[1]


def test_a_document_waits_for_its_pack_alone(writer, database):
    """Records read in any order stand in packs of those that are due within a day."""
    records = [delivered(f"p-{number}", accepted_ms=ACCEPTED_MS + number * 60_000) for number in range(32)]
    writer.write(records)
    prune_all(writer, ACCEPTED_MS + 16 * 60_000 + HOUR_MS + 2 * DAY_MS)
    kept = [document_of(database, f"p-{number}") is not None for number in range(32)]
    assert kept == [False] * 16 + [True] * 16


def test_an_old_postback_that_is_recorded_late_is_pruned_as_well(writer, database):
    """A resync reads what is long due: it does not come back, and what is there already goes."""
    writer.write([make_record("open"), delivered("first")])
    now_ms = ACCEPTED_MS + 30 * DAY_MS
    prune_all(writer, now_ms)
    writer.write([delivered("late", accepted_ms=ACCEPTED_MS + 5), delivered("open")])
    assert [ids.unpack(row.packed) for row in rows_of(database)] == ["open"]
    assert_counts_are_exact(database)
    prune_all(writer, now_ms)
    assert rows_of(database) == []
    assert_counts_are_exact(database)


def test_what_is_sent_again_after_its_document_went_gets_it_back(writer, database):
    """The record in the broker still has the document."""
    dead = {"state": "dead", "attempts": (FAILED,), "reason": "status"}
    writer.write([make_record("x", ended_ms=ACCEPTED_MS + 1000, **dead), delivered("y")])
    now_ms = ACCEPTED_MS + 6 * DAY_MS
    prune_all(writer, now_ms)
    writer.write(
        [make_record("x", ended_ms=ACCEPTED_MS + 1000, **dead)]
    )  # read again as it is: nothing comes back
    assert document_of(database, "x") is None
    assert scalar(database, "SELECT count(*) FROM attempts") == 0
    writer.write([make_record("x", attempts=(FAILED,))])
    assert document_of(database, "x") == (documents.XML, make_document("x"))
    assert document_of(database, "y") is None
    assert scalar(database, "SELECT count(*) FROM attempts") == 1
    prune_all(writer, now_ms + 30 * DAY_MS)
    assert document_of(database, "x") is not None


def test_a_call_that_failed_is_made_again(writer, database, monkeypatch):
    """Nothing of it is pruned, and what was learnt in it is forgotten."""

    class StopError(Exception):
        pass

    def stop(*_):
        raise StopError

    writer.write([delivered("x")])
    now_ms = ACCEPTED_MS + 30 * DAY_MS
    with monkeypatch.context() as patch:
        patch.setattr(writer._bulk, "count", stop)
        with pytest.raises(StopError):
            writer.prune(now_ms, SETTINGS)
    assert document_of(database, "x") is not None
    prune_all(writer, now_ms)
    assert rows_of(database) == []


def test_a_number_is_given_once(writer, database):
    """Values of a row that has gone must not be found for a new one."""
    writer.write([delivered("x", document=make_document("gone"))])
    writer.prune(ACCEPTED_MS + 11 * DAY_MS, SETTINGS)
    assert rows_of(database) == []
    writer.take_lease()
    writer.write([delivered("y", accepted_ms=ACCEPTED_MS + 11 * DAY_MS)])
    assert row_of(database, "y").row_id == 2
    with reading(database) as connection:
        found = connection.execute(
            text(
                "SELECT p.row_id FROM business_values v JOIN postbacks p ON p.row_id = v.row_id WHERE hash = :hash"
            ),
            {"hash": values.hash_of("tracking_id", "gone")},
        ).all()
    assert found == []
