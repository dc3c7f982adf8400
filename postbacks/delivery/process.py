"""The delivering loops of one worker process: how many may run, their transports, and their stop.

Threads share one process: one loop claims, and at most one more finishes what it has open after its
slice ended. Prefork's children are processes of their own: each may run a loop, but one child always
stays free to tick. Both learn of a shutdown here: a prefork child is not told by Celery before its
task ends, so the main process sets a flag in shared memory.
"""

from __future__ import annotations

import fcntl
import logging
import math
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from postbacks.accounts import store
from postbacks.broker import broker_errors, client
from postbacks.delivery.loop import Decide, DeliveryLoop
from postbacks.delivery.profile import Profiles
from postbacks.delivery.transport import CurlAdapter
from postbacks.errors import BrokerError
from postbacks.queue.scripts import Scripts
from postbacks.settings import load

log = logging.getLogger(__name__)

#: Connections kept for reuse beyond the open transfers would need descriptors of their own.
KEPT_CONNECTIONS: Final = 512

_stopping = multiprocessing.Value("b", 0, lock=False)


def stop_claiming() -> None:
    """Tell every loop of this worker, children included, to claim nothing more."""
    _stopping.value = 1


def is_stopping() -> bool:
    """Whether the worker is shutting down."""
    return bool(_stopping.value)


class Places:
    """How many loops may run at a time, over all threads and children of a worker.

    Each place is a file that a loop locks: the kernel gives the lock of a killed child back, which a
    counter in shared memory would not. Created by the main process before it forks.
    """

    def __init__(self, count: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postbacks-places-")
        self._owner = os.getpid()
        self.count = count
        self._paths = [Path(self._folder.name) / str(number) for number in range(count)]
        for path in self._paths:
            path.touch()

    @contextmanager
    def take(self) -> Iterator[bool]:
        """Hold a place while the block runs; yields False where none is free."""
        held: IO[bytes] | None = None
        for path in self._paths:
            place = path.open("rb")
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                place.close()
                continue
            held = place
            break
        try:
            yield held is not None
        finally:
            if held is not None:
                held.close()

    def close(self) -> None:
        """Remove the files; only the process that made them does."""
        if os.getpid() == self._owner:
            self._folder.cleanup()


_places: Places | None = None
_claiming = threading.Lock()
_free_adapters: list[CurlAdapter] = []


def set_places(places: Places) -> None:
    """Set how many loops may run in this worker; called once, by the main process."""
    global _places  # noqa: PLW0603 - state of the process
    _places = places


def deliver(decide: Decide, hand_over: Callable[[], None]) -> int:
    """Run one delivering loop, if this process has none that claims and a place is free.

    Args:
        decide: what follows a failed attempt.
        hand_over: called when the loop's slice of time has ended, so that the next one can begin.

    Returns:
        POSTs made; 0 where another loop does the work.
    """
    if is_stopping() or not _claiming.acquire(blocking=False):
        return 0
    released = False

    def release() -> None:
        nonlocal released
        if not released:
            released = True
            _claiming.release()

    try:
        if _places is None:
            return _run(decide, hand_over, release)
        with _places.take() as free:
            return _run(decide, hand_over, release) if free else 0
    finally:
        release()


def _run(decide: Decide, hand_over: Callable[[], None], release: Callable[[], None]) -> int:
    settings = load()
    # With one place nobody would claim while this loop finishes what it has open: it goes on instead.
    alone = _places is not None and _places.count == 1
    slice_s = math.inf if alone else settings.deliver_slice_s
    slice_ends_s = time.monotonic() + slice_s
    adapter = (
        _free_adapters.pop() if _free_adapters else CurlAdapter(settings, max_connections=KEPT_CONNECTIONS)
    )

    def draining() -> None:
        release()
        if time.monotonic() >= slice_ends_s and not is_stopping():
            try:
                with broker_errors():
                    hand_over()
            except BrokerError as error:  # must not take along what is open
                log.warning("delivery.not_handed_over %s The next tick wakes another loop.", error)

    scripts = Scripts(client())
    loop = DeliveryLoop(
        scripts,
        adapter,
        Profiles(store(), settings, scripts),
        settings,
        decide,
        slice_s=slice_s,
        must_stop=is_stopping,
        on_draining=draining,
    )
    try:
        sent = loop.run()
    except BaseException:
        adapter.close()
        raise
    _free_adapters.append(adapter)
    return sent
