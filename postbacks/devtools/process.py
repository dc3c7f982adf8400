"""A supervised process: it ends with the process that started it, however that one ends."""

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
#: Kills its process group when its standard input ends. Signals to the group alone do not end it.
_GUARD: Final = "trap '' HUP INT TERM; read -r _; kill -KILL 0"


class Process:
    """A process in a process group of its own, which is killed whole when this process ends.

    The group is its own because Ctrl-C goes to the terminal's whole group: the broker would be gone before the workers
    have drained. The group's leader is a guard: a shell that waits for the end of a pipe whose other end only this
    process holds. The kernel closes that end even after SIGKILL, when no atexit runs. (Linux's PR_SET_PDEATHSIG needs
    code between fork and exec, which is unsafe beside threads, and fires when the *thread* ends that forked.)

    Args:
        name: names the process in errors.

    Attributes:
        log_path: the file that the process's output is appended to; set before ``spawn``.
    """

    log_path: Path

    def __init__(self, name: str) -> None:
        self._name = name
        self._log_start = 0
        self._main: Popen[bytes] | None = None
        self._guard: Popen[bytes] | None = None

    def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        fds: Sequence[int] = (),
        umask: int = -1,
    ) -> None:
        """Start the main process; kill what is left of its last run before."""
        self.kill(group=True)
        # The guard comes first, so that the main process is never without it.
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
        """Id of the main process."""
        return self._main_process().pid

    @property
    def alive(self) -> bool:
        """True while the main process runs."""
        return self._main is not None and self._main.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the main process (negative: the signal that killed it); None before its end."""
        return None if self._main is None else self._main.poll()

    def wait(self, timeout_s: float) -> int:
        """Wait for the end of the main process and return its exit code.

        Raises:
            TimeoutError: it did not end in time; quotes the end of its log.
        """
        try:
            return self._main_process().wait(timeout_s)
        except TimeoutExpired:
            raise TimeoutError(f"{self._name} did not end in {timeout_s:g} s. {self.log_end()}") from None

    def terminate(self) -> None:
        """Send SIGTERM to the main process: it takes nothing new, finishes what it has, and ends."""
        self._main_process().terminate()
        self.resume()  # a paused process would not notice

    def pause(self) -> None:
        """Freeze the main process (SIGSTOP): its connections stay open, and nothing is answered."""
        self._main_process().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused main process go on."""
        self._main_process().send_signal(signal.SIGCONT)

    def kill(self, *, group: bool = False) -> None:
        """Kill the main process (SIGKILL) and wait until it is dead; with ``group``, all that it started too."""
        if self._main is not None:
            self._main.kill()
            self._main.wait()
        if group and self._guard is not None:
            self._guard.communicate()  # closes its input
            self._guard = None

    def log(self) -> str:
        """Return the output since the last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_end(self) -> str:
        """Return a sentence with the last lines of the output, for an error."""
        return f"Its log ({self.log_path}) ends:\n{self.log()[-2000:]}"

    def _main_process(self) -> Popen[bytes]:
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


def wait_until(is_done: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until ``is_done()``, and once more after the time-out; return False if it never was."""
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.01)
    return True


def open_private(path: str, flags: int) -> int:
    """Open a file (an ``opener`` for ``open``); if it is made here, for this user alone."""
    return os.open(path, flags, 0o600)
