"""Proof of postbacks: a row an attempt, with who it is about, when it was accepted and when it was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.broker import client as broker
from postbacks.errors import BrokerError
from postbacks.history import values
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import iso
from postbacks.urls import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import redis
    from sqlalchemy import Engine

    from postbacks.history.query import Postback
    from postbacks.ledger.record import Attempt, Record
    from postbacks.privacy import Masker

#: Tags that name the person whom an event is about, by its origin.
_PERSON: Final = {"SUB": "MOBILE", "EMAIL_SUB": "EMAIL", "SMS_MO": "FROM", "MMS_MO": "FROM"}


class ProofRow(NamedTuple):
    """Attempt of a postback, with all that proves when the receiver was told of what; of one without attempts one row.

    Attributes:
        id: of the postback.
        account: the account's name.
        event: its ORIGIN and CODE.
        person: number or e-mail address of the person whom it is about; empty where its document is pruned.
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
    # Loaded where a proof is asked for: its form alone wants no SQLAlchemy.
    from postbacks.history.copies import read_rows  # noqa: PLC0415
    from postbacks.history.engine import reader  # noqa: PLC0415
    from postbacks.history.transactions import reading  # noqa: PLC0415

    with reading(engine or reader()) as connection:
        copies = read_rows(connection, [postback.row_id for postback in postbacks])
    recorded = {copy.row_id: copy for copy in copies}
    is_open = {copy.row_id for copy in copies if copy.is_open}
    live_records = _live((p for p in postbacks if p.row_id in is_open or p.row_id not in recorded), client)
    for postback in postbacks:
        record = live_records.get(postback.id)
        if record is None or record.created_ms != postback.accepted_ms:
            copy = recorded.get(postback.row_id)
            record = copy.record if copy else None
        if record is not None:  # else it has left broker and history since it was found
            yield from _rows(record.masked(mask) if mask else record, now_ms)


def _live(postbacks: Iterable[Postback], client: redis.Redis | None) -> dict[str, Record]:
    ids = [postback.id for postback in postbacks]
    if not ids:
        return {}
    try:
        records = Ledger(client or broker.client()).find_many(ids)
    except BrokerError:
        return {}
    return {postback_id: record for postback_id, record in records.items() if record is not None}


def _rows(record: Record, now_ms: int) -> Iterator[ProofRow]:
    attempts: tuple[Attempt | None, ...] = record.attempts or (None,)
    delivered_ms = record.ended_ms if record.state == states.DELIVERED else None
    for attempt in attempts:
        yield ProofRow(
            id=record.id,
            account=record.account,
            event=f"{record.origin} {record.code}".strip(),
            person=values.read_tags(record.xml).get(_PERSON.get(record.origin, "TO"), ""),
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
