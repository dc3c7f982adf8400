"""The local stack: Celery workers and beats on this machine, beside a running broker."""

from __future__ import annotations

import os
import sys
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


class CeleryProcess(Process):
    """A ``celery worker``, ``celery beat`` or ``celery flower``, which may be started again after its end.

    Args:
        kind: the command of ``celery``.
        env: variables over those of this process, of which those for Celery's own options are left out.
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
        super().__init__(f"celery {kind}")
        self.log_path = log_path
        self._command = [sys.executable, "-m", "celery", "-A", app, kind, *args]
        self._env = dict(env)
        self._cwd = cwd

    def start(self) -> None:
        """Start the process without waiting until it is ready; kill what is left of its last run."""
        ambient = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CELERY_") and name not in _CELERY_VARIABLES
        }
        self.spawn(self._command, env={**ambient, **self._env}, cwd=self._cwd)

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


class LocalStack:
    """Workers and beats beside a running broker.

    Args:
        broker: the broker; it goes on when the stack stops.
        workers: worker processes to start.
        beats: beats to start.
        env: variables for all processes.
        pool: ``--pool`` of the workers.
        concurrency: ``--concurrency`` of the workers.
        log_dir: directory of ``worker1.log``, ``beat1.log`` and so on.
        cwd: the working directory; this process's when not given.
        app: value of ``celery -A``.
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

    def start(self) -> None:
        """Start all processes and wait until each is ready; stop all if one is not."""
        try:
            for process in self.workers + self.beats:
                process.start()
            for worker in self.workers:
                # A worker whose broker is gone would wait for it for ever.
                worker.wait_for_log(" ready.", START_S, is_pointless=lambda: not self._broker.alive)
            for beat in self.beats:
                beat.wait_for_log("beat: Starting...", START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the beats, then drain the workers, all at once; after ``DRAIN_S`` they are killed."""
        try:
            drain(self.beats, DRAIN_S)
        finally:
            drain(self.workers, DRAIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
