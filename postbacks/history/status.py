"""Status of the history: what its feed, its recorder and its database say of themselves, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from postbacks.ledger.record import iso

#: States of the recording.
OFF: Final = "off"
ON: Final = "on"
#: The feed is on, and nobody copies it: no recorder runs, or the one that does cannot go on.
WAITING: Final = "waiting"
CATCHING_UP: Final = "catching up"
RESYNC: Final = "resync under way"
#: The broker cannot be asked.
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStatus:
    """Feed and recorder, as the broker knows them. Times are ms since the epoch on the broker's clock.

    Attributes:
        state: ``OFF``, ``ON``, ``WAITING``, ``CATCHING_UP``, ``RESYNC`` or ``UNKNOWN``.
        now_ms: the broker's clock.
        since_ms: since when the feed is on, or off; None where it never was on.
        off_reason: why it is off.
        holder: the recorder that works; empty where none does.
        seen_ms: last sign of a recorder.
        lag_s: age of the oldest change that history does not have; None while the feed is off.
        entries: of the feed that are not recorded.
        bytes: memory of the broker that they take.
        share: the same as a share of its memory.
        gaps: how often entries were dropped before they were read.
        gap_entries: how many.
        gap_ms: when they were last.
        resync: why a resync is wanted or under way; empty where none is.
        resync_records: records that the resync under way has read.
        resynced_ms: when a resync has last ended.
        waits: why the recorder cannot go on, a sentence; empty where it can.
        waits_since_ms: since when.
        unreadable: records that its recorder could not read since it started.
        unreadable_id: id of the last of them.
        older: versions at work that write no feed.
        rows: postbacks that history has, as its recorder last counted them; None where it has not.
        disk_bytes: what its database takes, as its recorder last measured it.
        recorded_ms: until when everything is recorded, as its recorder last said.
        fault: why the broker cannot be asked, a sentence.
    """

    state: str
    now_ms: int | None = None
    since_ms: int | None = None
    off_reason: str = ""
    holder: str = ""
    seen_ms: int | None = None
    lag_s: float | None = None
    entries: int = 0
    bytes: int = 0
    share: float = 0.0
    gaps: int = 0
    gap_entries: int = 0
    gap_ms: int | None = None
    resync: str = ""
    resync_records: int | None = None
    resynced_ms: int | None = None
    waits: str = ""
    waits_since_ms: int | None = None
    unreadable: int = 0
    unreadable_id: str = ""
    older: tuple[str, ...] = ()
    rows: int | None = None
    disk_bytes: int | None = None
    recorded_ms: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Database of the history. Times are ms since the epoch on the broker's clock.

    Attributes:
        url: of the database, without password; empty where none is set.
        rows: postbacks that it has.
        disk_bytes: what it takes on its disk.
        postbacks_from_ms: acceptance of the oldest postback; None where it has none.
        attempts_from_ms: of postbacks accepted before, attempts are pruned.
        documents_from_ms: of postbacks accepted before, documents are pruned.
        recorded_ms: until when it has everything that has changed in the broker.
        fault: why it cannot be asked, a sentence.
    """

    url: str = ""
    rows: int | None = None
    disk_bytes: int | None = None
    postbacks_from_ms: int | None = None
    attempts_from_ms: int | None = None
    documents_from_ms: int | None = None
    recorded_ms: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """History as it stands.

    Attributes:
        feed: its feed and its recorder.
        store: its database.
        faults: what is wrong, a sentence each, with what to do.
    """

    feed: FeedStatus
    store: StoreStatus
    faults: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """State of the recording."""
        return self.feed.state

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return not self.faults

    def to_public_dict(self) -> dict[str, Any]:
        """Return the object that ``postbacks history status --json`` prints."""
        feed, store = self.feed, self.store
        return {
            "ok": self.ok,
            "state": feed.state,
            "since": iso(feed.since_ms),
            "off_reason": feed.off_reason or None,
            "recorder": feed.holder or None,
            "recorder_seen": iso(feed.seen_ms),
            "lag_s": None if feed.lag_s is None else round(feed.lag_s, 3),
            "recorded": iso(store.recorded_ms or feed.recorded_ms),
            "feed_entries": feed.entries,
            "feed_bytes": feed.bytes,
            "feed_share": round(feed.share, 4),
            "gaps": feed.gaps,
            "gap_entries": feed.gap_entries,
            "last_gap": iso(feed.gap_ms),
            "resync": feed.resync or None,
            "resync_records": feed.resync_records,
            "resynced": iso(feed.resynced_ms),
            "unreadable": feed.unreadable,
            "older_versions": list(feed.older),
            "database": store.url or None,
            "rows": feed.rows if store.rows is None else store.rows,
            "disk_bytes": feed.disk_bytes if store.disk_bytes is None else store.disk_bytes,
            "postbacks_from": iso(store.postbacks_from_ms),
            "attempts_from": iso(store.attempts_from_ms),
            "documents_from": iso(store.documents_from_ms),
            "faults": list(self.faults),
        }
