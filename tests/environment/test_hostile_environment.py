"""The environment of the host program is not ours: whatever it says, postbacks go where POSTBACKS_… says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import hostile
import pytest
from events import examples
from helpers import BASE_ENV, ended, eventually, set_account

from postbacks.devtools.receiver import Receiver
from postbacks.devtools.stack import CeleryProcess

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))
EVENT = examples()["SMS_MO", "N211"]
CLIENT = f"""
from postbacks import send_postback
from postbacks.app import app
result = send_postback.delay("acme", {EVENT!r})
result.get(timeout=40)
assert send_postback.app is app
print(result.state, result.id)
"""


def run(*command, env, cwd, text=""):
    """Run a command to its end, which has to be a good one; returns what it printed."""
    done = subprocess.run(
        command, env=env, cwd=cwd, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command[:3]}: {done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def ambient(tmp_path):
    """All variables, beside a Django whose settings nobody may ask for (kombu imports its lazy strings)."""
    for name, text in {
        "__init__": "VERSION = (5, 2, 0, 'final', 0)",
        "utils/__init__": "",
        "utils/functional": "class Promise: pass\nclass LazyObject: pass",
        "conf/__init__": "raise SystemExit('the settings of a Django project were imported')",
    }.items():
        path = tmp_path / "django" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return {**os.environ, **hostile.environment(), **BASE_ENV, "PYTHONPATH": str(tmp_path)}


def test_client_worker_beat_up_send_and_flower_work_with_every_variable_of_celery_set(
    broker, ambient, tmp_path
):
    """Broker, results, queues, level of the log, pool, name: all are those of POSTBACKS_… and the built-in ones."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        flower_port = spare.getsockname()[1]
    processes = {
        kind: CeleryProcess(kind, env=ambient, args=args, log_path=tmp_path / f"{kind}.log", cwd=tmp_path)
        for kind, args in (
            ("worker", ["--pool=prefork", "--loglevel=INFO"]),
            ("beat", []),
            ("flower", ["--address=127.0.0.1", f"--port={flower_port}"]),
        )
    }
    processes["flower"]._env["FLOWER_UNAUTHENTICATED_API"] = "true"
    with ExitStack() as stack:
        up = subprocess.Popen(
            [POSTBACKS, "up", "--dev", "--json"],
            env=ambient | hostile.fatal(),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(up.communicate)
        stack.callback(up.terminate)
        receiver = stack.enter_context(Receiver())
        set_account("acme", url=receiver.url())
        for process in processes.values():
            stack.enter_context(process)
        processes["worker"].wait_for_log(" ready.", 120)

        state, postback_id = run(sys.executable, "-c", CLIENT, env=ambient, cwd=tmp_path).split()
        assert state == "SUCCESS"
        with broker.client() as client:
            assert ended(client, postback_id).state == "delivered"
        workers = eventually(lambda: workers_in_flower(flower_port), what="Flower's answer")
        assert workers == {f"celery@{socket.gethostname()}": (["postbacks.work"], 4)}

        # `up` has a broker of its own, and every process there the same environment.
        served = json.loads(up.stdout.readline())
        there = {**ambient, "POSTBACKS_BROKER_URL": served["broker_url"]}
        sent = run(
            POSTBACKS, "send", "acme", "-", "--url", receiver.url(), "--wait", "40",
            env=there, cwd=tmp_path, text=json.dumps(EVENT),
        )  # fmt: skip
        assert {one.tags["CODE"] for one in receiver.by_id()[sent.strip()]} == {"N211"}
    assert sorted(receiver.by_id()) == sorted([postback_id, sent.strip()])
    # Nobody who had relied on one of them is left to wonder.
    lines = processes["worker"].log().splitlines()
    (line,) = [line for line in lines if line.startswith("settings.not_read ")]
    for name in ("CELERY_BROKER_URL", "CELERY_CONFIG_MODULE", "CELERY_WORKER_QUEUES"):
        assert name in line


def workers_in_flower(port):
    """Return the queues and the processes of each worker that Flower sees."""
    url = f"http://127.0.0.1:{port}/api/workers?refresh=1"
    with suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=60) as answer:
        return {
            name: (
                [queue["name"] for queue in worker["active_queues"]],
                len(worker["stats"]["pool"]["processes"]),
            )
            for name, worker in json.load(answer).items()
        }
    return {}
