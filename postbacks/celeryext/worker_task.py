"""Base classes of ``dispatch`` and ``deliver``, whose messages wake workers and carry nothing."""

from __future__ import annotations

import uuid
from typing import Any

from celery import Task

from postbacks import keys


class WorkerTask(Task):
    """Base of ``deliver``: a wake-up depends on no clock, and ends by itself when its worker stops.

    Mirrors ``celery.app.task.Task``; differs in the request that a worker makes of its message.
    """

    abstract = True
    #: By name, as Celery's own: only a worker loads it.
    Request = "postbacks.celeryext.request:WakeRequest"
    #: The same whatever a deployment gives its own tasks by ``task_default_priority``: another is another list in Redis.
    priority = 0


class TickTask(WorkerTask):
    """Base of ``dispatch``: at most one tick waits in Celery's queue, however long no worker runs."""

    abstract = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send a tick, unless one waits already.

        Mirrors ``celery.app.task.Task.apply_async``; differs in that a tick is not sent while the
        workers' queue holds anything. ``expires`` would not do: it discards a late tick only when a
        worker takes it, and by that worker's clock.
        """
        from postbacks.broker.client import client  # noqa: PLC0415 - beat calls, not an application
        from postbacks.broker.errors import broker_errors  # noqa: PLC0415 - as above

        with broker_errors():
            if client().llen(keys.WORK_QUEUE):
                return self.AsyncResult(str(uuid.uuid4()))
            return super().apply_async(*args, **options)

    def enqueue_next(self) -> None:
        """Send the next tick at once, behind the wake-ups of this one."""
        super().apply_async()
