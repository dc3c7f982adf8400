"""Bad messages in Celery's queue: kept among the dead with their reason, their neighbours undisturbed."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import hypothesis
import messages
import pytest
from celery import Celery
from events import EVENT, MMS
from helpers import set_account
from hypothesis import given
from hypothesis import strategies as st
from kombu import compression
from messages import EMBED, body_of
from strategies import PROPERTY

from postbacks import accounts, keys, send_postback, send_postbacks, settings
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.receiver import Receiver
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import MAX_REASON
from postbacks.queue.intake import MAX_RAW_BYTES, MAX_WHOLE_BYTES, Intake
from postbacks.queue.scripts import Scripts

message = partial(messages.message, id="bad")
PROTOCOL_1 = json.dumps({"task": "postbacks.send_postback", "id": "bad", "args": ["acme", EVENT], "kwargs": {},
                         "retries": 0, "eta": "soon", "expires": None}).encode()  # fmt: skip
DEEP: object = "x"
for _ in range(900):
    DEEP = [DEEP]

#: name -> what stands in the queue, the id that it is kept under (None: a new one), what its reason says
BAD = {
    "garbage": (b"\x80\x04\x95 garbage", None, "no JSON"),
    "nothing": (b"", None, "no JSON"),
    "protocol 1 with a bad time": (
        json.dumps(json.loads(message(PROTOCOL_1)) | {"headers": {}}).encode(), "bad", "body cannot be read"),
    "neither protocol": (json.dumps(json.loads(message()) | {"headers": {}}).encode(), None, "neither"),
    "another task": (message(task="shop.add"), "bad", "for the task 'shop.add'"),
    "no id": (message(id=None), None, "no usable id"),
    "an id that no header can carry": (message(id="a\r\nb"), None, "no usable id"),
    "a newer catalogue's code": (message(body_of(("acme", EVENT | {"CODE": "N399"}))), "bad", "CODE: unknown: 'N399'"),
    "a newer catalogue's origin": (message(body_of(("acme", EVENT | {"ORIGIN": "RCS"}))), "bad", "ORIGIN: unknown"),
    "a newer catalogue's tag": (message(body_of(("acme", EVENT | {"NEWTAG": "1"}))), "bad", "NEWTAG: unknown tag"),
    "a bad value": (message(body_of(("acme", EVENT | {"MOBILE": "+1"}))), "bad", "MOBILE: must be"),
    "no event": (message(body_of(("acme",))), "bad", "wants event"),
    "no arguments": (message(body_of(())), "bad", "wants account and event"),
    "too many arguments": (message(body_of(("acme", EVENT, "x"))), "bad", "takes account, event and url="),
    "an unknown argument": (message(body_of(kwargs={"colour": "red"})), "bad", "takes account, event and url="),
    "an event that is text": (message(body_of(("acme", "SUB N301"))), "bad", "a mapping of tags"),
    "a wrong account": (message(body_of(("a b", EVENT))), "bad", "no account name"),
    "an account too deep to show": (message(body_of((DEEP, EVENT))), "bad", "no account name"),
    "an event too deep to show": (message(body_of(("acme", EVENT | {"MOBILE": DEEP}))), "bad", "MOBILE: must be"),
    "a task too deep to show": (message(task=DEEP), "bad", "for the task"),
    "a bad URL": (message(body_of(kwargs={"url": "ftp://a.example/"})), "bad", "no absolute http or https URL"),
    "a URL that cannot be written down": (
        message(body_of(kwargs={"url": "http://a.example/\ud800"})), "bad", "no Unicode text"),
    "an oversized event": (
        message(body_of(("acme", MMS | {"CONTENT": {"FILE": ["https://a.example/".ljust(200, "x")] * 1500}}))), "bad",
        "at most 256 KiB are allowed"),
    "an oversized body": (message(b" " * 2_200_000), "bad", "larger than 2,097,152 bytes"),
    "callbacks": (message(body_of(embed=EMBED | {"callbacks": [{"task": "x"}]})), "bad", "callbacks afterwards"),
    "a chain's next task": (message(body_of(embed=EMBED | {"chain": [{"task": "x"}]})), "bad", "chain afterwards"),
    "another serializer": (
        json.dumps(json.loads(message()) | {"content-type": "application/x-python-serialize"}).encode(),
        "bad", "not application/json"),
    "half a character": (b'{"headers": {"task": "postbacks.send_postback", "id": "\\ud800"}}', None, "no usable id"),
    "a decimal that is none": (
        message(body_of(("acme", EVENT | {"SUBID": {"__type__": "decimal", "__value__": "x"}}))), "bad",
        "cannot be read"),
}  # fmt: skip


def put(client, *messages: bytes, queue: str = keys.QUEUE) -> None:
    """Into the Redis list, as kombu does."""
    for raw in messages:
        client.lpush(queue, raw)


def the_dead(client):
    """The records of the dead, oldest first."""
    return Ledger(client).ended(dead=True, at_most=1000)[::-1]


@pytest.mark.parametrize(("raw", "kept_as", "reason"), BAD.values(), ids=list(BAD))
def test_a_message_that_is_no_postback_is_kept_among_the_dead_and_its_neighbours_go_out(
    rig, raw, kept_as, reason
):
    """With its reason and its bytes; before it and after it everything is delivered, in order."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        before = [message(id=f"before-{number}") for number in range(3)]
        after = [message(id=f"after-{number}") for number in range(3)]
        put(rig.client, *before, raw, *after)
        assert rig.tick().taken_in == 7
        assert rig.deliver() == 6
        received = [post.postback_id for post in receiver.received]
    assert sorted(received) == [f"{when}-{number}" for when in ("after", "before") for number in range(3)]
    (dead,) = the_dead(rig.client)
    assert dead.state == "dead"
    assert reason in dead.reason
    assert (dead.raw or b"") == raw[:MAX_RAW_BYTES]
    assert dead.attempts == ()
    if kept_as is not None:
        assert dead.id == kept_as
        result = send_postback.AsyncResult(dead.id)
        assert result.state == "FAILURE"
        assert reason in str(result.info)
    assert rig.client.zscore(keys.DEAD, dead.id) is not None
    assert [rig.client.llen(key) for key in (keys.QUEUE, keys.INTAKE)] == [0, 0]


def test_all_of_them_at_once_disturb_nobody(rig):
    """Every kind between good neighbours in one intake."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        for number, (raw, _, _) in enumerate(BAD.values()):
            put(rig.client, raw.replace(b'"bad"', b'"bad-%d"' % number), message(id=f"good-{number:02}"))
        assert rig.tick().taken_in == 2 * len(BAD)
        assert rig.deliver() == len(BAD)
        # Ten are on their way at once, so one may overtake another.
        arrived = sorted(post.postback_id for post in receiver.received)
        assert arrived == [f"good-{n:02}" for n in range(len(BAD))]
    kept = {record.raw or b"": record.reason for record in the_dead(rig.client)}
    assert len(kept) == len(BAD)
    for number, (raw, _, reason) in enumerate(BAD.values()):
        assert reason in kept[raw.replace(b'"bad"', b'"bad-%d"' % number)[:MAX_RAW_BYTES]]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (message(body_of(("acme", EVENT | {f"TAG{number}": "1" for number in range(8_000)}))), "unknown tag"),
        (json.dumps(json.loads(message()) | {"content-type": "x" * 3_000_000}).encode(), "3,000,"),
        (message(compression="x" * 3_000_000), "3,000,"),
        (message(body_of(("acme", EVENT), {"e" * 1_000_000: 1})), "1,000,"),
    ],
    ids=["8,000 unknown tags", "a content type of 3 MB", "a compression of 3 MB", "an argument of 1 MB"],
)
def test_a_reason_is_short_however_much_it_would_quote(rig, raw, reason):
    """Of three megabytes some thousand characters are kept; the text says that there were more."""
    put(rig.client, raw)
    rig.tick()
    (dead,) = the_dead(rig.client)
    assert reason in dead.reason
    assert len(dead.reason) <= MAX_REASON + 30
    assert rig.client.memory_usage(keys.record(dead.id), samples=0) < 2 * MAX_RAW_BYTES


def test_a_message_that_is_kept_whole_has_a_bound(rig):
    """A message of a newer version is kept as it came up to 6 MB; of a larger one the beginning, and it stays dead."""
    largest, larger = (
        message(b"x", id=name, **{"postbacks-schema": 9}).ljust(length)
        for name, length in (("largest", MAX_WHOLE_BYTES), ("larger", MAX_WHOLE_BYTES + 1))
    )
    put(rig.client, largest, larger)
    rig.tick()
    kept = {dead.id: dead for dead in the_dead(rig.client)}
    assert kept["largest"].raw == largest
    assert kept["larger"].raw == larger[:MAX_RAW_BYTES]
    assert kept["larger"].reason.startswith(
        f"the message has {MAX_WHOLE_BYTES + 1:,} bytes, of which 65,536 are kept: a newer"
    )
    assert [rig.scripts.replay(name) for name in ("largest", "larger")] == ["queued", "dead"]


def test_a_dead_message_that_is_no_postback_cannot_be_sent_again(rig):
    """There is no document to send: replaying one leaves it dead."""
    from postbacks import resend

    put(rig.client, message(task="shop.add"))
    rig.tick()
    assert resend("bad") == "dead"
    assert rig.deliver() == 0


def test_a_message_whose_time_is_up_is_dead_and_not_sent(rig):
    """A foreign client's expires= in the past; one in the future is sent."""
    past, future = (datetime.now(UTC) + timedelta(seconds=s) for s in (-1, 3600))
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        put(
            rig.client,
            message(id="late", expires=past.isoformat()),
            message(id="soon", expires=future.isoformat()),
        )
        rig.tick()
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == ["soon"]
    assert (rig.record("late").state, rig.record("late").reason) == ("dead", "expired")


def test_the_same_id_twice_in_the_queue_is_one_postback(rig):
    """In one intake and in the next; the first one counts, and a broken one is kept apart."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        put(rig.client, message(id="twice"), message(id="twice", task="shop.add"), message(id="once"))
        rig.tick()
        rig.deliver()
        put(rig.client, message(id="twice"))
        rig.tick()
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == ["twice", "once"]
    assert rig.record("twice").state == "delivered"
    assert [dead.first_id for dead in the_dead(rig.client)] == ["twice"]


def test_priority_lists_are_taken_in_most_urgent_first(rig):
    """kombu's sub-lists for the priorities 3, 6 and 9, filled by kombu itself."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        for priority in (9, 6, 4, 3, 0):
            send_postback.apply_async(("acme", EVENT), task_id=f"p{priority}", priority=priority)
        assert [rig.client.llen(name) for name in keys.QUEUE_LISTS] == [1, 2, 1, 1]
        assert rig.tick().taken_in == 5
        rig.deliver()
        taken = sorted(receiver.received, key=lambda post: post.sequence)  # two may be on their way together
        assert [post.postback_id for post in taken] == ["p0", "p4", "p3", "p6", "p9"]
    assert sum(rig.client.llen(name) for name in keys.QUEUE_LISTS) == 0


@pytest.mark.parametrize("name", ["gzip", "bzip2"])
def test_a_compressed_message_is_the_same_postback(rig, name):
    """From our own call and from a foreign client."""
    foreign = Celery("foreign", broker=settings.load().broker_url, set_as_current=False)
    with Receiver() as receiver, foreign:
        set_account("acme", url=receiver.url())
        send_postback.apply_async(("acme", EVENT), task_id="ours", compression=name)
        foreign.send_task(
            "postbacks.send_postback", ("acme", EVENT), queue=keys.QUEUE, task_id="theirs", compression=name
        )
        put(rig.client, message(compression.compress(body_of(), name)[0], id="raw",
                                compression=compression.get_encoder(name)[1]))  # fmt: skip
        rig.tick()
        rig.deliver()
        assert {post.postback_id: post.body for post in receiver.received} == dict.fromkeys(
            ("ours", "theirs", "raw"), render(parse_event(EVENT))
        )


def test_a_compression_bomb_in_the_queue_delays_nobody(rig):
    """64 MiB of nothing in 64 KiB, between good neighbours."""
    bomb = message(compression.compress(bytes(64 * 1024 * 1024), "gzip")[0], compression="application/x-gzip")
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        put(rig.client, message(id="before"), bomb, message(id="after"))
        began_s = time.process_time()
        assert rig.tick().taken_in == 3
        assert time.process_time() - began_s < 1
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == ["before", "after"]
    assert "larger than" in rig.record("bad").reason


def test_a_python_datetime_of_a_foreign_celery_client_is_written_as_iso_8601(rig):
    """kombu's own JSON for a datetime; one without a zone is dead, and says so."""
    when = datetime(2013, 11, 5, 5, 41, 8, tzinfo=UTC)
    event = {"ORIGIN": "SMS_MO", "CODE": "N211", "FROM": "15552312102", "TO": "86717", "TEXT": "STOP"}
    foreign = Celery("foreign", broker=settings.load().broker_url, set_as_current=False)
    with Receiver() as receiver, foreign:
        set_account("acme", url=receiver.url())
        for task_id, received in (("zone", when), ("none", when.replace(tzinfo=None))):
            foreign.send_task(
                "postbacks.send_postback",
                ("acme", event | {"RECEIVED": received}),
                queue=keys.QUEUE,
                task_id=task_id,
            )
        rig.tick()
        rig.deliver()
        (post,) = receiver.received
    assert post.postback_id == "zone"
    assert post.tags["RECEIVED"] == "2013-11-05T05:41:08+00:00"
    assert rig.record("none").state == "dead"
    assert "RECEIVED: must be" in rig.record("none").reason


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
_events = st.dictionaries(
    st.sampled_from([*EVENT, "TEXT", "CONTENT", "url", "mobile"]) | st.text(max_size=6), _anything, max_size=6
).map(lambda tags: EVENT | tags)
_bodies = st.tuples(
    st.tuples(st.just("acme") | _anything, st.just(EVENT) | _events | _anything) | _anything,
    st.just({}) | st.fixed_dictionaries({"url": st.just("http://a.example/").flatmap(
        lambda start: st.text(st.characters(exclude_categories=()), max_size=8).map(lambda end: start + end))}) | _anything,
    st.just(EMBED) | _anything,
)  # fmt: skip
_headers = st.fixed_dictionaries(
    {"id": st.uuids().map(str)},
    optional={
        "eta": st.datetimes().map(lambda moment: f"{moment.isoformat()}+23:59") | _anything,
        "expires": _anything,
    },
)


@hypothesis.settings(
    PROPERTY,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
@given(st.lists(st.tuples(_headers, _bodies), min_size=1, max_size=5))
def test_whatever_stands_in_the_queue_the_intake_goes_on(broker, messages):
    """Any JSON at all in arguments, event, URL and times: each becomes a record, none stops the tick."""
    with broker.client() as client:
        client.flushdb()
        set_account("acme", url="http://127.0.0.1:8080/")
        for headers, body in messages:
            put(client, message(json.dumps(body).encode(), **headers))
        intake = Intake(Scripts(client), accounts.store(), settings.load())
        taken_in, more = intake.run("t", time.monotonic() + 10)
        assert (taken_in, more) == (len(messages), False)
        records = len(list(client.scan_iter(f"{keys.RECORD}*")))
        assert records == len({headers["id"] for headers, _ in messages})


def test_large_messages_are_accepted_in_portions_so_that_no_script_holds_the_broker_up(rig, monkeypatch):
    """Sixty events of 64 KiB that escape to five times as much; all are taken in by one tick, in order."""
    set_account("acme", url="http://127.0.0.1:2000/")
    event = {"ORIGIN": "SMS_MO", "CODE": "N211", "FROM": "15552312102", "TO": "86717", "TEXT": "&" * 65_000,
             "RECEIVED": "2013-11-05T05:41:08-05:00"}  # fmt: skip
    ids = send_postbacks("acme", [event] * 60)
    portions: list[int] = []
    accept = Scripts.accept

    def counting(self, token, schema, units_max, documents_bytes_max, messages, *more):
        portions.append(messages)
        return accept(self, token, schema, units_max, documents_bytes_max, messages, *more)

    monkeypatch.setattr(Scripts, "accept", counting)
    while rig.tick().more:
        pass
    assert [one.decode() for one in rig.client.lrange("postbacks:lane:acme/mo", 0, -1)] == ids
    accepted = [one for one in ids if len(rig.record(one).xml) > 300_000]
    assert len(accepted) == 60
    assert sum(portions) == 60
    assert max(portions) <= 12, "one script took more than a mebibyte of messages"
