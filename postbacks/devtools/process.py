"""A process that does not outlive the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Final

from postbacks.errors import PostbacksError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Seconds for a process until it serves; a broker reads all its data first.
START_S: Final = 60.0
#: Ends with its standard input, and takes its process group along. Signals to the group alone do not end it.
_GUARD = "trap '' HUP INT TERM; read -r _; kill -KILL 0"


class Process:
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
        with open(self.log_path, "ab", opener=open_private) as log:
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


def drain(processes: Sequence[Process], timeout_s: float) -> None:
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


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until it is done, and at the end once more; False: it is not."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.01)
    return True


def open_private(path: str, flags: int) -> int:
    """Open a file that is its user's alone where it is made here."""
    return os.open(path, flags, 0o600)
