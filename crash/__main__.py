"""``python -m crash``: kill anything at any moment, count every postback. Exit code 0 only if the promise holds."""

from __future__ import annotations

import sys
from functools import partial

from crash.command import make_parser, run_columns
from crash.databases import DATABASES
from crash.history_world import HistoryWorld
from crash.planned_world import Fsync, PlannedWorld
from crash.run import MakeWorld
from crash.world import Load

WORLDS = ("broker", "history")


def main() -> int:
    """Run the columns, print the table."""
    parser = make_parser("make crash", __doc__, Load(0, 150, 20_000, 90))
    parser.add_argument("--world", choices=(*WORLDS, "both"), default="both", help="columns (default: both)")
    parser.add_argument(
        "--fsync", choices=("always", "everysec", "both"), default="both", help="of world broker"
    )
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both", help="of world history")
    args = parser.parse_args()
    worlds: dict[str, MakeWorld] = {}
    if args.world != "history":
        modes: tuple[Fsync, ...] = ("always", "everysec") if args.fsync == "both" else (args.fsync,)
        worlds |= {mode: partial(PlannedWorld, mode) for mode in modes}
    if args.world != "broker":
        names = DATABASES if args.database == "both" else (args.database,)
        worlds |= {f"history-{name}": partial(HistoryWorld, DATABASES[name]) for name in names}
    return run_columns(args, worlds)


if __name__ == "__main__":
    sys.exit(main())
