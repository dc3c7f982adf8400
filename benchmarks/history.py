"""The history: search of a million postbacks, the recorder, delivery beside it, disk and pruning."""

from __future__ import annotations

from benchmarks import history_delivery, history_recorder, history_search, history_store
from benchmarks.scenario import Bench, Row


def run(bench: Bench) -> list[Row]:
    """Measure one after the other."""
    number = 50_000 if bench.quick else 1_000_000
    return [
        *history_search.rows(bench, f"sqlite:///{bench.folder}/search.db", number),
        *history_recorder.rows(bench),
        *history_delivery.rows(bench),
        *history_store.rows(bench),
    ]
