"""Celery's messages as they stand in the queue, for what no client of ours would send."""

from __future__ import annotations

import base64
import json
from typing import Any

from events import EVENT

from postbacks import keys

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def body_of(args: Any = ("acme", EVENT), kwargs: Any = None, embed: Any = EMBED) -> bytes:
    """Make the body of a message of Celery's protocol 2."""
    return json.dumps([args, kwargs or {}, embed]).encode()


def message(
    body: bytes | None = None,
    *,
    properties: dict[str, Any] | None = None,
    content_type: str = "application/json",
    **headers: Any,
) -> bytes:
    """Make a message as kombu puts it into a Redis list."""
    headers = {
        "lang": "py", "task": "postbacks.send_postback", "id": "id-1", "eta": None, "expires": None,
    } | headers  # fmt: skip
    sent_properties = {
        "correlation_id": headers["id"], "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
        "delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": keys.QUEUE},
    }  # fmt: skip
    return json.dumps({
        "body": base64.b64encode(body_of() if body is None else body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": headers,
        "properties": sent_properties if properties is None else properties,
    }).encode()  # fmt: skip
