"""Slices of jobs: postbacks of a frozen set as the script takes them, with the documents of those that have left the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.accounts import find_account
from postbacks.accounts.routing import route
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.history.copies import read_rows, rows_of
from postbacks.history.transactions import reading
from postbacks.operate.jobs.job import FORGOTTEN, RESEND
from postbacks.operate.resend import put_back_row
from postbacks.queue.rows import MOVED, JobItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from sqlalchemy import Connection, Engine

    from postbacks.accounts import Account
    from postbacks.history.copies import Copy
    from postbacks.operate.jobs.frozen import Frozen

#: Counts under which a postback is left where it is (``job.py``, ``Counts``).
_CHANGED: Final = "changed"
_FORGOTTEN: Final = "forgotten"
_NO_DOCUMENT: Final = "no_document"
_NOWHERE: Final = "nowhere"


def prepare(
    engine: Engine,
    client: redis.Redis,
    kind: str,
    states: Sequence[str],
    account: str,
    postbacks: Sequence[Frozen],
) -> list[JobItem]:
    """Say of each postback of a slice where it is to be found, and where it cannot be moved, why.

    Args:
        engine: of the history.
        client: of the broker.
        kind: of the job.
        states: that it moves from.
        account: whose postbacks these are.
        postbacks: the slice.

    Raises:
        BrokerError, HistoryError: one of the two cannot be used.
        AccountsUnavailable: the account store failed.
    """
    pipe: Any = client.pipeline(transaction=False)
    for postback in postbacks:
        pipe.hmget(keys.record(postback.id), "schema", "own", "origin", "group", "url")
    with broker_errors():
        records = pipe.execute()
    owner = find_account(account) if account and kind == RESEND else None
    items: list[JobItem] = []
    absent: list[tuple[int, Frozen]] = []
    for postback, (record_schema, own, origin, group, url) in zip(postbacks, records, strict=True):
        if record_schema is None:
            absent.append((len(items), postback))
        verdict = MOVED
        if kind == RESEND and record_schema is not None and group:
            own_url = text(url or b"") if own in {b"1", b"2"} else None
            verdict = _verdict(owner, text(origin or b""), text(group), own_url)
        items.append(
            JobItem(postback.id, postback.accepted_ms, postback.cursor, record_schema is not None, verdict)
        )
    if absent:
        with reading(engine) as connection:
            copies = _copies(connection, [postback for _, postback in absent])
        for place, postback in absent:
            copy = copies.get((postback.id, postback.accepted_ms))
            items[place] = _of_history(items[place], states, owner, copy)
    return items


def _verdict(account: Account | None, origin: str, group: str, own_url: str | None) -> str:
    return MOVED if route(account, origin, group, own_url)[0] is not None else _NOWHERE


def _of_history(item: JobItem, states: Sequence[str], account: Account | None, copy: Copy | None) -> JobItem:
    """Complete what the script is told of a postback that the broker does not have."""
    if copy is None or copy.is_open or copy.record.forgotten_ms is not None:
        return item._replace(verdict=_FORGOTTEN)
    if copy.record.state == FORGOTTEN and FORGOTTEN not in states:
        return item._replace(verdict=_FORGOTTEN)
    if copy.record.state not in states:
        return item._replace(verdict=_CHANGED)
    if copy.no_document:
        return item._replace(verdict=_NO_DOCUMENT)
    row = put_back_row(copy, account)
    if row is None:
        return item._replace(verdict=_NOWHERE)
    return item._replace(copy=row, attempts=copy.record.attempts)


def _copies(connection: Connection, postbacks: Sequence[Frozen]) -> dict[tuple[str, int], Copy]:
    """Read what history has of postbacks, by id and time of acceptance."""
    rows: list[int] = []
    for postback in postbacks:
        rows += [postback.row_id] if postback.row_id else rows_of(connection, postback.id)
    return {(copy.record.id, copy.record.created_ms): copy for copy in read_rows(connection, rows)}
