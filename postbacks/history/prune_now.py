"""Pruning by hand, while no recorder works: what is older than the settings keep goes at once."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError, LeaseLost
from postbacks.history.engine import reader
from postbacks.history.feed import Feed
from postbacks.history.pruning import Due, count_due
from postbacks.history.transactions import database_errors
from postbacks.history.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from postbacks.settings import Settings

#: Time for which the lease of recorders is taken; it is renewed with each slice.
_LEASE_MS: Final = 10_000
#: Rows of a slice.
_ROWS: Final = 2000


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
        with database_errors(self._engine), self._engine.connect() as connection:
            return count_due(connection, self._now_ms, self._settings)

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
