"""Records as the broker holds them, for tests of the history."""

from __future__ import annotations

import uuid
from typing import Any

from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.ledger.record import SCHEMA, Attempt
from postbacks.urls import endpoint_of

#: A time of acceptance: within an hour, so that a test may go some minutes on from it.
ACCEPTED_MS = 1_780_000_200_000


def make_document(tracking_id: str = "track-1", to: str = "15552310137", **tags: str | None) -> bytes:
    """Render a delivery receipt, with further tags; one that is None is left out."""
    event = {
        "ORIGIN": "SMS_MT",
        "CODE": "N202",
        "STATUS": "Message Sent/Delivered",
        "FROM": "28444",
        "TO": to,
        "TRACKINGID": tracking_id,
        "SPID": "0032",
        "TIMESTAMP": "2026-05-28T20:30:00+00:00",
    }
    return render(parse_event({tag: value for tag, value in (event | tags).items() if value is not None}))


def make_record(
    postback_id: str | None = None,
    *,
    state: str = "waiting",
    account: str = "acme",
    group: str = "mt",
    origin: str = "SMS_MT",
    code: str = "N202",
    url: str = "https://hooks.acme.example/postbacks",
    document: bytes | None = None,
    accepted_ms: int = ACCEPTED_MS,
    ended_ms: int | None = None,
    attempts: tuple[Attempt, ...] = (),
    begun: int | None = None,
    own: str = "0",
    **fields: Any,
) -> tuple[str, dict[bytes, bytes]]:
    """Make a record; return its id and its hash as HGETALL gives it.

    Args:
        postback_id: the id; a new one where none is given.
        document: the XML; a delivery receipt with the id as its TRACKINGID where none is given.
        attempts: those that have ended.
        begun: POSTs begun; those that have ended where none is given.
        fields: further fields of the record; one that is None is left out.
    """
    postback_id = postback_id or str(uuid.uuid4())
    texts: dict[str, Any] = {
        "schema": SCHEMA,
        "state": state,
        "account": account,
        "group": group,
        "origin": origin,
        "code": code,
        "url": url,
        "endpoint": endpoint_of(url) if url else "",
        "xml": make_document(postback_id) if document is None else document,
        "created_ms": accepted_ms,
        "sequence": accepted_ms,
        "attempts": len(attempts) if begun is None else begun,
        "failures": sum(attempt.outcome != "delivered" for attempt in attempts),
        "bytes": 1500,
        "digest": b"\x00" * 20,
        "own": own,
        "ended_ms": ended_ms,
    }
    texts |= {f"attempt:{attempt.number}": attempt.to_json() for attempt in attempts}
    texts |= fields
    return postback_id, {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in texts.items()
        if value is not None
    }


def delivered(postback_id: str | None = None, **fields: Any) -> tuple[str, dict[bytes, bytes]]:
    """Make the record of a postback that its first POST delivered."""
    accepted_ms = fields.pop("accepted_ms", ACCEPTED_MS)
    attempt = Attempt(number=1, at_ms=accepted_ms + 40, outcome="delivered", status=200, elapsed_ms=35)
    fields = {"ended_ms": accepted_ms + 80, "reason": "", "sent_ms": accepted_ms + 40} | fields
    return make_record(postback_id, state="delivered", accepted_ms=accepted_ms, attempts=(attempt,), **fields)
