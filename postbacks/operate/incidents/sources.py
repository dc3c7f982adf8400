"""Sources of conditions that the finder asks beside ``receivers.py``, in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.operate.incidents.opt_outs import late_opt_outs
from postbacks.operate.incidents.system import (
    broker_memory,
    full_backlogs,
    history_behind,
    late_ticks,
    paused_backlogs,
)

if TYPE_CHECKING:
    from postbacks.operate.incidents.conditions import Source

#: Kind of condition -> its source.
SOURCES: Final[dict[str, Source]] = {
    "opt_outs": late_opt_outs,
    "backlog": full_backlogs,
    "paused": paused_backlogs,
    "ticks": late_ticks,
    "memory": broker_memory,
    "history": history_behind,
}
