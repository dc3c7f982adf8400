"""Checks of accounts: which stand still, are down, have many dead, or are unknown though events come for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.doctor.broker_checks import WHOLE, duration
from postbacks.queue.shares import DOCUMENTS_SHARE, shares_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.doctor.inspection import Inspection

#: Accounts that one check names.
NAMED_MAX: Final = 10


def many_dead(inspection: Inspection) -> dict[str, str]:
    """Name accounts whose dead have nearly filled their share of the memory."""
    shares = shares_of(inspection.snapshot.max_memory_bytes, inspection.settings)
    return {
        account: f"{account or '(no account)'}: {size / 1e6:,.1f} of {shares.dead_bytes / 1e6:,.1f} MB"
        for account, size in inspection.details.dead_bytes.items()
        if size > shares.dead_bytes * DOCUMENTS_SHARE
    }


def standing_still(inspection: Inspection) -> dict[str, str]:
    """Name accounts that stand still while postbacks of theirs wait."""
    snapshot = inspection.snapshot
    return _first(
        {
            account: f"{account}: {still.state}, for {duration((snapshot.now_ms - still.since_ms) / 1000)}"
            for account, still in sorted(snapshot.still.items())
        }
    )


def down(inspection: Inspection) -> dict[str, str]:
    """Name accounts that are down, those first that have been for the longest."""
    return _first(
        {
            account: f"{account} has taken none for {duration(down_s)}"
            for account, down_s in inspection.snapshot.down.items()
        }
    )


def unrouted(inspection: Inspection) -> dict[str, str]:
    """Name accounts that events came for and that are not known, or that have no URL for them."""
    findings = {}
    for account, postbacks in inspection.details.unrouted.items():
        findings[account] = f"{account}: {postbacks.events:,} ({postbacks.reason})"
        if postbacks.left_ms is not None:
            left_s = (inspection.snapshot.now_ms - postbacks.left_ms) / 1000
            findings[account] += f", though it was there until {duration(left_s)} ago"
    return findings


def _first(findings: Mapping[str, str]) -> dict[str, str]:
    """Return the first ``NAMED_MAX`` of them, and how many more there are."""
    first = dict(list(findings.items())[:NAMED_MAX])
    if len(findings) > NAMED_MAX:
        first[WHOLE] = f"and {len(findings) - NAMED_MAX} more"
    return first
