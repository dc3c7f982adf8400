"""Selection of a job's postbacks: what its filter or its ids mean, page by page, as broker and history have them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks import keys
from postbacks.broker.client import text as decoded
from postbacks.broker.errors import broker_errors
from postbacks.history import ids as packing
from postbacks.history import live
from postbacks.history.copies import rows_of
from postbacks.history.filters import resolve
from postbacks.history.listing import PAGE
from postbacks.history.paths import Key, Path
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.operate.jobs.filters import states_of
from postbacks.operate.jobs.job import MOVED_FROM, RESEND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from sqlalchemy import Connection, Engine

    from postbacks.history.query import Query

#: Ids that are looked up together.
IDS_PAGE: Final = 500

_ROWS: Final = text(
    "SELECT p.row_id, p.id, p.accepted_ms, s.name AS state FROM postbacks p JOIN states s ON s.id = p.state"
    " WHERE p.row_id IN :rows"
).bindparams(bindparam("rows", expanding=True))
_ACCEPTANCE: Final = text(
    "SELECT p.accepted_ms, p.sequence, p.opt_out, s.name AS state, coalesce(a.name, '') AS account FROM postbacks p"
    " JOIN states s ON s.id = p.state LEFT JOIN accounts a ON a.id = p.account WHERE p.row_id = :row"
)


class Chosen(NamedTuple):
    """Postback that an id stands for.

    Attributes:
        account: its account.
        accepted_ms: time of its acceptance.
        sequence: its number in its account.
        id: its id.
        state: that it is in.
        row_id: its row in the history; 0 where that was not asked.
        is_opt_out: True for an opt-out.
    """

    account: str
    accepted_ms: int
    sequence: int
    id: str
    state: str
    row_id: int = 0
    is_opt_out: bool = False


def queries_of(kind: str, query: Query) -> list[Query]:
    """Return the queries that find a job's set, one a state that they are told apart by."""
    if query.state is not None:
        return [query]
    if kind == RESEND:
        return [replace(query, state=state) for state in MOVED_FROM[RESEND]]
    return [replace(query, state=states.WAITING)]  # any unfinished one finds all, and the broker says more


def pages(
    engine: Engine, client: redis.Redis, kind: str, query: Query, *, until_ms: int
) -> Iterator[list[int]]:
    """Yield the rows of a job's set in pages, each read in a transaction of its own: a long one holds up SQLite's log.

    Args:
        engine: of the history.
        client: of the broker, which knows the states of unfinished ones.
        kind: of the job.
        query: its filters.
        until_ms: only what was accepted before then.

    Raises:
        InvalidQuery: a filter that cannot be.
        HistoryError: the database cannot be used.
    """
    for state_query in queries_of(kind, query):
        bounded = replace(state_query, until_ms=min(until_ms, state_query.until_ms or until_ms))
        if bounded.since_ms is not None and bounded.since_ms >= (bounded.until_ms or 0):
            continue
        wanted = states_of(kind, query, by_ids=False)
        before: Key | None = None
        while True:
            with reading(engine) as connection:
                filters = resolve(connection, bounded)
                if filters.nothing:
                    break
                page = Path(connection, filters).keys(before, PAGE)
                rows = [key.row_id for key in page]
                if filters.live and rows:
                    rows = _in_state(connection, client, rows, wanted)
            yield rows
            if len(page) < PAGE:
                break
            before = page[-1]


def _in_state(
    connection: Connection, client: redis.Redis, rows: Sequence[int], wanted: Sequence[str]
) -> list[int]:
    """Leave those of unfinished postbacks that are in one of these states now."""
    found = connection.execute(_ROWS, {"rows": list(rows)}).all()
    acceptances = [live.Acceptance(packing.unpack(row.id), row.accepted_ms, row.state) for row in found]
    now = live.read_states(client, acceptances)[1]
    return [row.row_id for row, state in zip(found, now, strict=True) if state in wanted]


def choose(engine: Engine | None, client: redis.Redis, postback_ids: Sequence[str]) -> list[Chosen]:
    """Find what ids stand for: in the broker, or else the newest acceptance that the history has; unknown ones are left out.

    Args:
        engine: of the history; None to ask the broker alone.
        client: of the broker.
        postback_ids: a page of them.
    """
    pipe = client.pipeline(transaction=False)
    for postback_id in postback_ids:
        pipe.hmget(
            keys.record(postback_id), "account", "created_ms", "sequence", "schema", "opt_out", "state"
        )
    with broker_errors():
        replies = pipe.execute()
    chosen, absent = [], []
    for postback_id, (account, created_ms, sequence, schema, opt_out, state) in zip(
        postback_ids, replies, strict=True
    ):
        if schema is None:
            absent.append(postback_id)
        else:
            chosen.append(
                Chosen(
                    decoded(account or b""), int(created_ms), int(sequence or 0), postback_id, decoded(state),
                    is_opt_out=opt_out is not None,
                )
            )  # fmt: skip
    if absent and engine is not None:
        with reading(engine) as connection:
            for postback_id in absent:
                for row_id in rows_of(connection, postback_id)[:1]:
                    row = connection.execute(_ACCEPTANCE, {"row": row_id}).one()
                    chosen.append(
                        Chosen(
                            row.account, row.accepted_ms, row.sequence, postback_id, row.state, row_id,
                            bool(row.opt_out),
                        )
                    )  # fmt: skip
    return chosen
