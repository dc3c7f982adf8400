"""Shutdown of a worker as its delivering loops see it, and how prefork's children live through it.

Two steps, for all threads and children of a worker: *warm* (claim nothing more, give back what is only
held, finish what is open) and *cold* (end at once; the lease settles what is open). Celery tells a
prefork child nothing before its task ends, so the step stands in memory that the children share.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from billiard.process import current_process

#: Seconds that an idle child which is told to end waits for the main process to begin a shutdown.
_WAIT_FOR_STEP_S: Final = 1.0
#: Seconds from the end of its task to the end of a child that was told to end: the task's result must be on its way.
_RESULT_LEAVES_S: Final = 0.5
#: Signals with which a service manager or an operator ends processes.
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_RUN, _WARM, _COLD = 0, 1, 2
_step = multiprocessing.Value("b", _RUN, lock=False)


def begin_warm() -> None:
    """Tell every loop of this worker, children included, to claim nothing more and to finish what is open."""
    _step.value = max(_step.value, _WARM)


def begin_cold() -> None:
    """Tell every loop of this worker to end at once."""
    _step.value = _COLD


def is_requested() -> bool:
    """Tell whether the worker shuts down, or this child of it is to end."""
    return _step.value != _RUN or _child.requested


def is_cold() -> bool:
    """Tell whether there is no time to finish what is open."""
    return bool(_step.value == _COLD)


class _Child:
    """A child of the prefork pool: it finishes its task before a signal ends it.

    Signals to a whole process group (systemd's default, a terminal, some supervisors) reach the children
    as well. billiard would end them in the middle of their POSTs.

    Attributes:
        requested: a signal has told this child to end.
    """

    def __init__(self) -> None:
        self.requested = False
        self._tasks = 0
        self._celerys_handler: Callable[[int, Any], Any] | None = None

    def begin(self) -> None:
        """Take over the signals once billiard has set its own, which it does after the pool's signal of a start."""
        self.requested, self._tasks, self._celerys_handler = False, 0, None
        signal.signal(signal.SIGALRM, self._take_over)
        signal.setitimer(signal.ITIMER_REAL, 0.02)

    def _take_over(self, *_: Any) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        if not callable(handler):  # not yet
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            return
        self._celerys_handler = handler
        for number in _END_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # REMAP_SIGTERM
                signal.signal(number, self._on_end)

    def _on_end(self, number: int, frame: Any) -> None:
        self.requested = True
        if self._tasks:
            return  # see ``finish_task``
        until_s = time.monotonic() + _WAIT_FOR_STEP_S
        while time.monotonic() < until_s and _step.value == _RUN:
            time.sleep(0.01)
        if _step.value == _WARM:
            return  # the whole worker stops: the main process ends its children when all have finished
        if self._celerys_handler is not None:
            self._celerys_handler(number, frame)

    @contextmanager
    def finish_task(self) -> Iterator[None]:
        """Finish the block before a signal ends the child."""
        if self._celerys_handler is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._tasks += 1
        try:
            yield
        finally:
            self._tasks -= 1
            if self.requested and not self._tasks and _step.value != _WARM:
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
                signal.setitimer(signal.ITIMER_REAL, _RESULT_LEAVES_S)


_child = _Child()

#: Stands around each task of ours: see ``_Child.finish_task``.
finish_task = _child.finish_task


def on_child_start(**_: Any) -> None:
    """Take over the signals of a child of the prefork pool (Celery's ``worker_process_init``)."""
    if current_process().name != "MainProcess":
        _child.begin()
