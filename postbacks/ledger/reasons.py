"""Reasons of a record in words: why a postback has not been delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.accounts import routing
from postbacks.ledger.record import iso

if TYPE_CHECKING:
    from postbacks.ledger.record import Record


def forgotten_words(record: Record) -> str:
    """Say as a clause that and since when a postback has no document, as a person was to be forgotten; empty where it has."""
    if record.forgotten_ms is None:
        return ""
    return f"its document was forgotten on {(iso(record.forgotten_ms) or '')[:10]} (postbacks forget)"


def reason_of(record: Record) -> str:
    """Say in words why a postback has not been delivered; empty where there is no more to say.

    The words may quote what a receiver has answered: print them by ``printable``.
    """
    if record.ended_by_attempt:
        last = record.attempts[-1]
        return last.detail or last.outcome
    if record.is_stub:
        return routing.STUB_WORDS
    return routing.reason_words(record.reason, record.origin)
