"""Bootsteps of our worker: what it sets up, how it shuts down, and what it publishes while it runs.

``app.py`` registers them by name. The start checks, the quarantine's supervisor and the relief of a full broker are
bootsteps in modules of their own.
"""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery import bootsteps, signals
from celery.worker import state

import postbacks.queue.tick  # noqa: F401 - loaded once, before the pool forks its children
from postbacks import keys
from postbacks.accounts import url_policy
from postbacks.broker.sign_of_life import SignOfLife
from postbacks.celeryext.panel import register_revoke
from postbacks.errors import BadSetting, BrokerError
from postbacks.flower_events.publisher import publisher
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.version import set_worker
from postbacks.worker import process, shutdown
from postbacks.worker.start_checks import pool_of

log = EventLog(__name__)

#: Seconds that loops have to end at a cold shutdown: they look 20 times a second, and a commit may be under way.
COLD_WITHIN_S: Final = 2.0

#: Seconds between two looks at the switch of events.
LOOK_EVERY_S: Final = 0.5
#: Seconds between two announcements to other programs that events are on.
ANNOUNCE_EVERY_S: Final = 10.0


class Setup(bootsteps.StartStopStep):
    """Sets up what the worker's processes share: loop slots, task events, the soft shutdown, the ``revoke`` command."""

    requires = ("postbacks.worker.start_checks:StartChecks",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        concurrency = int(worker.concurrency)
        # threads: one loop claims, one more may finish its slice, and two threads stay free to tick;
        # prefork: every child but one may deliver
        loops = concurrency - 1 if pool_of(worker) == "prefork" else max(1, min(2, concurrency - 2))
        slots = self._slots = process.LoopSlots(loops)
        # At exit and not when this step stops: loops may still run then, and a signal come.
        atexit.register(slots.close)
        process.configure(slots)
        worker.wait_for_soft_shutdown = partial(_soft_shutdown, worker, slots)
        set_worker(worker.hostname)
        publisher.configure(worker.hostname, worker.app.conf.event_exchange)
        register_revoke()

    def info(self, worker: Any) -> dict[str, Any]:
        """Return what ``celery inspect stats`` shows of postbacks."""
        del worker
        return {"postbacks": {"delivering_loops_max": self._slots.count, "events": publisher.counts()}}


class Shutdown(bootsteps.StartStopStep):
    """Tells the delivering loops of a shutdown, however it came about."""

    # Stopped before the pool, which waits for the loops; `control shutdown` and SIGHUP send no signal.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        worker.sign_of_life = SignOfLife(keys.WORKERS, worker.hostname)
        signals.worker_shutting_down.connect(_on_shutting_down, weak=False)
        signals.worker_process_init.connect(shutdown.on_child_start, weak=False)

    def stop(self, worker: Any) -> None:
        """Begin the warm shutdown; from now on this worker takes no tick."""
        shutdown.begin_warm()
        worker.sign_of_life.withdraw()

    def terminate(self, worker: Any) -> None:
        """Begin the cold shutdown."""
        shutdown.begin_cold()
        worker.sign_of_life.withdraw()


def _on_shutting_down(**_: Any) -> None:
    shutdown.begin_warm()


def _soft_shutdown(worker: Any, slots: process.LoopSlots) -> None:
    """Let the loops finish for ``worker_soft_shutdown_timeout`` seconds, before a cold shutdown.

    Mirrors ``WorkController.wait_for_soft_shutdown``; differs in that the loops are told to claim nothing
    more (Celery sends its signal only afterwards), in ending as soon as nothing is in flight, and in that
    loops which are still at it then end at once.
    """
    shutdown.begin_warm()
    timeout_s = float(worker.app.conf.worker_soft_shutdown_timeout or 0)
    if timeout_s > 0:
        log.warning("worker.soft_shutdown", "what is open is finished", within_s=timeout_s)
        _wait_while(lambda: slots.in_use() or _foreign_tasks(), timeout_s)
    shutdown.begin_cold()
    _wait_while(slots.in_use, COLD_WITHIN_S)


def _foreign_tasks() -> bool:
    """Tell whether tasks run that are a deployment's own."""
    return any(not request.name.startswith("postbacks.") for request in tuple(state.active_requests))


def _wait_while(busy: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and busy():
        time.sleep(0.05)


class MetricsServer(bootsteps.StartStopStep):
    """Serves the worker's metrics and health, where a port is set, until the process ends: one sees it drain."""

    # Started after the pool, so that its children are forked before there are threads.
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Serve; where the port cannot be had, say so and deliver all the same."""
        del worker
        settings = load()
        if not settings.metrics_port:
            return
        # Loaded only where it is asked for.
        from postbacks.monitor.server import MonitorServer  # noqa: PLC0415
        from postbacks.monitor.worker_collector import WorkerCollector  # noqa: PLC0415

        try:
            server = MonitorServer(
                settings.metrics_host,
                settings.metrics_port,
                [WorkerCollector(process.worker_counters())],
                settings,
                alive=lambda: not shutdown.is_requested(),
            )
        except BadSetting as error:
            log.warning("metrics.not_served", f"{error} Postbacks are delivered all the same.")
            return
        server.start()
        log.info("metrics.served", host=settings.metrics_host, port=server.port)


class _Repeated(bootsteps.StartStopStep):
    """Base of steps that call something now and then every few seconds, in the consumer's loop.

    The consumer starts its steps anew when its connection was lost.
    """

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None

    def _repeat(self, consumer: Any, every_s: float, call: Callable[[], None]) -> None:
        call()
        self._timer = consumer.timer.call_repeatedly(every_s, call)

    def stop(self, consumer: Any) -> None:
        """Stop the repetition."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()


class FlowerSwitch(_Repeated):
    """Turns the events of postbacks on and off with the worker's own: ``-E``, Flower's and ``control``'s switch."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._announced_s = -math.inf

    def start(self, consumer: Any) -> None:
        """Look at the worker's switch twice a second: no signal says that it was turned."""
        self._repeat(consumer, LOOK_EVERY_S, partial(self._follow, consumer))

    def _follow(self, consumer: Any) -> None:
        dispatcher = consumer.event_dispatcher
        if dispatcher is None:
            return  # its connection is being made anew
        groups = dispatcher.groups
        on = bool(dispatcher.enabled and (not groups or "task" in groups))
        publisher.switch(on)
        if on and time.monotonic() - self._announced_s >= ANNOUNCE_EVERY_S and publisher.announce():
            self._announced_s = time.monotonic()


class UrlPolicyPublisher(_Repeated):
    """Publishes which URLs this worker sends to, for those who set accounts elsewhere."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        """Publish every few seconds: a policy that no worker publishes any more is dropped."""
        self._repeat(consumer, url_policy.PUBLISH_EVERY_S, self._publish)

    @staticmethod
    def _publish() -> None:
        try:
            url_policy.publish()
        except BrokerError as error:
            log.debug("worker.url_policy_not_published", str(error))


class SignsOfLife(_Repeated):
    """Gives this worker's signs of life while its consumer runs; ``Shutdown`` withdraws them."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Give one every few seconds, from the loop that takes ticks."""
        sign = consumer.controller.sign_of_life
        self._repeat(consumer, sign.every_s, sign.give)
