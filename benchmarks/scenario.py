"""Scenario of a measurement: yields rows, each one line of the table of targets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Receivers are on loopback, each account on an address of its own.
ENV = {"POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8"}
#: Seconds after which no theme is begun, so that the last one, the history, ends within 25 minutes, or four.
FULL_S, QUICK_S = 1_140, 170


@dataclass(frozen=True, slots=True)
class Row:
    """Figure that was measured: a row of the table.

    Attributes:
        figure: what was measured.
        target: what it should be, in words; empty where the figure is stated only.
        measured: what it was, in words.
        met: whether the target is met; None where there is no target or it could not run.
        numbers: the numbers behind it, for the JSON and the plots.
    """

    figure: str
    target: str
    measured: str
    met: bool | None
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    """Run of the benchmark.

    Attributes:
        quick: fewer rounds, smaller counts.
        folder: for logs and whatever a scenario writes.
        began_s: time.monotonic() at its begin.
        found: numbers that later scenarios use.
    """

    quick: bool
    folder: Path
    began_s: float = field(default_factory=time.monotonic)
    found: dict[str, float] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Share of the run's time that is used up; 1 when nothing more is begun."""
        return (time.monotonic() - self.began_s) / (QUICK_S if self.quick else FULL_S)

    @property
    def rounds(self) -> int:
        """Rounds of interleaved contenders."""
        return 1 if self.quick else 3

    def say(self, text: str) -> None:
        """Tell whoever waits what goes on."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


#: Measures one theme. What it has yielded stays where the rest fails.
Scenario = Callable[[Bench], Iterable[Row]]


@contextmanager
def environment(broker_url: str, **more: str) -> Iterator[dict[str, str]]:
    """Set the settings of this process, and yield them for those that it starts."""
    from tests import helpers

    values = {**ENV, "POSTBACKS_BROKER_URL": broker_url, "BENCH_BROKER_URL": broker_url, **more}
    with helpers.environment(**values):
        yield values


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each number over the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def until(done: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Ask until it is done. TimeoutError: it never was."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} did not come in {timeout_s:g} s")
        time.sleep(0.01)
