"""docker-compose.yml: valid by the Compose Specification's schema, and its commands work as processes.

No container engine is needed. tests/compose-spec.json is the schema of the Compose Specification as the
package check-jsonschema 0.39.0 ships it, unchanged; its licence (Apache 2.0) stands beside it.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import yaml
from celery import Celery
from helpers import BASE_ENV, ended, eventually
from jsonschema import Draft202012Validator

from postbacks import accounts, broker
from postbacks.local import CeleryProcess, _server_binary
from postbacks.receiver import Receiver, dead_port

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = FILE["services"]
SCHEMA = json.loads((ROOT / "tests" / "compose-spec.json").read_text())

EVENT = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}


# -- the file -------------------------------------------------------------------------------------


def test_the_file_is_valid_by_the_schema_of_the_compose_specification():
    """No fault anywhere, extension fields aside."""
    faults = [
        f"{'.'.join(map(str, e.path))}: {e.message}" for e in Draft202012Validator(SCHEMA).iter_errors(FILE)
    ]
    assert faults == []


@pytest.mark.parametrize(
    "spoil", [{"comand": ["x"]}, {"ports": 5555}, {"restart": 1}, {"command": {"a": "b"}}]
)
def test_the_schema_would_find_a_mistake(spoil):
    """A misspelt key and values of the wrong type are refused: the test above can fail."""
    spoilt = FILE | {"services": SERVICES | {"worker": SERVICES["worker"] | spoil}}
    assert not Draft202012Validator(SCHEMA).is_valid(spoilt)


def test_there_are_redis_worker_beat_and_flower():
    """Nothing more, and each comes up again after a crash."""
    assert set(SERVICES) == {"redis", "worker", "beat", "flower"}
    assert {service["restart"] for service in SERVICES.values()} == {"unless-stopped"}


def test_redis_keeps_what_it_accepted():
    """Append-only file on a volume, every write on disk before its answer, nothing evicted, a version that will do."""
    service = SERVICES["redis"]
    assert flags(service["command"]) == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }
    volume, _, target = service["volumes"][0].partition(":")
    assert target == "/data"
    assert volume in FILE["volumes"]
    assert int(re.fullmatch(r"redis:(\d+)-alpine", service["image"])[1]) >= broker.MIN_REDIS[0]


def flags(command: list[str]) -> dict[str, str]:
    """The server's settings on its command line."""
    assert command[0] == "redis-server"
    return {name.removeprefix("--"): value for name, value in zip(command[1::2], command[2::2], strict=True)}


@pytest.mark.parametrize("name", ["worker", "beat", "flower"])
def test_a_service_of_ours_waits_for_redis_and_reads_the_deployments_configuration(name):
    """The broker by its name, celeryconfig.py in the directory that it runs in."""
    service = SERVICES[name]
    assert service["environment"]["POSTBACKS_BROKER_URL"] == "redis://redis:6379/0"
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    (source, target, mode) = service["volumes"][0].split(":")
    assert (ROOT / source).is_file()
    assert (target, mode) == (f"{service['working_dir']}/celeryconfig.py", "ro")


@pytest.mark.parametrize("name", ["worker", "beat", "flower"])
def test_the_image_of_a_service_of_ours_is_built_from_this_directory(name):
    """All from one; what is copied exists, the extra is one of ours, the Python is new enough."""
    service = SERVICES[name]
    assert service["image"] == "postbacks:latest"
    assert service["build"] == SERVICES["worker"]["build"]
    steps = service["build"]["dockerfile_inline"].splitlines()
    copied = [source for step in steps if step.startswith("COPY ") for source in step.split()[1:-1]]
    assert set(copied) == {"pyproject.toml", "README.md", "LICENSE", "postbacks"}
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = re.findall(r"pip install .*'/src\[(\w+)\]'", "\n".join(steps))
    assert extra in project["optional-dependencies"]
    (python,) = re.findall(r"^FROM python:(3\.\d+)-slim$", steps[0])
    assert f">={python}" == project["requires-python"]


def test_the_workers_are_given_the_time_to_finish_what_is_open():
    """10 s to the connection and 10 s to the answer, before Docker kills; and they can be scaled: no fixed name."""
    worker = SERVICES["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) > 20
    assert "container_name" not in worker
    assert "ports" not in worker


def test_flower_is_published_on_this_machine_alone():
    """It has no password."""
    (port,) = SERVICES["flower"]["ports"]
    assert port == "127.0.0.1:5555:5555"
    assert "--port=5555" in SERVICES["flower"]["command"]
    assert "ports" not in SERVICES["redis"]


# -- its commands as processes --------------------------------------------------------------------


@contextmanager
def service(name: str, url: str, folder: Path, *, command: list[str] | None = None):
    """A service's process: its command and environment, in a directory with its volumes' files."""
    spec = SERVICES[name]
    cwd = folder / f"{name}-cwd"
    cwd.mkdir()
    for volume in spec["volumes"]:
        source, target, *_ = volume.split(":")
        assert Path(target).parent == Path(spec["working_dir"])
        shutil.copy(ROOT / source, cwd)
    env = {**BASE_ENV, **spec["environment"], "POSTBACKS_BROKER_URL": url}
    process = CeleryProcess(name, env=env, log_path=folder / f"{name}.log", cwd=cwd)  # type: ignore[arg-type]
    program, *rest = command or spec["command"]
    process._command = [str(Path(sys.executable).parent / program), *rest]
    with process:
        yield process


@pytest.fixture
def compose_redis(tmp_path):
    """The redis service's command, on a port and a directory of the test's own; yields its URL."""
    data = tmp_path / "data"
    data.mkdir()
    with dead_port() as free:
        port = free
    process = CeleryProcess("redis", env={}, log_path=tmp_path / "redis.log")  # type: ignore[arg-type]
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)]
    process._command = [_server_binary(), *SERVICES["redis"]["command"][1:], *own]
    with process:
        url = f"redis://127.0.0.1:{port}/0"
        eventually(lambda: answers(url), 20, "Redis's PONG")
        yield url
    assert (data / "appendonlydir").is_dir()


def answers(url: str) -> bool:
    """What the health check asks: PING."""
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_redis_comes_up_with_its_flags_and_is_fit_for_postbacks(compose_redis):
    """The real server takes them, and our own check finds nothing to warn of."""
    with redis.Redis.from_url(compose_redis, decode_responses=True) as client:
        for name, value in flags(SERVICES["redis"]["command"]).items():
            assert client.config_get(name) == {name: value}
        assert broker.check(client) == []


def test_a_postback_travels_through_worker_and_beat_started_by_exactly_these_commands(
    compose_redis, tmp_path
):
    """Redis, worker and beat as the file says; from a foreign Celery client to the receiver."""
    with (
        Receiver() as receiver,
        redis.Redis.from_url(compose_redis) as client,
        service("worker", compose_redis, tmp_path) as worker,
        service("beat", compose_redis, tmp_path) as beat,
    ):
        accounts.RedisAccounts(client).set(accounts.make_account("acme", url=receiver.url()))
        with Celery("foreign", broker=compose_redis, set_as_current=False) as foreign:
            sent = foreign.send_task("postbacks.send_postback", ("acme", EVENT), queue="postbacks")
        assert ended(client, sent.id).state == "delivered", worker.log() + beat.log()
        assert [post.postback_id for post in receiver.received] == [sent.id]
        configured = (ROOT / "celeryconfig.py").read_text()
        (threads,) = re.findall(r"^worker_concurrency = (\d+)$", configured, re.MULTILINE)
        assert f"concurrency: {threads} (thread)" in worker.log()
        assert "Traceback" not in worker.log() + beat.log()
        worker.terminate()
        assert worker.wait(float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))) == 0
    assert {path.name for path in (tmp_path / "beat-cwd").iterdir()} <= {"celeryconfig.py", "__pycache__"}


def test_flower_comes_up_by_its_command(compose_redis, tmp_path):
    """On a free port of loopback instead of 5555; it answers its health check."""
    with dead_port() as free:
        port = free
    swap = {"--address=0.0.0.0": "--address=127.0.0.1", "--port=5555": f"--port={port}"}
    command = [swap.get(word, word) for word in SERVICES["flower"]["command"]]
    assert set(swap.values()) <= set(command)

    def healthy():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthcheck")
            return connection.getresponse().read() == b"OK"
        except OSError:
            return False
        finally:
            connection.close()

    with service("flower", compose_redis, tmp_path, command=command) as flower:
        eventually(healthy, 40, "Flower's health")
        assert flower.alive
        assert "Traceback" not in flower.log()
