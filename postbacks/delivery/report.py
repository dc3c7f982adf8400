"""What the log says of an attempt: one line a failed one, one a postback that is given up, none for a delivered one."""

from __future__ import annotations

import logging
from typing import Any, Final

from postbacks.ledger.record import Attempt, iso

log = logging.getLogger(__name__)

#: State that a note has led to -> event name and level; '' is a claim that was lost.
_EVENTS: Final = {
    "parked": ("postback.failed", logging.INFO),
    "dead": ("postback.dead", logging.WARNING),
    "cancelled": ("postback.cancelled", logging.INFO),
    "": ("postback.claim_lost", logging.WARNING),
}


def report(account: str, postback_id: str, attempt: Attempt, state: str, next_ms: int) -> None:
    """Write one line, key=value, with the same facts in the record's ``extra``."""
    if state not in _EVENTS:
        return
    event, level = _EVENTS[state]
    facts: dict[str, Any] = {
        "account": account,
        "id": postback_id,
        "attempt": attempt.number,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "next_at": iso(next_ms or None),
        "detail": repr(attempt.detail),
    }
    line = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
    log.log(level, "%s %s", event, line, extra=facts)
