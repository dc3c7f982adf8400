"""docs/capacity.md: its large table is computed from the measured one, and from figures that other pages have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import cells

from benchmarks import capacity
from postbacks.settings import load

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "capacity.md").read_text()


def test_the_table_is_computed_from_what_was_measured():
    """Whoever changes a figure or a rule runs `make capacity`, or writes the page anew from its measured table."""
    assert capacity.written_page(PAGE, capacity.read_measured(PAGE)) == PAGE


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("scale.md", f"0.10 to {capacity.WORKER_MS:.2f} ms"),
        ("scale.md", f"0.06 to {capacity.BROKER_MS:.2f} ms"),
        ("scale.md", f"at about {capacity.BROKER_PER_S:,} postbacks/s"),
        ("operating.md", f"uses over {capacity.PLANNED:.0%} of a core"),
        ("capacity.md", f"{capacity.WORKER_MS} ms / {capacity.PLANNED}"),
        ("capacity.md", f"{1000 / capacity.WORKER_MS:,.0f}/s, {capacity.BROKER_PER_S:,}/s at most"),
    ],
)
def test_pages_agree_with_the_figures_that_it_computes_with(page, words):
    """In one sentence each, which may wrap."""
    assert words in " ".join((DOCS / page).read_text().split())


def test_the_page_of_senders_says_as_it_does_for_how_long_an_id_is_known():
    """With docker-compose.yml's 1 GB, at one postback a second and at 100."""
    (row,) = (line for line in PAGE.splitlines() if "`REDIS_MAXMEMORY=1gb`" in line)
    at_1, _, at_100, _ = (cell.replace(" d", " days").replace(" min", " minutes") for cell in cells(row)[1:])
    words = f"that is {at_1} at one postback a second and {at_100} at 100 a second"
    assert words in " ".join((DOCS / "sending.md").read_text().split())


def test_it_computes_with_the_defaults_of_the_settings():
    """Also the retention, which the column of an hour cuts."""
    assert load().ledger_memory_share == capacity.LEDGER_SHARE
    assert load().retention_delivered_s == 7 * capacity.DAY_S


@pytest.mark.parametrize(
    ("rate", "workers", "drain_s"),
    [(1, 2, 0.36), (1_000, 2, 400), (8_000, 3, 14_400)],
)
def test_workers_are_planned_with_one_to_spare_and_the_broker_ends_what_they_send(rate, workers, drain_s):
    """16,000/s are two workers' end, 10,000/s the broker's."""
    assert capacity.workers(rate) == workers
    assert capacity.drain_s(rate) == pytest.approx(drain_s, rel=0.01)


@pytest.mark.parametrize(
    ("count", "words"),
    [(12, "12 bytes"), (3_766, "3.8 KB"), (999.4e6, "999 MB"), (999.6e6, "1.0 GB"), (6.3e13, "63 TB")],
)
def test_bytes_are_written_with_two_digits(count, words):
    assert capacity.size(count) == words
