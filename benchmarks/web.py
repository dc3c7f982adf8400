"""The dashboard: its pages with 100,000 and a million postbacks, and fifty viewers beside delivery."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import web_pages, web_viewers
from benchmarks.scenario import Bench, Row


def run(bench: Bench) -> Iterator[Row]:
    """Measure one after the other."""
    for number in (20_000,) if bench.quick else web_pages.TARGETS_MS:
        yield from web_pages.rows(bench, f"sqlite:///{bench.folder}/web{number}.db", number)
    yield from web_viewers.rows(bench)
