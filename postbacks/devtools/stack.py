"""The local stack: Celery workers and beats, and a recorder, on this machine beside a running broker."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Self

from postbacks.devtools.process import START_S, Process, drain, wait_until
from postbacks.errors import PostbacksError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from postbacks.devtools.embedded_broker import EmbeddedBroker

#: Seconds for workers to finish what is in flight: connection and answer may take 10 s each.
DRAIN_S: Final = 30.0
#: The command ``postbacks``, of this interpreter wherever its scripts are.
_POSTBACKS: Final = "from postbacks.cli import main; main(prog_name='postbacks')"
#: Variables that Celery's command line reads before it loads an app, beside those that begin with ``CELERY_``.
_CELERY_VARIABLES: Final = {
    "APP",
    "BROKER_URL",
    "CONFIG_MODULE",
    "LOADER",
    "NO_COLOR",
    "RESULT_BACKEND",
    "SKIP_CHECKS",
}


class StackProcess(Process):
    """A process of the stack, which may be started again after its end.

    Args:
        name: names the process in errors.
        command: the program and its arguments.
        env: variables over those of this process, of which those for Celery's own options are left out.
        log_path: the file that the output is appended to.
        cwd: the working directory; this process's when not given.
        fds: open files that it gets.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        cwd: Path | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        super().__init__(name)
        self._fds = fds
        self.log_path = log_path
        self._command = list(command)
        self._env = dict(env)
        self._cwd = cwd

    def start(self) -> None:
        """Start the process without waiting until it is ready; kill what is left of its last run."""
        ambient = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CELERY_") and name not in _CELERY_VARIABLES
        }
        self.spawn(self._command, env={**ambient, **self._env}, cwd=self._cwd, fds=self._fds)

    def stop(self, timeout_s: float = DRAIN_S) -> None:
        """Terminate the process, wait, and kill what is left of its process group."""
        drain([self], timeout_s)

    def wait_for_log(
        self, text: str, timeout_s: float, *, is_pointless: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until the process has logged ``text`` since its last start.

        Args:
            text: part of a line of the log.
            timeout_s: seconds to wait at most.
            is_pointless: tells that the text will never come.

        Raises:
            TimeoutError: the text did not come in time.
            PostbacksError: the process ended without it, or ``is_pointless``.
        """
        if not wait_until(lambda: text in self.log() or not self.alive or is_pointless(), timeout_s):
            raise TimeoutError(f"{self._name} did not log {text!r} in {timeout_s:g} s. {self.log_end()}")
        if text not in self.log() and self.alive:
            raise PostbacksError(f"{self._name} did not log {text!r}. {self.log_end()}")
        if text not in self.log():  # read again: a process may log it as it ends
            raise PostbacksError(f"{self._name} ended without logging {text!r}. {self.log_end()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class CeleryProcess(StackProcess):
    """A ``celery worker``, ``celery beat`` or ``celery flower``.

    Args:
        kind: the command of ``celery``.
        env: variables, as of any process of the stack.
        args: options of the command.
        log_path: the file that the output is appended to.
        cwd: the working directory; this process's when not given.
        app: value of ``celery -A``.
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
        command = [sys.executable, "-m", "celery", "-A", app, kind, *args]
        super().__init__(f"celery {kind}", command, env=env, log_path=log_path, cwd=cwd)


class RecorderProcess(StackProcess):
    """A ``postbacks history run``.

    Args:
        env: variables, as of any process of the stack; among them ``POSTBACKS_HISTORY_URL``.
        log_path: the file that the output is appended to.
        cwd: the working directory; this process's when not given.
    """

    def __init__(self, *, env: Mapping[str, str], log_path: Path, cwd: Path | None = None) -> None:
        command = [sys.executable, "-c", _POSTBACKS, "history", "run"]
        super().__init__("The recorder", command, env=env, log_path=log_path, cwd=cwd)


class WebProcess(StackProcess):
    """A ``postbacks web`` on a socket that listens already, so that nobody else takes its port meanwhile.

    Args:
        listening: the socket.
        env: variables, as of any process of the stack.
        log_path: the file that the output is appended to.
        cwd: the working directory; this process's when not given.
    """

    def __init__(
        self, listening: socket.socket, *, env: Mapping[str, str], log_path: Path, cwd: Path | None = None
    ) -> None:
        fd = listening.fileno()
        command = [sys.executable, "-c", _POSTBACKS, "web", "--fd", str(fd)]
        super().__init__("The dashboard", command, env=env, log_path=log_path, cwd=cwd, fds=(fd,))


class LocalStack:
    """Workers and beats, and a recorder where there is a history, beside a running broker.

    Args:
        broker: the broker; it goes on when the stack stops.
        workers: worker processes to start.
        beats: beats to start.
        env: variables for all processes.
        pool: ``--pool`` of the workers.
        concurrency: ``--concurrency`` of the workers.
        log_dir: directory of ``worker1.log``, ``beat1.log``, ``recorder.log`` and so on.
        cwd: the working directory; this process's when not given.
        app: value of ``celery -A``.
        history_url: database that a recorder writes to; empty for none.
        web_socket: socket that a dashboard serves; None for none.
        web_token: that it wants; empty for what the environment says.
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
        history_url: str = "",
        web_socket: socket.socket | None = None,
        web_token: str = "",
    ) -> None:
        env = {**env, "POSTBACKS_BROKER_URL": broker.url}
        if history_url:
            env["POSTBACKS_HISTORY_URL"] = history_url
        self._broker = broker
        celery = partial(CeleryProcess, env=env, cwd=cwd, app=app)
        # Mingle would wait a second for other workers, and exchanges nothing that Redis does not have.
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
        self.recorders = (
            [RecorderProcess(env=env, log_path=log_dir / "recorder.log", cwd=cwd)] if history_url else []
        )
        web_env = env | ({"POSTBACKS_WEB_TOKEN": web_token} if web_token else {})
        self.webs = (
            []
            if web_socket is None
            else [WebProcess(web_socket, env=web_env, log_path=log_dir / "web.log", cwd=cwd)]
        )

    def start(self) -> None:
        """Start all processes and wait until each is ready; stop all if one is not."""
        try:
            for process in (*self.workers, *self.beats, *self.recorders, *self.webs):
                process.start()
            for worker in self.workers:
                # A worker whose broker is gone would wait for it for ever.
                worker.wait_for_log(" ready.", START_S, is_pointless=lambda: not self._broker.alive)
            for beat in self.beats:
                beat.wait_for_log("beat: Starting...", START_S)
            for recorder in self.recorders:
                recorder.wait_for_log("history.", START_S)  # it records, or says what it waits for
            for web in self.webs:
                web.wait_for_log("http://", START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the beats, drain the workers, all at once, then stop the recorder; after ``DRAIN_S`` they are killed."""
        with ExitStack() as steps:
            steps.callback(drain, self.recorders, DRAIN_S)
            steps.callback(drain, self.workers, DRAIN_S)
            steps.callback(drain, self.beats, DRAIN_S)
            steps.callback(drain, self.webs, DRAIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
