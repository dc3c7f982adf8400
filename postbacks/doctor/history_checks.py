"""Checks of the history: its feed, its recorder and its database. Each takes an inspection and returns what is at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.doctor.broker_checks import WHOLE, duration
from postbacks.history.feed import GAP
from postbacks.history.status import OFF, UNKNOWN, WAITING, FeedStatus
from postbacks.ledger.record import iso

if TYPE_CHECKING:
    from postbacks.doctor.inspection import Inspection

#: Seconds that a recorder may be behind: it is 3 s at most while it keeps up.
BEHIND_S: Final = 60.0
#: Seconds without a recorder: another one goes on 10 s after a death.
SILENT_S: Final = 60.0
#: Part of its share of the memory that the feed may take before it is worth a word.
NEARLY_FULL: Final = 0.5
#: Feed that was never turned on.
_NEVER_ON: Final = FeedStatus(state=OFF)


def is_off(inspection: Inspection) -> dict[str, str]:
    """Report that a history is set and its feed is off."""
    feed = _feed(inspection)
    if feed.state != OFF or not inspection.settings.history_url:
        return {}
    if not feed.since_ms:
        return {WHOLE: "no recorder has ever turned it on"}
    return {WHOLE: f"since {iso(feed.since_ms)}, {feed.off_reason or 'for no noted reason'}"}


def no_recorder(inspection: Inspection) -> dict[str, str]:
    """Report that the feed is on and nobody reads it."""
    feed = _feed(inspection)
    if feed.state == UNKNOWN:
        return {WHOLE: feed.fault.rstrip(".")}
    if feed.state != WAITING or feed.waits:
        return {}
    since_ms, now_ms = feed.seen_ms or feed.since_ms or 0, feed.now_ms or 0
    age_s = (now_ms - since_ms) / 1000
    return {WHOLE: f"none has been heard of for {duration(age_s)}"} if age_s > SILENT_S else {}


def behind(inspection: Inspection) -> dict[str, str]:
    """Report that a recorder runs, and cannot go on or does not keep up."""
    feed = _feed(inspection)
    if feed.waits:
        return {WHOLE: f"it waits: {feed.waits.rstrip('.')}"}
    if feed.state == WAITING or (feed.lag_s or 0) <= BEHIND_S:
        return {}
    return {WHOLE: f"it is {duration(feed.lag_s or 0)} behind"}


def nearly_full(inspection: Inspection) -> dict[str, str]:
    """Report that what is not recorded takes much of the memory that it may."""
    feed, most = _feed(inspection), inspection.settings.history_feed_share
    used = feed.share / most
    return (
        {WHOLE: f"{feed.entries:,} entries, {used:.0%} of what they may take"} if used > NEARLY_FULL else {}
    )


def gap(inspection: Inspection) -> dict[str, str]:
    """Report that changes were dropped unread and no resync has ended since."""
    feed = _feed(inspection)
    if feed.resync != GAP:
        return {}
    return {WHOLE: f"{feed.gap_entries:,} entries, the last at {iso(feed.gap_ms)}"}


def older(inspection: Inspection) -> dict[str, str]:
    """Report versions at work that write no feed."""
    return {version: version for version in _feed(inspection).older}


def database(inspection: Inspection) -> dict[str, str]:
    """Report that the database cannot be read from here: it is away, or of another schema, or its driver is missing."""
    fault = inspection.details.history.fault
    return {WHOLE: fault.rstrip(".")} if fault else {}


def _feed(inspection: Inspection) -> FeedStatus:
    return inspection.snapshot.history or _NEVER_ON
