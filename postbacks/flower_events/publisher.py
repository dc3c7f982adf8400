"""Buffers task events in memory and publishes them from a thread of its own, one publisher a process.

A postback is no task execution: one tick takes many in and one loop delivers many. So their events are made here,
beside the work and never in its way. The work appends to a list; while events are off it makes one comparison. Events
are dropped, and counted, where the broker does not take them or they come faster than they leave.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis

from postbacks import keys
from postbacks.errors import BrokerError
from postbacks.flower_events import wire
from postbacks.flower_events.sampling import METER_NUMBERS, Sampler
from postbacks.logs import EventLog
from postbacks.settings import load

if TYPE_CHECKING:
    from postbacks.flower_events.events import TaskEvent

log = EventLog(__name__)

#: Seconds between two batches: what Flower lags behind, and five commands or so a second.
FLUSH_EVERY_S: Final = 0.2
#: Postbacks whose events may wait to be published; past it they are dropped.
PENDING_MAX: Final = 50_000
#: Seconds without publishing after the broker has failed.
PAUSE_S: Final = 2.0
#: Seconds for which a worker's word counts that it publishes events.
ON_FOR_S: Final = 30
#: Seconds between two lines of the log with the same name.
LOG_EVERY_S: Final = 60.0

#: Positions among the numbers that a worker's processes share; the meters' stand behind them.
_IS_ON, _SENT, _DROPPED, _SAMPLED_OUT, _METERS = range(5)


class EventPublisher:
    """Publishes the task events of what this process does with postbacks.

    Prefork's children share with their main process whether events are on, what was counted and how full the rate is.
    All else is each process's own: a child begins with nothing to publish, and starts a thread when it has something.
    """

    def __init__(self) -> None:
        # Anonymous memory that children inherit. It has no lock, which a child that is killed would keep: a count may
        # be missed.
        size = _METERS + 2 * METER_NUMBERS
        self._shared = memoryview(mmap.mmap(-1, size * 8)).cast("d")[:size]
        self._hostname = ""
        self._exchange = ""
        self._logged_s: dict[str, float] = {}  # an entry for each name of a line
        self.begin_process()

    def begin_process(self) -> None:
        """Start with nothing to publish; called after a fork, whose parent may hold a lock or a thread."""
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._pending: deque[tuple[int, Callable[[], Iterable[TaskEvent]]]] = deque()  # PENDING_MAX postbacks
        self._pending_count = 0
        self._thread: threading.Thread | None = None
        self._paused_until_s = 0.0
        self._sampler = Sampler(self._shared[_METERS:])

    # -- on and off -------------------------------------------------------------------------------

    def configure(self, hostname: str, exchange: str) -> None:
        """Set whose events these are; called by the main process, before it forks.

        Args:
            hostname: the worker's node name.
            exchange: Celery's ``event_exchange``.
        """
        self._hostname, self._exchange = hostname, exchange

    def switch(self, on: bool) -> None:
        """Turn events on or off in all processes of this worker."""
        if self.is_on() != on:
            self._shared[_IS_ON] = float(on)
            if on:
                log.info("taskevents.on")
            else:
                log.info("taskevents.off")

    def is_on(self) -> bool:
        """Return whether anybody wants events."""
        return self._shared[_IS_ON] != 0

    def announce(self) -> bool:
        """Let programs that cancel postbacks know that events are on, and where they go.

        Returns:
            False if the broker did not take it.
        """
        address = json.dumps({"hostname": self._hostname, "exchange": self._exchange})
        try:
            wire.broker().set(keys.TASK_EVENTS_ON, address, ex=ON_FOR_S)
        except (redis.RedisError, OSError, BrokerError) as error:
            if self._may_log("not_announced"):
                log.warning("taskevents.not_announced", str(error))
            return False
        return True

    def counts(self) -> dict[str, Any]:
        """Return what ``celery inspect stats`` shows of events."""
        sent, dropped, sampled_out = (int(count) for count in self._shared[_SENT:_METERS])
        return {"on": self.is_on(), "sent": sent, "dropped": dropped, "sampled_out": sampled_out}

    # -- publishing -------------------------------------------------------------------------------

    def add(self, make: Callable[..., Iterable[TaskEvent]], rows: Sequence[Any], *more: Any) -> None:
        """Publish soon what has happened to some postbacks.

        Args:
            make: a function of ``events.py``, which the thread calls.
            rows: a row for each of the postbacks.
            more: what ``make`` needs beside the rows.
        """
        if not (self.is_on() and rows):
            return
        at_s = time.time()
        with self._lock:
            is_full = self._pending_count + len(rows) > PENDING_MAX
            if not is_full:
                self._pending.append((len(rows), lambda: make(self._sampler, at_s, rows, *more)))
                self._pending_count += len(rows)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="postbacks-taskevents", daemon=True)
                with suppress(
                    RuntimeError
                ):  # no more threads, or the process ends: the next call tries again
                    thread.start()
                    self._thread = thread
        if is_full:
            self._drop(len(rows), "they come faster than they can be published")

    def _run(self) -> None:
        while True:
            time.sleep(FLUSH_EVERY_S)
            self.flush()
            with self._lock:
                if not self.is_on() and not self._pending:
                    self._thread = None
                    self._sampler = Sampler(self._shared[_METERS:])  # remembers nothing of what ends unseen
                    return

    def flush(self) -> None:
        """Publish what waits, unless the broker has just failed; never raises."""
        with self._publishing:
            if not self._pending or time.monotonic() < self._paused_until_s:
                return
            with self._lock:
                pending = list(self._pending)
                self._pending.clear()
                self._pending_count = 0
            try:
                self._publish([make for _, make in pending])
            except Exception as error:
                if not isinstance(error, (redis.RedisError, OSError, BrokerError)):
                    log.exception("taskevents.failed")  # a fault of ours must not stop a delivery either
                self._paused_until_s = time.monotonic() + PAUSE_S
                self._drop(sum(count for count, _ in pending), error)

    def _publish(self, makes: Sequence[Callable[[], Iterable[TaskEvent]]]) -> None:
        settings, sampler = load(), self._sampler
        sampler.configure(settings.flower_share, settings.events_per_s)
        was_above = sampler.are_above()
        events = [event for make in makes for event in make()]
        self._log_sampling(was_above, settings.events_per_s)
        wire.publish(wire.broker(), self._exchange, self._hostname, events)
        self._shared[_SENT] += len(events)
        self._shared[_SAMPLED_OUT] += sampler.left_out
        sampler.left_out = 0

    def _log_sampling(self, before: tuple[bool, bool], per_s: int) -> None:
        (failures_were_above, was_above), (failures_are_above, is_above) = before, self._sampler.are_above()
        if is_above and not was_above and self._may_log("sampling"):
            log.warning(
                "taskevents.sampling",
                "more postbacks than POSTBACKS_EVENTS_PER_S; Flower is shown every failure and a share of the rest",
                limit_per_s=per_s,
            )
        if was_above and not is_above and self._may_log("sampling_ended"):
            log.warning(
                "taskevents.sampling_ended", "Flower is shown every postback again", limit_per_s=per_s
            )
        if failures_are_above and not failures_were_above and self._may_log("sampling_failures"):
            log.warning(
                "taskevents.sampling_failures",
                "more failures than POSTBACKS_EVENTS_PER_S; Flower is shown a share of them as well",
                limit_per_s=per_s,
            )

    def _drop(self, count: int, why: object) -> None:
        self._shared[_DROPPED] += count
        if self._may_log("dropped"):
            log.warning(
                "taskevents.dropped", f"{why}; Flower does not see them, they are delivered", postbacks=count
            )

    def _may_log(self, name: str) -> bool:
        """Return whether a line of this name may be written again."""
        now_s = time.monotonic()
        if now_s - self._logged_s.get(name, -LOG_EVERY_S) < LOG_EVERY_S:
            return False
        self._logged_s[name] = now_s
        return True


#: The publisher of this process.
publisher = EventPublisher()
os.register_at_fork(after_in_child=publisher.begin_process)
