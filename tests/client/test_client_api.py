"""Calls that are refused in the caller: a clear error in one sentence, and nothing in the queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from celery import Celery, chain, chord, group
from events import MMS, MO
from helpers import BASE_ENV

from postbacks import (
    InvalidAccount,
    InvalidEvent,
    InvalidUrl,
    SmsReceived,
    keys,
    send_postback,
    send_postbacks,
)
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver, dead_port
from postbacks.devtools.stack import CeleryProcess
from postbacks.errors import UnsupportedOption

pytestmark = pytest.mark.usefixtures("forked")

NAIVE = datetime(2013, 11, 5, 5, 41, 8)  # noqa: DTZ001 - a time without zone is what is refused


def without(tag: str) -> dict[str, str]:
    """The event without one of its tags."""
    return {name: value for name, value in MO.items() if name != tag}


@pytest.fixture
def client(broker):
    """The broker's client; whatever the test did, no message came into the broker."""
    with broker.client() as client:
        yield client
        assert [key for key in client.scan_iter("*") if not key.startswith(b"_kombu")] == []


EVENTS = {
    "unknown code": (MO | {"CODE": "N999"}, ["CODE: unknown: 'N999'; known: N211"]),
    "unknown origin": (MO | {"ORIGIN": "FAX"}, ["ORIGIN: unknown: 'FAX'; known: SUB"]),
    "code of another origin": (MO | {"CODE": "N301"}, ["CODE: unknown: 'N301'; known: N211"]),
    "no code": (without("CODE"), ["CODE: required"]),
    "unknown tag": (MO | {"COLOUR": "red"}, ["COLOUR: unknown tag; known: FROM, TO, TEXT"]),
    "missing tag": (without("TEXT"), ["TEXT: required"]),
    "bad value": (MO | {"TO": "+86717"}, ["TO: must be", "not '+86717'"]),
    "value of another type": (MO | {"TO": 86717}, ["TO: must be", "not 86717"]),
    "time without zone": (MO | {"RECEIVED": "2013-11-05T05:41:08"}, ["RECEIVED: must be"]),
    "datetime without zone": (MO | {"RECEIVED": NAIVE}, ["RECEIVED: must be"]),
    "too large": (
        MMS | {"CONTENT": {"FILE": ["https://a.example/".ljust(200, "x")] * 1500}}, ["at most 256 KiB are allowed"]),
    "no event": ("SMS_MO N211", ["an event is an Event or a mapping of tags"]),
    "None": (None, ["an event is an Event or a mapping of tags"]),
    "every fault at once": (
        without("TEXT") | {"TO": "x", "COLOUR": "red", "RECEIVED": "yesterday"},
        ["TO: must be", "TEXT: required", "RECEIVED: must be", "COLOUR: unknown tag"]),
}  # fmt: skip


@pytest.mark.parametrize(("event", "faults"), EVENTS.values(), ids=list(EVENTS))
def test_a_bad_event_is_refused_with_one_error_that_names_every_tag_at_fault(client, event, faults):
    """By .delay(), .apply_async() and send_postbacks alike."""
    calls = (
        lambda: send_postback.delay("acme", event),
        lambda: send_postback.apply_async(("acme",), {"event": event}),
        lambda: send_postback.s("acme", event).apply_async(),
        lambda: send_postbacks("acme", [event]),
    )
    for call in calls:
        with pytest.raises(InvalidEvent) as refused:
            call()
        for fault in faults:
            assert fault in str(refused.value)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 1000


def test_an_event_type_is_refused_where_it_is_made(client):
    """The constructor raises the same error; copies that pydantic does not check are checked in the call."""
    with pytest.raises(InvalidEvent, match=r"RECEIVED: must be.*TO: must be|TO: must be.*RECEIVED: must be"):
        SmsReceived(from_="15552312102", to="x", text="STOP", received=NAIVE)
    event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=datetime.now(UTC))
    with pytest.raises(InvalidEvent, match="TO: must be"):
        send_postback.delay("acme", event.model_copy(update={"to": "x"}))


URLS = {
    "not absolute": ("/in", "no absolute http or https URL"),
    "no scheme": ("a.example/in", "no absolute http or https URL"),
    "another scheme": ("ftp://a.example/in", "no absolute http or https URL"),
    "too long": ("https://a.example/".ljust(2049, "x"), "2049 characters; at most 2048"),
    "no host": ("https:///in", "no host"),
    "no text": (17, "text, not int"),
    "empty": ("", "no absolute http or https URL"),
}


@pytest.mark.parametrize(("url", "fault"), URLS.values(), ids=list(URLS))
def test_a_bad_url_is_refused(client, url, fault):
    """A URL that is given with the event is checked at once; an account's URL is looked up later."""
    for call in (
        lambda: send_postback.delay("acme", MO, url=url),
        lambda: send_postback.apply_async(("acme", MO), {"url": url}),
        lambda: send_postbacks("acme", [MO], url=url),
    ):
        with pytest.raises(InvalidUrl, match=fault):
            call()


@pytest.mark.parametrize("account", ["", "a b", "a/b", "x" * 129, None, True, b"acme"], ids=ascii)
def test_a_name_that_can_be_no_accounts_is_refused(client, account):
    """An account that does not exist is none of the caller's business."""
    for call in (lambda: send_postback.delay(account, MO), lambda: send_postbacks(account, [MO])):
        with pytest.raises(InvalidAccount, match="is no account name"):
            call()


OPTIONS = {
    "link": ({"link": send_postback.s("acme", MO)}, "cannot take link=: .*AsyncResult"),
    "link_error": ({"link_error": send_postback.s("acme", MO)}, "cannot take link_error=: .*ledger"),
    "chord": ({"chord": send_postback.s("acme", MO)}, "cannot take chord=: .*outside the chord"),
    "chain": ({"chain": [send_postback.s("acme", MO)]}, "cannot take chain=: .*last"),
    "expires": ({"expires": 60}, r"cannot take expires=: .*revoke\(\)"),
    "another queue": ({"queue": "celery"}, "cannot take queue='celery': postbacks wait in 'postbacks'"),
    "another routing key": ({"routing_key": "shop"}, "cannot take routing_key='shop'"),
    "another exchange": ({"exchange": "shop"}, "cannot take exchange='shop'"),
    "pickle": ({"serializer": "pickle"}, "cannot take serializer='pickle': JSON"),
    "a compression that nobody reads": (
        {"compression": "lzma"},
        "cannot take compression='lzma': gzip and bzip2",
    ),
    "a compression that nobody knows": ({"compression": "rar"}, "cannot take compression='rar'"),
    "an eta without zone": ({"eta": NAIVE}, "cannot take eta=.*no time zone"),
    "an eta as text without zone": ({"eta": "2030-01-01T00:00:00"}, "cannot take eta=.*no time zone"),
    "an eta that is no time": ({"eta": "tomorrow"}, "an eta a datetime with a time zone"),
    "an eta that is a number": ({"eta": 17}, "an eta a datetime with a time zone"),
    "a countdown that is no number": ({"countdown": "soon"}, "a countdown is seconds"),
    "a countdown that is not one": ({"countdown": float("nan")}, "a countdown is seconds"),
    "a countdown without end": ({"countdown": 1e15}, "a countdown is seconds"),
    "a priority that is no number": ({"priority": "high"}, "cannot take priority='high': .*0 to 9"),
    "a header that JSON cannot write": ({"headers": {"order": UUID(int=17)}}, "this headers=: .*JSON .*UUID"),
    "a stamp that JSON cannot write": ({"stamped_headers": ["order"], "order": MO.keys()}, "this order=: "),
    "an empty id": ({"task_id": ""}, "cannot be a postback's id"),
    "an id with a space": ({"task_id": "a b"}, "cannot be a postback's id"),
    "an id with a line's end": ({"task_id": "a\r\nX: y"}, "cannot be a postback's id"),
    "an id too long": ({"task_id": "x" * 256}, "cannot be a postback's id"),
    "an id that is no ASCII": ({"task_id": "ü"}, "cannot be a postback's id"),
    "an id that is a number": ({"task_id": 17}, "cannot be a postback's id"),
    "a misspelt option": ({"countdwn": 3}, r"knows no option countdwn=\. Did you mean countdown="),
    "another misspelt option": ({"task_identifier": "a"}, r"knows no option task_identifier=\. Did you mean"),
    "the database of a call that waits for no commit": (
        {"using": "archive"},
        r"knows no option using=\. delay_on_commit and apply_async_on_commit take using=",
    ),
    "a misspelt database": ({"usng": "archive"}, r"Did you mean using=\? delay_on_commit and .* take using="),
    "an option that nobody knows": ({"zzz": 3}, r"knows no option zzz=\.$"),
    "an argument among the options": ({"url": "http://a.example/"}, r"\{'url': \.\.\.\}"),
}


@pytest.mark.parametrize(("options", "fault"), OPTIONS.values(), ids=list(OPTIONS))
def test_an_option_that_a_postback_cannot_honour_is_refused_with_a_sentence(client, options, fault):
    """The sentence says what to do instead."""
    with pytest.raises(UnsupportedOption, match=fault) as refused:
        send_postback.apply_async(("acme", MO), **options)
    assert str(refused.value).endswith((".", "?"))


CANVASES = {
    "linked": lambda: send_postback.s("acme", MO).on_error(send_postback.s("acme", MO)).apply_async(),
    "first in a chain": lambda: chain(send_postback.s("acme", MO), send_postback.s("acme", MO)).apply_async(),
    "a chord's header": lambda: chord([send_postback.s("acme", MO)], app=send_postback.app)(
        send_postback.s("acme", MO)),
}  # fmt: skip


@pytest.mark.parametrize("call", CANVASES.values(), ids=list(CANVASES))
def test_what_celerys_canvas_would_do_after_a_postback_is_refused(client, call):
    """Links, a chain's next task and a chord would never be run."""
    with pytest.raises(UnsupportedOption):
        call()


WRONG = {
    "nothing": ((), {}, "wants account and event"),
    "account alone": (("acme",), {}, "wants event"),
    "event alone": ((), {"event": MO}, "wants account"),
    "url by position": (("acme", MO, "http://a.example/"), {}, "takes account, event and url="),
    "an unknown name": (("acme", MO), {"colour": "red"}, "takes account, event and url=.*colour"),
    "account twice": (("acme", MO), {"account": "acme"}, "takes account, event and url="),
    "a misspelt name": (("acme", MO), {"ulr": "http://a.example/"}, "got .* and ulr.*Did you mean url="),
    "a misspelt option among the arguments": (
        ("acme", MO),
        {"countdwn": 3},
        r"Did you mean countdown=\? It is an option: apply_async\(args, kwargs, countdown=\.\.\.\)",
    ),
    "an option among the arguments": (
        ("acme", MO),
        {"countdown": 3},
        r"countdown= is an option: apply_async\(args, kwargs, countdown=\.\.\.\)",
    ),
    "the database of a call that waits for no commit": (
        ("acme", MO),
        {"using": "archive"},
        r"and using\)\. delay_on_commit and apply_async_on_commit take using=",
    ),
    "a misspelt database": (("acme", MO), {"usng": "archive"}, r"Did you mean using=\? delay_on_commit and "),
}


@pytest.mark.parametrize(("args", "kwargs", "fault"), WRONG.values(), ids=list(WRONG))
def test_wrong_arguments_are_refused_with_a_sentence(client, args, kwargs, fault):
    """As every other fault: in the caller."""
    for call in (
        lambda: send_postback.apply_async(args, kwargs),
        lambda: send_postback.delay(*args, **kwargs),
        lambda: send_postback.s(*args, **kwargs).apply_async(),
    ):
        with pytest.raises(UnsupportedOption, match=fault):
            call()


def test_of_many_events_one_bad_one_sends_nothing_and_is_named_by_its_number(client):
    """The third of five: the first two have not left."""
    events = [MO, MO, MO | {"TO": "x", "COLOUR": "red"}, MO, MO]
    with pytest.raises(InvalidEvent) as refused:
        send_postbacks("acme", iter(events))
    assert [tag for tag, _ in refused.value.problems] == ["event 3: TO", "event 3: COLOUR"]


def test_no_events_are_no_postbacks(client):
    """An empty batch is no error."""
    assert send_postbacks("acme", []) == []


def test_what_is_not_refused_is_in_the_queue_when_the_call_returns(broker):
    """An account that nobody knows, a group, a chain's last task, options that do no harm."""
    with broker.client() as client:
        send_postback.delay("nobody", MO)
        send_postback.delay(account=17, event=MO, url="http://a.example/")
        group([send_postback.s("acme", MO)] * 2, app=send_postback.app).apply_async()
        for options in (
            {"task_id": "x" * 255},
            {"queue": "postbacks"},
            {"countdown": 0},
            {"countdown": -5},
            {"eta": datetime.now(UTC)},
            {"eta": datetime.now(UTC).isoformat()},
            {"compression": "gzip"},
            {"serializer": "json"},
            {"priority": 0},
            {"ignore_result": True},
            {"retry": False},
            {"headers": {"tenant": "7"}, "time_limit": 5, "reply_to": "shop", "add_to_parent": False},
            {"stamped_headers": ["tenant"], "tenant": "7"},
            {"link": None, "link_error": None, "chord": None, "chain": None, "expires": None},
        ):
            send_postback.apply_async(("acme", MO), **options)
        assert client.llen(keys.QUEUE) == 18
        assert client.llen(keys.WORK_QUEUE) == 0


# -- brokers that cannot be used ------------------------------------------------------------------

#: A producer as an application has it; prints what came of one call, one bulk call and the time they took.
PRODUCER = f"""
import json, sys, time
from postbacks import PostbacksError, send_postback, send_postbacks
from postbacks.errors import PostbacksError

event = {MO!r}
came = []
for call in (lambda: send_postback.delay("acme", event).id, lambda: send_postbacks("acme", [event] * 3)):
    began = time.monotonic()
    try:
        found = ["sent", call()]
    except PostbacksError as error:
        found = [type(error).__name__, str(error)]
    came.append([*found, time.monotonic() - began])
print(json.dumps(came))
"""


def produce(url: str) -> list[tuple[str, str, float]]:
    """Run the producer on a broker's URL; what came of .delay() and of send_postbacks."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER],
        env={**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": url, "POSTBACKS_BROKER_TIMEOUT_S": "1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return json.loads(done.stdout)


def down(stack: ExitStack) -> str:
    """Nothing listens."""
    return f"redis://127.0.0.1:{stack.enter_context(dead_port())}/0"


def no_redis(stack: ExitStack) -> str:
    """Something else listens."""
    return f"redis://127.0.0.1:{stack.enter_context(Receiver()).port}/0"


def frozen(stack: ExitStack) -> str:
    """Broker that takes connections and answers nothing."""
    broker = stack.enter_context(EmbeddedBroker())
    broker.pause()
    stack.callback(broker.resume)
    return broker.url


def replica(stack: ExitStack) -> str:
    """A copy of another one."""
    primary = stack.enter_context(EmbeddedBroker())
    return stack.enter_context(EmbeddedBroker(config={"replicaof": f"127.0.0.1 {primary.port}"})).url


def evicting(stack: ExitStack) -> str:
    """Broker that forgets the oldest when it is full."""
    config = {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}
    return stack.enter_context(EmbeddedBroker(config=config)).url


def full(stack: ExitStack) -> str:
    """Broker whose memory is used up."""
    broker = stack.enter_context(EmbeddedBroker())
    with broker.client() as client:
        client.set("ballast", b"x" * 2_000_000)
        client.config_set("maxmemory", "1mb")
    return broker.url


def _with_password(stack: ExitStack) -> EmbeddedBroker:
    broker = stack.enter_context(EmbeddedBroker())
    with broker.client() as client:
        client.config_set("requirepass", "right")
    return broker


def wrong_password(stack: ExitStack) -> str:
    """Broker with another password."""
    return _with_password(stack).url.replace("//", "//:hunter2@")


def no_password(stack: ExitStack) -> str:
    """Broker with a password, where the URL has none."""
    return _with_password(stack).url


def no_database(stack: ExitStack) -> str:
    """Broker with 16 databases."""
    return stack.enter_context(EmbeddedBroker()).url.replace("/0", "/999")


def no_url(stack: ExitStack) -> str:
    """The setting is none."""
    del stack
    return "http://user:hunter2@127.0.0.1/0"


UNFIT = {
    down: ("BrokerUnreachable", "does not answer"),
    no_redis: ("BrokerUnreachable", "does not answer"),
    frozen: ("BrokerUnreachable", "does not answer"),
    replica: ("BrokerUnfit", "is a replica and read-only; point POSTBACKS_BROKER_URL at the primary"),
    evicting: ("BrokerUnfit", "evicts keys when it is full (maxmemory-policy allkeys-lru)"),
    full: ("BrokerUnfit", "is full (maxmemory reached)"),
    wrong_password: ("BrokerUnfit", "refused the password in POSTBACKS_BROKER_URL"),
    no_password: ("BrokerUnfit", "wants a password; put it into POSTBACKS_BROKER_URL"),
    no_database: ("BrokerUnfit", "has no database of that number"),
    no_url: ("BadSetting", "it is no URL of a broker; write redis://"),
}


@pytest.mark.parametrize(("make", "kind", "words"), [(make, *what) for make, what in UNFIT.items()],
                         ids=[make.__name__ for make in UNFIT])  # fmt: skip
def test_a_broker_that_cannot_be_used_is_told_in_one_sentence_within_seconds(make, kind, words):
    """.delay() and send_postbacks raise an error that says what to do; nothing hangs, no password is shown."""
    with ExitStack() as stack:
        came = produce(make(stack))
    for name, sentence, took_s in came:
        assert name == kind, sentence
        assert words in sentence
        assert "\n" not in sentence
        assert "hunter2" not in sentence
        assert sentence.endswith(".")
        assert took_s < 20


def test_a_call_after_the_broker_has_come_back_succeeds(own_broker):
    """The same process: an error leaves nothing behind that the next call would stumble on."""
    program = f"""
import sys
from postbacks import send_postback
from postbacks.errors import BrokerUnreachable
event = {MO!r}
print(send_postback.delay("acme", event).id, flush=True)
sys.stdin.readline()
try:
    send_postback.delay("acme", event)
except BrokerUnreachable as error:
    print(type(error).__name__, flush=True)
sys.stdin.readline()
print(send_postback.delay("acme", event).id, flush=True)
"""
    env = {**os.environ, "POSTBACKS_BROKER_URL": own_broker.url, "POSTBACKS_BROKER_TIMEOUT_S": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            first = process.stdout.readline().strip()
            own_broker.kill()
            print("down", file=process.stdin, flush=True)
            assert process.stdout.readline().strip() == "BrokerUnreachable"
            own_broker.restart()
            print("up", file=process.stdin, flush=True)
            last = process.stdout.readline().strip()
            assert process.wait(90) == 0
        finally:
            process.kill()
    with own_broker.client() as client:
        kept = [json.loads(raw)["headers"]["id"] for raw in client.lrange(keys.QUEUE, 0, -1)]
    assert kept == [last, first]


# -- a broker on a Unix socket --------------------------------------------------------------------


def test_a_unix_socket_serves_producer_beat_and_worker(tmp_path):
    """unix:///path?db=0 for all of them, from the call to the receiver."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:  # a socket's path is short
        path = Path(folder) / "s"
        broker = stack.enter_context(EmbeddedBroker(config={"unixsocket": str(path)}))
        receiver = stack.enter_context(Receiver())
        env = {**BASE_ENV, "POSTBACKS_BROKER_URL": f"unix://{path}?db=3"}
        quiet = ["--without-mingle", "--without-gossip", "--loglevel=INFO"]
        worker = CeleryProcess("worker", env=env, args=quiet, log_path=tmp_path / "worker.log")
        beat = CeleryProcess("beat", env=env, log_path=tmp_path / "beat.log")
        for process in (worker, beat):
            stack.enter_context(process)
        program = (
            "import sys\n"
            "from postbacks import accounts, send_postback\n"
            "accounts.redis_accounts().set(accounts.make_account('acme', url=sys.argv[1]))\n"
            f"print(send_postback.delay('acme', {MO!r}).get(timeout=30))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, receiver.url()],
            env={**os.environ, **env},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode() + worker.log()
        assert b"'delivered'" in done.stdout
        (post,) = receiver.received
        with broker.client() as client:
            assert client.info("keyspace").keys() == {"db3"}
    assert post.attempt == 1


def test_a_foreign_clients_message_and_ours_are_alike(broker):
    """The message of .delay() differs from a plain send_task's in names of processes and reprs alone."""
    foreign = Celery("foreign", broker=broker.url, set_as_current=False)
    with foreign, broker.client() as client:
        foreign.send_task("postbacks.send_postback", ("acme", MO), queue=keys.QUEUE, task_id="theirs")
        send_postback.apply_async(("acme", MO), task_id="ours")
        ours, theirs = (json.loads(raw) for raw in client.lrange(keys.QUEUE, 0, -1))
    assert ours["body"] == theirs["body"]
    assert ours.keys() == theirs.keys()
    assert ours["headers"].pop("postbacks-schema") == 1  # who does not send it means 1
    assert set(ours["headers"]) == set(theirs["headers"])
    own = {"id", "root_id", "argsrepr", "ignore_result"}
    assert {k: v for k, v in ours["headers"].items() if k not in own} == {
        k: v for k, v in theirs["headers"].items() if k not in own
    }
