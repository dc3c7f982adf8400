"""Comparison of the ledger with what the history's database has. No I/O in here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from crash.comparison import SHOWN
from postbacks.ledger.record import Attempt, Record
from postbacks.urls import redacted

#: Word for a row of an id that the ledger does not have.
NO_RECORD: Final = "no record"


class Told(NamedTuple):
    """Acceptance of a postback, as the ledger or the history tells it.

    Attributes:
        begun: POSTs begun.
        own: of whom its URL is, as the record says it.
        document: its bytes.
    """

    accepted_ms: int
    ended_ms: int | None
    account: str
    group: str
    origin: str
    code: str
    sequence: int
    state: str
    reason: str
    url: str
    own: str
    begun: int
    failures: int
    attempts: tuple[Attempt, ...]
    first_id: str
    document: bytes


def told_by(record: Record, begun: int, own: str) -> Told:
    """Return what a record tells; the history keeps a URL whole only where it came with the call."""
    return Told(
        record.created_ms, record.ended_ms, record.account, record.group, record.origin, record.code,
        record.sequence, record.state, record.reason, redacted(record.url) if own == "0" and record.url else record.url,
        own, begun, record.failures, record.attempts, record.first_id, record.xml if record.raw is None else record.raw,
    )  # fmt: skip


@dataclass(frozen=True)
class HistoryComparison:
    """Outcome of a run for its history.

    Attributes:
        rows: of the history.
        missing: ids of the ledger that the history does not have.
        wrong: ids of which the history says something else, and what.
        double: ids with several rows, though they were accepted once.
        miscounted: keys of ``counts`` that are not its rows: what it counts, and how many rows there are.
        resent: postbacks that jobs have sent again; None in a world without jobs.
        unnoted: of these, those of which a POST was open when its process died, or lost its lease.
    """

    rows: int
    missing: list[str]
    wrong: Mapping[str, list[str]]
    double: list[str]
    miscounted: Mapping[str, tuple[int, int]]
    resent: int | None = None
    unnoted: int = 0

    def violations(self) -> list[str]:
        """Say in sentences what the history does not have as the ledger has it."""
        broken: list[tuple[list[str], str]] = [
            (self.missing, "missing in the history"),
            (
                [f"{postback_id} ({', '.join(names)})" for postback_id, names in self.wrong.items()],
                "wrong in the history",
            ),
            (self.double, "twice in the history"),
            (
                [f"{key} ({counted}, not {rows})" for key, (counted, rows) in self.miscounted.items()],
                "counts of the history are not its rows",
            ),
        ]
        return [f"{len(items)} {words}: {', '.join(items[:SHOWN])}" for items, words in broken if items]


def compare_history(
    ledger: Mapping[str, Told],
    rows: Iterable[tuple[str, Told]],
    counts: Mapping[str, int],
    counted_rows: Mapping[str, int],
) -> HistoryComparison:
    """Compare the two of a broker that forgets nothing: an id has been accepted once.

    Args:
        ledger: the broker's records by id.
        rows: ids of the history's rows, and what each tells.
        counts: the history's table of this name, by its key.
        counted_rows: rows by the same key.
    """
    of_id: defaultdict[str, list[Told]] = defaultdict(list)
    for postback_id, told in rows:
        of_id[postback_id].append(told)
    wrong = {
        postback_id: differences
        for postback_id, all_told in of_id.items()
        if (differences := _differences(ledger.get(postback_id), all_told))
    }
    return HistoryComparison(
        rows=sum(map(len, of_id.values())),
        missing=sorted(ledger.keys() - of_id.keys()),
        wrong=wrong,
        double=sorted(postback_id for postback_id, all_told in of_id.items() if len(all_told) > 1),
        miscounted={
            key: (counts.get(key, 0), counted_rows.get(key, 0))
            for key in sorted(counts.keys() | counted_rows.keys())
            if counts.get(key, 0) != counted_rows.get(key, 0)
        },
    )


def _differences(right: Told | None, all_told: list[Told]) -> list[str]:
    """Name what the best of an id's rows tells otherwise than the ledger."""
    if right is None:
        return [NO_RECORD]
    return min(
        (
            [name for name, ours, theirs in zip(Told._fields, right, told, strict=True) if ours != theirs]
            for told in all_told
        ),
        key=len,
    )
