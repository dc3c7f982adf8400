"""Pruning by hand, while no recorder works: what is older than the settings keep goes at once."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import func, select

from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError, LeaseLost
from postbacks.history import facts
from postbacks.history.engine import reader
from postbacks.history.feed import Feed
from postbacks.history.schema import postbacks
from postbacks.history.transactions import database_errors
from postbacks.history.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from postbacks.settings import Settings

_DAY_MS: Final = 86_400_000
#: Time for which the lease of recorders is taken; it is renewed with each slice.
_LEASE_MS: Final = 10_000
#: Rows of a slice.
_ROWS: Final = 2000


class Due(NamedTuple):
    """Postbacks that are to lose something.

    Attributes:
        postbacks: those that go whole.
        attempts: those that lose their attempts.
        documents: those that lose their documents.
    """

    postbacks: int
    attempts: int
    documents: int


class Pruning:
    """Pruning by hand.

    Args:
        client: the broker's client: its clock says what is old, and its lease keeps recorders away meanwhile.
        settings: the database, and what it keeps.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._settings = settings
        self._engine = reader(settings)
        self._feed = Feed(client)
        with broker_errors():
            self._now_ms = now_ms(client)

    def due(self) -> Due:
        """Count what is older than the settings keep."""
        settings, ended_ms = self._settings, postbacks.c.ended_ms
        with database_errors(self._engine), self._engine.connect() as connection:
            known = facts.read(connection)

            def count(days: float, since: int) -> int:
                until = self._now_ms - int(days * _DAY_MS)
                query = select(func.count()).where(ended_ms >= since, ended_ms < until)
                return int(connection.execute(query.select_from(postbacks)).scalar_one())

            return Due(
                count(settings.history_postbacks_days, 0),
                count(settings.history_attempts_days, int(known.get(facts.ATTEMPTS_FROM_MS, 0))),
                count(settings.history_documents_days, int(known.get(facts.DOCUMENTS_FROM_MS, 0))),
            )

    def run(self) -> Iterator[int]:
        """Prune slice by slice; yield the rows of each.

        Raises:
            LeaseLost: a recorder works, which prunes by itself.
        """
        holder = f"prune:{uuid.uuid4().hex[:6]}"
        writer = Writer(self._engine)
        self._hold(holder)
        try:
            writer.take_lease()
            while rows := writer.prune(self._now_ms, self._settings, _ROWS):
                yield rows
                self._hold(holder)
        finally:
            with suppress(BrokerError):
                self._feed.release(holder)

    def _hold(self, holder: str) -> None:
        if not self._feed.acquire(holder, _LEASE_MS):
            raise LeaseLost(
                f"A recorder works ({self._feed.state().holder}), and prunes by its own settings, some rows after each batch: "
                "start it anew with those that you want, or prune while none runs."
            )
