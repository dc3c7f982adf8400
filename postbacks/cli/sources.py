"""Sources of ``postbacks list``: the history, or what the broker alone has, which is those that have ended."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from postbacks.cli.base import say
from postbacks.cli.filters import flag_of
from postbacks.errors import HistoryError, InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postbacks.history.query import Count, Page, Postback, Query

Answer = TypeVar("Answer")

#: Fields of a query that the broker can answer; the history answers all.
_OF_BROKER: Final = frozenset({"account", "state", "reason", "since_ms", "until_ms", "limit"})
_IN_ITS_PLACE: Final = "these are postbacks that have ended, as the broker has them"
SWITCH_ON: Final = "set POSTBACKS_HISTORY_URL (sqlite:////directory/history.db) and run `postbacks history run`; `postbacks up` does both"
#: Records that are read at once.
_PAGE: Final = 1000


class History:
    """The history, with the states of unfinished postbacks as the broker has them.

    Attributes:
        has_unfinished: True if it finds what has not ended, too.
    """

    has_unfinished = True

    def pages(self, query: Query) -> Iterator[Page]:
        """Find postbacks, newest acceptance first."""
        from postbacks import history

        return history.pages(query)

    def count(self, query: Query) -> Count:
        """Count postbacks exactly."""
        from postbacks import history

        return history.count(query)

    def why(self, postback: Postback) -> str:
        """Say in words why a postback was not delivered."""
        from postbacks.history.words import why

        return why(postback)

    def why_empty(self, query: Query) -> str:
        """Say which filter leaves nothing of what the others find."""
        from postbacks.history.words import why_empty

        return why_empty(query)


class Ended:
    """Postbacks that the broker has and that have ended, newest end first."""

    has_unfinished = False

    def __init__(self) -> None:
        self._why: dict[str, str] = {}

    def pages(self, query: Query) -> Iterator[Page]:
        """Find postbacks; those that are done where the query names no state."""
        from postbacks.broker.client import client
        from postbacks.history.query import Page, Postback
        from postbacks.ledger.ledger import Ledger
        from postbacks.ledger.reasons import reason_of

        ledger = Ledger(client())
        ids = islice(self._ids(query), query.limit)
        while part := list(islice(ids, _PAGE)):
            records = [record for record in ledger.find_many(part).values() if record is not None]
            self._why = {
                record.id: "" if record.state == "delivered" else reason_of(record) for record in records
            }
            yield Page(tuple(map(Postback.of_record, records)), "", None)

    def count(self, query: Query) -> Count:
        """Count postbacks exactly."""
        from postbacks.history.query import Count

        return Count(sum(1 for _ in self._ids(replace(query, limit=sys.maxsize))), None)

    def why(self, postback: Postback) -> str:
        """Say in words why a postback was not delivered, those of the latest page with the words of their last attempt."""
        from postbacks.history.words import why

        return self._why.get(postback.id) or why(postback)

    def why_empty(self, query: Query) -> str:
        """Say what was not found."""
        from postbacks.history.words import phrases

        state = query.state or "done"
        others = phrases(replace(query, state=None))
        return " ".join(["No postback", *others.values(), f"is {state}."])

    def _ids(self, query: Query) -> Iterator[str]:
        from postbacks.broker.client import client
        from postbacks.ledger.search import ended_ids, find
        from postbacks.ledger.states import DEAD

        until_ms = None if query.until_ms is None else query.until_ms - 1
        if query.account is None and query.reason is None and query.state in {None, DEAD}:
            dead = query.state == DEAD
            latest = min(query.limit, 2**31)
            yield from ended_ids(
                client(), dead=dead, since_ms=query.since_ms, until_ms=until_ms, latest=latest
            )
            return
        for summary in find(
            client(),
            state=query.state,
            account=query.account,
            reason=query.reason,
            since_ms=query.since_ms,
            until_ms=until_ms,
            newest_first=True,
        ):
            yield summary.id


def ask(query: Query, call: Callable[[History | Ended], Answer]) -> Answer:
    """Ask the history, or the broker alone where the history cannot answer and the broker can; say which on stderr.

    Raises:
        InvalidQuery: there is no history, and the broker cannot answer such a query.
        HistoryError: the history cannot be used, and the broker cannot answer such a query.
    """
    from postbacks.settings import load

    if not load().history_url:
        if refusal := _refusal(query):
            raise InvalidQuery(f"Without a history {refusal}: {SWITCH_ON}.")
        answer = call(Ended())
        say(f"There is no history: {_IN_ITS_PLACE}. For all, {SWITCH_ON}.")
        return answer
    try:
        return call(History())
    except HistoryError as error:
        if _refusal(query):
            raise
        answer = call(Ended())
        say(f"{error} So {_IN_ITS_PLACE}; times are of their end.")
        return answer


def _refusal(query: Query) -> str:
    """Say why the broker alone cannot answer a query; empty where it can."""
    from postbacks.ledger.states import FINAL_STATES, HELD, STATES

    asked = [field.name for field in fields(query) if getattr(query, field.name) not in {field.default, None}]
    if others := [flag_of(name) for name in asked if name not in _OF_BROKER]:
        verb = "chooses" if len(others) == 1 else "choose"
        return f"{' and '.join(others)} {verb} nothing, only --account, --state, --reason, --since and --until do"
    if query.state in {None, *FINAL_STATES}:
        return ""
    if query.state in {*STATES, HELD, "forgotten"}:
        return f"there is no list of what is {query.state}, only of {', '.join(sorted(FINAL_STATES))}"
    return f"there is no state {query.state!r}, only {', '.join(sorted(FINAL_STATES))}"
