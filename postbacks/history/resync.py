"""Resync: closes what the feed does not tell, from the records that are still there.

First all records of the broker are read, in pages. Then the rows that history has open: one whose record has left the
broker meanwhile will not be told of any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, tuple_

from postbacks import keys
from postbacks.broker.client import text as decoded
from postbacks.broker.errors import broker_errors
from postbacks.history import ids
from postbacks.history.schema import OPEN, postbacks
from postbacks.history.transactions import database_errors
from postbacks.names import is_id

if TYPE_CHECKING:
    import redis
    from sqlalchemy import Engine

#: Records, or rows, of a page.
PAGE: Final = 1000


class Resync:
    """Resync under way; a recorder that starts anew begins a new one.

    Args:
        client: the broker's client.
        engine: the history's database.
        reason: why it is wanted.
        gaps: ``FeedState.gaps`` at its begin.

    Attributes:
        records: records that it has read.
        done: True once there is no further page.
    """

    def __init__(self, client: redis.Redis, engine: Engine, reason: str, gaps: int) -> None:
        self._client = client
        self._engine = engine
        self.reason: Final = reason
        self.gaps: Final = gaps
        self.records = 0
        self.done = False
        self._cursor = 0
        self._scanned = False
        self._last_row: tuple[int, int, int] | None = None

    def next_page(self) -> list[str]:
        """Return ids of postbacks that history must read again."""
        if not self._scanned:
            with broker_errors():
                reply: Any = self._client.scan(self._cursor, match=f"{keys.RECORD}*", count=PAGE)
            self._cursor, names = reply
            self._scanned = self._cursor == 0
            self.records += len(names)
            # what somebody has put there by hand is no record
            return list(filter(is_id, (decoded(name).removeprefix(keys.RECORD) for name in names)))
        return self._forgotten(self._open_rows())

    def _open_rows(self) -> list[tuple[str, int]]:
        """Return id and acceptance of a page of rows that are not at their end; none is left where it is empty."""
        place = (postbacks.c.account, postbacks.c.accepted_ms, postbacks.c.row_id)
        query = select(*place, postbacks.c.id).where(OPEN).order_by(*place).limit(PAGE)
        if self._last_row is not None:
            query = query.where(tuple_(*place) > tuple_(*self._last_row))
        with database_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        if rows:
            self._last_row = (rows[-1].account, rows[-1].accepted_ms, rows[-1].row_id)
        self.done = len(rows) < PAGE
        return [(ids.unpack(row.id), row.accepted_ms) for row in rows]

    def _forgotten(self, rows: list[tuple[str, int]]) -> list[str]:
        """Return the ids whose records have left the broker, or are those of a later acceptance."""
        pipe: Any = self._client.pipeline(transaction=False)
        for postback_id, _ in rows:
            pipe.hget(keys.record(postback_id), "created_ms")
        with broker_errors():
            created = pipe.execute(raise_on_error=False)
        return [
            postback_id
            for (postback_id, accepted_ms), created_ms in zip(rows, created, strict=True)
            if isinstance(created_ms, Exception) or created_ms != b"%d" % accepted_ms
        ]
