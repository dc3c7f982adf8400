"""``python -m crash``: kill anything at any moment, count every postback. Exit code 0 only if the promise holds."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from crash.command import make_parser, run_columns
from crash.databases import DATABASES
from crash.history_world import HistoryWorld
from crash.jobs_world import JobsWorld
from crash.plan import KINDS, Kinds
from crash.planned_world import Fsync, PlannedWorld
from crash.run import MakeWorld
from crash.world import Load


def make_arguments() -> argparse.ArgumentParser:
    """Make a parser of what `make crash` takes."""
    parser = make_parser("make crash", __doc__, Load(0, 150, 20_000, 90))
    parser.add_argument(
        "--world",
        choices=("broker", "history", "jobs", "all"),
        default="all",
        help="of columns (default: all)",
    )
    parser.add_argument(
        "--fsync", choices=("always", "everysec", "both"), default="both", help="of world broker"
    )
    parser.add_argument(
        "--database", choices=(*DATABASES, "both"), default="both", help="of worlds history and jobs"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="faults whose name begins so (recorder); again for more",
    )
    parser.add_argument("--pairs", type=int, default=2, help="workers, and beats (default: 2)")
    return parser


def main() -> int:
    """Run the columns, print the table."""
    parser = make_arguments()
    args = parser.parse_args()
    only = tuple(args.only or ("",))
    options = {"only": only, "pairs": args.pairs}
    columns: dict[str, tuple[Kinds, MakeWorld]] = {}
    if args.world in {"broker", "all"}:
        modes: tuple[Fsync, ...] = ("always", "everysec") if args.fsync == "both" else (args.fsync,)
        columns |= {mode: (KINDS, partial(PlannedWorld, mode, **options)) for mode in modes}
    for name in DATABASES if args.database == "both" else (args.database,):
        kinds = KINDS | DATABASES[name].kinds
        if args.world in {"history", "all"}:
            columns[f"history-{name}"] = kinds, partial(HistoryWorld, DATABASES[name], **options)
        if args.world in {"jobs", "all"}:
            columns[f"jobs-{name}"] = kinds, partial(JobsWorld, DATABASES[name], **options)
    for name, (kinds, _) in columns.items():
        if not any(kind.startswith(only) for kind in kinds):
            parser.error(f"no fault of column {name} begins so; it has {', '.join(kinds)}")
    return run_columns(args, {name: make_world for name, (_, make_world) in columns.items()})


if __name__ == "__main__":
    sys.exit(main())
