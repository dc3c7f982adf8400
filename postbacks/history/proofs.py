"""Proof of postbacks: a row an attempt, with who it is about, when it was accepted and when it was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from postbacks.history.persons import person_of, records_of
from postbacks.ledger import states
from postbacks.ledger.record import iso
from postbacks.urls import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from sqlalchemy import Engine

    from postbacks.history.query import Postback
    from postbacks.ledger.record import Attempt, Record
    from postbacks.privacy import Masker


class ProofRow(NamedTuple):
    """Attempt of a postback, with all that proves when the receiver was told of what; of one without attempts one row.

    Attributes:
        id: of the postback.
        account: the account's name.
        event: its ORIGIN and CODE.
        person: whom it is about (``persons.py``); empty where its document is pruned.
        accepted: when it was accepted; this and all other times in UTC.
        state: by now.
        reason: why it was not delivered.
        attempt: number of the attempt; None where no POST has begun.
        sent: when its POST began.
        outcome: what came of it.
        status: HTTP status of the answer.
        elapsed_ms: from the begin of the POST to its outcome.
        detail: the outcome in words.
        url: where it went, without password.
        delivered: when it was delivered.
        age_s: seconds from the acceptance to the delivery, or to now.
    """

    id: str
    account: str
    event: str
    person: str
    accepted: str | None
    state: str
    reason: str
    attempt: int | None
    sent: str | None
    outcome: str
    status: int | None
    elapsed_ms: int | None
    detail: str
    url: str
    delivered: str | None
    age_s: int


def age_ms(postback: Postback, now_ms: int) -> int:
    """Return the time from a postback's acceptance to its delivery, or to now."""
    until_ms = postback.ended_ms if postback.state == states.DELIVERED else None
    return max(0, (now_ms if until_ms is None else until_ms) - postback.accepted_ms)


def proof_of(
    postbacks: Sequence[Postback],
    now_ms: int,
    mask: Masker | None,
    *,
    client: redis.Redis | None = None,
    engine: Engine | None = None,
) -> Iterator[ProofRow]:
    """Yield the proof of postbacks that a search has found, those without an end as the broker has them.

    Args:
        postbacks: of a page.
        now_ms: until when an undelivered one is counted.
        mask: masks what is personal; None reveals it.
        client: of the broker; without it the one of the settings.
        engine: of the history; without it the one of the settings.
    """
    for record in records_of(postbacks, client=client, engine=engine):
        if record is not None:
            person = person_of(record, mask)
            yield from _rows(record.masked(mask) if mask else record, person, now_ms)


def _rows(record: Record, person: str, now_ms: int) -> Iterator[ProofRow]:
    attempts: tuple[Attempt | None, ...] = record.attempts or (None,)
    delivered_ms = record.ended_ms if record.state == states.DELIVERED else None
    for attempt in attempts:
        yield ProofRow(
            id=record.id,
            account=record.account,
            event=f"{record.origin} {record.code}".strip(),
            person=person,
            accepted=iso(record.created_ms),
            state=record.state,
            reason=record.reason,
            attempt=attempt.number if attempt else None,
            sent=iso(attempt.at_ms) if attempt else None,
            outcome=attempt.outcome if attempt else "",
            status=attempt.status if attempt else None,
            elapsed_ms=attempt.elapsed_ms if attempt else None,
            detail=attempt.detail if attempt else "",
            url=redacted(record.url) if record.url else "",
            delivered=iso(delivered_ms),
            age_s=max(0, (now_ms if delivered_ms is None else delivered_ms) - record.created_ms) // 1000,
        )
