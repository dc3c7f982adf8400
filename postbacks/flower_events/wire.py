"""Publishing of task events: one PUBLISH carries many, to the exchange that Flower listens to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from postbacks.broker.client import client_for
from postbacks.broker.envelope import kombu_envelope
from postbacks.settings import load

if TYPE_CHECKING:
    import redis

    from postbacks.flower_events.events import TaskEvent

#: Events that one command carries: about 200 kilobytes.
BATCH: Final = 500
#: Celery's routing key of a list of task events (celery 5.7, ``EventDispatcher.flush``).
_ROUTING_KEY: Final = "task.multi"
#: Seconds that the broker may take to answer a worker's thread, or the setting's time-out if less.
TIMEOUT_S: Final = 1.0


def broker() -> redis.Redis:
    """Return the client that a worker publishes by."""
    settings = load()
    return client_for(settings.broker_url, min(TIMEOUT_S, settings.broker_timeout_s))


def publish(client: redis.Redis, exchange: str, hostname: str, events: Sequence[TaskEvent]) -> None:
    """Publish events, whether anybody listens or not.

    Mirrors ``celery.events.dispatcher.EventDispatcher.flush`` and what kombu's Redis transport does with
    a fanout exchange; differs in carrying more of them at a time, over our pooled connections.

    Args:
        client: of the broker.
        exchange: name of the event exchange (Celery's ``event_exchange``).
        hostname: node name of the worker that the events are shown at; an event's own goes before.
        events: as ``events.task_event`` makes them.

    Raises:
        redis.RedisError: some of them may have been published.
    """
    shared = {"hostname": hostname, "utcoffset": _utc_offset_h(), "pid": os.getpid()}
    channel = f"/{_database(client)}.{exchange}/{_ROUTING_KEY}"
    for at in range(0, len(events), BATCH):
        body = json.dumps([shared | event for event in events[at : at + BATCH]])
        envelope = kombu_envelope(
            body.encode(),
            exchange=exchange,
            routing_key=_ROUTING_KEY,
            content_type="application/json",
            content_encoding="utf-8",
            headers={"hostname": hostname},
            properties={},
            delivery_mode=1,
        )
        client.publish(channel, envelope)


@cache
def _database(client: redis.Redis) -> int:
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def _utc_offset_h() -> int:
    """Return the hours behind UTC, as Celery's events have them (celery 5.7, ``celery.utils.time.utcoffset``)."""
    return (time.altzone if time.localtime().tm_isdst else time.timezone) // 3600
