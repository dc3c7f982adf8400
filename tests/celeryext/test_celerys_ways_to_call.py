"""Every way that Celery has to call a task: it becomes postbacks, is one POST here and now, or is refused in a sentence.

docs/sending.md says the same in a table.
"""

# ruff: noqa: PLW0108 - what makes a signature has to wait until the test
from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from celery import Celery, chain, chord, chunks, group, signature, xmap, xstarmap
from celery.app.trace import build_tracer
from celery.beat import Scheduler
from celery.canvas import StampingVisitor, maybe_signature
from events import EVENT
from helpers import check_places, ended, eventually, running, set_account

from postbacks import InvalidEvent, SmsReceived, keys, send_postback, send_postbacks
from postbacks.devtools.receiver import Receiver
from postbacks.errors import UnsupportedOption
from postbacks.ledger.ledger import Ledger
from postbacks.queue.intake import MAX_RAW_BYTES

pytestmark = pytest.mark.usefixtures("forked")

BAD = EVENT | {"MOBILE": "+1"}
TYPED = SmsReceived(from_="15552312102", to="86717", text="STOP", received=datetime(2013, 11, 5, tzinfo=UTC))
NAME = "postbacks.send_postback"
ACCOUNT = uuid.uuid4()

app = send_postback.app
s = send_postback.s


class Stamps(StampingVisitor):
    """Celery's stamps: headers of one's own."""

    def on_signature(self, sig, **headers):
        return {"team": "messaging"}


def stamped(sig):
    """A signature with a stamp."""
    sig.stamp(Stamps())
    return sig


def far(sig):
    """A signature that has been in another process: as JSON, and back."""
    return maybe_signature(json.loads(json.dumps(sig)), app=app)


def host() -> Celery:
    """Another Celery app of the same program, with a task of its own."""
    return Celery("host", broker=app.conf.broker_url, backend="cache+memory://", set_as_current=False)


def periodic(beats_app: Celery) -> None:
    """Do what beat does with an entry of ``add_periodic_task``."""
    beats_app.add_periodic_task(60, s("acme", TYPED), name="hourly")
    beats_app.finalize()
    settings = beats_app.conf.beat_schedule["hourly"]
    with patch.dict(beats_app.conf.beat_schedule, clear=True):
        scheduler = Scheduler(app=beats_app)
        scheduler.apply_async(scheduler.Entry(**settings, name="hourly", app=beats_app), advance=False)


#: name -> the call, and how many postbacks it is
SENT = {
    "delay": (lambda: send_postback.delay("acme", EVENT), 1),
    "delay with names": (lambda: send_postback.delay(account="acme", event=EVENT), 1),
    "an event type": (lambda: send_postback.delay("acme", TYPED), 1),
    "apply_async": (lambda: send_postback.apply_async(("acme", EVENT)), 1),
    "an account that is a UUID": (lambda: send_postback.delay(ACCOUNT, EVENT), 1),
    "an id that is a UUID": (lambda: send_postback.apply_async(("acme", EVENT), task_id=uuid.uuid4()), 1),
    "a signature's delay": (lambda: s("acme", EVENT).delay(), 1),
    "a signature's apply_async": (lambda: s("acme", TYPED).apply_async(countdown=0), 1),
    "si": (lambda: send_postback.si("acme", EVENT).delay(), 1),
    "signature": (lambda: send_postback.signature(("acme", EVENT)).delay(), 1),
    "subtask": (lambda: send_postback.subtask(("acme", EVENT)).delay(), 1),
    "a clone": (lambda: s("acme", EVENT).clone().delay(), 1),
    "a signature through JSON": (lambda: far(s(ACCOUNT, TYPED)).delay(), 1),
    "a signature by name": (lambda: app.signature(NAME, ("acme", EVENT)).delay(), 1),
    "another app's signature by name": (lambda: signature(NAME, ("acme", TYPED), app=app).delay(), 1),
    "a stamp": (lambda: stamped(s("acme", EVENT)).delay(), 1),
    "the registry": (lambda: app.tasks[NAME].delay("acme", EVENT), 1),
    "send_task": (lambda: app.send_task(NAME, ("acme", TYPED)), 1),
    "send_task as `celery call` does": (
        lambda: app.send_task(NAME, args=["acme", EVENT], kwargs={}, countdown=None, serializer="json", queue=None,
                              exchange=None, routing_key=None, eta=None, expires=None), 1),
    "another app's send_task": (lambda: host().send_task(NAME, ("acme", EVENT), queue=keys.QUEUE), 1),
    "a signature in another app's worker": (
        lambda: signature(json.loads(json.dumps(s("acme", TYPED))), app=host()).apply_async(), 1),
    "another app's beat": (lambda: periodic(host()), 1),
    "another app's producer": (
        lambda: [send_postback.apply_async(("acme", EVENT), producer=producer)
                 for producer in [app.amqp.Producer(app.connection_for_write())]], 1),
    "group": (lambda: group(s("acme", EVENT) for _ in range(3)).apply_async(), 3),
    "group, called": (lambda: group([s("acme", EVENT), s("acme", TYPED)])(), 2),
    "group in a group": (lambda: group(group(s("acme", EVENT), s("acme", EVENT)), s("acme", EVENT)).delay(), 3),
    "group with a countdown each": (lambda: group(s("acme", EVENT) for _ in range(2)).skew(-2, -1).delay(), 2),
    "group through JSON": (lambda: far(group(s("acme", EVENT), s("acme", TYPED))).delay(), 2),
    "chain of one": (lambda: chain(s("acme", EVENT)).apply_async(), 1),
    "chain of a group": (lambda: chain(group(s("acme", EVENT), s("acme", EVENT))).apply_async(), 2),
    "the body of an empty chord": (lambda: chord([], s("acme", EVENT), app=app).apply_async(), 1),
    "send_postbacks": (lambda: send_postbacks(ACCOUNT, [EVENT, TYPED]), 2),
}  # fmt: skip


@pytest.mark.parametrize(("call", "postbacks"), SENT.values(), ids=list(SENT))
def test_what_becomes_postbacks_is_kept_and_delivered(rig, call, postbacks):
    """Each of them has its record; Celery's queue of our workers stays empty."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        set_account(str(ACCOUNT), url=receiver.url())
        call()
        assert rig.client.llen(keys.WORK_QUEUE) == 0
        assert rig.tick().taken_in == postbacks
        assert rig.deliver() == postbacks
        assert check_places(rig.client) == {"done": postbacks}
        assert len({post.postback_id for post in receiver.received}) == postbacks
        assert {post.attempt for post in receiver.received} == {1}


MAPPED = (
    r"send_postbacks\(account, events\), or group\(send_postback\.s\(account, event\) for event in events\)\."
)
ITEMS = [("acme", EVENT)] * 4
BY_NAME = {"task": NAME, "args": (), "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}


#: name -> the call, what is raised and its words
REFUSED = {
    "chunks": (lambda: send_postback.chunks(ITEMS, 2), UnsupportedOption, MAPPED),
    "map": (lambda: send_postback.map(ITEMS), UnsupportedOption, MAPPED),
    "starmap": (lambda: send_postback.starmap(ITEMS), UnsupportedOption, MAPPED),
    "chunks of a signature": (lambda: chunks(s(), ITEMS, 2), UnsupportedOption, MAPPED),
    "map of a half signature": (lambda: xmap(s("acme"), [EVENT]), UnsupportedOption, MAPPED),
    "starmap of a whole signature": (
        lambda: xstarmap(s("acme", EVENT), ITEMS, app=app).delay(), UnsupportedOption, MAPPED),
    "map by name": (lambda: xmap(app.signature(NAME), ITEMS, app=app).delay(), UnsupportedOption, MAPPED),
    "chunks by name": (lambda: chunks(app.signature(NAME), ITEMS, 2, app=app).delay(), UnsupportedOption, MAPPED),
    "Celery's own task of starmap": (
        lambda: app.send_task("celery.starmap", (), {"task": BY_NAME, "it": ITEMS}), UnsupportedOption, MAPPED),
    "Celery's own task of chunks": (
        lambda: app.tasks["celery.chunks"].delay(BY_NAME, ITEMS, 2), UnsupportedOption, MAPPED),
    "arguments that come later": (lambda: s("acme").delay(EVENT), UnsupportedOption, "takes no arguments later"),
    "first in a chain": (lambda: chain(s("acme", EVENT), s("acme", EVENT)).delay(), UnsupportedOption, "put the postback last"),
    "first in a chain by |": (lambda: (s("acme", EVENT) | s("acme", EVENT)).delay(), UnsupportedOption, "put the postback last"),
    "a chord's header": (
        lambda: chord([s("acme", EVENT)] * 2, s("acme", EVENT)).delay(), UnsupportedOption, "send them in a group"),
    "a group before a task": (
        lambda: (group(s("acme", EVENT), s("acme", EVENT)) | s("acme", EVENT)).delay(), UnsupportedOption,
        "send them in a group"),
    "another app's chord": (
        lambda: chord([s("acme", EVENT)], host().signature("shop.add"), app=host()).delay(), UnsupportedOption, "chord"),
    "link": (lambda: send_postback.apply_async(("acme", EVENT), link=s("acme", EVENT)), UnsupportedOption, "AsyncResult"),
    "a signature's link": (lambda: [one.link(s("acme", EVENT)) and one.delay() for one in [s("acme", EVENT)]],
                           UnsupportedOption, "cannot take link="),
    "on_error": (lambda: s("acme", EVENT).on_error(s("acme", EVENT)).delay(), UnsupportedOption, "cannot take link_error="),
    "a group's link": (
        lambda: [one.link(s("acme", EVENT)) and one.delay() for one in [group(s("acme", EVENT), s("acme", EVENT))]],
        UnsupportedOption, "cannot take link="),
    "a group with one bad event": (lambda: group(s("acme", EVENT), s("acme", BAD)).delay(), InvalidEvent, "MOBILE"),
    "send_task with a bad event": (lambda: app.send_task(NAME, ("acme", BAD)), InvalidEvent, "MOBILE"),
    "send_task with a link": (lambda: app.send_task(NAME, ("acme", EVENT), link=s("acme", EVENT)), UnsupportedOption, "AsyncResult"),
    "send_task to another queue": (lambda: app.send_task(NAME, ("acme", EVENT), queue="celery"), UnsupportedOption, "'celery'"),
    "arguments that are a text": (lambda: send_postback.apply_async("acme"), UnsupportedOption, "as a list and a mapping"),
    "arguments that are a mapping": (
        lambda: send_postback.apply_async({"account": "acme", "event": EVENT}), UnsupportedOption, "not as dict and dict"),
    "arguments that are a number": (lambda: send_postback.signature(5), UnsupportedOption, "not as int and dict"),
    "names that are a number": (
        lambda: send_postback.apply(("acme", EVENT), 5), UnsupportedOption, "not as tuple and int"),
    "apply with an id that cannot be one": (
        lambda: send_postback.apply(("acme", EVENT), task_id="a b"), UnsupportedOption, "cannot be a postback's id"),
    "apply with an option that is misspelt": (
        lambda: send_postback.apply(("acme", EVENT), countdwn=3), UnsupportedOption, "Did you mean countdown="),
    "apply with a link": (
        lambda: s("acme", EVENT).set(link=[s("acme", EVENT)]).apply(), UnsupportedOption, "cannot take link="),
    "apply with a bad event": (lambda: send_postback.apply(("acme", BAD)), InvalidEvent, "MOBILE"),
    "election": (lambda: s("acme", EVENT).election(), UnsupportedOption, r"send it with delay\(\)"),
    "retry": (lambda: send_postback.retry(), UnsupportedOption, "sent again by itself"),
    "replace": (lambda: send_postback.replace(s("acme", EVENT)), UnsupportedOption, r"revoke\(\) the postback"),
    "add_to_chord": (lambda: send_postback.add_to_chord(s("acme", EVENT)), UnsupportedOption, r"send it with delay\(\)"),
    "update_state": (lambda: send_postback.update_state("x", "SUCCESS"), UnsupportedOption, "its deliveries made it"),
    "revoke by stamps": (
        lambda: app.control.revoke_by_stamped_headers({"team": "messaging"}), UnsupportedOption, "revoke them by id"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_a_postback_is_refused_in_the_caller(broker, call, kind, words):
    """The refusal is one sentence, and nothing is in any queue or in the ledger."""
    with broker.client() as client:
        with pytest.raises(kind, match=words) as refused:
            call()
        assert "\n" not in str(refused.value)
        assert [key for key in client.scan_iter("*") if not key.startswith(b"_kombu")] == []


@pytest.mark.parametrize(
    ("event", "error"), [(EVENT, ""), (BAD, "Error: event SUB N301 is not in the catalogue's form")]
)
def test_celerys_own_command_sends_or_refuses_as_a_call_does(broker, event, error):
    """`celery -A postbacks call`: the id, or one sentence and no traceback."""
    command = ["-m", "celery", "-A", "postbacks", "call", NAME, f"--args={json.dumps(['acme', event])}"]
    done = subprocess.run([sys.executable, *command], capture_output=True, check=False, text=True, timeout=60)
    with broker.client() as client:
        sent = [json.loads(raw)["headers"]["id"] for raw in client.lrange(keys.QUEUE, 0, -1)]
    assert done.stdout.split() == sent
    assert len(sent) == (0 if error else 1)
    assert done.stderr.startswith(error)
    assert len(done.stderr.splitlines()) == len(error[:1])


HERE = {
    "called": lambda: send_postback("acme", EVENT),
    "called with names": lambda: send_postback(account="acme", event=TYPED),
    "run": lambda: send_postback.run("acme", EVENT),
    "a signature, called": lambda: s("acme", EVENT)(),
    "apply": lambda: send_postback.apply(("acme", EVENT), task_id=uuid.uuid4()).get(),
    "apply with names": lambda: send_postback.apply(kwargs={"account": "acme", "event": EVENT}).get(),
    "a signature's apply": lambda: s("acme", EVENT).apply().get(),
    "a group's apply": lambda: group(s("acme", EVENT)).apply().get()[0],
    "a chain's apply": lambda: chain(s("acme", EVENT)).apply().get(),
}


@pytest.mark.parametrize("call", HERE.values(), ids=list(HERE))
def test_what_is_called_here_is_one_post_without_queue_and_ledger(broker, call):
    """As a function, and by apply()."""
    with Receiver() as receiver, broker.client() as client:
        set_account("acme", url=receiver.url())
        assert call() == {"outcome": "delivered", "status": 200, "attempts": 1}
        (post,) = receiver.received
        assert uuid.UUID(post.postback_id)
        assert set(client.keys("*")) == {keys.ACCOUNTS.encode(), keys.ROUTES.encode()}


def test_celerys_own_tasks_that_call_ours_in_a_worker_send_postbacks(broker, tmp_path):
    """Messages of another app in the queue of our workers: each item is a postback, a bad one is dead, none is lost."""
    one = {"task": NAME, "args": (), "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    items = [["acme", EVENT | {"CAMPAIGNID": str(number)}] for number in range(8)]
    with (
        Receiver() as receiver,
        running(broker, tmp_path) as stack,
        broker.client() as client,
        host() as foreign,
    ):
        set_account("acme", url=receiver.url())
        sends = (
            ("celery.starmap", {"task": one, "it": [*items[:1], ["acme", BAD], *items[1:3]]}),
            ("celery.chunks", {"task": one, "it": [["acme", BAD], *items[3:6]], "n": 2}),
            ("celery.group", {"tasks": [one | {"args": item} for item in items[6:]], "result": [["g", None], []],
                              "group_id": "g", "partial_args": ()}),
        )  # fmt: skip
        for name, kwargs in sends:
            foreign.send_task(name, (), kwargs, queue=keys.WORK_QUEUE)
        posts = eventually(lambda: len(receiver.received) >= 8 and receiver.received, what="eight POSTs")
        for post in posts:
            assert ended(client, post.postback_id).state == "delivered"
        assert sorted(post.tags["CAMPAIGNID"] for post in posts) == [str(number) for number in range(8)]
        eventually(lambda: client.zcard(keys.DEAD) == 2, what="the bad ones' death")
        assert check_places(client) == {"done": 8, "dead": 2}
        assert "Traceback" not in stack.workers[0].log()


def test_a_call_as_a_function_in_a_task_of_our_own_worker_is_a_postback(rig):
    """A deployment may have tasks of its own there: what they send is kept, and a bad event is theirs to hear of."""

    @app.task(name="deployment.tell", shared=False)
    def tell(event):
        return send_postback("acme", event)

    try:
        with Receiver() as receiver:
            set_account("acme", url=receiver.url())
            run = build_tracer(tell.name, tell, app=app)
            sent, refused = (
                run(str(uuid.uuid4()), (event,), {}, {"id": "t", "delivery_info": {}}).retval
                for event in (EVENT, BAD)
            )
            assert rig.tick().taken_in == 1
            rig.deliver()
            assert [post.postback_id for post in receiver.received] == [sent]
            assert isinstance(refused.exception, InvalidEvent)
    finally:
        app.tasks.unregister(tell.name)


def test_a_map_that_another_app_puts_into_our_queue_is_kept_whole_among_the_dead(rig):
    """The map is no postback, but it holds events: its reason says what to send instead."""
    items = [["acme", EVENT]] * 1500
    with host() as foreign:
        foreign.send_task(
            "celery.starmap", (), {"task": BY_NAME, "it": items}, queue=keys.QUEUE, task_id="mapped"
        )
    (raw,) = rig.client.lrange(keys.QUEUE, 0, -1)
    assert len(raw) > MAX_RAW_BYTES
    rig.tick()
    (dead,) = Ledger(rig.client).ended(dead=True, at_most=9)
    assert (dead.id, dead.state, dead.raw) == ("mapped", "dead", raw)
    assert "cannot be mapped in a worker: the message is for the task 'celery.starmap'" in dead.reason
    assert "Send each postback as a message of its own" in dead.reason


# -- protocol 1 ------------------------------------------------------------------------------------


def test_a_stock_celery_with_protocol_1_sends_postbacks(rig):
    """task_protocol=1: its id, a countdown, compressed or not; what it wants done afterwards is dead under its id."""
    soon = datetime.now(UTC) + timedelta(seconds=60)
    with Receiver() as receiver, host() as foreign:
        foreign.conf.task_protocol = 1
        set_account("acme", url=receiver.url())
        for task_id, more in {
            "plain": {},
            "packed": {"compression": "gzip"},
            "later": {"countdown": 60},
            "late": {"expires": datetime.now(UTC) - timedelta(seconds=9)},
            "in time": {"expires": soon},
            "linked": {"link": foreign.signature("shop.add")},
        }.items():
            key = task_id.replace(" ", "-")
            foreign.send_task(NAME, ("acme", EVENT), queue=keys.QUEUE, task_id=key, **more)
        assert all("task" not in json.loads(raw)["headers"] for raw in rig.client.lrange(keys.QUEUE, 0, -1))
        assert rig.tick().taken_in == 6
        rig.deliver()
        assert {post.postback_id for post in receiver.received} == {"plain", "packed", "in-time"}
        rig.advance(61)
        rig.tick()
        rig.deliver()
        assert receiver.received[-1].postback_id == "later"
    assert (rig.record("late").state, rig.record("late").reason) == ("dead", "expired")
    assert rig.record("linked").state == "dead"
    assert "callbacks afterwards" in rig.record("linked").reason


#: As two clients of other languages write them: gocelery (message.go, redis_broker.go), which leaves empty headers
#: out and writes times with their offset, and node-celery (protocol.js, lib/redis/RedisBroker.js), whose times have no zone.
GO = {
    "id": "go-1",
    "task": NAME,
    "args": ["acme", EVENT],
    "kwargs": {},
    "retries": 0,
    "eta": None,
    "expires": "2400-01-01T00:00:00.123456789+01:00",
}
NODE = {
    "task": NAME,
    "args": ["acme", EVENT],
    "kwargs": {},
    "id": "node-1",
    "expires": "2400-01-01T00:00:00.000",
}


def envelope(said, **more) -> str:
    """The message in Redis."""
    properties = {
        "body_encoding": "base64",
        "correlation_id": str(uuid.uuid4()),
        "reply_to": str(uuid.uuid4()),
        "delivery_info": {"priority": 0, "routing_key": "celery", "exchange": "celery"},
        "delivery_mode": 2,
        "delivery_tag": str(uuid.uuid4()),
    }
    body = base64.b64encode(json.dumps(said, separators=(",", ":")).encode()).decode()
    return json.dumps({"body": body, "content-type": "application/json", "properties": properties} | more)


def test_messages_as_clients_of_other_languages_write_them_are_postbacks(rig):
    """Each under the id that its body has."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        rig.client.lpush(keys.QUEUE, envelope(GO, **{"content-encoding": "utf-8"}))
        rig.client.lpush(keys.QUEUE, envelope(NODE, headers={}, **{"content-encoding": "utf-8"}))
        assert rig.tick().taken_in == 2
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == ["go-1", "node-1"]


def test_our_own_app_may_write_protocol_1(rig, monkeypatch):
    """A deployment that sets task_protocol=1, with Celery's sent events or without."""
    monkeypatch.setitem(app.conf.changes, "task_protocol", 1)
    monkeypatch.setattr(
        app.amqp, "create_task_message", app.amqp.as_task_v1
    )  # Celery has read the setting before
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        first = send_postback.delay("acme", EVENT)
        ids = send_postbacks("acme", [EVENT, EVENT])
        monkeypatch.setitem(app.conf.changes, "task_send_sent_event", True)
        last = send_postback.delay("acme", EVENT)
        assert all("task" not in json.loads(raw)["headers"] for raw in rig.client.lrange(keys.QUEUE, 0, -1))
        assert rig.tick().taken_in == 4
        rig.deliver()
        assert {post.postback_id for post in receiver.received} == {first.id, *ids, last.id}
