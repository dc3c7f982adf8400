"""Limit of the transfers of one process."""

from __future__ import annotations

import resource
from typing import Final

from postbacks.logs import EventLog
from postbacks.settings import Settings
from postbacks.transport.resolver import LOOKUPS_MAX

log = EventLog(__name__)

#: File descriptors of one transfer: both addresses of a host are tried (IPv4 and IPv6), or a kept connection is watched.
DESCRIPTORS_EACH: Final = 2
#: File descriptors beside the transfers': idle connections (512), the broker's connections, logs, and
#: the clients of the metrics' port (``CLIENTS_MAX`` of monitor/server.py, and as many to the broker).
SPARE_DESCRIPTORS: Final = 700


def max_transfers(settings: Settings) -> int:
    """Return how many transfers a process may have open: the setting, as far as file descriptors allow.

    Raises the soft limit of open files as far as that needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_EACH * settings.max_transfers + LOOKUPS_MAX + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings.max_transfers
    # Each may look its name up as well. Of a low limit, half is left for everything else.
    spare = min(SPARE_DESCRIPTORS, soft // 2)
    allowed = max(2, (soft - spare) // (DESCRIPTORS_EACH + 1))
    log.warning("delivery.few_descriptors", "raise the limit of open files", limit=soft, transfers=allowed)
    return allowed
