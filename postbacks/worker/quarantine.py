"""Supervisor of the quarantine: runs the examiner, a process of its own, while there is anything in quarantine.

A postback that was in flight when a process died may have killed it. It is tried in a process beside the worker, which
may die without taking anybody else along: ``python -m postbacks.worker.examiner``. Each worker has one supervisor, in
its main process; a prefork child that ticks asks it through shared memory.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, Final

from celery import bootsteps

from postbacks import keys
from postbacks.broker.client import client
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.version import new_loop_id

log = EventLog(__name__)

#: Seconds between two looks whether a run was requested.
LOOK_EVERY_S: Final = 0.5
#: The same after examiners that have died or could not be started, one after the other.
LOOK_AT_LEAST_EVERY_S: Final = 30.0
#: Module of the examiner's process; by name, as it stands above this one.
EXAMINER: Final = "postbacks.worker.examiner"

_requested = multiprocessing.Value("b", 0, lock=False)


def request_run() -> None:
    """Ask the supervisor of this worker, from any of its processes, to run the examiner."""
    _requested.value = 1


class QuarantineSupervisor(bootsteps.StartStopStep):
    """Runs the examiner when a run is requested, one at a time, and gives up its claims when it dies."""

    # Started after the pool, so that its children are forked before there are threads; stopped before the pool, so that
    # the examiner has its time to finish.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="postbacks-quarantine", daemon=True)

    def start(self, worker: Any) -> None:
        """Begin to look for requests."""
        del worker
        _requested.value = 0
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """Tell the examiner to end, and let it finish what it has in flight."""
        del worker
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(load().stop_within_s + 1)

    def terminate(self, worker: Any) -> None:
        """Tell the examiner to end, at a cold shutdown; it finishes by itself."""
        del worker
        self._stopping.set()

    def _supervise(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._stopping.wait(pause_s):
            if not _requested.value:
                continue
            _requested.value = 0
            failed = True
            try:
                failed = self._examine() != 0
            except Exception:
                log.exception("quarantine.not_examined", "a later tick tries again")
            # One that cannot start would be started again at every tick.
            pause_s = min(2 * pause_s, LOOK_AT_LEAST_EVERY_S) if failed else LOOK_EVERY_S

    def _examine(self) -> int:
        """Run an examiner to its end; returns its exit code."""
        token = new_loop_id()
        with subprocess.Popen(  # noqa: S603 - a module of ours
            (sys.executable, "-m", EXAMINER, token), stdin=subprocess.PIPE
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
    """End the lease of an examiner that was seen to die, so that ``reap.lua`` takes its claims back and counts that."""
    try:
        with broker_errors():
            client().zadd(keys.CLAIMERS, {token: 0}, xx=True)
    except BrokerError as error:
        log.warning("delivery.broker_lost", str(error), open=0)
