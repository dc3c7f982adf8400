"""Flower and the other tools of Celery see every postback, through real processes of both pools."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import BASE_ENV, ended, environment, eventually, free_port, running, set_account, short_and_long
from wire import Wire

from postbacks import send_postback, send_postbacks
from postbacks.app import app
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.devtools.stack import CeleryProcess, LocalStack
from postbacks.queue.actions import cancel

pytestmark = pytest.mark.usefixtures("forked")

TEXT, PHONE, PATH, PAGE = "open sesame", "15552312102", "hook-7c1e", "sorry-9a2b"
EVENT = {
    "ORIGIN": "SMS_MO", "CODE": "N211", "FROM": PHONE, "TO": "86717", "TEXT": TEXT,
    "RECEIVED": "2013-11-05T05:41:08-05:00",
}  # fmt: skip
ENV = {"POSTBACKS_RETRY_COUNTDOWN_S": "1", "POSTBACKS_MAX_RESENDS": "2"}
#: With threads everything is shown from the call on, with prefork the default's share of it.
SHARE = {"threads": {"POSTBACKS_FLOWER_SHARE": "1"}, "prefork": {}}


@dataclass
class Watched:
    """Running stack, and the way to Flower's API."""

    broker: EmbeddedBroker
    stack: LocalStack
    receiver: Receiver
    wire: Wire
    port: int

    def ask(self, path: str, body: Any = None, *, post: bool = False) -> Any:
        """Flower's answer as JSON; its status where it is no 200."""
        data = json.dumps(body).encode() if body is not None else b"" if post else None
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/{path}", data, timeout=60
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

    def up(self) -> bool:
        """True if Flower answers and knows the worker."""
        try:
            return bool(self.ask("workers?refresh=1"))
        except OSError:
            return False


@contextmanager
def watching(broker: EmbeddedBroker, folder: Path, pool: str) -> Iterator[Watched]:
    """A stack whose worker starts with events off, and a Flower; then events are turned on at run time.

    With threads it is Flower that turns them on, with prefork `celery control` does.
    """
    port = free_port()
    flower = CeleryProcess(
        "flower",
        env={
            **BASE_ENV, "POSTBACKS_BROKER_URL": broker.url, "FLOWER_UNAUTHENTICATED_API": "1",
            "FLOWER_ENABLE_EVENTS": str(pool == "threads"),
        },
        args=[f"--port={port}"],
        log_path=folder / "flower.log",
        cwd=folder,  # without a flowerconfig.py
    )  # fmt: skip
    answers = {"bad": Answer(503, PAGE.encode()), "slow": Answer(delay_s=2)}
    with (
        Receiver(lambda post: answers.get(post.path.split("/")[1], Answer())) as receiver,
        flower if pool == "prefork" else nullcontext(),
        running(broker, folder, pool=pool, env=ENV | SHARE[pool]) as stack,
    ):
        wire = Wire(broker)
        for name in ("good", "bad", "slow"):
            set_account(name, url=receiver.url(f"/{name}/{PATH}"))
        unseen = send_postback.delay("good", EVENT).id
        ended(broker.client(), unseen)
        with flower if pool == "threads" else nullcontext():
            made = Watched(broker, stack, receiver, wire, port)
            try:
                eventually(made.up, what="Flower's start")
                listens_on_one_address_alone(port)
                if pool == "prefork":
                    app.control.enable_events()
                eventually(lambda: "taskevents.on" in stack.workers[0].log(), what="events being turned on")
                yield made
                assert wire.kinds(unseen) == [], "shown while events were off"
            finally:
                wire.close()


def listens_on_one_address_alone(port: int) -> None:
    """Another address of this machine refuses: without a password it is for who sits at 127.0.0.1."""
    for address in ("127.0.0.2", "::1"):
        with pytest.raises(OSError, match=r"refused|Cannot assign|unreachable"):
            socket.create_connection((address, port), timeout=60)


@pytest.mark.parametrize("pool", short_and_long("threads", "prefork"))
def test_flower_shows_every_postback_and_its_buttons_work(broker, tmp_path, pool):
    """Delivered, failing, skipped and revoked ones, each with account, code, state, retries, runtime and worker."""
    with watching(broker, tmp_path, pool) as watched:
        failing = send_postback.delay("bad", EVENT).id
        retried = watched.shown(failing, "RETRY")
        assert retried["exception"] == 'PostbackFailed("attempt 1: status 503")'
        assert retried["eta"]
        every_delivered_one_is_shown(watched)
        a_failing_one_is_shown_to_its_death(watched, failing)
        if pool == "threads":  # what the pool makes no difference to
            revoked_ones_are_shown(watched)
            flower_sends_and_refuses(watched)
            celerys_commands_answer(watched)
            programs_publish_what_they_send(watched)
        raw = "\n".join(watched.wire.raw)
        assert raw.count("task-succeeded") >= 200
        for secret in (TEXT, PHONE, PATH, PAGE, "86717", "http://", "127.0.0.1"):
            assert secret not in raw, f"{secret} stands in an event"


def every_delivered_one_is_shown(watched: Watched) -> None:
    """Each of many that few executions delivered, through received and started, at the worker that sent it."""
    ids = send_postbacks("good", [EVENT] * 200)
    for one in ids:
        watched.wire.wait(one, "received", "started", "succeeded")
    shown = watched.shown(ids[-1], "SUCCESS")
    assert shown["args"] == "('good', SMS_MO N211)"
    assert (shown["name"], shown["retries"], shown["result"]) == (
        "postbacks.send_postback", 0, "delivered by attempt 1"
    )  # fmt: skip
    assert 0 <= shown["runtime"] < 60
    worker = shown["worker"]
    assert worker.startswith("worker1@")
    assert watched.ask("workers?refresh=1")[worker]["stats"]["postbacks"]["events"]["on"] is True
    for page in ("workers", f"worker/{worker}", "tasks", "broker", f"task/{ids[-1]}"):
        with urllib.request.urlopen(f"http://127.0.0.1:{watched.port}/{page}", timeout=60) as answer:
            assert answer.status == 200
            html = answer.read().decode()
    assert all(word in html for word in (ids[-1], "SMS_MO N211", "delivered by attempt 1", worker))
    listed = watched.ask("tasks?limit=1000&state=SUCCESS")
    assert set(ids) <= set(listed)
    assert {one["name"] for one in watched.ask("tasks?limit=1000").values()} == {"postbacks.send_postback"}


def a_failing_one_is_shown_to_its_death(watched: Watched, failing: str) -> None:
    """FAILURE with the last error; a skipped one and one that is no postback fail at once."""
    events = watched.wire.wait(
        failing, "received", "started", "retried", "started", "retried", "started", "failed"
    )
    dead = watched.shown(failing, "FAILURE")
    assert dead["exception"] == 'PostbackDead("attempt 3: status 503")'
    assert dead["retries"] == 2
    assert [event["retries"] for event in events] == [0, 0, 1, 1, 2, 2, 2]
    assert all(event["args"] == "('bad', SMS_MO N211)" for event in events)
    skipped = watched.shown(send_postback.delay("nobody", EVENT).id, "FAILURE")
    assert "unknown_account" in skipped["exception"]
    broken = send_postback.send_unchecked(("bad", {"CODE": TEXT}), {}).id  # as a foreign client sends it
    assert watched.shown(broken, "FAILURE")["args"] == "('bad')"
    assert watched.ask(f"task/result/{failing}")["state"] == "FAILURE"


def revoked_ones_are_shown(watched: Watched) -> None:
    """By Flower, by its future, by a program: cancelled in the ledger, REVOKED at a worker that Flower knows."""
    parked = [send_postback.apply_async(("good", EVENT), countdown=3600) for _ in range(3)]
    assert watched.shown(parked[0].id, "RECEIVED")["eta"]
    for one in parked:
        watched.shown(one.id, "RECEIVED")
    assert "message" in watched.ask(f"task/revoke/{parked[0].id}", post=True)
    parked[1].revoke()
    assert cancel(parked[2].id) == "cancelled"
    for one in parked:
        shown = watched.shown(one.id, "REVOKED")
        assert shown["worker"].startswith("worker1@")
        assert shown["args"] == "('good', SMS_MO N211)"
        assert ended(watched.broker.client(), one.id).state == "cancelled"
    assert watched.ask(f"task/result/{parked[0].id}")["state"] == "REVOKED"


def flower_sends_and_refuses(watched: Watched) -> None:
    """By name and by task; an event that the catalogue does not have is refused and nothing is sent."""
    for way in ("send-task", "async-apply"):
        answer = watched.ask(f"task/{way}/postbacks.send_postback", {"args": ["good", EVENT]})
        assert ended(watched.broker.client(), answer["task-id"]).state == "delivered"
    bad = watched.ask("task/async-apply/postbacks.send_postback", {"args": ["good", {"CODE": "N9"}]})
    assert bad in {400, 500}


def celerys_commands_answer(watched: Watched) -> None:
    """status, inspect registered, stats and active, control, and events as a dump."""
    base = [sys.executable, "-m", "celery", "-A", "postbacks"]
    env = {**os.environ, **BASE_ENV}

    def run(*args: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*base, *args], env=env, stdout=subprocess.PIPE, text=True)

    def active_tasks() -> set[str]:
        answers = app.control.inspect(timeout=60, limit=1).active() or {}
        return {task["name"] for tasks in answers.values() for task in tasks}

    dump = run("events", "--dump")
    too_long = threading.Timer(60, dump.kill)  # what is not dumped would be waited for without end
    too_long.start()
    asked = {"status": run("status"), "stats": run("inspect", "stats", "--json")}
    try:
        (registered,) = app.control.inspect(timeout=60, limit=1).registered().values()
        assert {"postbacks.deliver", "postbacks.dispatch", "postbacks.send_postback"} <= set(registered)
        answers = {name: process.communicate(timeout=60)[0] for name, process in asked.items()}
        assert "1 node online" in answers["status"]
        (one,) = json.loads(answers["stats"]).values()
        assert one["postbacks"]["events"]["dropped"] == 0
        assert one["postbacks"]["events"]["sent"] > 0
        seen = iter(dump.stdout.readline, "")
        next(line for line in seen if "heartbeat" in line)
        slow = send_postback.delay("slow", EVENT).id
        next(line for line in seen if "started" in line and slow in line)
        eventually(lambda: "postbacks.deliver" in active_tasks(), what="deliver in inspect active")
        next(line for line in seen if "succeeded" in line and slow in line)
    finally:
        too_long.cancel()
        for process in (dump, *asked.values()):
            process.kill()
            process.wait()
            process.stdout.close()


def programs_publish_what_they_send(watched: Watched) -> None:
    """With task_send_sent_event `.delay()` and batches publish account and code, through our own producer."""
    app.conf.task_send_sent_event = True
    try:
        with environment(**SHARE["threads"]):
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
