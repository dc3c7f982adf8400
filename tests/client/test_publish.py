"""The message that we put into Redis ourselves, beside the one that kombu puts."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid

import pytest
from celery import Celery, signals
from celery._state import _task_stack
from events import EVENT as SUB
from helpers import BASE_ENV, Rig, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.app import app
from postbacks.client import sending
from postbacks.client.message_template import new_id
from postbacks.devtools.receiver import Receiver

EVENT = SUB | {"BRANDNAME": "Käse\r\n"}


def only_message(client) -> tuple[str, dict]:
    """The one message in Celery's queue, and the list that it stands in."""
    found = [(key, raw) for key in keys.QUEUE_LISTS for raw in client.lrange(key, 0, -1)]
    assert len(found) == 1
    client.delete(*keys.QUEUE_LISTS)
    key, raw = found[0]
    return key, json.loads(raw)


@pytest.mark.parametrize(
    "options",
    [{}, {"priority": 0}, {"priority": 4}, {"priority": 9}, {"compression": "gzip"}, {"eta": "2031-01-01T00:00:00+00:00"},
     {"headers": {"trace": "abc"}}, {"shadow": "other"}, {"time_limit": 5}],
    ids=str,
)  # fmt: skip
def test_our_envelope_equals_kombus_field_by_field(broker, options):
    """The same call with kombu's own producer and with ours; only the delivery tag is another."""
    client = broker.client()
    options = {**options, "task_id": "one-id"}
    with app.producer_pool.acquire(block=True) as kombus:
        send_postback.apply_async(("acme", EVENT), producer=kombus, **options)
    their_list, theirs = only_message(client)
    send_postback.apply_async(("acme", EVENT), **options)
    our_list, ours = only_message(client)
    assert our_list == their_list
    assert theirs["properties"].pop("delivery_tag") != ours["properties"].pop("delivery_tag")
    assert json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
    assert base64.b64decode(ours["body"]) == base64.b64decode(theirs["body"])


def same(ours: dict, theirs: dict) -> bool:
    """Tell whether two messages differ in nothing but their delivery tag; an id that Celery made is put in ours."""
    assert ours["properties"].pop("delivery_tag") != theirs["properties"].pop("delivery_tag")
    return json.dumps(ours) == json.dumps(theirs)


CALLS = {
    "plain": (("acme", EVENT), {}, "one-id"),
    "an id that JSON must escape": (("acme", EVENT), {}, 'a"\\%s'),
    "a URL of its own": (("acme", EVENT), {"url": "http://a.example/%s?é=%25"}, "one-id"),
    "a number for a name, files": (
        (7, {"ORIGIN": "MMS_MO", "CODE": "N401", "FROM": "15552312102", "TO": "86717", "TRACKINGID": "%d",
             "TIMESTAMP": "2013-11-05T05:41:08-05:00", "SPID": "0007", "CONTENT": {"FILE": ["http://a.example/1"]}}),
        {}, "one-id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("within", [False, True], ids=["at top", "in a task"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_message_from_the_template_equals_celerys_field_by_field(broker, call, within):
    """`.delay()` and `send_postbacks` beside Celery's own way, also where an application's task calls."""
    client = broker.client()
    args, kwargs, task_id = call

    def caller_body() -> None:
        """A task of an application's own."""

    caller = Celery("caller", set_as_current=False).task(caller_body, name="caller", shared=False)
    caller.push_request(id="its-id", root_id="the-root", called_directly=False, children=[])
    _task_stack.push(caller) if within else None
    try:
        with app.producer_pool.acquire(block=True) as kombus:
            send_postback.apply_async(args, kwargs, task_id=task_id, producer=kombus)
        _, theirs = only_message(client)
        result = send_postback.apply_async(args, kwargs, task_id=task_id)
        _, ours = only_message(client)
        (bulk_id,) = send_postbacks(args[0], [args[1]], **kwargs)
        _, bulk = only_message(client)
    finally:
        _task_stack.pop() if within else None
    assert result.id == task_id == ours["headers"]["id"]
    assert ours["headers"]["parent_id"] == ("its-id" if within else None)
    assert [one.id for one in caller.request.children] == ([task_id, task_id, bulk_id] if within else [])
    bulk_text = json.dumps(bulk).replace(json.dumps(bulk_id), json.dumps(task_id))
    assert same(json.loads(bulk_text), dict(theirs, properties=dict(theirs["properties"])))
    assert same(ours, theirs)


def test_a_change_of_the_configuration_is_in_the_next_message(broker):
    """The template is made anew: whatever Celery is told to do, it does."""
    client = broker.client()
    send_postback.delay("acme", EVENT)
    only_message(client)
    routes = app.conf.task_routes
    app.conf.update(task_routes={send_postback.name: {"queue": keys.QUEUE, "priority": 6}})
    try:
        send_postback.delay("acme", EVENT)
        assert only_message(client)[0] == keys.QUEUE_LISTS[2]
    finally:
        app.conf.update(task_routes=routes)
    send_postback.delay("acme", EVENT)
    assert only_message(client)[0] == keys.QUEUE_LISTS[0]


def test_every_call_has_an_id_of_its_own():
    """Random UUIDs of version 4, as Celery's are."""
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(str(uuid.UUID(one)) == one and uuid.UUID(one).version == 4 for one in ids)
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}


def test_celerys_publish_signals_fire_with_the_id(broker):
    """before_task_publish and after_task_publish, as tracing libraries want them."""
    seen = []

    def note(headers=None, **_):
        seen.append(headers["id"])

    try:
        send_postback.delay("acme", EVENT)  # once nobody listened, and the template was used
        signals.before_task_publish.connect(note, weak=False, dispatch_uid="test-before")
        signals.after_task_publish.connect(note, weak=False, dispatch_uid="test-after")
        result = send_postback.delay("acme", EVENT)
        (bulk_id,) = send_postbacks("acme", [EVENT])
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="test-before")
        signals.after_task_publish.disconnect(dispatch_uid="test-after")
    assert seen == [result.id] * 2 + [bulk_id] * 2


def test_a_batch_keeps_the_order_of_its_events(broker):
    """1,201 events in three commands: taken in in the order they were given."""
    with Receiver() as receiver:
        rig = Rig(broker)
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [EVENT] * 1201)
        rig.tick()
        assert [one.decode() for one in rig.client.lrange(keys.lane("acme/general"), 0, -1)] == ids
        rig.close()


PRODUCER = """
import sys, time
from postbacks import PostbacksError, send_postback, send_postbacks
event = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
print(send_postback.delay("acme", event).id, flush=True)
for line in sys.stdin:
    for call in (lambda: send_postback.delay("acme", event), lambda: send_postbacks("acme", [event] * 3)):
        began_s = time.monotonic()
        try:
            call()
            said = "accepted"
        except PostbacksError as error:
            said = type(error).__name__ + " " + str(error)
        print(f"{time.monotonic() - began_s:.2f} {said}", flush=True)
"""


def test_a_broker_that_is_gone_or_frozen_is_told_within_the_limit_and_is_used_again_when_it_is_back(
    own_broker,
):
    """POSTBACKS_BROKER_TIMEOUT_S, 3 s: both calls raise within it, never say accepted, and go on by themselves."""
    import os

    env = {**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": own_broker.url}
    producer = subprocess.Popen(
        [sys.executable, "-c", PRODUCER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def calls() -> list[tuple[float, str]]:
        producer.stdin.write("go\n")
        producer.stdin.flush()
        lines = [producer.stdout.readline().strip().split(" ", 1) for _ in range(2)]
        return [(float(took), said) for took, said in lines]

    try:
        assert producer.stdout.readline().strip()
        own_broker.pause()
        for took_s, said in calls():
            assert said.startswith("BrokerUnreachable")
            assert took_s < 20
        own_broker.resume()
        assert [said for _, said in calls()] == ["accepted", "accepted"]
        own_broker.kill()
        for took_s, said in calls():
            assert said.startswith("BrokerUnreachable")
            assert took_s < 20
        own_broker.start()
        assert [said for _, said in calls()] == ["accepted", "accepted"]
    finally:
        producer.stdin.close()
        producer.wait(60)
        producer.stdout.close()


def test_a_plain_call_takes_the_quick_way(broker, monkeypatch):
    """``.delay()`` fills a template in; with options it goes Celery's own way."""
    quick: list[str] = []
    send_from_template = sending._send_from_template

    def noting(task, template, producer, postback_id, request):
        quick.append(postback_id)
        return send_from_template(task, template, producer, postback_id, request)

    monkeypatch.setattr(sending, "_send_from_template", noting)
    plain = send_postback.delay("acme", EVENT).id
    named = send_postback.apply_async(("acme", EVENT), task_id="order-17").id
    send_postback.apply_async(("acme", EVENT), countdown=60)
    assert quick == [plain, named]
