"""A postback that has left the broker is sent again from a copy: the same bytes, the next number, no second one."""

from __future__ import annotations

import pytest
from events import MT
from helpers import check_places, environment, set_account

from postbacks import keys, send_postback
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.doctor import audit
from postbacks.ledger.record import SCHEMA, Record
from postbacks.queue.actions import cancel
from postbacks.queue.rows import PutBackRow
from postbacks.settings import load
from postbacks.urls import endpoint_of


def row_of(record: Record, **changes: object) -> PutBackRow:
    """Copy a record as it is put back."""
    row = PutBackRow(
        record.id, record.account, record.group, record.origin, record.code, record.url, endpoint_of(record.url),
        record.xml, record.created_ms, record.sequence, len(record.attempts), record.digest, "0", record.first_id, 0,
    )  # fmt: skip
    return row._replace(**changes)


@pytest.fixture
def dropped(rig):
    """A dead postback of two attempts that has left the broker, and the receiver that refused it."""
    verdict = [500]
    with environment(POSTBACKS_MAX_RESENDS="1"), Receiver(lambda _: Answer(verdict[0])) as receiver:
        rig.settings = load()
        set_account("acme", url=receiver.url())
        postback_id = send_postback.delay("acme", MT).id
        for _ in range(2):
            rig.tick()
            rig.deliver()
            rig.advance(301)
        record = rig.record(postback_id)
        assert (record.state, len(record.attempts)) == ("dead", 2)
        assert rig.scripts.drop(2**53, "", [postback_id]) == 1
        verdict[0] = 200
        yield record, receiver


def test_what_is_put_back_waits_as_what_was_sent_again_and_its_next_post_has_the_next_number(rig, dropped):
    record, receiver = dropped
    assert rig.scripts.put_back(SCHEMA, row_of(record), record.attempts) == "waiting"
    back = rig.record(record.id)
    same = (
        "xml",
        "created_ms",
        "sequence",
        "attempts",
        "digest",
        "account",
        "group",
        "origin",
        "code",
        "url",
    )
    assert [getattr(back, name) for name in same] == [getattr(record, name) for name in same]
    assert (back.state, back.failures, back.reason, back.ended_ms) == ("waiting", 0, "", None)
    assert check_places(rig.client) == {"waiting": 1}
    assert {name: faults for name, faults in audit.run(rig.scripts, 60).faults.items() if faults} == {}
    rig.deliver()
    assert rig.record(record.id).state == "delivered"
    first, _, last = receiver.received
    assert (last.body, last.attempt, last.sequence) == (first.body, 3, first.sequence)
    assert rig.client.hlen(keys.BACKLOG) == rig.client.hlen(keys.OPEN) == 0
    assert int(rig.client.get(keys.LEDGER_BYTES)) == int(rig.client.hget(keys.record(record.id), "bytes"))


def test_an_id_that_the_broker_knows_by_now_is_left_as_it_is(rig, dropped):
    record, _ = dropped
    cancel(record.id)
    assert rig.scripts.put_back(SCHEMA, row_of(record), record.attempts) == "cancelled"
    rig.client.delete(keys.record(record.id))
    assert rig.scripts.put_back(SCHEMA, row_of(record), record.attempts) == "waiting"
    before = rig.client.hgetall(keys.record(record.id))
    assert rig.scripts.put_back(SCHEMA, row_of(record, xml=b"<other/>"), ()) == "waiting"
    assert rig.client.hgetall(keys.record(record.id)) == before
    assert rig.client.llen(keys.lane("acme/mt")) == 1


def test_a_large_one_counts_its_units_and_poison_is_tried_alone(rig, dropped):
    record, _ = dropped
    row = row_of(record, xml=b"x" * 8000, alone=1)
    assert rig.scripts.put_back(SCHEMA, row, record.attempts) == "waiting"
    assert rig.client.hget(keys.OPEN, "acme/mt") == rig.client.hget(keys.record(record.id), "units") == b"5"
    assert rig.client.zrange(keys.QUARANTINE, 0, -1, withscores=True) == [(record.id.encode(), 2.0)]
    assert check_places(rig.client) == {"waiting": 1}


def test_the_feed_is_told_of_what_is_put_back(rig, dropped):
    record, _ = dropped
    rig.client.xadd(keys.CHANGES, {"ids": "before"})
    rig.scripts.put_back(SCHEMA, row_of(record), record.attempts)
    rig.scripts.put_back(SCHEMA, row_of(record), record.attempts)
    assert [fields[b"ids"].decode() for _, fields in rig.client.xrange(keys.CHANGES)] == ["before", record.id]
