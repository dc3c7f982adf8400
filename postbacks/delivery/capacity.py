"""How many transfers one process can hold."""

from __future__ import annotations

import logging
import resource
from typing import Final

from postbacks.settings import Settings

log = logging.getLogger(__name__)

#: File descriptors left for the broker's connections, logs and listening sockets.
SPARE_DESCRIPTORS: Final = 100


def transfers_allowed(settings: Settings) -> int:
    """How many transfers a process may have open: the setting, file descriptors allowing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_transfers + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings.max_transfers
    allowed = max(2, soft - SPARE_DESCRIPTORS)
    log.warning(
        "delivery.few_descriptors limit=%d transfers=%d: raise the limit of open files", soft, allowed
    )
    return allowed
