"""The whole system on one machine beside a broker: workers and beats."""

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


class CeleryProcess(Process):
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
        drain([self], timeout_s)

    def wait_for_log(
        self, text: str, timeout_s: float, *, is_pointless: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until it has logged ``text`` since it was last started. PostbacksError: it ended without, or never will."""
        if not wait_until(lambda: text in self.log() or not self.alive or is_pointless(), timeout_s):
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
            drain(self.beats, DRAIN_S)
        finally:
            drain(self.workers, DRAIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
