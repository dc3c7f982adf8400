"""Following of a query: what is accepted, as the history records it, and what ends, as the broker lists it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import InvalidUrl
from postbacks.history import values
from postbacks.history.query import LIMIT_MAX, Postback, Query
from postbacks.ledger import search
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.states import DEAD, DELIVERED
from postbacks.privacy.spelling import canonical
from postbacks.urls import read_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from postbacks.history.query import Page
    from postbacks.ledger.record import Record

    Key = tuple[str, int]


class Follower:
    """Follower of a query.

    Args:
        client: of the broker.
        query: its filters; a state that it names is an end.
        pages: finds postbacks, newest first.
        has_unfinished: True if ``pages`` finds what has not ended, too.
    """

    def __init__(
        self,
        client: redis.Redis,
        query: Query,
        pages: Callable[[Query], Iterator[Page]],
        *,
        has_unfinished: bool,
    ) -> None:
        self._client = client
        self._ledger = Ledger(client)
        self._query = query
        self._pages = pages
        # The broker says at once what ends; the history has only to say what is accepted and not at its end.
        self._accepts = has_unfinished and query.state is None
        # From when on postbacks are read by their acceptance, and by their end.
        self._accepted_ms = self._ended_ms = 0
        # Postbacks that were given -> when they ended, for as long as they may be met again.
        self._given: dict[tuple[str, int], int | None] = {}

    def begin(self) -> list[Postback]:
        """Find the page that the query finds now, the oldest first; ``poll`` goes on from there.

        Raises:
            InvalidQuery, HistoryError, BrokerError: as a search.
        """
        self._ended_ms = self._now_ms()
        pages = list(self._pages(self._query))
        self._accepted_ms = (pages[0].recorded_ms or 0) if pages else 0
        return list(self._new(pages))

    def poll(self) -> Iterator[Postback]:
        """Yield what was accepted and what ended since the poll before; what had not ended comes again when it does.

        Raises:
            HistoryError, BrokerError: as a search; the next poll yields what this one did not.
        """
        if self._accepts:
            since_ms = max(self._accepted_ms, self._query.since_ms or 0)
            pages = list(self._pages(replace(self._query, since_ms=since_ms, limit=LIMIT_MAX)))
            yield from self._new(pages)
            # What is accepted later is in none of these pages.
            self._accepted_ms = pages[0].recorded_ms or 0
        yield from self._ended()
        self._given = {
            key: ended_ms
            for key, ended_ms in self._given.items()
            if ended_ms is None or ended_ms >= self._ended_ms or key[1] >= self._accepted_ms
        }

    def _now_ms(self) -> int:
        with broker_errors():
            return now_ms(self._client)

    def _new(self, pages: list[Page]) -> Iterator[Postback]:
        """Yield postbacks of pages that were not given as they are, the oldest first."""
        for page in reversed(pages):
            yield from filter(self._note, reversed(page.postbacks))

    def _note(self, postback: Postback) -> bool:
        """Note a postback as given; return False if it was given as it is."""
        key = (postback.id, postback.accepted_ms)
        if key in self._given and postback.ended_ms in {None, self._given[key]}:
            return False
        self._given[key] = postback.ended_ms
        return True

    def _ended(self) -> Iterator[Postback]:
        # Read before the ids: what ends in between comes now, is met again by the next poll, and is known then.
        now = self._now_ms()
        state = self._query.state
        for dead in (False, True):
            if state is not None and dead != (state == DEAD):
                continue
            for ids in search.pages(search.ended_ids(self._client, dead=dead, since_ms=self._ended_ms)):
                for record in self._ledger.find_many(ids).values():
                    if record is None or record.ended_ms is None:
                        continue  # it has left the ledger, or is sent again
                    postback = Postback.of_record(record)
                    if fits(self._query, postback, record) and self._note(postback):
                        yield postback
        self._ended_ms = now


def fits(query: Query, postback: Postback, record: Record) -> bool:
    """Tell whether a postback that has ended passes each filter of a query."""
    plain = ("account", "group", "origin", "code", "state", "outcome", "status", "reason", "attempts")
    return (
        all(getattr(query, name) in {None, getattr(postback, name)} for name in plain)
        and (postback.is_opt_out or not query.opt_outs)
        and (postback.state != DELIVERED or not query.undelivered)
        and (query.slower_than_ms is None or (postback.elapsed_ms or 0) > query.slower_than_ms)
        and (query.since_ms is None or postback.accepted_ms >= query.since_ms)
        and (query.until_ms is None or postback.accepted_ms < query.until_ms)
        and (query.host is None or _host_of(f"http://{query.host}/") == _host_of(record.url))
        and _has_values(query, record)
    )


def _host_of(url: str) -> str:
    try:
        return read_url(url).host
    except InvalidUrl:
        return ""


def _has_values(query: Query, record: Record) -> bool:
    asked = {(kind, canonical(kind, text)) for kind in values.KINDS if (text := getattr(query, kind))}
    return not asked or asked <= {
        (kind, canonical(kind, text)) for kind, text in values.of_document(record.xml)
    }
