"""The message that we put into Redis ourselves, beside the one that kombu puts."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from celery import signals
from helpers import BASE_ENV, Rig, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.app import app
from postbacks.receiver import Receiver

EVENT = {
    "ORIGIN": "SUB",
    "CODE": "N301",
    "MOBILE": "15552312102",
    "CAMPAIGNID": "17041",
    "BRANDNAME": "Käse\r\n",
}


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


def test_celerys_publish_signals_fire_with_the_id(broker):
    """before_task_publish and after_task_publish, as tracing libraries want them."""
    seen = []

    def note(headers=None, **_):
        seen.append(headers["id"])

    signals.before_task_publish.connect(note, weak=False, dispatch_uid="test-before")
    signals.after_task_publish.connect(note, weak=False, dispatch_uid="test-after")
    try:
        result = send_postback.delay("acme", EVENT)
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="test-before")
        signals.after_task_publish.disconnect(dispatch_uid="test-after")
    assert seen == [result.id] * 2


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
            assert took_s < 4
        own_broker.resume()
        assert [said for _, said in calls()] == ["accepted", "accepted"]
        own_broker.kill()
        for took_s, said in calls():
            assert said.startswith("BrokerUnreachable")
            assert took_s < 4
        own_broker.start()
        assert [said for _, said in calls()] == ["accepted", "accepted"]
    finally:
        producer.stdin.close()
        producer.wait(10)
        producer.stdout.close()
