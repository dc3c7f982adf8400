"""Search of the ledger: by state, account, reason and time, in as few round trips as pages."""

from __future__ import annotations

import pytest
from redis.connection import AbstractConnection

from postbacks import keys
from postbacks.broker.client import client as broker_client
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.search import PAGE, find

#: id -> state, account, reason, ms at which it ended.
POSTBACKS = {
    "a-refused": ("dead", "acme", "refused", 1000),
    "b-refused": ("dead", "beta", "refused", 2000),
    "a-status": ("dead", "acme", "status", 3000),
    "a-delivered": ("delivered", "acme", "", 4000),
    "b-skipped": ("skipped", "beta", "origin_off", 5000),
}


def write(client, postbacks):
    pipe = client.pipeline(transaction=False)
    for postback_id, (state, account, reason, ended_ms) in postbacks.items():
        fields = {"state": state, "account": account, "reason": reason, "ended_ms": ended_ms, "own": "0"}
        pipe.hset(keys.record(postback_id), mapping=fields)
        pipe.zadd(keys.DEAD if state == "dead" else keys.DONE, {postback_id: ended_ms})
    pipe.execute()


@pytest.fixture
def client(broker):
    del broker
    return broker_client()


@pytest.fixture
def round_trips(monkeypatch):
    """Writes to the broker's connection, each of which waits for its answers."""
    sent = []
    send = AbstractConnection.send_packed_command

    def counting(self, *args, **kwargs):
        sent.append(args)
        return send(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counting)
    return sent


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, ["a-refused", "b-refused", "a-status"]),
        ({"account": "acme"}, ["a-refused", "a-status"]),
        ({"reason": "refused"}, ["a-refused", "b-refused"]),
        ({"account": "acme", "reason": "refused"}, ["a-refused"]),
        ({"since_ms": 2000}, ["b-refused", "a-status"]),
        ({"until_ms": 2000}, ["a-refused", "b-refused"]),
        ({"since_ms": 1001, "until_ms": 2999, "account": "acme"}, []),
        ({"state": None}, ["a-delivered", "b-skipped"]),
        ({"state": "skipped"}, ["b-skipped"]),
        ({"state": "delivered", "account": "beta"}, []),
    ],
)
def test_what_is_asked_for_is_found_in_the_order_in_which_it_ended(client, query, ids):
    write(client, POSTBACKS)
    assert [summary.id for summary in find(client, **query)] == ids


def test_a_postback_that_has_left_the_ledger_is_not_found(client):
    write(client, POSTBACKS)
    client.delete(keys.record("b-refused"))
    assert [summary.id for summary in find(client)] == ["a-refused", "a-status"]
    assert [record.id for record in Ledger(client).ended(dead=True, at_most=9)] == ["a-status", "a-refused"]


def test_the_latest_are_read_in_two_round_trips(client, round_trips):
    """A round trip for the ids, and one for all records of a page: not one a record."""
    write(client, {f"id-{number}": ("dead", "acme", "refused", number) for number in range(100)})
    round_trips.clear()
    records = Ledger(client).ended(dead=True, at_most=50)
    assert [record.id for record in records] == [f"id-{number}" for number in range(99, 49, -1)]
    assert len(round_trips) == 2


def test_all_are_read_a_page_at_a_time(client, round_trips):
    write(client, {f"id-{number}": ("dead", "acme", "refused", number) for number in range(PAGE + 1)})
    round_trips.clear()
    assert len(Ledger(client).dead(account="acme")) == PAGE + 1
    assert len(round_trips) == 3
