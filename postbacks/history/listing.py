"""Search: the postbacks that a query finds, page by page, newest acceptance first."""

from __future__ import annotations

import base64
import struct
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, text

from postbacks.errors import InvalidQuery
from postbacks.history import facts, ids, live
from postbacks.history.engine import reader
from postbacks.history.filters import resolve
from postbacks.history.paths import Key, Path
from postbacks.history.query import Page, Postback
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.privacy.masker import KEYLESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from sqlalchemy import Connection, Engine, Row

    from postbacks.history.filters import Filters
    from postbacks.history.query import Query

#: Postbacks of a page that ``pages`` reads, and rows that one statement names.
PAGE: Final = 2000

#: Cursor: version, digest of the query, and the place of the page's last postback.
_CURSOR: Final = struct.Struct(">B8sqq")
_CURSOR_VERSION: Final = 1
#: Not part of the digest: a time such as ``2h`` ago is another one at each call, and the place stands without it.
_NOT_IN_DIGEST: Final = ("limit", "cursor", "since_ms", "until_ms")

_COLUMNS: Final = """
    p.row_id, p.id, p.accepted_ms, p.ended_ms, p.attempts, p.status, p.elapsed_ms, p.reason,
    a.name AS account, c.group_name, c.origin, c.code, s.name AS state, o.name AS outcome, u.url, p.own, p.opt_out"""
_NAMES: Final = """
    JOIN accounts a ON a.id = p.account JOIN codes c ON c.id = p.code JOIN states s ON s.id = p.state
    LEFT JOIN outcomes o ON o.id = p.outcome LEFT JOIN urls u ON u.id = p.url"""
_ORDER: Final = "ORDER BY p.accepted_ms DESC, p.row_id DESC"
_BY_ROW: Final = text(
    f"SELECT {_COLUMNS} FROM postbacks p {_NAMES} WHERE p.row_id IN :rows {_ORDER}"
).bindparams(bindparam("rows", expanding=True))
_ACCEPTANCES: Final = text(
    "SELECT p.id, p.accepted_ms, s.name AS state FROM postbacks p JOIN states s ON s.id = p.state WHERE p.row_id IN :rows"
).bindparams(bindparam("rows", expanding=True))
_BY_ID: Final = """
    SELECT p.row_id FROM slots s CROSS JOIN postbacks p {index} WHERE p.slot = s.slot AND p.id = :id"""


def search(query: Query, *, client: redis.Redis | None = None, engine: Engine | None = None) -> Page:
    """Find the postbacks that pass each filter of a query, newest acceptance first.

    Args:
        query: its ``cursor`` leads to the page behind another one.
        client: of the broker that knows the states of unfinished postbacks; without it the one of the settings.
        engine: of the history; without it the one of the settings.

    Raises:
        InvalidQuery: says which filter cannot be, and what to try.
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    with reading(engine or reader()) as connection:
        filters = resolve(connection, query)
        before = _place_of(query)
        found: list[Postback] = []
        read_ms = None
        if not filters.nothing:
            path = Path(connection, filters)
            # One more than the page has tells whether another one follows.
            for postbacks, part_ms in _batches(connection, path, client, before, query.limit + 1):
                found += postbacks
                read_ms = read_ms or part_ms
                if len(found) > query.limit:
                    break
        page = tuple(found[: query.limit])
        following = cursor_of(query, page[-1]) if len(found) > query.limit else ""
        return Page(page, following, recorded_ms(connection), read_ms)


def pages(query: Query, *, client: redis.Redis | None = None, engine: Engine | None = None) -> Iterator[Page]:
    """Yield what ``search`` finds in pages of at most ``PAGE`` postbacks, ``query.limit`` in all.

    Raises:
        InvalidQuery, HistoryOff, HistoryError: as ``search``.
    """
    left = query.limit
    while True:
        page = search(replace(query, limit=min(left, PAGE)), client=client, engine=engine)
        yield page
        left -= len(page.postbacks)
        if not page.next or not left:
            return
        query = replace(query, cursor=page.next, limit=left)


def find(
    postback_id: str, *, client: redis.Redis | None = None, engine: Engine | None = None
) -> list[Postback]:
    """Find the acceptances of an id, the newest first: one that left the broker may have been accepted again.

    Raises:
        HistoryOff, HistoryError: as ``search``.
    """
    with reading(engine or reader()) as connection:
        index = "INDEXED BY postbacks_by_id" if connection.dialect.name == "sqlite" else ""
        rows = connection.execute(text(_BY_ID.format(index=index)), {"id": ids.pack(postback_id)}).scalars()
        return live.read(client, read_rows(connection, list(rows))).postbacks


def recorded_ms(connection: Connection) -> int | None:
    """Read until when history has read the broker's changes."""
    return facts.number(connection, facts.RECORDED_MS)


def _batches(
    connection: Connection, path: Path, client: redis.Redis | None, before: Key | None, limit: int
) -> Iterator[tuple[list[Postback], int | None]]:
    """Yield what a path finds, newest first, with the states that the broker has by now."""
    filters = path.filters
    while keys := path.keys(before, limit):
        now = live.read(client, read_rows(connection, [key.row_id for key in keys]))
        yield [row for row in now.postbacks if _is_as_asked(filters, row)], now.read_ms
        # Of the unfinished ones only those are kept that are still in a state that is asked for, maybe few.
        if not (filters.live or filters.undelivered) or len(keys) < limit:
            return
        before, limit = keys[-1], max(limit, min(2 * limit, live.PAGE))


def _is_as_asked(filters: Filters, postback: Postback) -> bool:
    """Tell whether a postback is by now in a state that the filters ask for, of those that the broker alone knows."""
    if filters.live:
        return postback.state == filters.live
    return not filters.undelivered or postback.state != states.DELIVERED


def unfinished(connection: Connection, path: Path) -> Iterator[list[live.Acceptance]]:
    """Yield all that a path finds, as far as the broker is asked about it."""
    before = None
    while keys := path.keys(before, PAGE):
        rows = connection.execute(_ACCEPTANCES, {"rows": [key.row_id for key in keys]})
        yield [live.Acceptance(ids.unpack(row.id), row.accepted_ms, row.state) for row in rows]
        before = keys[-1]


def read_rows(connection: Connection, row_ids: Sequence[int]) -> list[Postback]:
    """Read postbacks by their rows, newest acceptance first."""
    found: list[Postback] = []
    for start in range(0, len(row_ids), PAGE):
        rows = connection.execute(_BY_ROW, {"rows": row_ids[start : start + PAGE]})
        found += map(_postback, rows)
    return found


def _postback(row: Row[Any]) -> Postback:
    return Postback(
        id=ids.unpack(row.id),
        account=row.account,
        group=row.group_name,
        origin=row.origin,
        code=row.code,
        state=row.state,
        reason=KEYLESS.reason(row.reason or ""),
        accepted_ms=row.accepted_ms,
        ended_ms=row.ended_ms,
        attempts=row.attempts,
        outcome=row.outcome or "",
        status=row.status or None,
        elapsed_ms=row.elapsed_ms if row.outcome else None,
        # A call's own URL is kept whole, as it is sent to again.
        url=KEYLESS.url(row.url, is_own=True) if row.url and row.own else row.url or "",
        row_id=row.row_id,
        is_opt_out=bool(row.opt_out),
    )


def cursor_of(query: Query, postback: Postback) -> str:
    """Return the cursor that leads a query on behind a postback."""
    packed = _CURSOR.pack(_CURSOR_VERSION, _digest(query), postback.accepted_ms, postback.row_id)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _place_of(query: Query) -> Key | None:
    """Read the cursor of a query.

    Raises:
        InvalidQuery: it is none, of a newer version, or of a query with other filters.
    """
    if not query.cursor:
        return None
    try:
        # 25 bytes are 34 characters and two of padding.
        packed = base64.b64decode(query.cursor.encode() + b"==", altchars=b"-_", validate=True)
        version, digest, accepted_ms, row_id = _CURSOR.unpack(packed)
    except (ValueError, struct.error):
        version, digest, accepted_ms, row_id = 0, b"", 0, 0
    if version != _CURSOR_VERSION:
        raise InvalidQuery(
            "The cursor cannot be read; give the one that the page before has printed, or none for the first page."
        )
    if digest != _digest(query):
        raise InvalidQuery(
            "The cursor is of a query with other filters; repeat that query's filters, or leave the cursor out for the first page."
        )
    return Key(accepted_ms, row_id)


def _digest(query: Query) -> bytes:
    fields = {name: value for name, value in asdict(query).items() if name not in _NOT_IN_DIGEST}
    return blake2b(repr(fields).encode("utf-8", "surrogatepass"), digest_size=8).digest()
