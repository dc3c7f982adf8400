"""Kill points: steps at which a test kills the process, as a power cut would, to see that nothing is lost.

A point is armed by a test that calls ``arm``, and by nothing else. A point that is not armed costs a comparison.
"""

from __future__ import annotations

import os
import signal

_armed: str | None = None
_passes_left = 0


def arm(name: str, passes: int = 1) -> None:
    """Kill this process with SIGKILL when it reaches the point for the ``passes``-th time."""
    global _armed, _passes_left
    _armed, _passes_left = name, passes


def reach(name: str) -> None:
    """Mark a step at which a process may die; die there if it is armed."""
    global _passes_left  # noqa: PLW0603
    if _armed is not None and name == _armed:
        _passes_left -= 1
        if _passes_left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
