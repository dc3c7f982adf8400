"""Celery's task events, one set a postback, so that Flower and ``celery events`` show each of them.

A postback is no task execution: many are taken in by one tick and delivered by one loop. So what
happens to them is told here, in Celery's own words, and sent in batches beside the work, never in its
way. While events are off a call costs one comparison.
"""

from __future__ import annotations

from postbacks.flower_events.publisher import (
    admit,
    announce,
    counts,
    flush,
    gone,
    is_on,
    noted,
    received,
    replayed,
    revoked,
    set_up,
    started,
    switch,
    unsent,
)

__all__ = [
    "admit",
    "announce",
    "counts",
    "flush",
    "gone",
    "is_on",
    "noted",
    "received",
    "replayed",
    "revoked",
    "set_up",
    "started",
    "switch",
    "unsent",
]
