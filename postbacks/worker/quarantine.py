"""The quarantine's keeper: runs the examiner, a process of its own, while there is anything in quarantine.

What was in flight when a process died may have killed it. It is tried in a process beside the worker, which
may die without taking anybody else along: ``python -m postbacks.worker.examiner``. One keeper a worker, in its main
process; a prefork child that ticks tells it through shared memory.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final

from postbacks import keys
from postbacks.broker.client import client
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.version import new_loop_id

log = EventLog(__name__)

#: Seconds between two looks whether a tick has found something in quarantine.
LOOK_EVERY_S: Final = 0.5
#: The same after examiners that have died or could not be started, one after the other.
LOOK_AT_LEAST_EVERY_S: Final = 30.0
#: What runs in the process; it is above us, since it asks Celery's retry what follows a failure.
MODULE: Final = "postbacks.worker.examiner"

_wanted = multiprocessing.Value("b", 0, lock=False)


def request_run() -> None:
    """Ask the keeper of this worker, from any of its processes, to run the examiner."""
    _wanted.value = 1


class QuarantineSupervisor:
    """Starts the examiner when it is wanted, one at a time, and gives up its claims when it dies."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="postbacks-quarantine", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        _wanted.value = 0
        self._thread.start()

    def stop(self, *, wait: bool) -> None:
        """Tell the examiner to end, which it does when nothing of it is in flight any more; wait for that."""
        self._stopping.set()
        if wait and self._thread.is_alive():
            self._thread.join(load().stop_within_s + 1)

    def _keep(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._stopping.wait(pause_s):
            if not _wanted.value:
                continue
            _wanted.value = 0
            died = True
            try:
                died = self._examine() != 0
            except Exception:
                log.exception("quarantine.not_examined", "a later tick tries again")
            # one that cannot start would be started again at every tick
            pause_s = min(2 * pause_s, LOOK_AT_LEAST_EVERY_S) if died else LOOK_EVERY_S

    def _examine(self) -> int:
        """Run one to its end; returns its exit code."""
        token = new_loop_id()
        with subprocess.Popen(  # noqa: S603 - a module of ours
            (sys.executable, "-m", MODULE, token), stdin=subprocess.PIPE
        ) as examiner:
            assert examiner.stdin is not None
            while examiner.poll() is None:
                if self._stopping.wait(0.05):
                    with suppress(BrokenPipeError):
                        examiner.stdin.write(b"stop\n")
                        examiner.stdin.close()
                    examiner.wait()
        if examiner.returncode != 0:
            log.error(
                "quarantine.examiner_died",
                "what it had in flight stays in quarantine",
                exit=examiner.returncode,
            )
            _end_lease(token)
        return examiner.returncode


def _end_lease(token: str) -> None:
    """Its claims need not wait for the end of their lease: it was seen to die, and ``reap.lua`` counts that."""
    try:
        with broker_errors():
            client().zadd(keys.CLAIMERS, {token: 0}, xx=True)
    except BrokerError as error:
        log.warning("delivery.broker_lost", str(error), open=0)
