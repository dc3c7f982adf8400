"""The delivering loops of one worker process: how many may run, their transports, and their stop.

Threads share one process: one loop claims, and at most one more finishes what it has open after its
slice ended. Prefork's children are processes of their own: each may run a loop, but one child always
stays free to tick. ``stopping.py`` tells both of a shutdown.
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
from postbacks.flower_events import flush
from postbacks.logs import EventLog
from postbacks.queue.scripts import Scripts
from postbacks.settings import Settings, load
from postbacks.transport.client import CurlClient
from postbacks.transport.limits import max_transfers
from postbacks.worker.shutdown import is_stopping, must_leave

log = EventLog(__name__)

#: Python's own is 700, 10, 10: new objects, and collections of the younger generation, before one is made.
COLLECT_AFTER: Final = (50_000, 20, 10)
#: Connections kept for reuse beyond those of the open transfers; they need descriptors of their own.
KEPT_CONNECTIONS: Final = 512

#: Seconds that a loop goes on looking where it finds nothing: till the next tick. While other workers' loops
#: take what comes in, a look finds nothing by chance; without this one loop would deliver all of it alone.
LINGER_S: Final = 1.0


class LoopSlots:
    """How many loops may run at a time, over all threads and children of a worker.

    Each place is a file that a loop locks: the kernel gives the lock of a killed child back, which a
    counter in shared memory would not. Created by the main process before it forks.

    Attributes:
        counts: what the worker's loops have done, a row a place.
    """

    def __init__(self, count: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postbacks-places-")
        self._owner = os.getpid()
        self.count = count
        self.counts = WorkerCounters(count)
        self._paths = [Path(self._folder.name) / str(number) for number in range(count)]
        for path in self._paths:
            path.touch()

    @contextmanager
    def take(self) -> Iterator[int | None]:
        """Hold a place while the block runs; yields its number, None where none is free."""
        for number, path in enumerate(self._paths):
            with _locked(path) as free:
                if free:
                    yield number
                    return
        yield None

    def in_use(self) -> bool:
        """Whether any loop runs."""
        with ExitStack() as free:
            return not all(free.enter_context(_locked(path)) for path in self._paths)

    def close(self) -> None:
        """Remove the files; only the process that made them does."""
        if os.getpid() == self._owner:
            self._folder.cleanup()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file while the block runs; yields False where another loop has it."""
    with path.open("rb") as place:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


_places: LoopSlots | None = None
_claiming = threading.Lock()
_free_adapters: list[CurlClient] = []  # as many as loops have run at a time
#: What a child of prefork's is not to close: the connections are its parent's, which delivers by itself on a full broker.
_parents_adapters: list[CurlClient] = []


def _begin_child() -> None:
    global _claiming  # noqa: PLW0603 - a loop of the parent may hold it
    _claiming = threading.Lock()
    _parents_adapters.extend(_free_adapters)
    _free_adapters.clear()


os.register_at_fork(after_in_child=_begin_child)


def configure_slots(places: LoopSlots) -> None:
    """Set how many loops may run in this worker; called once, by the main process."""
    global _places  # noqa: PLW0603 - state of the process
    _places = places


def shared_counts() -> WorkerCounters:
    """What this worker's loops have done since it started."""
    return _places.counts if _places is not None else WorkerCounters(1)


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
            return _run(decide, hand_over, release, 0)
        with _places.take() as place:
            return 0 if place is None else _run(decide, hand_over, release, place)
    finally:
        release()
        flush()  # the process may end with this loop


def connections_kept(settings: Settings) -> int:
    """Connections, open and at rest, above which libcurl closes those at rest.

    It counts the open ones, too: with fewer than there are transfers, none would outlive its transfer.
    """
    transfers = max_transfers(settings)
    return transfers + (KEPT_CONNECTIONS if transfers == settings.max_transfers else 0)


@cache
def tune_gc() -> None:
    """Let Python look for cycles of garbage less often: once in a worker's process, when it begins to deliver.

    Thousands of records come and go, none of them in a cycle; to look through them all the time takes a tenth of
    the process. What was there at the start is not looked at again; what Celery leaves in cycles is found later.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _run(decide: Decide, hand_over: Callable[[], None], release: Callable[[], None], place: int) -> int:
    settings = load()
    tune_gc()
    # With one place nobody would claim while this loop finishes what it has open: it goes on instead.
    alone = _places is not None and _places.count == 1
    slice_s = math.inf if alone else settings.deliver_slice_s
    slice_ends_s = time.monotonic() + slice_s
    adapter = (
        _free_adapters.pop()
        if _free_adapters
        else CurlClient(settings, max_connections=connections_kept(settings))
    )

    def draining() -> None:
        release()
        if time.monotonic() >= slice_ends_s and not is_stopping():
            try:
                with broker_errors():
                    hand_over()
            except BrokerError as error:  # must not take along what is open
                log.warning("delivery.not_handed_over", f"{error} The next tick wakes another loop.")

    scripts = Scripts(client())
    loop = DeliveryLoop(
        scripts,
        adapter,
        Profiles(store(), settings, scripts),
        settings,
        decide,
        slice_s=slice_s,
        linger_s=LINGER_S,
        must_stop=is_stopping,
        must_leave=must_leave,
        on_draining=draining,
        tally=LoopCounters(adapter, _places.counts if _places is not None else None, place),
    )
    try:
        sent = loop.run()
    except BaseException:
        adapter.close()
        raise
    _free_adapters.append(adapter)
    return sent
