"""POSTs of accounts at an endpoint, the pace of an account, and the oldest opt-outs, on both databases."""

from __future__ import annotations

import pytest
from records import ACCEPTED_MS, delivered, make_record

from postbacks.history import opt_outs, tries
from postbacks.history.pace import PRESENT_MS, delivered_per_s
from postbacks.history.transactions import reading
from postbacks.ledger.record import Attempt

URL = "https://hooks.acme.example/postbacks"
ENDPOINT = "https://hooks.acme.example:443"


def failed(postback_id: str, *at_ms: int, state: str = "parked", **fields: object):
    """Make the record of a postback whose POSTs have failed at these times after ``ACCEPTED_MS``."""
    attempts = tuple(
        Attempt(number, ACCEPTED_MS + ms, "status", 503, 10, "answered 503", "oops")
        for number, ms in enumerate(at_ms, start=1)
    )
    return make_record(postback_id, state=state, attempts=attempts, **({"url": URL} | fields))


def test_the_latest_posts_come_in_their_order_and_the_first_that_failed_is_found(database, writer):
    writer.write(
        [
            delivered("before", url=URL, accepted_ms=ACCEPTED_MS - 5000),
            failed("older", 100, 5000, accepted_ms=ACCEPTED_MS - 1000),
            failed("newer", 2000, accepted_ms=ACCEPTED_MS),
            failed("elsewhere", 50, url="https://other.example/"),
            failed("of beta", 60, account="beta"),
            make_record("untried", url=URL, accepted_ms=ACCEPTED_MS + 1),
        ]
    )
    with reading(database) as connection:
        place = tries.place_of(connection, ENDPOINT, ["acme"])
        span = (ACCEPTED_MS - 60_000, ACCEPTED_MS + 60_000)
        latest = tries.latest(connection, place, *span, 10)
        assert [(one.postback_id, one.number, one.status) for one in latest] == [
            ("before", 1, 200),
            ("older", 1, 503),
            ("newer", 1, 503),
            ("older", 2, 503),
        ]
        assert tries.latest(connection, place, *span, 2) == latest[2:]
        first = tries.first_failed(connection, place, span[0], ACCEPTED_MS, span[1])
        assert (first.postback_id, first.at_ms) == ("older", ACCEPTED_MS + 100)
        later = tries.first_failed(connection, place, span[0], ACCEPTED_MS + 1000, span[1])
        assert later.postback_id == "newer"
        assert tries.oldest_open(connection, place) == "older"
        both = tries.place_of(connection, ENDPOINT, ["acme", "beta"])
        assert len(tries.latest(connection, both, *span, 10)) == 5
        assert tries.place_of(connection, "https://nowhere.example:443", ["acme"]) is None
        assert tries.place_of(connection, ENDPOINT, ["nobody"]) is None


def test_the_pace_counts_what_was_delivered_in_the_last_ten_minutes(database, writer):
    now_ms = ACCEPTED_MS + PRESENT_MS
    writer.write(
        [
            *(delivered(f"now {n}", accepted_ms=ACCEPTED_MS, ended_ms=ACCEPTED_MS + 1 + n) for n in range(6)),
            delivered("before", accepted_ms=ACCEPTED_MS - 10, ended_ms=ACCEPTED_MS),
            failed("open", 1),
        ]
    )
    with reading(database) as connection:
        assert delivered_per_s(connection, "acme", now_ms) == pytest.approx(6 / 600)
        assert delivered_per_s(connection, "acme", now_ms + PRESENT_MS) == 0
        assert delivered_per_s(connection, "nobody", now_ms) == 0


def test_the_oldest_opt_outs_come_first_without_those_that_somebody_ended(database, writer, rig):
    writer.write(
        [
            failed("young", 1, opt_out=1, accepted_ms=ACCEPTED_MS),
            failed("old", 1, opt_out=1, accepted_ms=ACCEPTED_MS - 10, state="dead", ended_ms=ACCEPTED_MS),
            failed(
                "by hand", 1, opt_out=1, accepted_ms=ACCEPTED_MS - 20, state="cancelled", ended_ms=ACCEPTED_MS
            ),
            delivered("heard", opt_out=1, accepted_ms=ACCEPTED_MS - 30),
            failed("none", 1),
        ]
    )
    found = opt_outs.oldest(10, client=rig.client, engine=database)
    assert [postback.id for postback in found] == ["old", "young"]
    assert [postback.id for postback in opt_outs.oldest(1, client=rig.client, engine=database)] == ["old"]
