"""What the log says of an attempt: one line a failed one, one a postback that is given up, none for a delivered one."""

from __future__ import annotations

from collections.abc import Sequence

from postbacks.flower_events import events as task_events
from postbacks.flower_events.publisher import publisher
from postbacks.ledger.record import Attempt, iso
from postbacks.logs import EventLog

log = EventLog(__name__)


def report(account: str, postback_id: str, attempt: Attempt, state: str, next_ms: int) -> None:
    """Write one line about an attempt that is noted, by the state that it led to ('' is a lost claim)."""
    if state == "delivered":
        return
    facts = {
        "account": account,
        "id": postback_id,
        "attempt": attempt.number,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "next_at": iso(next_ms or None),
        "elapsed_ms": attempt.elapsed_ms,
    }
    if state == "parked":
        log.info("postback.failed", attempt.detail, **facts)
    elif state == "dead":
        log.warning("postback.dead", attempt.detail, **facts)
    elif state == "cancelled":
        log.info("postback.cancelled", attempt.detail, **facts)
    elif not state:
        log.warning("postback.claim_lost", attempt.detail, **facts)


def report_unsent(rows: Sequence[Sequence[bytes]]) -> None:
    """Write one line about each postback that ended unsent (``ended`` of ``claim.lua``)."""
    texts = [[field.decode() for field in row] for row in rows]
    for postback_id, account, _, _, state, reason in texts:
        if state == "skipped":
            log.info("postback.skipped", account=account, id=postback_id, reason=reason)
        else:
            log.warning("postback.dead", account=account, id=postback_id, reason=reason)
    publisher.add(task_events.ended_unsent, texts)
