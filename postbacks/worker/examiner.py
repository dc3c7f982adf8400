"""``python -m postbacks.worker.examiner TOKEN``: tries postbacks in quarantine with care, and ends when there are none.

The examiner is a process of its own because it may die of what it tries. A worker's supervisor
(``worker/quarantine.py``) starts it, and tells it to stop by its standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Final

from postbacks.accounts import store
from postbacks.broker.client import client
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profiles import Profiles
from postbacks.logs import write_to_stderr
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.tasks import decide
from postbacks.transport.client import CurlClient

#: Signals that a service manager sends to all processes of a worker, and a terminal to its group.
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class _Stop:
    """Tells when the examiner is to end: by a line or the end of its standard input, a signal, or its worker's death."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._signalled = False
        for number in _END_SIGNALS:
            signal.signal(
                number, self._on_signal
            )  # its default would end the process in the middle of its POSTs

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    def __call__(self) -> bool:
        if self._signalled or os.getppid() != self._parent:
            return True
        readable, _, _ = select.select([sys.stdin], [], [], 0)
        return bool(readable)


def main(token: str) -> int:
    """Try the postbacks in quarantine; returns the exit code."""
    must_stop = _Stop()
    settings = load()
    write_to_stderr(settings.log)
    with contextlib.suppress(OSError):
        # Of all processes of the worker this is the one that the kernel should kill when memory ends.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    scripts = Scripts(client())
    curl = CurlClient(settings)
    try:
        DeliveryLoop(
            scripts,
            curl,
            Profiles(store(), settings, scripts),
            settings,
            decide,
            slice_s=float("inf"),
            loop_id=token,
            examines=True,
            must_stop=must_stop,
        ).run()
    finally:
        curl.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
