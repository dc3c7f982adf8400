"""Simulate what no machine at hand can run: ``python -m benchmarks.simulate [--scenario day ...] [--docs docs]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.errors import Unusable

if TYPE_CHECKING:
    from benchmarks.simulation.costs import Costs
    from benchmarks.simulation.scenarios import Size
    from benchmarks.simulation.words import Result

DOCS: Final = Path(__file__).parent.parent / "docs"
SCENARIOS: Final = ("check", "day", "storm", "outage")
#: Simulations at a time. A check runs before them, by itself.
AT_A_TIME: Final = 2


def say(text: str) -> None:
    """Tell whoever waits what goes on."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


def simulate(name: str, costs: Costs, size: Size) -> list[Result]:
    """One scenario, in a process of its own."""
    from benchmarks.simulation import scenarios

    if name == "storm":
        return [scenarios.storm(costs, size, say, transfers=transfers) for transfers in (10, 30)]
    return [{"day": scenarios.day, "outage": scenarios.outage}[name](costs, size, say)]


def main() -> int:
    """Check, simulate, print, and write where a folder is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument(
        "--scenario", nargs="+", choices=(*SCENARIOS, "all"), default=["all"], help="these alone"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="of 50 million MT and 2,000 accounts; the check has its own size",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of all chance: the same seed gives the same figures"
    )
    parser.add_argument(
        "--look", type=float, default=None, help="seconds of each quarter of an hour of the day"
    )
    parser.add_argument(
        "--docs", type=Path, help="write scale.md's tables, simulation.json and plots into this folder"
    )
    try:
        return _run(parser.parse_args())
    except Unusable as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from benchmarks.simulation import check, pages
    from benchmarks.simulation.costs import read, with_benchmarks
    from benchmarks.simulation.scenarios import LOOK_S, Size

    began_s = time.monotonic()
    names = SCENARIOS if "all" in options.scenario else options.scenario
    size = Size(scale=options.scale, seed=options.seed, look_s=options.look or LOOK_S)
    docs = options.docs or DOCS
    checked, measured, machine = None, None, {}
    if "check" in names:
        print("check:", flush=True)
        machine = _machine()
        with tempfile.TemporaryDirectory(prefix="postbacks-simulate-") as folder:
            checked = check.run(Path(folder), options.seed, say)
        measured = checked.costs
        print(f"\n{pages.check_table(checked)}\n")
        costs = with_benchmarks(measured, _rows(docs))
    else:
        costs = read(docs)
    others = [name for name in ("outage", "storm", "day") if name in names]  # the longest first
    with ProcessPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(partial(simulate, costs=costs, size=size), others))
    results = [result for some in found for result in some]
    print(f"\n{pages.costs_line(costs)}")
    for result in results:
        print(f"\n{pages.TITLES[result.name]}\n\n{pages.facts_table(result)}")
    took_s = time.monotonic() - began_s
    print(f"\n{took_s:.0f} s")
    if options.docs is not None:
        pages.write(
            options.docs, command=_command(), took_s=took_s, machine=machine, costs=costs, measured=measured,
            checked=checked, results=results,
        )  # fmt: skip
        print(f"written: {options.docs / 'scale.md'}")
    return 0


def _rows(docs: Path) -> list[dict[str, Any]]:
    import json

    path = docs / "benchmarks.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def _machine() -> dict[str, Any]:
    from benchmarks.machine import described
    from postbacks.devtools.embedded_broker import EmbeddedBroker

    with EmbeddedBroker() as broker:
        return described(broker.client())


def _command() -> str:
    more = " ".join(argument for argument in sys.argv[1:] if argument not in {"--docs", "docs"})
    return f'make simulate ARGS="{more}"' if more else "make simulate"


if __name__ == "__main__":
    raise SystemExit(main())
