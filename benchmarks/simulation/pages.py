"""What was simulated, written down: docs/simulation.json, the plots, and the tables in docs/scale.md."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import Unusable
from benchmarks.report import plotting, rounded
from benchmarks.simulation.check import Checked
from benchmarks.simulation.costs import FILE, Costs
from benchmarks.simulation.words import Result

#: What stands between these two lines of docs/scale.md is written anew.
BEGIN: Final = "<!-- written by make simulate, from here -->"
END: Final = "<!-- to here -->"

TITLES: Final = {
    "day": "A day of 50 million MT",
    "storm": "A carrier's storm at noon",
    "storm-30": "The same with `POSTBACKS_LANE_MAX_TRANSFERS=30`",
    "outage": "5% of the customers down for an hour",
}

#: Panels of a scenario's plot: title, names of lines.
PANELS: Final = {
    "day": (
        ("postbacks a second", ("per_s",)),
        ("lateness p99 of the healthy, s", ("p99_s",)),
        ("broker's thread busy", ("broker_busy",)),
        ("behind: what their own transfers do not carry", ("behind",)),
    ),
    "storm": (
        ("postbacks that wait", ("queued", "waiting")),
        ("lanes ready, POSTs open", ("ready_lanes", "open")),
        ("broker's thread busy", ("broker_busy",)),
        ("broker's memory for them, GB", ("memory_gb",)),
    ),
    "outage": (
        ("postbacks that wait, parked, dead", ("waiting", "parked", "dead")),
        ("in claims, POSTs open", ("claimed", "open")),
        ("lanes ready, loops", ("ready_lanes", "loops")),
        ("broker's thread busy", ("broker_busy",)),
    ),
}


def check_table(checked: Checked) -> str:
    """The real run and the simulated one, side by side."""
    errors = checked.errors()
    lines = ["| | real | simulated | off by |", "| --- | --- | --- | --- |"]
    for name, real in checked.real.items():
        rows = [one[name] for one in checked.rounds]
        span = f" ({_number(min(rows))} to {_number(max(rows))})" if len(rows) > 1 else ""
        lines.append(
            f"| {name} | {_number(real)}{span} | {_number(checked.simulated[name])} | {errors[name]:+.0%} |"
        )
    return "\n".join(lines)


def facts_table(result: Result) -> str:
    """What a scenario has found."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {found} |" for what, found in result.facts)])


def costs_line(costs: Costs) -> str:
    """The costs in a sentence."""
    us = {name: f"{value * 1e6:,.0f}" for name, value in costs.to_json().items() if name.endswith("_s")}
    return (
        f"Costs in µs. The broker: {us['publish_s']} a message and {us['turn_s']} a turn of its event loop, {us['take_in_s']} to take "
        f"in, {us['claim_s']} for claim and note, {us['park_s']} where it is parked, {us['release_s']} to release it, "
        f"{us['share_s']} where it shares a time-out, {us['call_s']} a script call, and {us['sync_s']} for its disk. A worker: "
        f"{us['tick_s']} to take in, {us['send_s']} a POST, {us['asking_s']} a turn of its loop that asks the broker, "
        f"{us['decide_s']} to decide after a failure."
    )


def write(
    docs: Path, *, command: str, took_s: float, machine: dict[str, Any], costs: Costs, measured: Costs | None,
    checked: Checked | None, results: Sequence[Result],
) -> None:  # fmt: skip
    """Write all three; what was not simulated this time stays as it stands in the JSON.

    Raises:
        Unusable: docs/scale.md lacks the lines between which the tables stand.
    """
    path = docs / FILE
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    data |= {"command": command, "date": time.strftime("%Y-%m-%d", time.gmtime()), "took_s": round(took_s)}
    tables: dict[str, str] = data.setdefault("tables", {})
    if measured is not None:
        data["costs"] = measured.to_json()
        data["machine"] = machine
    if checked is not None:
        data["check"] = {"real": checked.real, "simulated": checked.simulated, "errors": checked.errors(),
                         "rounds": checked.rounds, "spent": checked.machine}  # fmt: skip
        tables["check"] = check_table(checked)
    scenarios: dict[str, Any] = data.setdefault("scenarios", {})
    for result in results:
        scenarios[result.name] = result.numbers
        tables[result.name] = facts_table(result)
        if result.name in PANELS and result.lines:
            (docs / "benchmarks").mkdir(exist_ok=True)
            _plot(docs / "benchmarks" / f"simulated-{result.name}.svg", result)
    if results:
        tables["costs"] = costs_line(costs)
    exact = data.get("costs")
    data = rounded(data) | {"costs": exact}
    path.write_text(json.dumps(data, indent=1) + "\n")
    _put(docs / "scale.md", _section(data))


def _section(data: dict[str, Any]) -> str:
    tables: dict[str, str] = data["tables"]
    parts = [
        f"Made by `{data['command']}` on {data['date']}, in {data['took_s']} s; as data: [{FILE}]({FILE})."
    ]
    if "costs" in tables:
        parts.append(tables["costs"])
    if "check" in tables:
        parts += ["### Beside a real run", tables["check"]]
    for name, title in TITLES.items():
        if name in tables:
            parts += [f"### {title}", tables[name]]
            if name in PANELS:
                parts.append(f"![{title}](benchmarks/simulated-{name}.svg)")
    return "\n\n".join(parts)


def _put(page: Path, text: str) -> None:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Unusable(f"{page} has no place for the tables: the lines {BEGIN!r} and {END!r}.")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _plot(path: Path, result: Result) -> None:
    plt = plotting()
    panels = PANELS[result.name]
    hours = result.name == "day"
    at = [one / (3600 if hours else 60) for one in result.lines["at_s"]]
    figure, grid = plt.subplots(2, 2, figsize=(9, 4.6), sharex=True)
    for axes, (title, names) in zip(grid.flat, panels, strict=True):
        for name, colour in zip(names, ("#1f6f8b", "#d1603d", "#8a9a5b"), strict=False):
            axes.plot(at, result.lines[name], color=colour, linewidth=1.2, label=name.replace("_", " "))
        if len(names) > 1:
            axes.legend(fontsize=7, frameon=False)
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[1]:
        axes.set_xlabel("hour of the day" if hours else "minutes", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
