"""``python -m crash``: make the ledger of losses and print it. Exit code 0 only if the promise holds."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crash.ledger import FORGOTTEN, NO_ANSWER, NO_REASON, SHOWN, UNKNOWN, Ledger
from crash.plan import KINDS
from crash.run import SETTINGS, Column, Fsync, Options, run


def _rows(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    ledgers = [column.ledger for column in columns]

    def row(name: str, values: Sequence[object]) -> tuple[str, list[str]]:
        return name, [f"{value:,}" if isinstance(value, int) else str(value) for value in values]

    rows = [
        row("accepted", [one.accepted for one in ledgers]),
        row("  calls that raised", [one.raised for one in columns]),
        row("delivered (200 at the receiver)", [one.delivered for one in ledgers]),
        row("dead, with their story", [one.dead for one in ledgers]),
        row("skipped, their origin was off", [one.skipped for one in ledgers]),
        row("ended for no reason that was made", [len(one.unexplained) for one in ledgers]),
        row("LOST", [len(one.lost) for one in ledgers]),
        row("  in the broker's unwritten tail", [_unless_always(column, "unsynced") for column in columns]),
        row("stuck", [len(one.stuck) for one in ledgers]),
        row("in no place or in two", [len(one.misplaced) for one in ledgers]),
        row("counters off", [len(one.leaks) for one in ledgers]),
        row("delivered, unknown to the ledger", [len(one.unknown_to_ledger) for one in ledgers]),
        row("POSTs astray (host, key, signature, time)", [_astray(one) for one in ledgers]),
        row("set aside as poison", [len(one.poison) for one in ledgers]),
        row("sent twice, same id", [len(set().union(*one.twice.values())) for one in ledgers]),
    ]
    rows += [
        row(f"  {reason}", [len(one.twice.get(reason, [])) for one in ledgers])
        for reason in (UNKNOWN, NO_ANSWER, FORGOTTEN, NO_REASON)
    ]
    rows += [
        row("arrived though not accepted", [one.arrived_unaccepted for one in ledgers]),
        row("processes that ended by themselves", [len(one.ended_themselves) for one in columns]),
        row("POSTs", [one.posts for one in columns]),
        row("load + draining", [f"{one.took_s[0]:.0f} + {one.took_s[1]:.0f} s" for one in columns]),
        row("changes of accounts", [one.changed for one in columns]),
        row("kills", [one.kills for one in columns]),
        ("then: next POST after (p50, max)", ["" for _ in columns]),
    ]
    rows += [row(f"  {kind}", [_silence(column, kind) for column in columns]) for kind in KINDS]
    return rows


def _astray(ledger: Ledger) -> int:
    return sum(len(ids) for ids in ledger.astray.values())


def _unless_always(column: Column, name: str) -> object:
    return "-" if column.fsync == "always" else len(getattr(column.ledger, name))


def _silence(column: Column, kind: str) -> str:
    times = column.silences.get(kind, [])
    if not times:
        return f"{column.done.get(kind, 0)}"
    return f"{column.done[kind]} ({statistics.median(times):.2f} s, {max(times):.2f} s)"


def _print(columns: Sequence[Column]) -> None:
    print(f"{'':44}" + "".join(f"{column.fsync:>24}" for column in columns))
    for name, values in _rows(columns):
        print(f"{name:44}" + "".join(f"{value:>24}" for value in values))


def _as_json(options: Options, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "seconds": options.seconds,
        "postbacks": options.postbacks,
        "settings": SETTINGS,
        "holds": not any(column.faults() for column in columns),
        "columns": {
            column.fsync: {
                "accepted": column.ledger.accepted,
                "raised": column.raised,
                "delivered": column.ledger.delivered,
                "dead": column.ledger.dead,
                "skipped": column.ledger.skipped,
                "reasons": column.ledger.reasons,
                "unexplained": column.ledger.unexplained,
                "astray": column.ledger.astray,
                "changed": column.changed,
                "lost": column.ledger.lost,
                "unsynced": column.ledger.unsynced,
                "stuck": column.ledger.stuck,
                "misplaced": column.ledger.misplaced,
                "leaks": column.ledger.leaks,
                "unknown_to_ledger": column.ledger.unknown_to_ledger,
                "poison": column.ledger.poison,
                "twice": {reason: len(ids) for reason, ids in column.ledger.twice.items()},
                "twice_without_reason": column.ledger.twice.get(NO_REASON, []),
                "arrived_unaccepted": column.ledger.arrived_unaccepted,
                "ended_themselves": column.ended_themselves,
                "posts": column.posts,
                "took_s": column.took_s,
                "kills": column.kills,
                "faults": column.done,
                "silences_s": column.silences,
                "left": column.left,
                "broken": column.faults(),
            }
            for column in columns
        },
    }


def main() -> int:
    """Run the columns, print the table."""
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats a plan; a random one where not given")
    parser.add_argument("--seconds", type=float, default=150, help="of load, a column (default: 150)")
    parser.add_argument("--postbacks", type=int, default=20_000, help="a column (default: 20000)")
    parser.add_argument("--fsync", choices=("always", "everysec", "both"), default="both")
    parser.add_argument("--drain", type=float, default=90, help="seconds to drain at most (default: 90)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole ledger there")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep logs, notes and the broker's data there"
    )
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    options = Options(seed, args.seconds, args.postbacks, args.drain, args.keep)
    modes: tuple[Fsync, ...] = ("always", "everysec") if args.fsync == "both" else (args.fsync,)
    columns = []
    for mode in modes:
        print(f"{mode}: {args.postbacks:,} postbacks in {args.seconds:g} s, seed {seed} …", flush=True)
        columns.append(run(options, mode))
    print()
    _print(columns)
    if args.json:
        args.json.write_text(json.dumps(_as_json(options, columns), indent=1), encoding="utf-8")
    broken = [f"{column.fsync}: {fault}" for column in columns for fault in column.faults()]
    print()
    for line in broken:
        print(f"BROKEN {line}"[: 120 + 40 * SHOWN])
    print(f"The promise {'does NOT hold' if broken else 'holds'}. Repeat with --seed {seed}.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
