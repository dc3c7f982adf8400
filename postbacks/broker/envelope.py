"""The envelope in which kombu's Redis transport carries a message."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any


def kombu_envelope(
    body: bytes,
    *,
    exchange: str,
    routing_key: str,
    content_type: str,
    content_encoding: str,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    delivery_mode: int,
    priority: int = 0,
) -> str:
    """Write a message as kombu puts it into Redis, field by field.

    Mirrors ``kombu.transport.virtual.Channel.prepare_message`` and ``basic_publish`` (kombu 5.7); differs in nothing
    that is sent. tests/client/test_publish.py compares the two.

    Args:
        body: the serialized body.
        exchange: name of the exchange.
        routing_key: its routing key.
        content_type: MIME type of the body.
        content_encoding: charset of the body, or ``binary``.
        headers: the message's headers.
        properties: the message's own properties, such as ``correlation_id``.
        delivery_mode: 1 transient, 2 persistent.
        priority: 0 to 9.
    """
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers,
            "properties": {
                **properties,
                "delivery_mode": delivery_mode,
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
