"""The Celery app of postbacks and its built-in configuration, complete by itself.

It is an app of its own: it is not made the current one, its tasks stay out of other apps' registries,
and none of its queues is called ``celery``. A program that imports ``postbacks`` keeps its own app as
it was. The configuration is read when it is first used, so the environment may be set until then.
"""

from __future__ import annotations

from typing import Any, Final

from kombu.entity import Queue

from postbacks import keys
from postbacks.broker.client import kombu_options, kombu_url
from postbacks.celeryext.app import PostbackApp
from postbacks.settings import load

SEND_POSTBACK: Final = "postbacks.send_postback"
DISPATCH: Final = "postbacks.dispatch"
DELIVER: Final = "postbacks.deliver"

#: Seconds between two ticks. The promise: postbacks leave within the second.
TICK_EVERY_S: Final = 1.0

#: Beat's schedule: the tick. It has no ``expires``, which a worker would judge by its own clock.
BEAT_SCHEDULE: Final = {DISPATCH: {"task": DISPATCH, "schedule": TICK_EVERY_S}}

#: The queue of each task, which no setting of a deployment changes.
ROUTES: Final = {
    SEND_POSTBACK: {"queue": keys.QUEUE},
    DISPATCH: {"queue": keys.WORK_QUEUE},
    DELIVER: {"queue": keys.WORK_QUEUE},
}


def _defaults() -> dict[str, Any]:
    settings = load()
    url = settings.broker_url
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
            **kombu_options(url, settings.broker_timeout_s),
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
        "result_backend": "postbacks.celeryext.result_backend:LedgerBackend",
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "task_default_queue": keys.WORK_QUEUE,
        "task_queues": [Queue(keys.WORK_QUEUE, routing_key=keys.WORK_QUEUE)],
        "task_routes": ROUTES,
        "beat_schedule": BEAT_SCHEDULE,
        # In memory: the persistent scheduler's file would have to be written somewhere, and a tick
        # needs no memory. Steady: Celery's own falls silent for an hour when its clock is put back by one.
        "beat_scheduler": "postbacks.celeryext.beat:SteadyScheduler",
        "beat_max_loop_interval": TICK_EVERY_S,
        "worker_pool": "threads",
        "worker_consumer": "postbacks.celeryext.consumer:SteadyConsumer",
        "worker_concurrency": 4,  # one delivers, one may finish the slice before, the others tick
        "worker_prefetch_multiplier": 1,
        # Ticks and wake-ups are not tied to the connection that they came by.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # dispatch and deliver only wake: the truth is in the lanes, so losing one does no harm.
        "task_acks_late": False,
    }


#: The app. ``celery -A postbacks`` finds it through ``postbacks/celery.py``.
app = PostbackApp(
    "postbacks",
    set_as_current=False,
    control="postbacks.celeryext.control:PostbackControl",
    amqp="postbacks.celeryext.amqp:PostbackAmqp",
)
app.add_defaults(_defaults)
