"""Filters of a job: which states it moves from, and how they travel through the broker."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from postbacks.errors import HistoryUnfit, InvalidQuery
from postbacks.history.query import WITHOUT_DRIVER, Query
from postbacks.ledger import states
from postbacks.names import is_id
from postbacks.operate.jobs.job import MAY_NAME, MOVED_FROM, RESEND, filters_of
from postbacks.printable import quoted
from postbacks.privacy import masker

if TYPE_CHECKING:
    from collections.abc import Sequence


def to_json(query: Query | None) -> str:
    """Write a query's filters; empty for none."""
    return json.dumps(filters_of(query)) if query is not None and filters_of(query) else ""


def from_json(packed: str) -> Query | None:
    """Read a query; filters of a newer version are an error, as without them it would find more.

    Raises:
        InvalidQuery: it names a filter that this version does not know.
    """
    if not packed:
        return None
    given = json.loads(packed)
    unknown = given.keys() - {field.name for field in fields(Query)}
    if unknown:
        raise InvalidQuery(
            f"This version does not know the filter {quoted(min(unknown))}; use the newer one."
        )
    return Query(**given)


def masked(query: Query | None) -> Query | None:
    """Return a query as people see it, without the person whom it names."""
    if query is None or not (query.number or query.email):
        return query
    mask = masker()
    number, email = query.number, query.email
    return replace(query, number=number and mask.number(number), email=email and mask.email(email))


def states_of(kind: str, query: Query | None, *, by_ids: bool) -> tuple[str, ...]:
    """Return the states that a job moves postbacks from, after a check of its filters.

    Raises:
        InvalidQuery: they cannot be, or name a state that such a job cannot move from.
    """
    if query is None or not filters_of(query):
        if not by_ids:
            raise InvalidQuery("A job wants filters or ids: name an account, a state, a time, or the ids.")
        return MOVED_FROM[kind]
    for name, value in filters_of(query).items():
        if value == "":  # a variable that was not set: to leave it out would choose everybody's
            raise InvalidQuery(f"An empty {name} chooses nothing; give its text, or leave the filter out.")
    _check(query)
    if by_ids and set(filters_of(query)) != {"state"}:
        raise InvalidQuery("Give ids or filters: beside ids only a state may be named.")
    if query.state is None:
        return MOVED_FROM[kind]
    if query.state not in MAY_NAME[kind]:
        can = "sent again" if kind == RESEND else "cancelled"
        raise InvalidQuery(
            f"What is {query.state} cannot be {can}; name {', '.join(MAY_NAME[kind])}, or no state."
        )
    if query.state in {states.HELD, states.SENDING}:
        return (states.HELD, states.SENDING)
    return (query.state,)


def _check(query: Query) -> None:
    try:
        from postbacks.history.filters import check  # noqa: PLC0415 - it loads SQLAlchemy, ids want none
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise HistoryUnfit(WITHOUT_DRIVER) from None
    check(query)


def check_ids(postback_ids: Sequence[str]) -> None:
    """Check ids that were given one by one.

    Raises:
        InvalidQuery: one of them cannot be an id.
    """
    for number, postback_id in enumerate(postback_ids, start=1):
        if not is_id(postback_id):
            raise InvalidQuery(
                f"{quoted(postback_id)}, id {number:,}, is no postback's id; one a line is read."
            )
