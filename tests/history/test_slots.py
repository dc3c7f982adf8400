"""Slots: where they begin, and that each record is found again in its own, in any order."""

from __future__ import annotations

import random

import pytest
from records import ACCEPTED_MS, delivered, make_document
from sqlalchemy import text
from test_pruning import DAY_MS, prune_all
from test_writer import assert_counts_are_exact, rows_of, scalar

from postbacks.broker.client import client_for
from postbacks.history import Query, count, find, ids, slots
from postbacks.history.schema import HOUR_MS, SLOT_MS
from postbacks.history.slots import first_of_hour
from postbacks.history.transactions import reading
from postbacks.history.writer import Writer

#: No broker answers there.
AWAY = client_for("redis://127.0.0.1:1/0", 1.0)
#: Begin of an hour.
HOUR_BEGIN_MS = ACCEPTED_MS // HOUR_MS * HOUR_MS
FULL = 20


@pytest.fixture
def writer(database):
    """Writer whose slots are full early."""
    writer = Writer(database, slot_rows=FULL)
    writer.take_lease()
    return writer


def accepted_at(name: str, accepted_ms: int):
    """Make a record, whose TRACKINGID is its id."""
    return delivered(name, accepted_ms=accepted_ms, document=make_document(name))


def write(writer: Writer, records, at_once: int = 7) -> None:
    """Write records, a few at once."""
    for first in range(0, len(records), at_once):
        writer.write(records[first : first + at_once])


def beginnings(database) -> list[int]:
    """Slots that there are."""
    with reading(database) as connection:
        return list(connection.execute(text("SELECT slot FROM slots ORDER BY slot")).scalars())


def assert_all_are_in_their_slots(database, times: dict[str, int]) -> None:
    """Each id has one row, in the slot that began last before its time, and its values there; a search finds it."""
    assert sorted(ids.unpack(row.packed) for row in rows_of(database)) == sorted(times)
    known = beginnings(database)
    with reading(database) as connection:
        rows = connection.execute(text("SELECT row_id, slot, accepted_ms FROM postbacks")).all()
        of_values = connection.execute(text("SELECT DISTINCT row_id, slot FROM business_values")).all()
    slot_of = {row.row_id: row.slot for row in rows}
    for row in rows:
        begun = [slot for slot in known if slot * SLOT_MS <= row.accepted_ms]
        assert row.slot == max([first_of_hour(row.accepted_ms), *begun])
    assert dict(map(tuple, of_values)) == slot_of
    for name, accepted_ms in random.Random(2).sample(sorted(times.items()), 10):
        assert [found.accepted_ms for found in find(name, client=AWAY, engine=database)] == [accepted_ms]
        for query in (
            Query(tracking_id=name),
            Query(tracking_id=name, since_ms=accepted_ms, until_ms=accepted_ms + 1),
        ):
            assert count(query, client=AWAY, engine=database).postbacks == 1
    assert_counts_are_exact(database)


def test_many_rows_of_an_hour_open_slots_and_each_record_is_found_again(writer, database, monkeypatch):
    """Three a second; again in any order, by another writer, and with others that come late."""
    monkeypatch.setattr(slots, "_REMEMBERED_MAX", 1)
    chance = random.Random(1)
    times = {f"in-order-{number}": HOUR_BEGIN_MS + number * 333 for number in range(300)}
    in_order = [accepted_at(*each) for each in times.items()]
    write(writer, in_order[:105])
    other = Writer(database, slot_rows=FULL)  # it finds a slot that is not full yet
    other.take_lease()
    write(other, in_order[105:])
    opened = beginnings(database)
    # 20 rows, and those up to the next whole ten seconds: 30
    assert opened == [first_of_hour(HOUR_BEGIN_MS) + number for number in range(10)]
    assert_all_are_in_their_slots(database, times)

    late = {
        f"late-{number}": HOUR_BEGIN_MS + chance.randrange(-HOUR_MS, 100_000) // 333 * 333
        for number in range(100)
    }
    times |= late
    again = [accepted_at(*each) for each in times.items()]
    chance.shuffle(again)
    write(other, again)
    writer.take_lease()
    chance.shuffle(again)
    write(writer, again)
    assert set(opened) <= set(beginnings(database))
    assert_all_are_in_their_slots(database, times)


def test_a_slot_begins_behind_all_that_is_recorded(writer, database):
    """The full one has the last second of its hour: what comes next goes there, however full it is; the next hour begins anew."""
    times = {f"early-{number}": HOUR_BEGIN_MS + number for number in range(FULL)}
    times["last"] = HOUR_BEGIN_MS + HOUR_MS - 1
    write(writer, [accepted_at(*each) for each in times.items()], 100)
    later = {f"later-{number}": HOUR_BEGIN_MS + number * 20_000 for number in range(1, 181)}
    times |= later
    write(writer, [accepted_at(*each) for each in later.items()])
    assert beginnings(database) == [first_of_hour(HOUR_BEGIN_MS), first_of_hour(HOUR_BEGIN_MS + HOUR_MS)]
    assert_all_are_in_their_slots(database, times)


def test_a_slot_goes_with_its_last_row_and_its_values_with_it(writer, database):
    """A postback that is accepted at such a time afterwards goes to the slot before it."""
    times = {f"x-{number}": HOUR_BEGIN_MS + number * 1000 for number in range(200)}
    write(writer, [accepted_at(*each) for each in times.items()])
    assert len(beginnings(database)) > 5
    prune_all(writer, HOUR_BEGIN_MS + HOUR_MS + 10 * DAY_MS + 100_000, at_most=30)
    left = {name: at_ms for name, at_ms in times.items() if at_ms >= HOUR_BEGIN_MS + 100_000}
    assert {ids.unpack(row.packed) for row in rows_of(database)} == set(left)
    assert_counts_are_exact(database)
    prune_all(writer, HOUR_BEGIN_MS + 30 * DAY_MS)
    assert beginnings(database) == []
    assert scalar(database, "SELECT count(*) FROM business_values") == 0
