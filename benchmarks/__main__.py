"""Run the benchmark: ``python -m benchmarks [--quick] [--only THEME ...] [--no-docs]``."""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.scenario import Bench, Row, Scenario


def themes() -> dict[str, Scenario]:
    """Every theme by its name, in the order of the table."""
    from benchmarks import (
        callers,
        drain,
        history,
        idle,
        million,
        newcomers,
        parked,
        scaling,
        steady,
        waiting,
        web,
        worst_cases,
    )

    return {
        "drain": drain.run, "callers": callers.run, "steady": steady.run, "waiting": waiting.run,
        "newcomers": newcomers.run,
        "idle": idle.run, "scaling": scaling.run, "parked": parked.run, "million": million.run,
        "worst-cases": worst_cases.run, "web": web.run, "history": history.run,
    }  # fmt: skip


def main() -> int:
    """Measure, print the table, write docs/benchmarks.md where all of it was measured."""
    from benchmarks import report
    from benchmarks.machine import described
    from postbacks.devtools.embedded_broker import EmbeddedBroker

    known = themes()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller counts")
    parser.add_argument("--only", nargs="+", choices=known, help="these themes alone")
    parser.add_argument(
        "--docs", type=Path, help="write benchmarks.md, its JSON and its plots into this folder"
    )
    options = parser.parse_args()
    began_s = time.monotonic()
    rows: list[Row] = []
    failed = False
    with EmbeddedBroker() as broker:
        machine = described(broker.client())
    with tempfile.TemporaryDirectory(prefix="postbacks-bench-") as folder:
        bench = Bench(quick=options.quick, folder=Path(folder))
        for name in options.only or known:
            print(f"{name}:", flush=True)
            if bench.spent > 1:
                rows.append(Row(name, "", "not run: the time was up; the machine was busy", None))
                continue
            try:
                rows += known[name](bench)
            except Exception as error:  # noqa: BLE001 - what one theme meets must not cost the figures of the others
                traceback.print_exc()
                rows.append(Row(name, "", f"failed: {type(error).__name__}: {error}"[:300], met=False))
                failed = True
    took_s = time.monotonic() - began_s
    command = "make bench-quick" if options.quick else "make bench"
    print("\n" + report.table(rows) + f"\n\n{command}: {took_s:.0f} s")
    if options.docs is not None:
        report.write(options.docs, rows, machine, command=command, took_s=took_s)
        print(f"written: {options.docs / 'benchmarks.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
