"""Preview of a job: what its set would be, asked of the history."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, text

from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.history import facts
from postbacks.history.engine import reader
from postbacks.history.listing import find, search
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.operate.jobs import selection
from postbacks.operate.jobs.filters import check_ids, states_of
from postbacks.operate.jobs.job import FORGOTTEN, Preview

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

    from postbacks.history.query import Query

#: Postbacks that a preview shows.
SAMPLE: Final = 5
#: States that a receiver may have had a postback's id in.
_KNOWN_BY_RECEIVER: Final = frozenset({states.DELIVERED, states.CANCELLED, FORGOTTEN})

_ACCOUNTS: Final = text(
    "SELECT coalesce(a.name, ''), count(*) FROM postbacks p LEFT JOIN accounts a ON a.id = p.account"
    " WHERE p.row_id IN :rows GROUP BY a.name"
).bindparams(bindparam("rows", expanding=True))


def preview(
    kind: str, query: Query | None = None, *, ids: Iterable[str] = (), engine: Engine | None = None
) -> Preview:
    """Count what a job would move, by account, and show some of it. Nothing is changed.

    Args:
        kind: ``resend`` or ``cancel``.
        query: as of ``start``.
        ids: as of ``start``.
        engine: of the history; without it the one of the settings.

    Raises:
        InvalidQuery: as ``start``.
        HistoryOff, HistoryError: the history cannot be asked.
        BrokerError: the broker cannot be used.
    """
    postback_ids = list(dict.fromkeys(ids))
    check_ids(postback_ids)
    wanted = states_of(kind, query, by_ids=bool(postback_ids))
    engine = engine or reader()
    with reading(engine) as connection:
        recorded_ms = facts.number(connection, facts.RECORDED_MS)
    accounts: Counter[str] = Counter()
    if postback_ids or query is None:
        fit: list[str] = []
        for first in range(0, len(postback_ids), selection.IDS_PAGE):
            page = postback_ids[first : first + selection.IDS_PAGE]
            chosen = [
                postback for postback in selection.choose(engine, client(), page) if postback.state in wanted
            ]
            accounts.update(postback.account for postback in chosen)
            fit += [postback.id for postback in chosen[: SAMPLE - len(fit)]]
        sample = [
            found[0] for postback_id in fit if (found := find(postback_id, client=client(), engine=engine))
        ]
    else:
        with broker_errors():
            until_ms = now_ms(client()) + 1
        for rows in selection.pages(engine, client(), kind, query, until_ms=until_ms):
            if rows:
                with reading(engine) as connection:
                    accounts.update({row[0]: row[1] for row in connection.execute(_ACCOUNTS, {"rows": rows})})
        sample = [
            postback
            for state_query in selection.queries_of(kind, query)
            for postback in search(
                replace(state_query, limit=SAMPLE, cursor=""), client=client(), engine=engine
            ).postbacks
        ]
    total = accounts.total()
    newest_first = sorted(sample, key=lambda postback: -postback.accepted_ms)
    return Preview(
        kind=kind,
        total=total,
        accounts=dict(accounts.most_common()),
        sample=tuple(newest_first[:SAMPLE]),
        states=wanted,
        left_out=max(0, len(postback_ids) - total),
        names_known=bool(_KNOWN_BY_RECEIVER & set(wanted)),
        recorded_ms=recorded_ms,
    )
