"""Inspection: the facts that the checks judge, as they are at one time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postbacks.doctor.audit import Audit
    from postbacks.doctor.details import Details
    from postbacks.monitor.snapshot import Snapshot
    from postbacks.settings import Settings


@dataclass(frozen=True, slots=True)
class Inspection:
    """Facts that the checks judge.

    Attributes:
        snapshot: the system as metrics and health see it.
        details: what doctor asks beside it.
        audit: every postback against its record, every lane against its counts.
        settings: those of this process, which workers should have as well.
    """

    snapshot: Snapshot
    details: Details
    audit: Audit
    settings: Settings
