"""Flower and the other tools of Celery see every postback, through real processes of both pools."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from helpers import BASE_ENV, ended, eventually, running, set_account

from postbacks import send_postback, send_postbacks
from postbacks.app import app
from postbacks.control import cancel
from postbacks.local import CeleryProcess, EmbeddedBroker, LocalStack
from postbacks.receiver import Answer, Receiver

TEXT, PHONE, PATH, PAGE = "open sesame", "15552312102", "hook-7c1e", "sorry-9a2b"
EVENT = {
    "ORIGIN": "SMS_MO", "CODE": "N211", "FROM": PHONE, "TO": "86717", "TEXT": TEXT,
    "RECEIVED": "2013-11-05T05:41:08-05:00",
}  # fmt: skip
ENV = {"POSTBACKS_RETRY_COUNTDOWN_S": "1.5", "POSTBACKS_MAX_RESENDS": "2"}


class Wire:
    """Every event as it travels, by the id of its postback."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.raw: list[str] = []
        self.of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._pubsub = broker.client(timeout_s=None).pubsub()
        self._pubsub.psubscribe("/0.postbacks.events/*")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for message in self._pubsub.listen():
                if message["type"] != "pmessage":
                    continue
                body = base64.b64decode(json.loads(message["data"])["body"]).decode()
                self.raw.append(body)
                events = json.loads(body)
                for event in events if isinstance(events, list) else [events]:
                    if event["type"].startswith("task-"):
                        self.of[event["uuid"]].append(event)
        except (redis.RedisError, OSError, ValueError):
            pass  # closed

    def kinds(self, postback_id: str) -> list[str]:
        """What was told of a postback, in order."""
        return [event["type"].removeprefix("task-") for event in self.of.get(postback_id, [])]

    def wait(self, postback_id: str, *kinds: str) -> list[dict[str, Any]]:
        """Its events, once these and no others were told."""
        eventually(lambda: self.kinds(postback_id) == list(kinds), what=f"{kinds} of {postback_id}")
        return self.of[postback_id]

    def close(self) -> None:
        """Stop listening."""
        self._pubsub.close()


@dataclass
class Watched:
    """What runs, and the way to Flower's API."""

    pool: str
    broker: EmbeddedBroker
    stack: LocalStack
    receiver: Receiver
    wire: Wire
    port: int
    before: list[str] = field(default_factory=list)

    def ask(self, path: str, body: Any = None, *, post: bool = False) -> Any:
        """Flower's answer as JSON; its status where it is no 200."""
        data = json.dumps(body).encode() if body is not None else b"" if post else None
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/{path}", data, timeout=20
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code

    def shown(self, postback_id: str, state: str) -> dict[str, Any]:
        """A postback as Flower shows it, once it is in a state."""

        def look() -> Any:
            found = self.ask(f"task/info/{postback_id}")
            return found if isinstance(found, dict) and found["state"] == state else None

        return eventually(look, what=f"{state} of {postback_id} in Flower")


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module", params=["threads", "prefork"])
def watched(request, suites_broker, tmp_path_factory) -> Iterator[Watched]:
    """A stack whose worker starts with events off, and a Flower; then events are turned on at run time."""
    with suites_broker.client() as client:
        client.flushdb()
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    flower = CeleryProcess(
        "flower",
        env={
            **BASE_ENV, "POSTBACKS_BROKER_URL": suites_broker.url, "FLOWER_UNAUTHENTICATED_API": "1",
            # with threads Flower itself turns the events on
            "FLOWER_ENABLE_EVENTS": str(request.param == "threads"),
        },
        args=[f"--port={port}", "--address=127.0.0.1"],
        log_path=folder / "flower.log",
    )  # fmt: skip
    answers = {"bad": Answer(503, PAGE.encode()), "slow": Answer(delay_s=1)}
    early = request.param == "prefork"
    with (
        Receiver(lambda post: answers.get(post.path.split("/")[1], Answer())) as receiver,
        flower if early else nullcontext(),
        running(suites_broker, folder, pool=request.param, env=ENV) as stack,
    ):
        wire = Wire(suites_broker)
        for name in ("good", "bad", "slow"):
            set_account(name, url=receiver.url(f"/{name}/{PATH}"))
        before = send_postback.delay("good", EVENT).id
        ended(suites_broker.client(), before)
        with nullcontext() if early else flower:
            made = Watched(request.param, suites_broker, stack, receiver, wire, port, [before])
            try:
                eventually(lambda: _up(made), what="Flower's start")
                if request.param == "prefork":
                    app.control.enable_events()
                eventually(lambda: "taskevents.on" in stack.workers[0].log(), what="events being turned on")
                yield made
            finally:
                wire.close()
                print(flower.log()[-3000:])


def _up(made: Watched) -> bool:
    try:
        return bool(made.ask("workers?refresh=1"))
    except OSError:
        return False


def test_flower_shows_every_postback_with_account_code_state_runtime_and_worker(watched):
    """None while events were off; afterwards each, through received and started, at the worker that sent it."""
    ids = send_postbacks("good", [EVENT] * 200)
    for one in ids:
        watched.wire.wait(one, "received", "started", "succeeded")
    assert watched.wire.kinds(watched.before[0]) == []
    shown = watched.shown(ids[-1], "SUCCESS")
    assert shown["args"] == "('good', SMS_MO N211)"
    assert (shown["name"], shown["retries"], shown["result"]) == (
        "postbacks.send_postback", 0, "delivered by attempt 1"
    )  # fmt: skip
    assert 0 <= shown["runtime"] < 10
    worker = shown["worker"]
    assert worker.startswith("worker1@")
    assert watched.ask("workers")[worker]["stats"]["postbacks"]["events"]["on"] is True
    listed = watched.ask("tasks?limit=1000&state=SUCCESS")
    assert set(ids) <= set(listed)
    assert {one["name"] for one in watched.ask("tasks?limit=1000").values()} == {"postbacks.send_postback"}


def test_flower_shows_a_failing_postback_through_its_retries_to_its_death(watched):
    """RETRY with the error and the time of the resend, then FAILURE with the last error; a skipped one fails at once."""
    failing = send_postback.delay("bad", EVENT).id
    retried = watched.shown(failing, "RETRY")
    assert retried["exception"] == 'PostbackFailed("attempt 1: status 503, only 200 counts")'
    assert retried["eta"]
    told = watched.wire.wait(
        failing, "received", "started", "retried", "started", "retried", "started", "failed"
    )
    dead = watched.shown(failing, "FAILURE")
    assert dead["exception"] == 'PostbackDead("attempt 3: status 503, only 200 counts")'
    assert dead["retries"] == 2
    assert [event["retries"] for event in told] == [0, 0, 1, 1, 2, 2, 2]
    assert all(event["args"] == "('bad', SMS_MO N211)" for event in told)
    skipped = watched.shown(send_postback.delay("nobody", EVENT).id, "FAILURE")
    assert "unknown_account" in skipped["exception"]
    broken = app.send_task("postbacks.send_postback", args=["bad", {"CODE": TEXT}]).id
    assert watched.shown(broken, "FAILURE")["args"] == "('bad', )"
    assert watched.ask(f"task/result/{failing}")["state"] == "FAILURE"


def test_a_postback_is_revoked_by_flower_and_by_its_future(watched):
    """Both cancel a parked one in the ledger, and Flower shows REVOKED at a worker that it knows."""
    parked = [send_postback.apply_async(("good", EVENT), countdown=3600) for _ in range(2)]
    assert watched.shown(parked[0].id, "RECEIVED")["eta"]
    watched.shown(parked[1].id, "RECEIVED")
    assert "message" in watched.ask(f"task/revoke/{parked[0].id}", post=True)
    parked[1].revoke()
    for one in parked:
        shown = watched.shown(one.id, "REVOKED")
        assert shown["worker"].startswith("worker1@")
        assert shown["args"] == "('good', SMS_MO N211)"
        assert ended(watched.broker.client(), one.id).state == "cancelled"
    assert watched.ask(f"task/result/{parked[0].id}")["state"] == "REVOKED"


def test_flowers_api_sends_postbacks_and_refuses_what_is_none(watched):
    """By name and by task; an event that the catalogue does not have is refused and nothing is sent."""
    for way in ("send-task", "async-apply"):
        answer = watched.ask(f"task/{way}/postbacks.send_postback", {"args": ["good", EVENT]})
        assert ended(watched.broker.client(), answer["task-id"]).state == "delivered"
    bad = watched.ask("task/async-apply/postbacks.send_postback", {"args": ["good", {"CODE": "N9"}]})
    assert bad in {400, 500}


def test_celerys_own_commands_give_sensible_answers(watched):
    """status, inspect registered, stats and active, control, and events as a dump."""
    base = [sys.executable, "-m", "celery", "-A", "postbacks"]
    env = {**os.environ, **BASE_ENV}

    def run(*args: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*base, *args], env=env, stdout=subprocess.PIPE, text=True)

    dump = run("events", "--dump")
    asked = {"status": run("status"), "stats": run("inspect", "stats", "--json")}
    try:
        registered = app.control.inspect(timeout=10, limit=1).registered()
        assert registered == {
            f"worker1@{socket.gethostname()}": [
                "postbacks.deliver", "postbacks.dispatch", "postbacks.send_postback"
            ]
        }  # fmt: skip
        answers = {name: process.communicate(timeout=60)[0] for name, process in asked.items()}
        assert "1 node online" in answers["status"]
        (one,) = json.loads(answers["stats"]).values()
        assert one["postbacks"]["events"]["dropped"] == 0
        assert one["postbacks"]["events"]["sent"] > 0
        seen = iter(dump.stdout.readline, "")
        next(line for line in seen if "heartbeat" in line)
        slow = send_postback.delay("slow", EVENT).id
        active = eventually(lambda: app.control.inspect(timeout=10, limit=1).active(), what="inspect active")
        next(line for line in seen if "started" in line and slow in line)
        (running_now,) = active.values()
        assert {task["name"] for task in running_now} <= {"postbacks.deliver", "postbacks.dispatch"}
        next(line for line in seen if "succeeded" in line and slow in line)
    finally:
        for process in (dump, *asked.values()):
            process.kill()
            process.wait()
            process.stdout.close()


def test_events_say_nothing_personal_and_programs_tell_of_what_they_send(watched):
    """With task_send_sent_event `.delay()` and batches tell account and code, through our own producer."""
    app.conf.task_send_sent_event = True
    try:
        ids = [send_postback.delay("good", EVENT).id, *send_postbacks("good", [EVENT] * 3)]
        ids.append(app.send_task("postbacks.send_postback", args=["good", EVENT]).id)
        url = watched.receiver.url(f"/{PATH}")
        ids.append(send_postback.apply_async(("good", EVENT), {"url": url}).id)
    finally:
        app.conf.task_send_sent_event = False
    for one in ids:
        ended(watched.broker.client(), one)
        eventually(lambda one=one: "succeeded" in watched.wire.kinds(one))
        assert sorted(watched.wire.kinds(one)) == ["received", "sent", "started", "succeeded"]
        assert {event["args"] for event in watched.wire.of[one]} == {"('good', SMS_MO N211)"}
    raw = "\n".join(watched.wire.raw)
    for secret in (TEXT, PHONE, PATH, PAGE, "86717", "http://", "127.0.0.1"):
        assert secret not in raw, secret


def test_cancelled_outside_of_any_worker(watched):
    """The command line's and a program's cancel is told of as well."""
    one = send_postback.apply_async(("good", EVENT), countdown=3600).id
    watched.shown(one, "RECEIVED")
    assert cancel(one) == "cancelled"
    watched.shown(one, "REVOKED")
