"""Reasons of a record in words: why a postback has not been delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.accounts import routing
from postbacks.ledger.record import iso
from postbacks.privacy.masker import KEYLESS

if TYPE_CHECKING:
    from postbacks.ledger.record import Record


def forgotten_words(record: Record) -> str:
    """Say as a clause that and since when a postback has no document, as a person was to be forgotten; empty where it has."""
    if record.forgotten_ms is None:
        return ""
    return f"its document was forgotten on {(iso(record.forgotten_ms) or '')[:10]} (postbacks forget)"


def reason_of(record: Record, *, reveal: bool = False) -> str:
    """Say in words why a postback has not been delivered; empty where there is no more to say.

    The words may quote what a receiver has answered: print them by ``printable``.

    Args:
        record: of the postback.
        reveal: True to keep what is personal in them.
    """
    reason, last = record.reason, record.attempts[-1] if record.attempts else None
    if last is not None and record.ended_by_attempt:
        return (last.detail if reveal else KEYLESS.words(last.detail)) or last.outcome
    if record.is_stub:
        return routing.STUB_WORDS
    return routing.reason_words(reason if reveal else KEYLESS.reason(reason), record.origin)
