"""Recorder of a run: ``postbacks history run`` with a short lease, which SIGUSR1 lets die in its next batch."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

from crash.world import LEASE_S
from postbacks import cli, killpoints
from postbacks.history import recorder

#: Steps of a batch at which it may die.
POINTS: Final = ("before:history-write", "after:history-write", "after:history-trim")


def main() -> None:
    """Record until SIGTERM. Argument: the file that names the step at which SIGUSR1 kills."""
    point = Path(sys.argv.pop())
    signal.signal(signal.SIGUSR1, lambda *_: killpoints.arm(point.read_text()))
    recorder.LEASE_MS = int(LEASE_S * 1000)  # type: ignore[misc]
    cli.main(["history", "run"], prog_name="postbacks")


if __name__ == "__main__":
    main()
