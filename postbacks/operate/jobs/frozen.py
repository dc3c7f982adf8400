"""Frozen sets of jobs in the history's database: written once, read in slices, dropped when their job has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.history import ids, schema
from postbacks.history.bulk import bulk_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from postbacks.operate.jobs.selection import Chosen

#: Rank of postbacks: of an account's those of a lower one go first, whenever they were accepted. Opt-outs have one less.
RANK: Final = 1
#: Rows that one transaction drops.
DROP: Final = 5_000

_BEGIN: Final = text("INSERT INTO job_sets (job) VALUES (:job) ON CONFLICT DO NOTHING")
_END: Final = text("UPDATE job_sets SET frozen_ms = :frozen_ms WHERE job = :job")
_SETS: Final = text("SELECT job FROM job_sets")
_FROZEN: Final = text("SELECT frozen_ms FROM job_sets WHERE job = :job")
_ADD: Final = text(
    "INSERT INTO job_postbacks (job, account, rank, sequence, id, accepted_ms, row_id)"
    " SELECT :job, coalesce(a.name, ''), :rank - p.opt_out, p.sequence, p.id, p.accepted_ms, p.row_id"
    " FROM postbacks p LEFT JOIN accounts a ON a.id = p.account WHERE p.row_id IN :rows ON CONFLICT DO NOTHING"
).bindparams(bindparam("rows", expanding=True))
_ACCOUNTS: Final = text(
    "SELECT account, count(*) FROM job_postbacks WHERE job = :job GROUP BY account ORDER BY account"
)
_OVERLAP: Final = text(
    "SELECT count(*) FROM job_postbacks own CROSS JOIN job_postbacks other WHERE own.job = :job AND other.job = :other"
    " AND other.account = own.account AND other.rank IN (own.rank, 1 - own.rank) AND other.sequence = own.sequence AND other.id = own.id"
)
_SLICE: Final = text(
    "SELECT rank, sequence, id, accepted_ms, row_id FROM job_postbacks WHERE job = :job AND account = :account"
    " AND (rank, sequence, id) > (:rank, :sequence, :id) ORDER BY rank, sequence, id LIMIT :at_most"
)
_DROP: Final = text(
    "DELETE FROM job_postbacks WHERE job = :job AND (account, rank, sequence, id) IN"
    " (SELECT account, rank, sequence, id FROM job_postbacks WHERE job = :job LIMIT :at_most)"
)
_DROP_SET: Final = text("DELETE FROM job_sets WHERE job = :job")


class Frozen(NamedTuple):
    """Postback of a frozen set.

    Attributes:
        rank: those of a lower one go first.
        sequence: its number in its account.
        id: its id.
        accepted_ms: time of its acceptance.
        row_id: its row in the history; 0 where that did not have it.
    """

    rank: int
    sequence: int
    id: str
    accepted_ms: int
    row_id: int

    @property
    def cursor(self) -> str:
        """Cursor behind it."""
        return f"{self.rank} {self.sequence} {self.id}"


def begin(connection: Connection, job: str) -> None:
    """Begin a set, or go on with one that is there."""
    connection.execute(_BEGIN, {"job": job})


def add_rows(connection: Connection, job: str, row_ids: Sequence[int]) -> None:
    """Add postbacks of the history by their rows; those that are there stay."""
    if row_ids:
        connection.execute(_ADD, {"job": job, "rank": RANK, "rows": list(row_ids)})


def add_chosen(connection: Connection, job: str, chosen: Iterable[Chosen]) -> None:
    """Add postbacks that were given by their ids; those that are there stay."""
    rows = [
        (
            job,
            postback.account,
            RANK - postback.is_opt_out,
            postback.sequence,
            ids.pack(postback.id),
            postback.accepted_ms,
            postback.row_id,
        )
        for postback in chosen
    ]
    bulk_of(connection.engine).add_missing(connection, schema.job_postbacks, rows)


def end(connection: Connection, job: str, frozen_ms: int) -> None:
    """Note that a set is whole."""
    connection.execute(_END, {"job": job, "frozen_ms": frozen_ms})


def is_frozen(connection: Connection, job: str) -> bool:
    """Tell whether the database has a job's set, whole."""
    return connection.execute(_FROZEN, {"job": job}).scalar() is not None


def sets(connection: Connection) -> list[str]:
    """Return the jobs that have sets here."""
    return list(connection.execute(_SETS).scalars())


def accounts_of(connection: Connection, job: str) -> dict[str, int]:
    """Count a set's postbacks by account."""
    return {row[0]: row[1] for row in connection.execute(_ACCOUNTS, {"job": job})}


def overlap(connection: Connection, job: str, other: str) -> int:
    """Count the postbacks that two sets share."""
    return int(connection.execute(_OVERLAP, {"job": job, "other": other}).scalar_one())


def read_slice(connection: Connection, job: str, account: str, cursor: str, at_most: int) -> list[Frozen]:
    """Read an account's postbacks behind a cursor in their order; an empty cursor stands before all."""
    rank, sequence, postback_id = cursor.split(" ", 2) if cursor else ("-1", "0", "")
    place = {"rank": int(rank), "sequence": int(sequence), "id": ids.pack(postback_id)}
    rows = connection.execute(_SLICE, {"job": job, "account": account, "at_most": at_most, **place})
    return [Frozen(row.rank, row.sequence, ids.unpack(row.id), row.accepted_ms, row.row_id) for row in rows]


def drop(connection: Connection, job: str) -> bool:
    """Drop some of a set; return True where nothing of it is left."""
    if connection.execute(_DROP, {"job": job, "at_most": DROP}).rowcount >= DROP:
        return False
    connection.execute(_DROP_SET, {"job": job})
    return True
