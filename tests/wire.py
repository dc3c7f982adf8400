"""Task events as they travel to Flower."""

from __future__ import annotations

import base64
import json
import threading
from collections import defaultdict
from typing import Any

import redis
from helpers import eventually

from postbacks.devtools.embedded_broker import EmbeddedBroker


class Wire:
    """Every event as it travels, by the id of its postback."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.raw: list[str] = []
        self.of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        # a subscriber may wait for its next message for ever
        self._pubsub = broker.client(timeout_s=None).pubsub()
        self._pubsub.psubscribe("/0.postbacks.events/*")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for message in self._pubsub.listen():
                if message["type"] != "pmessage":
                    continue
                body = base64.b64decode(json.loads(message["data"])["body"]).decode()
                self.raw.append(body)
                events = json.loads(body)
                for event in events if isinstance(events, list) else [events]:
                    if event["type"].startswith("task-"):
                        self.of[event["uuid"]].append(event)
        except (redis.RedisError, OSError, ValueError):
            pass  # closed

    def events_of(self, postback_id: str) -> list[dict[str, Any]]:
        """Return the events of a postback by their times: two processes may publish theirs the other way round.

        Celery's state of a task goes by what has most weight, so Flower shows the same.
        """
        return sorted(self.of.get(postback_id, []), key=lambda event: event["timestamp"])

    def kinds(self, postback_id: str) -> list[str]:
        """Return the kinds of a postback's events, in order."""
        return [event["type"].removeprefix("task-") for event in self.events_of(postback_id)]

    def wait(self, postback_id: str, *kinds: str) -> list[dict[str, Any]]:
        """Return the events of a postback, once there are these and no others."""
        eventually(lambda: self.kinds(postback_id) == list(kinds), what=f"{kinds} of {postback_id}")
        return self.events_of(postback_id)

    def close(self) -> None:
        """Stop listening."""
        self._pubsub.close()
