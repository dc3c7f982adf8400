"""``task-sent``: what a program tells of its own calls, where ``task_send_sent_event`` is on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import redis

from postbacks import keys
from postbacks.flower_events import wire
from postbacks.flower_events.sampling import is_shown
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from postbacks.flower_events.facts import Fields

log = EventLog(__name__)

#: What Celery publishes it with (celery 5.7, ``EventDispatcher.publish``).
ROUTING_KEY: Final = "task.sent"
#: Seconds that a program believes in the level that it has read.
_BELIEVED_S: Final = 1.0
#: Seconds without sending after the broker has failed: a call must not wait for it each time.
_PAUSE_S: Final = 5.0

_level: tuple[float, int] = (-_BELIEVED_S, 0)
_pause_until_s = 0.0


def sent(client: redis.Redis, exchange: str, events: Sequence[Fields]) -> None:
    """Send what Celery says of messages that are accepted; never raises for the broker's sake.

    The share is the one in force when it was last looked up, so around its changes a postback may be told
    of as sent of which nothing else is told.
    """
    global _level, _pause_until_s  # noqa: PLW0603 - state of the process
    now_s = time.monotonic()
    if not events or now_s < _pause_until_s:
        return
    try:
        if now_s - _level[0] >= _BELIEVED_S:
            found: Any = client.hget(keys.TASK_EVENTS_METER, "level")
            _level = (now_s, int(found or 0))
        shown = [one for one in events if is_shown(one["uuid"], _level[1])]
        if shown:
            wire.publish(client, exchange, shown[0]["hostname"], shown)
    except (redis.RedisError, OSError) as error:
        _pause_until_s = now_s + _PAUSE_S
        log.warning("taskevents.dropped", str(error), postbacks=len(events))
