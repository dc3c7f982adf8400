"""How the delivering loops of a worker learn that it stops, and how prefork's children live through it.

Two steps, for all threads and children of a worker: *stop* (claim nothing more, give back what is only
held, finish what is open) and *leave* (at once; what is open is settled by its lease). Celery tells a
prefork child nothing before its task ends, so the steps stand in memory that the children share.
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

#: Seconds that an idle child waits for word from the main process when it is told to end.
_WORD_S: Final = 1.0
#: Seconds after which a child that was told to end does so: the result of its task must be on its way.
_LAST_WORDS_S: Final = 0.5
#: What a service manager or an operator ends processes with.
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_RUN, _STOP, _LEAVE = 0, 1, 2
_step = multiprocessing.Value("b", _RUN, lock=False)


def stop_claiming() -> None:
    """Tell every loop of this worker, children included, to claim nothing more and to finish what is open."""
    _step.value = max(_step.value, _STOP)


def leave() -> None:
    """Tell every loop of this worker to end at once."""
    _step.value = _LEAVE


def is_stopping() -> bool:
    """Whether the worker is shutting down, or this child of it is to end."""
    return _step.value != _RUN or _child.told


def must_leave() -> bool:
    """Whether there is no time to finish what is open."""
    return bool(_step.value == _LEAVE)


class _Child:
    """One child of the prefork pool: when a signal ends it, and when it finishes first.

    Signals to a whole process group (systemd's default, a terminal, some supervisors) reach the children
    as well. billiard would end them in the middle of their POSTs.
    """

    def __init__(self) -> None:
        self.told = False
        self._tasks = 0
        self._before: Callable[[int, Any], Any] | None = None

    def begin(self) -> None:
        """Take over the signals once billiard has set its own, which it does after the pool's signal of a start."""
        self.told, self._tasks, self._before = False, 0, None
        signal.signal(signal.SIGALRM, self._take_over)
        signal.setitimer(signal.ITIMER_REAL, 0.02)

    def _take_over(self, *_: Any) -> None:
        before = signal.getsignal(signal.SIGTERM)
        if not callable(before):  # not yet
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            return
        self._before = before
        for number in _ENDS:
            if signal.getsignal(number) != signal.SIG_IGN:  # REMAP_SIGTERM
                signal.signal(number, self._on_end)

    def _on_end(self, number: int, frame: Any) -> None:
        self.told = True
        if self._tasks:
            return  # see ``task``
        until_s = time.monotonic() + _WORD_S
        while time.monotonic() < until_s and _step.value == _RUN:
            time.sleep(0.01)
        if _step.value == _STOP:
            return  # the whole worker stops: the main process ends its children when all have finished
        if self._before is not None:
            self._before(number, frame)

    @contextmanager
    def task(self) -> Iterator[None]:
        """What runs inside is finished before a signal ends the child."""
        if self._before is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._tasks += 1
        try:
            yield
        finally:
            self._tasks -= 1
            if self.told and not self._tasks and _step.value != _STOP:
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
                signal.setitimer(signal.ITIMER_REAL, _LAST_WORDS_S)


_child = _Child()

#: Around each task of ours: see ``_Child.task``.
finishing = _child.task


def child_began(**_: Any) -> None:
    """Receives Celery's ``worker_process_init``: a child of the prefork pool has started."""
    if current_process().name != "MainProcess":
        _child.begin()
