"""Task events that a program publishes of what it does itself: send, cancel and resend postbacks."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Final

import redis

from postbacks import keys
from postbacks.broker.client import client, text
from postbacks.errors import BrokerError
from postbacks.flower_events import wire
from postbacks.flower_events.events import REVOKED, TaskEvent, args_of, task_event
from postbacks.flower_events.sampling import is_in_share
from postbacks.logs import EventLog
from postbacks.settings import load

log = EventLog(__name__)

#: Celery's routing key of ``task-sent`` (celery 5.7, ``EventDispatcher.publish``).
ROUTING_KEY: Final = "task.sent"
#: Seconds without publishing after the broker has failed: a call must not wait for it each time.
_PAUSE_S: Final = 5.0

_paused_until_s = 0.0


def sent(broker: redis.Redis, exchange: str, events: Sequence[TaskEvent]) -> None:
    """Publish ``task-sent`` of messages that are in the queue, where Celery's ``task_send_sent_event`` is on.

    Only of the share: a program knows of no other postback whether Flower will be shown its end. Never raises for the
    broker's sake.

    Args:
        broker: where to.
        exchange: Celery's ``event_exchange``.
        events: as Celery makes them.
    """
    global _paused_until_s  # noqa: PLW0603 - state of the process
    if not events or time.monotonic() < _paused_until_s:
        return
    share = load().flower_share
    in_share = [event for event in events if is_in_share(event["uuid"], share)]
    if not in_share:
        return
    try:
        wire.publish(broker, exchange, in_share[0]["hostname"], in_share)
    except (redis.RedisError, OSError) as error:
        _paused_until_s = time.monotonic() + _PAUSE_S
        log.warning("taskevents.dropped", str(error), postbacks=len(in_share))


def revoked(postback_id: str) -> None:
    """Publish that a postback was cancelled, while workers publish events."""
    _publish_one("revoked", postback_id, REVOKED)


def resent(postback_id: str) -> None:
    """Publish that a dead postback is sent again by hand: like one that waits for its resend."""
    _publish_one("retried", postback_id, {"exception": "sent again by hand", "traceback": ""})


def _publish_one(kind: str, postback_id: str, more: TaskEvent) -> None:
    try:
        broker = client()
        pipe = broker.pipeline(transaction=False)
        pipe.get(keys.TASK_EVENTS_ON)
        pipe.hmget(keys.record(postback_id), "account", "origin", "code", "failures")
        announced, fields = pipe.execute()
        if not announced:
            return
        # The event bears a worker's name: Flower would take the program's for one more worker.
        address = json.loads(announced)
        account, origin, code, failures = (text(field or b"") for field in fields)
        args = args_of(account, origin, code)
        event = task_event(kind, time.time(), postback_id, args, int(failures or 0), **more)
        wire.publish(broker, address["exchange"], address["hostname"], [event])
    except (redis.RedisError, OSError, BrokerError, ValueError) as error:
        log.warning("taskevents.dropped", str(error), postbacks=1)
