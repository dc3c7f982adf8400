"""Processes of a run: workers, beats, and modules of this package."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from postbacks.devtools.process import Process
from postbacks.devtools.stack import CeleryProcess


class PythonProcess(Process):
    """Module of this package, run by this Python; it may be started again after its end."""

    def __init__(self, module: str, args: Sequence[str], *, env: Mapping[str, str], log_path: Path) -> None:
        super().__init__(module)
        self.log_path = log_path
        self._args = (sys.executable, "-m", module, *args)
        self._env = env

    def start(self) -> None:
        """Start it."""
        self.spawn(self._args, env={**os.environ, **self._env}, cwd=Path(__file__).parents[1])

    @property
    def finished(self) -> bool:
        """True if it has ended by itself, with nothing wrong."""
        return self.exit_code == 0

    def wait_for_line(self, limit_s: float) -> str:
        """Wait for its first line, and return it. TimeoutError: none came."""
        deadline_s = time.monotonic() + limit_s
        while "\n" not in (log := self.log()):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.log_path.stem} did not start: {log}")
            time.sleep(0.02)
        return log.partition("\n")[0]


def workers_and_beats(
    count: int, env: Mapping[str, str], folder: Path
) -> tuple[list[CeleryProcess], list[CeleryProcess]]:
    """Make so many workers and beats, not yet started, with their logs in the folder."""
    quiet = ["--without-mingle", "--without-gossip", "--loglevel=INFO"]
    workers = [
        CeleryProcess(
            "worker",
            args=["--pool=threads", "--concurrency=4", *quiet, f"--hostname=worker{n}@%h"],
            env=env,
            log_path=folder / f"worker{n}.log",
        )
        for n in range(1, count + 1)
    ]
    beats = [
        CeleryProcess("beat", args=["--loglevel=INFO"], env=env, log_path=folder / f"beat{n}.log")
        for n in range(1, count + 1)
    ]
    return workers, beats
