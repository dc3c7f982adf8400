"""What our worker does differently from a stock Celery worker: start checks, stopping, revoking.

Bootsteps belong to our app alone: a program that imports ``postbacks`` and runs a worker of its own
app is not touched.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from celery import bootsteps, signals
from celery.worker.control import Panel, ok

from postbacks.broker import check
from postbacks.control import cancel
from postbacks.delivery import process
from postbacks.delivery.quarantine import Keeper
from postbacks.errors import BadSetting, BrokerUnfit, BrokerUnreachable
from postbacks.logs import EventLog
from postbacks.settings import load, unknown_names

log = EventLog(__name__)


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
        self._places = process.Places(loops)
        process.set_places(self._places)

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

    # Started after the pool, so that its children are forked before there are threads; stopped before the pool,
    # which waits for the loops; `control shutdown` and SIGHUP send no signal.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        signals.worker_shutting_down.connect(_on_shutting_down, weak=False)
        Panel.register(
            name="revoke", type="control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]"
        )(_revoke)

    def start(self, worker: Any) -> None:
        """Serve the worker's metrics, where they are asked for: until the process ends, so that one sees it drain."""
        del worker
        _serve()

    def stop(self, worker: Any) -> None:
        """Tell the loops, however the shutdown came about."""
        del worker
        process.stop_claiming()

    def terminate(self, worker: Any) -> None:
        """The same on a cold shutdown."""
        self.stop(worker)


class Quarantine(bootsteps.StartStopStep):
    """Runs the quarantine's keeper in the worker's main process."""

    # Started after the pool has forked; stopped with it, so that the examiner has its time to finish.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._keeper = Keeper()

    def start(self, worker: Any) -> None:
        """Begin to look."""
        del worker
        self._keeper.start()

    def stop(self, worker: Any) -> None:
        """Let the examiner finish what it has in flight."""
        del worker
        self._keeper.stop()

    def terminate(self, worker: Any) -> None:
        """The same on a cold shutdown."""
        self.stop(worker)


def _serve() -> None:
    """Serve this worker's metrics and health at its port; where that cannot be, say so and deliver all the same."""
    settings = load()
    if not settings.metrics_port:
        return
    # Loaded only where it is asked for.
    from postbacks.monitor.own import WorkerCollector  # noqa: PLC0415
    from postbacks.monitor.server import MonitorServer  # noqa: PLC0415

    try:
        server = MonitorServer(
            settings.metrics_host,
            settings.metrics_port,
            [WorkerCollector(process.shared_counts())],
            settings,
            alive=lambda: not process.is_stopping(),
        )
    except BadSetting as error:
        log.warning("metrics.not_served", f"{error} Postbacks are delivered all the same.")
        return
    server.start()
    log.info("metrics.served", host=settings.metrics_host, port=server.port)


def _on_shutting_down(**_: Any) -> None:
    process.stop_claiming()


def _revoke(state: Any, task_id: Any, *_: Any, **__: Any) -> Any:
    """Cancel postbacks by id (or list of ids)."""
    del state
    ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
    states = {one: cancel(one) for one in ids if isinstance(one, str)}
    return ok(f"postbacks {states} flagged as revoked")
