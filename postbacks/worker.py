"""What our worker does differently from a stock Celery worker: start checks, stopping, revoking.

Bootsteps belong to our app alone: a program that imports ``postbacks`` and runs a worker of its own
app is not touched.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any, Final, NoReturn

from celery import bootsteps, signals
from celery.worker.control import Panel, ok

from postbacks import taskevents
from postbacks.broker import check
from postbacks.control import cancel
from postbacks.delivery import process
from postbacks.delivery.outcomes import OUTCOMES
from postbacks.errors import BrokerUnfit, BrokerUnreachable
from postbacks.settings import unknown_names

log = logging.getLogger(__name__)

#: Seconds between two looks at the switch of events.
LOOK_EVERY_S: Final = 0.5
#: Seconds between two words to other programs that events are on.
ANNOUNCE_EVERY_S: Final = 10.0


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"postbacks: {sentence}\n")
    raise SystemExit(2)


class PoolCheck(bootsteps.StartStopStep):
    """Refuses a pool, a concurrency or a broker that cannot work, with one sentence."""

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        pool = worker.pool_cls.__module__.rpartition(".")[2]
        if pool not in {"thread", "prefork"}:
            _refuse(
                f"the pool {pool!r} cannot deliver and tick at the same time; use --pool threads or prefork."
            )
        concurrency = int(worker.concurrency)
        if concurrency < 2:
            _refuse(
                "a concurrency of 1 cannot deliver and tick at the same time; use --concurrency 2 or more."
            )
        for name in unknown_names():
            log.warning("settings.unknown %s is no setting of postbacks: is it spelt right?", name)
        try:
            for warning in check():
                log.warning("broker.unsafe %s", warning)
        except BrokerUnfit as error:
            _refuse(str(error))
        except BrokerUnreachable as error:
            log.warning("broker.unreachable %s It is waited for.", error)
        # threads: one loop claims, one more may finish its slice, and two threads stay free to tick;
        # prefork: every child but one may deliver
        loops = concurrency - 1 if pool == "prefork" else max(1, min(2, concurrency - 2))
        self._places = process.Places(loops)
        process.set_places(self._places)
        taskevents.set_up(worker.hostname, worker.app.conf.event_exchange, OUTCOMES)

    def info(self, worker: Any) -> dict[str, Any]:
        """What ``celery inspect stats`` says of us."""
        del worker
        return {"postbacks": {"delivering_loops_max": self._places.count, "events": taskevents.counts()}}

    def stop(self, worker: Any) -> None:
        """Remove the files of the places."""
        del worker
        self._places.close()

    def terminate(self, worker: Any) -> None:
        """The same on a cold shutdown."""
        self.stop(worker)


class Stopping(bootsteps.StartStopStep):
    """Tells the delivering loops of a shutdown, and makes ``revoke`` last.

    Mirrors ``celery.worker.control.revoke``; differs in cancelling in the ledger: stock Celery only
    marks an id in the memory of the workers that run at that moment.
    """

    # Stopped before the pool, which waits for the loops; `control shutdown` and SIGHUP send no signal.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        signals.worker_shutting_down.connect(_on_shutting_down, weak=False)
        Panel.register(
            name="revoke", type="control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]"
        )(_revoke)

    def stop(self, worker: Any) -> None:
        """Tell the loops, however the shutdown came about."""
        del worker
        process.stop_claiming()

    def terminate(self, worker: Any) -> None:
        """The same on a cold shutdown."""
        self.stop(worker)


class EventSwitch(bootsteps.StartStopStep):
    """Turns the events of postbacks on and off with the worker's own: ``-E``, Flower's and ``control``'s switch."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._announced_s = -math.inf

    def start(self, consumer: Any) -> None:
        """Look now, and from now on twice a second: nothing tells of a change."""
        self._look(consumer)
        self._timer = consumer.timer.call_repeatedly(LOOK_EVERY_S, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop looking; the consumer starts anew when its connection was lost."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, consumer: Any) -> None:
        dispatcher = consumer.event_dispatcher
        if dispatcher is None:
            return  # its connection is being made anew
        groups = dispatcher.groups
        on = bool(dispatcher.enabled and (not groups or "task" in groups))
        taskevents.switch(on)
        if on and time.monotonic() - self._announced_s >= ANNOUNCE_EVERY_S and taskevents.announce():
            self._announced_s = time.monotonic()


def _on_shutting_down(**_: Any) -> None:
    process.stop_claiming()


def _revoke(state: Any, task_id: Any, *_: Any, **__: Any) -> Any:
    """Cancel postbacks by id (or list of ids)."""
    del state
    ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
    states = {one: cancel(one) for one in ids if isinstance(one, str)}
    return ok(f"postbacks {states} flagged as revoked")
