"""``python -m crash``: kill anything at any moment, count every postback. Exit code 0 only if the promise holds."""

from __future__ import annotations

import sys
from functools import partial

from crash.command import make_parser, run_columns
from crash.planned_world import Fsync, PlannedWorld
from crash.world import Load


def main() -> int:
    """Run the columns, print the table."""
    parser = make_parser("make crash", __doc__, Load(0, 150, 20_000, 90))
    parser.add_argument("--fsync", choices=("always", "everysec", "both"), default="both")
    args = parser.parse_args()
    modes: tuple[Fsync, ...] = ("always", "everysec") if args.fsync == "both" else (args.fsync,)
    return run_columns(args, {mode: partial(PlannedWorld, mode) for mode in modes})


if __name__ == "__main__":
    sys.exit(main())
