"""How events travel: one PUBLISH carries many, in kombu's envelope, to the exchange that Flower listens to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from postbacks.broker.envelope import kombu_envelope
from postbacks.flower_events.facts import Fields

if TYPE_CHECKING:
    import redis

#: Events that one command carries: about 200 kilobytes.
BATCH: Final = 500
#: Celery's routing key of a list of task events (celery 5.7, ``EventDispatcher.flush``).
_ROUTING_KEY: Final = "task.multi"


def publish(client: redis.Redis, exchange: str, hostname: str, events: Sequence[Fields]) -> None:
    """Send events; nobody need listen.

    Mirrors ``celery.events.dispatcher.EventDispatcher.flush`` and what kombu's Redis transport does with
    a fanout exchange; differs in sending more of them at a time, over the pooled connections of ours.

    Args:
        client: of the broker.
        exchange: name of the event exchange (Celery's ``event_exchange``).
        hostname: node name of the worker that the events are shown at; each event's own goes before.
        events: as ``facts.event`` makes them.

    Raises:
        redis.RedisError: some of them may have been sent.
    """
    shared = {"hostname": hostname, "utcoffset": _utc_offset_h(), "pid": os.getpid()}
    topic = f"/{_database(client)}.{exchange}/{_ROUTING_KEY}"
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
        client.publish(topic, envelope)


@cache
def _database(client: redis.Redis) -> int:
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def _utc_offset_h() -> int:
    """What Celery's events say of the clock: hours behind UTC (celery 5.7, ``celery.utils.time.utcoffset``)."""
    return (time.altzone if time.localtime().tm_isdst else time.timezone) // 3600
