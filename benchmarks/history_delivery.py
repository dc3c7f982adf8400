"""Delivery with history on beside the same with it off: what the feed adds.

The recorder has turned the feed on, and is held while postbacks are delivered: what it reads counts as its own.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import drain
from benchmarks.scenario import Bench, Row

#: Most that the CPU a postback may be, of what it is without history.
TARGETS = {"broker": 1.06, "worker": 1.02}


def rows(bench: Bench) -> list[Row]:
    """Drains in turn, with history and without, the one that is first changing from round to round."""
    count, rounds = (6_000, 1) if bench.quick else (20_000, 7)
    found: dict[str, list[dict[str, Any]]] = {"off": [], "on": []}
    for number in range(rounds):
        for case in list(found)[:: -1 if number % 2 else 1]:
            url = f"sqlite:///{bench.folder}/delivery{number}.db" if case == "on" else ""
            found[case].append(drain.ours(bench, count, history_url=url))
            bench.say(
                f"history {case}: { {name: round(value, 4) for name, value in found[case][-1].items()} }"
            )
    return [_row(found, part, count, bench.found.get("reading_us", 0)) for part in TARGETS]


def _row(found: dict[str, list[dict[str, Any]]], part: str, count: int, reading_us: float) -> Row:
    ratios = [on[f"{part}_ms"] / off[f"{part}_ms"] for on, off in zip(found["on"], found["off"], strict=True)]
    ratio = statistics.median(ratios)
    off_us, on_us = (
        1000 * statistics.median(one[f"{part}_ms"] for one in found[case]) for case in ("off", "on")
    )
    scripts_us = [
        1000 * statistics.median(one["evalsha_ms"] for one in found[case]) for case in ("off", "on")
    ]
    inside = (
        f"; in its scripts {scripts_us[1]:.1f} µs beside {scripts_us[0]:.1f} µs; with the recorder's reading, "
        f"{reading_us:.1f} µs, {ratio + reading_us / off_us:.2f} times"
        if part == "broker"
        else ""
    )
    return Row(
        f"history: delivery's CPU a postback in the {part}, on beside off",
        f"at most {TARGETS[part]} times",
        f"{ratio:.2f} times ({on_us:.1f} µs beside {off_us:.1f} µs{inside}; medians of {len(ratios)} rounds of "
        f"{count:,}, {min(ratios):.2f} to {max(ratios):.2f})",
        ratio <= TARGETS[part],
        {"ratios": ratios, "on_us": on_us, "off_us": off_us, "scripts_us": scripts_us},
    )
