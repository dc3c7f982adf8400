"""What a scenario has found, in words and in lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.simulation.costs import Costs
from benchmarks.simulation.figures import Lateness, Sample


@dataclass(slots=True)
class Result:
    """What a scenario has found.

    Attributes:
        name: of the scenario.
        facts: words and figures, in the order of the table.
        lines: for the plots: names and values over ``at_s``.
        numbers: the same and more, for the JSON.
    """

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    lines: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


def words(late: Lateness) -> str:
    """p50, p99 and worst."""
    if not late.count:
        return "none"
    return ", ".join(seconds(value) for value in (late.percentile(0.5), late.percentile(0.99), late.worst_s))


def seconds(value_s: float) -> str:
    """Seconds as people say them."""
    if value_s < 10:
        return f"{value_s:.2f} s"
    return f"{value_s:,.0f} s" if value_s < 600 else f"{value_s / 60:,.0f} min"


def words_of(workers: int | None) -> str:
    """The number of workers."""
    return f"{workers}" if workers else "more than the broker serves"


def memory_bytes(costs: Costs, one: Sample) -> float:
    """What the broker holds for what is not yet delivered, and for the dead."""
    return (
        one.queued * costs.message_bytes
        + (one.waiting + one.claimed + one.parked + one.dead) * costs.record_bytes
    )


def lines_of(samples: Sequence[Sample], costs: Costs) -> dict[str, list[float]]:
    """The samples as lines of a plot, some 300 points each."""
    some = samples[:: max(1, len(samples) // 300)]
    lines = {name: [float(asdict(one)[name]) for one in some] for name in asdict(some[0])}
    lines["memory_gb"] = [memory_bytes(costs, one) / 1e9 for one in some]
    return lines
