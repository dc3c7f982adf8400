"""What our worker does differently from a stock Celery worker: start checks, stopping, revoking.

Bootsteps belong to our app alone: a program that imports ``postbacks`` and runs a worker of its own
app is not touched.
"""

from __future__ import annotations

import atexit
import math
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Final, NoReturn

import click
from celery import Task, bootsteps, signals
from celery.concurrency import get_implementation
from celery.worker import state
from celery.worker.control import Panel, ok
from celery.worker.request import Request
from click.core import ParameterSource

from postbacks import flower_events, keys, url_policy
from postbacks.broker.client import client
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import check
from postbacks.broker.sign_of_life import SignOfLife
from postbacks.celeryext.control import cancel
from postbacks.errors import BadSetting, BrokerError, BrokerUnfit, BrokerUnreachable
from postbacks.logs import EventLog
from postbacks.settings import load, unknown_names
from postbacks.transport.outcomes import OUTCOMES
from postbacks.version import set_worker
from postbacks.worker import process, shutdown
from postbacks.worker.quarantine import QuarantineSupervisor

log = EventLog(__name__)


#: Seconds that loops have to end at once: they look 20 times a second, and a note may be under way.
LEAVE_WITHIN_S: Final = 2.0

#: Seconds between two looks at the switch of events.
LOOK_EVERY_S: Final = 0.5
#: Seconds between two words to other programs that events are on.
ANNOUNCE_EVERY_S: Final = 10.0


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"postbacks: {sentence}\n")
    raise SystemExit(2)


def _prefork_is_asked_for() -> bool:
    """Whether the command line says ``--pool prefork``.

    celery 5.7 (``celery.bin.worker.WorkersPool``) takes that for its own default and prefers
    ``worker_pool``, which is ``threads`` here: the option would do nothing, without a word.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source("pool") is not ParameterSource.COMMANDLINE:
        return False
    asked = ""
    for word, following in pairwise([*sys.argv, ""]):
        if word in {"-P", "--pool"}:
            asked = following
        elif word.startswith(("-P", "--pool=")):
            asked = word.removeprefix("-P").removeprefix("--pool=")
    return asked == "prefork"


class PoolCheck(bootsteps.StartStopStep):
    """Refuses a pool, a concurrency or a broker that cannot work, with one sentence."""

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        if _prefork_is_asked_for():
            worker.pool_cls = get_implementation("prefork")
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
        if pool == "prefork" and worker.pool_start_method != "fork":
            _refuse(
                "children that are spawned share no delivering loops with their worker; "
                "use --pool-start-method fork."
            )
        for name in unknown_names():
            log.warning("settings.unknown", f"{name} is no setting of postbacks: is it spelt right?")
        try:
            for warning in check():
                log.warning("broker.unsafe", warning)
        except BrokerUnfit as error:
            _refuse(str(error))
        except BrokerUnreachable as error:
            log.warning("broker.unreachable", f"{error} It is waited for.")
        # threads: one loop claims, one more may finish its slice, and two threads stay free to tick;
        # prefork: every child but one may deliver
        loops = concurrency - 1 if pool == "prefork" else max(1, min(2, concurrency - 2))
        places = self._places = process.LoopSlots(loops)
        atexit.register(places.close)  # not when this step stops: loops may still run then, and a signal come
        process.configure_slots(places)
        worker.wait_for_soft_shutdown = partial(_soft_shutdown, worker, places)
        set_worker(worker.hostname)
        flower_events.set_up(worker.hostname, worker.app.conf.event_exchange, OUTCOMES)

    def info(self, worker: Any) -> dict[str, Any]:
        """What ``celery inspect stats`` says of us."""
        del worker
        return {"postbacks": {"delivering_loops_max": self._places.count, "events": flower_events.counts()}}


class WakeRequest(Request):
    """A tick or a wake-up that a worker has taken.

    Mirrors ``celery.worker.request.Request``; differs in that it never expires (a beat of version 0.1.0 or
    a deployment's own schedule may give it ``expires``, which this machine's clock would judge), in that a
    cold shutdown does not cancel it: the loops are told, and end by themselves; and in that an
    acknowledgement which fails harms nobody.
    """

    def acknowledge(self) -> None:
        """Tell the broker, if that can be.

        In kombu 5.7 a message whose connection was closed meanwhile raises what no list of connection errors
        holds (``'NoneType' object has no attribute 'hostname'``), and Celery would end the worker. It carries
        nothing: taken again, it wakes once more.
        """
        try:
            super().acknowledge()
        except Exception as error:  # noqa: BLE001 - see above
            self.acknowledged = True
            log.debug("worker.not_acknowledged", str(error))

    def maybe_expire(self) -> bool:
        """Never: whenever it comes, it wakes."""
        return False

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Nothing: a thread cannot be killed, and a child is not killed in the middle of its notes."""
        del pool, signal, emit_retry


class WorkerTask(Task):
    """``deliver``'s class: what wakes a worker depends on no clock, and ends by itself when it stops."""

    abstract = True
    Request = WakeRequest
    #: Whatever a deployment gives its own tasks by ``task_default_priority``: another one is another list in Redis.
    priority = 0


class TickTask(WorkerTask):
    """``dispatch``'s class: at most one tick waits in Celery's queue, however long no worker runs."""

    abstract = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send a tick, unless one waits already.

        Mirrors ``celery.app.task.Task.apply_async``; differs in that a tick is not sent while the
        workers' queue holds anything. ``expires`` would not do: it discards a late tick only when a
        worker takes it, and by that worker's clock.
        """
        with broker_errors():
            if client().llen(keys.WORK_QUEUE):
                return self.AsyncResult(str(uuid.uuid4()))
            return super().apply_async(*args, **options)

    def go_on(self) -> None:
        """Send the next tick at once, behind the wake-ups of this one."""
        super().apply_async()


class Stopping(bootsteps.StartStopStep):
    """Tells the delivering loops of a shutdown, and makes ``revoke`` last.

    Mirrors ``celery.worker.control.revoke``; differs in cancelling in the ledger: stock Celery only
    marks an id in the memory of the workers that run at that moment.
    """

    # Started after the pool, so that its children are forked before there are threads; stopped before the pool,
    # which waits for the loops; `control shutdown` and SIGHUP send no signal.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        worker.sign_of_life = SignOfLife(keys.WORKERS, worker.hostname)
        signals.worker_shutting_down.connect(_on_shutting_down, weak=False)
        signals.worker_process_init.connect(shutdown.child_began, weak=False)
        Panel.register(
            name="revoke", type="control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]"
        )(_revoke)

    def start(self, worker: Any) -> None:
        """Serve the worker's metrics, where they are asked for: until the process ends, so that one sees it drain."""
        del worker
        _serve()

    def stop(self, worker: Any) -> None:
        """Tell the loops, however the shutdown came about; from now on this worker takes no tick."""
        shutdown.stop_claiming()
        worker.sign_of_life.withdraw()

    def terminate(self, worker: Any) -> None:
        """A cold shutdown: the loops end at once."""
        shutdown.leave()
        worker.sign_of_life.withdraw()


def _soft_shutdown(worker: Any, places: process.LoopSlots) -> None:
    """What comes before a cold shutdown: the loops finish for ``worker_soft_shutdown_timeout`` seconds.

    Mirrors ``WorkController.wait_for_soft_shutdown``; differs in that the loops are told to claim nothing
    more (Celery sends its signal only afterwards), in ending as soon as nothing is in flight, and in that
    loops which are still at it then end at once.
    """
    shutdown.stop_claiming()
    timeout_s = float(worker.app.conf.worker_soft_shutdown_timeout or 0)
    if timeout_s > 0:
        log.warning("worker.soft_shutdown", "what is open is finished", within_s=timeout_s)
        _wait_while(lambda: places.in_use() or _foreign_tasks(), timeout_s)
    shutdown.leave()
    _wait_while(places.in_use, LEAVE_WITHIN_S)


def _foreign_tasks() -> bool:
    """Whether tasks run that are a deployment's own."""
    return any(not request.name.startswith("postbacks.") for request in tuple(state.active_requests))


def _wait_while(busy: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and busy():
        time.sleep(0.05)


class Quarantine(bootsteps.StartStopStep):
    """Runs the quarantine's keeper in the worker's main process."""

    # Started after the pool has forked; stopped with it, so that the examiner has its time to finish.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._keeper = QuarantineSupervisor()

    def start(self, worker: Any) -> None:
        """Begin to look."""
        del worker
        self._keeper.start()

    def stop(self, worker: Any) -> None:
        """Let the examiner finish what it has in flight."""
        del worker
        self._keeper.stop(wait=True)

    def terminate(self, worker: Any) -> None:
        """A cold shutdown: it is told to end, and finishes by itself."""
        del worker
        self._keeper.stop(wait=False)


def _serve() -> None:
    """Serve this worker's metrics and health at its port; where that cannot be, say so and deliver all the same."""
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
            [WorkerCollector(process.shared_counts())],
            settings,
            alive=lambda: not shutdown.is_stopping(),
        )
    except BadSetting as error:
        log.warning("metrics.not_served", f"{error} Postbacks are delivered all the same.")
        return
    server.start()
    log.info("metrics.served", host=settings.metrics_host, port=server.port)


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
        flower_events.switch(on)
        if on and time.monotonic() - self._announced_s >= ANNOUNCE_EVERY_S and flower_events.announce():
            self._announced_s = time.monotonic()


class UrlPolicy(bootsteps.StartStopStep):
    """Publishes which URLs this worker sends to, for those who set accounts elsewhere."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Publish now, and from now on every few seconds: what nobody publishes any more is dropped."""
        self._publish()
        self._timer = consumer.timer.call_repeatedly(url_policy.PUBLISH_EVERY_S, self._publish)

    def stop(self, consumer: Any) -> None:
        """Stop publishing; the consumer starts anew when its connection was lost."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _publish() -> None:
        try:
            url_policy.publish()
        except BrokerError as error:
            log.debug("worker.url_policy_not_published", str(error))


class SignsOfLife(bootsteps.StartStopStep):
    """Gives this worker's signs of life while its consumer runs; ``Stopping`` withdraws them."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Give one now, and from now on every few seconds, from the loop that takes ticks."""
        sign = consumer.controller.sign_of_life
        sign.give()
        self._timer = consumer.timer.call_repeatedly(sign.every_s, sign.give)

    def stop(self, consumer: Any) -> None:
        """Give no more; the consumer starts anew when its connection was lost."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()


def _on_shutting_down(**_: Any) -> None:
    shutdown.stop_claiming()


def _revoke(state: Any, task_id: Any, *_: Any, **__: Any) -> Any:
    """Cancel postbacks by id (or list of ids)."""
    del state
    ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
    states = {one: cancel(one) for one in ids if isinstance(one, str)}
    return ok(f"postbacks {states} flagged as revoked")
