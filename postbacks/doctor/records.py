"""Records and indexes, a page at a time: one script or four commands for a thousand ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.lua import load

#: Keys or ids that one question to the broker is about.
PAGE: Final = 1000
#: Indexes, by the names that findings give to these places.
INDEXES: Final = {
    "quarantine": keys.QUARANTINE,
    "parked": keys.PARKED,
    "done": keys.DONE,
    "dead": keys.DEAD,
}


def pages(values: Iterable[str]) -> Iterator[list[str]]:
    """Divide values into pages."""
    source = iter(values)
    while page := list(islice(source, PAGE)):
        yield page


def fields(client: Any, ids: list[str], *names: str) -> Iterator[tuple[str, ...]]:
    """Yield each id with these fields of its record, empty where it has none."""
    rows = _read(client, len(names), *names, *ids) if ids else []
    for postback_id, values in zip(ids, rows, strict=True):
        yield (postback_id, *(text(value or b"") for value in values))


def without_record(client: Any, ids: list[str]) -> list[str]:
    """Return those of these ids that have no record."""
    return [text(postback_id) for postback_id in _read(client, 0, *ids)]


def indexes(client: Any, ids: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield for each id the names of the indexes that it stands in."""
    pipe = client.pipeline(transaction=False)
    for key in INDEXES.values():
        pipe.zmscore(key, ids)
    for scores in zip(*pipe.execute(), strict=True):
        yield tuple(name for name, score in zip(INDEXES, scores, strict=True) if score is not None)


def _read(client: Any, *arguments: str | int) -> Any:
    # A command an id would cost the client ten times as much.
    return client.eval_ro(load("doctor/records").text, 1, keys.RECORD, *arguments)
