"""``python -m postbacks.examiner TOKEN``: tries what is in quarantine, with care, and ends when it is empty.

It is a process of its own because it may die of what it tries. A worker's keeper (``delivery/quarantine.py``)
starts it, and tells it to stop by closing its standard input, which the kernel does when the worker dies.
"""

from __future__ import annotations

import contextlib
import select
import sys
from pathlib import Path

from postbacks.accounts import store
from postbacks.broker import client
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profile import Profiles
from postbacks.delivery.transport import CurlAdapter
from postbacks.logs import write_to_stderr
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.tasks import decide


def _is_told_to_stop() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable)  # nothing is ever written to it: that is its end


def main(token: str) -> int:
    """Examine; returns the exit code."""
    settings = load()
    write_to_stderr(settings.log)
    with contextlib.suppress(OSError):
        # Of all processes of the worker this is the one that the kernel should kill when memory ends.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    scripts = Scripts(client())
    adapter = CurlAdapter(settings)
    try:
        DeliveryLoop(
            scripts,
            adapter,
            Profiles(store(), settings, scripts),
            settings,
            decide,
            slice_s=float("inf"),
            token=token,
            examines=True,
            must_stop=_is_told_to_stop,
        ).run()
    finally:
        adapter.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
