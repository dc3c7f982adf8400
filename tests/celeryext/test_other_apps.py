"""postbacks beside another Celery app: in one process, and on one database."""

from __future__ import annotations

import os
import subprocess
import sys

from events import EVENT
from helpers import BASE_ENV, ended, running, set_account

from postbacks.devtools.receiver import Receiver
from postbacks.devtools.stack import CeleryProcess

OTHER_APP = f"""
import os
from celery import Celery, chain, chord
app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_BROKER"])
before = dict(app.tasks)
current = __import__("celery").current_app._get_current_object()
from postbacks import parse_event, send_postback  # a program that has its own app imports ours
import celery
assert celery.current_app._get_current_object() is current
assert set(app.tasks) == set(before), set(app.tasks) - set(before)
assert app.conf.task_default_queue == "celery"

@app.task
def add(x, y):
    return x + y

@app.task
def tell(account):
    return send_postback.delay(account, {EVENT!r}).id

@app.task
def call(account):
    return send_postback(account, {EVENT!r})["outcome"]

def in_a_chain(account):
    return chain(add.s(1, 2), send_postback.s(account, {EVENT!r})).apply_async()

def in_the_middle_of_a_chain(account):
    return chain(add.s(1, 2), send_postback.s(account, {EVENT!r}), add.s(1)).apply_async().parent

def behind_a_chord(account):
    return chord([add.s(1, 2), add.s(3, 4)], send_postback.s(account, parse_event({EVENT!r}))).apply_async()

def linked(account):
    postback = send_postback.s(account, parse_event({EVENT!r}))
    result = postback.freeze()
    add.apply_async((1, 2), link=postback)
    return result
"""


def test_importing_postbacks_changes_nothing_in_a_program_with_its_own_app(broker, tmp_path):
    """No current app, no task in its registry, no queue of its taken."""
    (tmp_path / "shop.py").write_text(OTHER_APP)
    env = {**os.environ, "SHOP_BROKER": broker.url, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "import shop"], env=env, capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()


def test_two_apps_and_their_workers_share_a_database_without_taking_each_others_tasks(broker, tmp_path):
    """The other app's tasks run in its worker, our postbacks go out through ours; also from its tasks and canvas."""
    (tmp_path / "shop.py").write_text(OTHER_APP)
    env = {
        **BASE_ENV,
        "SHOP_BROKER": broker.url,
        "POSTBACKS_BROKER_URL": broker.url,
        "PYTHONPATH": str(tmp_path),
    }
    shop_worker = CeleryProcess(
        "worker",
        env=env,
        app="shop",
        args=["-c", "2", "--loglevel=INFO"],
        log_path=tmp_path / "shop.log",
        cwd=tmp_path,
    )
    with Receiver() as receiver, running(broker, tmp_path) as stack, shop_worker:
        set_account("acme", url=receiver.url())
        calls = (
            "import shop\n"
            "print(*[shop.add.delay(n, n).get(timeout=90) for n in range(20)])\n"
            "print(*[shop.tell.delay('acme').get(timeout=90) for n in range(5)])\n"
            "print(*[way('acme').id for way in (shop.in_a_chain, shop.behind_a_chord, shop.linked)])\n"
            "print(shop.in_the_middle_of_a_chain('acme').id)\n"
            "print(shop.call.delay('acme').get(timeout=90))\n"
            "shop.app.control.revoke('an-id-of-theirs')\n"
            "first = shop.app.control.inspect(timeout=60, limit=1).ping()\n"
            "print(len({*first, *(shop.app.control.inspect(timeout=3).ping() or {})}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", calls],
            env={**os.environ, **env},
            capture_output=True,
            check=True,
            cwd=tmp_path,
        )
        sums, told, last, middle, called, pinged = done.stdout.decode().splitlines()
        for one in [*told.split(), *last.split()]:
            assert ended(broker.client(), one).state == "delivered"
        dead = ended(broker.client(), middle)
        ours = "".join(worker.log() for worker in stack.workers)
        theirs = shop_worker.log()
    assert pinged == "1", "our worker answers another app's control"
    assert not broker.client().exists("postbacks:record:an-id-of-theirs")
    assert sums.split() == [str(2 * n) for n in range(20)]
    assert (dead.state, "asks for chain afterwards" in dead.reason) == ("dead", True)
    assert called == "delivered", "a call as a function is one POST, in another app's worker as well"
    assert len(receiver.received) == 9
    assert "shop.add" not in ours
    assert "postbacks.deliver" not in theirs
    assert "unregistered task" not in ours + theirs
