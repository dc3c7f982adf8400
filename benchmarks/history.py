"""The history: search of a million postbacks, the recorder, delivery beside it, disk and pruning."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import history_delivery, history_recorder, history_search, history_store
from benchmarks.scenario import Bench, Row


def run(bench: Bench) -> Iterator[Row]:
    """Measure one after the other."""
    number = 50_000 if bench.quick else 1_000_000
    yield from history_search.rows(bench, f"sqlite:///{bench.folder}/search.db", number)
    yield from history_recorder.rows(bench)
    yield from history_delivery.rows(bench)
    yield from history_store.rows(bench)
