"""The Celery result backend that tells the truth: it reads the ledger and stores nothing.

``AsyncResult.state`` and ``.get()`` of a postback come from its record. Celery's meta wants an
exception as the result of RETRY and FAILURE; ``errors.DeliveryError`` carries the facts.
"""

from __future__ import annotations

from typing import Any

from celery import states as celery_states
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError

from postbacks.broker import client
from postbacks.errors import PostbackDead, PostbackFailed, PostbackSkipped, UnsupportedOption
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import Record, iso


def info_of(record: Record) -> dict[str, Any]:
    """What ``AsyncResult.info`` says of a postback that did not fail."""
    last = record.attempts[-1] if record.attempts else None
    return {
        "account": record.account,
        "origin": record.origin,
        "code": record.code,
        "outcome": last.outcome if last else None,
        "status": last.status if last else None,
        "attempts": len(record.attempts),
        "next_at": iso(record.next_ms),
    }


def meta_of(postback_id: str, record: Record | None) -> dict[str, Any]:
    """Celery's result meta for a record; an id that the ledger does not have yet is PENDING."""
    meta: dict[str, Any] = {
        "task_id": postback_id,
        "status": celery_states.PENDING,
        "result": None,
        "traceback": None,
        "children": [],
    }
    if record is None:
        return meta
    status = states.CELERY_STATES[record.state]
    last = record.attempts[-1] if record.attempts else None
    name = f"Postback {record.id} ({record.account} {record.origin} {record.code})"
    facts = (
        last.outcome if last else record.reason or None,
        last.status if last else None,
        len(record.attempts),
        iso(record.next_ms),
    )
    result: object = info_of(record)
    if record.state == states.WAITING and record.failures and last is not None:
        status = celery_states.RETRY  # on its way to the next attempt
        result = PostbackFailed(f"{name}: attempt {last.number} failed; it is sent again now", *facts)
    elif record.state == states.PARKED and last is None:
        status = celery_states.PENDING  # the caller's own countdown: nothing has been tried yet
    elif record.state == states.PARKED and last is not None:
        words = last.detail or last.outcome
        result = PostbackFailed(
            f"{name}: attempt {last.number} failed: {words}; sent again at {facts[3]}", *facts
        )
    elif record.state == states.DEAD:
        words = (
            f"after {len(record.attempts)} attempts: {last.detail or last.outcome}" if last else record.reason
        )
        result = PostbackDead(f"{name} is dead: {words}", *facts)
    elif record.state == states.SKIPPED:
        result = PostbackSkipped(f"{name} was skipped: {record.reason}", *facts)
    elif record.state == states.CANCELLED:
        result = TaskRevokedError("revoked")
    meta["status"], meta["result"] = status, result
    if record.ended_ms is not None:
        meta["date_done"] = iso(record.ended_ms)
    return meta


class LedgerBackend(BaseBackend):
    """Reads results from the ledger. Mirrors ``celery.backends.base.BaseBackend``; differs in storing nothing."""

    persistent = True
    supports_native_join = False
    supports_autoexpire = True

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return meta_of(task_id, Ledger(client()).find(task_id))

    def store_result(self, task_id: str, result: Any, *_: Any, **__: Any) -> Any:
        """Store nothing: only deliveries decide what a postback's state is."""
        del task_id
        return result

    def _forget(self, task_id: str) -> None:
        raise UnsupportedOption(
            f"Postback {task_id} cannot be forgotten: the ledger keeps it for its retention."
        )

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Refuse: a postback may take half an hour, a chord is no place to wait for it."""
        del result
        raise UnsupportedOption(f"Postbacks cannot be part of a chord ({chord_id}).")

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """Do nothing: no task of ours is part of a chord."""

    def apply_chord(self, *_: Any, **__: Any) -> None:
        """Refuse: see ``add_to_chord``."""
        raise UnsupportedOption("Postbacks cannot be part of a chord.")

    def cleanup(self) -> None:
        """Do nothing: the tick drops records past their retention."""
