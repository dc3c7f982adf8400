"""Delivering loops of one worker process: how many may run, their connections, and their end.

Threads share one process: one loop claims, and at most one more finishes what it has open after its
slice ended. Prefork's children are processes of their own: each may run a loop, but one child always
stays free to tick. ``shutdown.py`` tells both of a shutdown.
"""

from __future__ import annotations

import fcntl
import gc
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from postbacks.accounts import store
from postbacks.broker.client import client
from postbacks.broker.errors import broker_errors
from postbacks.delivery.counters import LoopCounters, WorkerCounters
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profiles import Profiles
from postbacks.delivery.results import Decide
from postbacks.errors import BrokerError
from postbacks.flower_events.publisher import publisher
from postbacks.logs import EventLog
from postbacks.queue.scripts import Scripts
from postbacks.settings import Settings, load
from postbacks.transport.client import CurlClient
from postbacks.transport.limits import max_transfers
from postbacks.worker.shutdown import is_cold, is_requested

log = EventLog(__name__)

#: New objects, and collections of the younger generation, before Python collects; its own are 700, 10, 10.
GC_THRESHOLDS: Final = (50_000, 20, 10)
#: Connections at rest, beyond those of the open transfers; they need descriptors of their own.
MAX_IDLE_CONNECTIONS: Final = 512

#: Seconds that a loop goes on claiming where nothing is ready: until the next tick. While other workers' loops
#: take what comes in, a claim may find nothing by chance; if it ended then, another loop would deliver all alone.
LINGER_S: Final = 1.0


class LoopSlots:
    """Slots for the loops that may run at a time, over all threads and children of a worker.

    Each slot is a file that a loop locks: the kernel gives the lock of a killed child back, which a
    counter in shared memory would not. Created by the main process before it forks.

    Attributes:
        count: number of slots.
        counters: counters of the worker's loops, a row a slot.
    """

    def __init__(self, count: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postbacks-slots-")
        self._owner = os.getpid()
        self.count = count
        self.counters = WorkerCounters(count)
        self._paths = [Path(self._folder.name) / str(number) for number in range(count)]
        for path in self._paths:
            path.touch()

    @contextmanager
    def acquire(self) -> Iterator[int | None]:
        """Hold a slot while the block runs; yields its number, None where none is free."""
        for number, path in enumerate(self._paths):
            with _lock(path) as is_free:
                if is_free:
                    yield number
                    return
        yield None

    def in_use(self) -> bool:
        """Tell whether any loop runs."""
        with ExitStack() as locks:
            return not all(locks.enter_context(_lock(path)) for path in self._paths)

    def close(self) -> None:
        """Remove the files; only the process that made them does."""
        if os.getpid() == self._owner:
            self._folder.cleanup()


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Lock a file while the block runs; yields False where another loop has it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


_slots: LoopSlots | None = None
_claiming = threading.Lock()
_idle_clients: list[CurlClient] = []  # as many as loops have run at a time
#: Clients that a child of prefork's is not to close: their connections are its parent's, which delivers by itself on a
#: full broker.
_parents_clients: list[CurlClient] = []


def _begin_child() -> None:
    global _claiming  # noqa: PLW0603 - a loop of the parent may hold it
    _claiming = threading.Lock()
    _parents_clients.extend(_idle_clients)
    _idle_clients.clear()


os.register_at_fork(after_in_child=_begin_child)


def configure(slots: LoopSlots) -> None:
    """Set the slots of this worker's loops; called once, by the main process."""
    global _slots  # noqa: PLW0603 - state of the process
    _slots = slots


def worker_counters() -> WorkerCounters:
    """Return the counters of this worker's loops."""
    return _slots.counters if _slots is not None else WorkerCounters(1)


def deliver(decide: Decide, hand_over: Callable[[], None]) -> int:
    """Run one delivering loop, if this process has none that claims and a slot is free.

    Args:
        decide: the retry rule.
        hand_over: called when the loop's slice of time has ended, so that the next one can begin.

    Returns:
        POSTs made; 0 where another loop does the work.
    """
    if is_requested() or not _claiming.acquire(blocking=False):
        return 0
    released = False

    def release() -> None:
        nonlocal released
        if not released:
            released = True
            _claiming.release()

    try:
        if _slots is None:
            return _run(decide, hand_over, release, 0)
        with _slots.acquire() as slot:
            return 0 if slot is None else _run(decide, hand_over, release, slot)
    finally:
        release()
        publisher.flush()  # the process may end with this loop


def max_connections(settings: Settings) -> int:
    """Return the number of connections, open and at rest, above which libcurl closes those at rest.

    It counts the open ones, too: with fewer than there are transfers, none would outlive its transfer.
    """
    transfers = max_transfers(settings)
    return transfers + (MAX_IDLE_CONNECTIONS if transfers == settings.max_transfers else 0)


@cache
def tune_gc() -> None:
    """Let Python collect cycles of garbage less often: once in a worker's process, when it begins to deliver.

    Thousands of records come and go, none of them in a cycle; to look through them all the time takes a tenth of
    the process. Objects from before are not looked at again; cycles that Celery leaves are found later.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _run(decide: Decide, hand_over: Callable[[], None], release: Callable[[], None], slot: int) -> int:
    settings = load()
    tune_gc()
    # With one slot nobody would claim while this loop finishes what it has open: it goes on instead.
    is_alone = _slots is not None and _slots.count == 1
    slice_s = math.inf if is_alone else settings.deliver_slice_s
    slice_ends_s = time.monotonic() + slice_s
    curl = (
        _idle_clients.pop()
        if _idle_clients
        else CurlClient(settings, max_connections=max_connections(settings))
    )

    def on_draining() -> None:
        release()
        if time.monotonic() >= slice_ends_s and not is_requested():
            try:
                with broker_errors():
                    hand_over()
            except BrokerError as error:  # must not take along what is open
                log.warning("delivery.not_handed_over", f"{error} The next tick wakes another loop.")

    scripts = Scripts(client())
    loop = DeliveryLoop(
        scripts,
        curl,
        Profiles(store(), settings, scripts),
        settings,
        decide,
        slice_s=slice_s,
        linger_s=LINGER_S,
        must_stop=is_requested,
        must_leave=is_cold,
        on_draining=on_draining,
        counters=LoopCounters(curl, _slots.counters if _slots is not None else None, slot),
    )
    try:
        sent = loop.run()
    except BaseException:
        curl.close()
        raise
    _idle_clients.append(curl)
    return sent
