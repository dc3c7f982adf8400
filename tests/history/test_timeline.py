"""The story of a message: all its postbacks in time order, what is missing, and what its number did afterwards."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from events import examples
from helpers import set_account
from records import make_record

from postbacks import send_postback
from postbacks.broker.client import client_for
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import UnknownPostback
from postbacks.history import story
from postbacks.history.timeline import AFTERWARDS_MAX, POSTBACKS_MAX
from postbacks.ledger.record import Attempt

#: No broker answers there: what history has is what counts.
AWAY = client_for("redis://127.0.0.1:1/0", 1.0)
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
#: Five hours ago: receipts of SMS are missing by now, those of MMS are not.
BEGIN_MS = int(time.time() * 1000) - 5 * HOUR_MS
NUMBER = "15552310137"


def happened(postback_id, row, at_ms, *, account="acme", state="delivered", attempts=None, **tags):
    """A postback of an event with these tags, accepted so many ms after the begin."""
    event = examples()[row] | tags
    accepted_ms = BEGIN_MS + at_ms
    if attempts is None:
        attempts = (Attempt(1, accepted_ms + 20, "delivered", 200, 15),)
    origin, code = row
    parsed = parse_event(event)
    is_open = state in {"waiting", "parked", "sending"}
    return make_record(
        postback_id, state=state, account=account, origin=origin, code=code, group=parsed.group,
        document=render(parsed), accepted_ms=accepted_ms, attempts=attempts,
        ended_ms=None if is_open else accepted_ms + HOUR_MS // 4,
    )  # fmt: skip


def sms(postback_id, code, at_ms, tracking_id="T1", **more):
    status = {"N201": "Message Sent", "N202": "Message Sent/Delivered", "E202": "Message Sent/Expired"}[code]
    return happened(
        postback_id, ("SMS_MT", code), at_ms, STATUS=status, TRACKINGID=tracking_id, TO=NUMBER, **more
    )


def mms(postback_id, code, at_ms, tracking_id="T7", **more):
    status = {"N101": "Message Sent", "N102": "Message Sent/Delivered", "N202": "Message Sent/Delivered"}[
        code
    ]
    return happened(
        postback_id, ("MMS_MT", code), at_ms, STATUS=status, TRACKINGID=tracking_id, TO=NUMBER, **more
    )


def told(database, value, client=AWAY, **more):
    return story(value, engine=database, client=client, **more)


def test_every_post_of_every_postback_stands_in_time_order_with_what_the_receiver_said(writer, database):
    refused = (
        Attempt(1, BEGIN_MS + MINUTE_MS + 20, "status", 500, 31, "answered 500; only 200 counts", "oops"),
        Attempt(2, BEGIN_MS + 6 * MINUTE_MS, "connect_timeout", None, 10_000, "no connection within 10 s"),
    )
    writer.write(
        [
            sms("receipt", "N202", MINUTE_MS, state="dead", attempts=refused),
            sms("submitted", "N201", 0),
            sms("other", "N201", 5, tracking_id="T2"),
        ]
    )
    for value, kind in (("T1", "tracking_id"), ("receipt", "id"), ("submitted", "id")):
        answer = told(database, value)
        (message,) = answer.messages
        assert (answer.kind, message.account, message.tracking_ids) == (kind, "acme", ("T1",))
        assert message.number == NUMBER
        assert [record.id for record in message.postbacks] == ["submitted", "receipt"]
        assert [(moment.what, moment.code, moment.words) for moment in message.moments] == [
            ("accepted", "N201", 'submitted to the carrier: "Message Sent"'),
            ("post", "N201", "POST 1: 200 after 15 ms"),
            (
                "accepted",
                "N202",
                'delivered (delivery receipt): "Message Sent/Delivered", "Delivered to handset <ok>"',
            ),
            ("post", "N202", 'POST 1: 500 after 31 ms, answered 500; only 200 counts "oops"'),
            ("post", "N202", "POST 2: connect_timeout after 10,000 ms, no connection within 10 s"),
            ("ended", "N202", "dead: no connection within 10 s"),
        ]
        assert all(one.at_ms <= two.at_ms for one, two in pairwise(message.moments))
        assert (message.awaited, message.afterwards, message.more) == ((), (), False)


def test_a_receipt_that_has_not_come_is_missing_only_after_its_time(writer, database):
    writer.write(
        [sms("submitted", "N201", 0), mms("begun", "N101", 0), sms("fresh", "N201", 4 * HOUR_MS, "T3")]
    )
    (missing,) = told(database, "T1").messages[0].awaited
    assert (missing.name, missing.after, missing.codes, missing.id) == (
        "receipt",
        "N201",
        ("N202", "E202"),
        "submitted",
    )
    assert (missing.is_missing, missing.until_ms - missing.since_ms) == (True, 2 * HOUR_MS)
    assert 5 * HOUR_MS <= missing.for_ms < 6 * HOUR_MS
    for value in ("T7", "T3"):
        (awaited,) = told(database, value).messages[0].awaited
        assert not awaited.is_missing


@pytest.mark.parametrize("code", ["N202", "E202"])
def test_any_receipt_ends_the_wait_even_one_that_came_before(writer, database, code):
    writer.write([sms("submitted", "N201", 10), sms("receipt", code, 0)])
    assert told(database, "T1").messages[0].awaited == ()


def test_content_and_links_of_an_mms_belong_to_its_story(writer, database):
    """N013 has the MMSID alone, N202 of a link the TRACKINGID alone; another one's N101 of the same MMSID is apart."""
    writer.write(
        [
            happened("stored", ("MMS_MT", "N013"), 0, MMSID="M1"),
            mms("begun", "N101", 10, MMSID="M1"),
            mms("link", "N202", 20),
            mms("another", "N101", 30, "T8", MMSID="M1"),
        ]
    )
    names = {
        value: [record.id for record in told(database, value).messages[0].postbacks]
        for value in ("T7", "T8", "M1", "begun", "link", "stored")
    }
    assert names["T7"] == names["begun"] == ["stored", "begun", "link"]
    assert names["T8"] == ["stored", "another"]
    assert names["M1"] == names["stored"] == ["stored", "begun", "link", "another"]
    assert names["link"] == ["stored", "begun", "link"]
    assert [awaited.id for awaited in told(database, "M1").messages[0].awaited] == ["another"]


def test_the_same_tracking_id_in_two_accounts_is_two_stories(writer, database):
    writer.write(
        [sms("one", "N201", 0), sms("two", "N201", 5, account="beta"), sms("end", "N202", 9, account="beta")]
    )
    acme, beta = told(database, "T1").messages
    assert (acme.account, [record.id for record in acme.postbacks]) == ("acme", ["one"])
    assert (beta.account, [record.id for record in beta.postbacks]) == ("beta", ["two", "end"])
    assert [len(message.awaited) for message in (acme, beta)] == [1, 0]
    assert told(database, "T1", account="beta").messages == (beta,)
    assert told(database, "two").messages == (beta,)
    with pytest.raises(UnknownPostback, match="of account gamma"):
        told(database, "T1", account="gamma")


def test_an_id_comes_before_a_tracking_id_of_the_same_text(writer, database):
    writer.write([sms("T1", "N201", 0, tracking_id="T2"), sms("other", "N201", 5)])
    answer = told(database, "T1")
    assert (answer.kind, [record.id for record in answer.messages[0].postbacks]) == ("id", ["T1"])


def test_what_the_number_did_afterwards_stands_apart_and_is_bounded(writer, database):
    stop = {"FROM": NUMBER, "TO": "28444", "TEXT": "STOP"}
    days = 24 * HOUR_MS
    writer.write(
        [
            sms("submitted", "N201", 0),
            happened("before", ("SMS_MO", "N211"), -5, **stop),
            happened("stop", ("SMS_MO", "N211"), 10, **stop),
            happened("out", ("SUB", "N302"), 20, MOBILE=NUMBER),
            happened("stranger", ("SMS_MO", "N211"), 15, **stop, account="beta"),
            happened("to-it", ("SMS_MO", "N211"), 16, **(stop | {"FROM": "15550000001", "TO": NUMBER})),
            happened("late", ("SMS_MO", "N211"), 3 * days + 1, **stop),
            sms("another", "N201", 30, tracking_id="T9"),
        ]
    )
    (message,) = told(database, "T1").messages
    assert message.afterwards[0].words == 'an SMS was received: "STOP"'
    assert [moment.id for moment in message.afterwards] == ["stop", "out"]
    assert [record.id for record in message.postbacks] == ["submitted"]
    assert not message.more_afterwards
    writer.write(
        [
            happened(f"again{number}", ("SMS_MO", "N211"), 100 + number, **stop)
            for number in range(AFTERWARDS_MAX)
        ]
    )
    (message,) = told(database, "T1").messages
    assert (len(message.afterwards), message.more_afterwards) == (AFTERWARDS_MAX, True)


def test_an_opt_out_without_a_message_has_a_story_of_its_own(writer, database):
    writer.write(
        [
            happened("out", ("SUB", "N302"), 0, MOBILE=NUMBER),
            happened("in", ("SUB", "N301"), 9, MOBILE=NUMBER),
        ]
    )
    (message,) = told(database, "out").messages
    assert [record.id for record in message.postbacks] == ["out"]
    assert [moment.id for moment in message.afterwards] == ["in"]


def test_an_mmsid_that_went_to_many_is_told_in_part_and_says_so(writer, database):
    writer.write(
        [mms(f"m{number}", "N101", number, f"T{number}", MMSID="M1") for number in range(POSTBACKS_MAX + 5)]
    )
    (message,) = told(database, "M1").messages
    assert (len(message.postbacks), message.more, message.number) == (POSTBACKS_MAX, True, NUMBER)


def test_what_is_not_at_its_end_is_told_as_the_broker_has_it_now(writer, database, rig):
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        event = examples()["SMS_MT", "N201"] | {"TRACKINGID": "T1", "TO": NUMBER}
        postback_id = send_postback.delay("acme", event).id
        rig.tick()
        writer.write([(postback_id, rig.client.hgetall(f"postbacks:record:{postback_id}"))])
        answer = told(database, "T1", client=rig.client)
        assert answer.messages[0].moments[-1].words == "waits for its POST"
        rig.deliver()
        answer = told(database, "T1", client=rig.client)
    assert answer.read_ms is not None
    (message,) = answer.messages
    assert [moment.what for moment in message.moments] == ["accepted", "post", "due"]
    assert message.moments[-1].words == "parked; the next POST is due"
    away = told(database, "T1")
    assert (away.read_ms, [moment.what for moment in away.messages[0].moments]) == (None, ["accepted", "now"])


def test_an_unknown_value_says_until_when_is_recorded(writer, database):
    with pytest.raises(UnknownPostback, match="no postback with the id, TRACKINGID or MMSID 'nope'"):
        told(database, "nope")
    for odd in ("", "x" * 4000, "\x00", "\ud800", "T1' OR 1=1"):
        with pytest.raises(UnknownPostback):
            told(database, odd)
