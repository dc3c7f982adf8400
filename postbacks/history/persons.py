"""Persons of postbacks that a search has found, read from their documents in the history, or in the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.broker import client as broker
from postbacks.errors import BrokerError
from postbacks.history import values
from postbacks.ledger.ledger import Ledger
from postbacks.privacy.tags import tag_of_person

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import redis
    from sqlalchemy import Engine

    from postbacks.history.copies import Copy
    from postbacks.history.query import Postback
    from postbacks.ledger.record import Record
    from postbacks.privacy import Masker

#: Postbacks whose documents are in memory at a time.
_PAGE: Final = 500


def person_of(record: Record, mask: Masker | None) -> str:
    """Return the number or address of the person whom a postback is about, or what its maker calls the holder of a pass.

    Args:
        record: of the postback; of one without its document the person is not known, and empty.
        mask: masks the person; None reveals it.
    """
    tag = tag_of_person(record.origin)
    person = values.read_tags(record.xml).get(tag, "")
    return mask.value(tag, person) if mask else person


def records_of(
    postbacks: Sequence[Postback], *, client: redis.Redis | None = None, engine: Engine | None = None
) -> Iterator[Record | None]:
    """Yield the record of each postback, its document included; of one without an end as the broker has it.

    Args:
        postbacks: as a search has found them; the history is not asked for those that the broker alone has found.
        client: of the broker; without it the one of the settings.
        engine: of the history; without it the one of the settings.

    Yields:
        The record; None of one that has left broker and history since it was found.

    Raises:
        HistoryError: the history cannot be used.
    """
    for first in range(0, len(postbacks), _PAGE):
        page = postbacks[first : first + _PAGE]
        copies = {copy.row_id: copy for copy in _copies(page, engine)}
        live = _live((p for p in page if p.row_id not in copies or copies[p.row_id].is_open), client)
        for postback in page:
            record = live.get(postback.id)
            if record is None or record.created_ms != postback.accepted_ms:
                copy = copies.get(postback.row_id)
                record = copy.record if copy else None
            yield record


def _copies(postbacks: Sequence[Postback], engine: Engine | None) -> Sequence[Copy]:
    row_ids = [postback.row_id for postback in postbacks if postback.row_id]
    if not row_ids:
        return ()
    # Loaded only here: without a history there is no SQLAlchemy.
    from postbacks.history.copies import read_rows  # noqa: PLC0415
    from postbacks.history.engine import reader  # noqa: PLC0415
    from postbacks.history.transactions import reading  # noqa: PLC0415

    with reading(engine or reader()) as connection:
        return read_rows(connection, row_ids)


def _live(postbacks: Iterable[Postback], client: redis.Redis | None) -> dict[str, Record]:
    ids = [postback.id for postback in postbacks]
    if not ids:
        return {}
    try:
        records = Ledger(client or broker.client()).find_many(ids)
    except BrokerError:
        return {}
    return {postback_id: record for postback_id, record in records.items() if record is not None}
