"""The Celery app of postbacks and its built-in configuration, complete by itself.

It is an app of its own: it is not made the current one, its tasks stay out of other apps' registries,
and none of its queues is called ``celery``. A program that imports ``postbacks`` keeps its own app as
it was. The configuration is read when it is first used, so the environment may be set until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from celery import Celery
from celery.loaders.app import AppLoader
from kombu.entity import Queue

from postbacks import keys, sentinel
from postbacks.broker import kombu_url
from postbacks.queue.message import MAPS
from postbacks.refusals import refuse_map
from postbacks.settings import load

SEND_POSTBACK: Final = "postbacks.send_postback"
DISPATCH: Final = "postbacks.dispatch"
DELIVER: Final = "postbacks.deliver"

#: Seconds between two ticks. The promise: postbacks leave within the second.
TICK_EVERY_S: Final = 1.0

#: Beat's schedule: the tick. It has no ``expires``, which a worker would judge by its own clock.
BEAT_SCHEDULE: Final = {DISPATCH: {"task": DISPATCH, "schedule": TICK_EVERY_S}}


def _defaults() -> dict[str, Any]:
    settings = load()
    url = settings.broker_url
    of_sentinel = sentinel.kombu_options(url, settings.broker_timeout_s) if sentinel.is_sentinel(url) else {}
    return {
        "broker_url": kombu_url(url),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker waits for its broker as long as it takes
        # A broker that turns read-only (a failover) answers with an error that kombu counts to the
        # channel's: without this it would end the worker.
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            # Without these a frozen broker would hold .delay() and the workers for ever.
            "socket_timeout": settings.broker_timeout_s,
            "socket_connect_timeout": settings.broker_timeout_s,
            "socket_keepalive": True,
            # kombu drops a half-open connection, on which BRPOP waits for ever, after 1 s and two of
            # these: by default 51 s in which a worker takes no tick.
            "health_check_interval": max(1, round(settings.broker_timeout_s)),
            **of_sentinel,
        },
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        # Of our own: on a shared database another app's `control shutdown` or `revoke` would reach us.
        "control_exchange": "postbacks.control",
        "event_exchange": "postbacks.events",
        "result_backend": "postbacks.ledger.backend:LedgerBackend",
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "task_default_queue": keys.WORK_QUEUE,
        "task_queues": [Queue(keys.WORK_QUEUE, routing_key=keys.WORK_QUEUE)],
        "task_routes": {SEND_POSTBACK: {"queue": keys.QUEUE}},
        "beat_schedule": BEAT_SCHEDULE,
        # In memory: the persistent scheduler's file would have to be written somewhere, and a tick
        # needs no memory. Steady: Celery's own falls silent for an hour when its clock is put back by one.
        "beat_scheduler": "postbacks.beat:SteadyScheduler",
        "beat_max_loop_interval": TICK_EVERY_S,
        "worker_pool": "threads",
        "worker_consumer": "postbacks.consumer:SteadyConsumer",
        "worker_concurrency": 4,  # one delivers, one may finish the slice before, the others tick
        "worker_prefetch_multiplier": 1,
        # Ticks and wake-ups are not tied to the connection that they came by.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # dispatch and deliver only wake: the truth is in the lanes, so losing one does no harm.
        "task_acks_late": False,
    }


class _Loader(AppLoader):
    """Reads no configuration by itself.

    Mirrors ``celery.loaders.base.BaseLoader``; differs in leaving ``CELERY_CONFIG_MODULE`` alone: in a
    program that only imports us it names the configuration of that program's own app.
    """

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> dict[str, Any]:
        del env
        return {}


class PostbacksApp(Celery):
    """Mirrors ``celery.Celery``; differs in what ``send_task`` does with postbacks."""

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *, task_type: Any = None, **options: Any
    ) -> Any:
        """Send a task by its name; a postback is checked and sent as by ``send_postback.apply_async``.

        Every message that our app sends comes by here, so Celery's own tasks that would call ``send_postback`` as a
        function inside a worker are refused here, whoever made them.
        """
        if name in MAPS and _is_postback((kwargs or {}).get("task", next(iter(args or ()), None))):
            return self._send_map(name, (kwargs or {}).get("it", ()), options.get("task_id"))
        if name == SEND_POSTBACK and task_type is None:
            options.pop("result_cls", None)
            return self.tasks[name].apply_async(args, kwargs, **options)
        return super().send_task(name, args, kwargs, task_type=task_type, **options)

    def _send_map(self, name: str, items: Iterable[Any], task_id: str | None) -> Any:
        """Refuse in the caller; in our worker, which runs another app's ``celery.chunks``, send each as a postback."""
        task = self.current_worker_task
        if task is None or task.name not in MAPS:
            refuse_map(name)
        for item in items:
            self.tasks[SEND_POSTBACK].send_unchecked(item, {})
        return self.AsyncResult(task_id)


def _is_postback(signature: Any) -> bool:
    return isinstance(signature, Mapping) and signature.get("task") == SEND_POSTBACK


#: The app. ``celery -A postbacks`` finds it through ``postbacks/celery.py``.
app = PostbacksApp(
    "postbacks",
    set_as_current=False,
    loader=_Loader,
    control="postbacks.control:PostbackControl",
    amqp="postbacks.queue.amqp:PostbackAmqp",
)
app.add_defaults(_defaults)
