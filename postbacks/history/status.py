"""Status of the history: what its feed, its recorder and its database say of themselves, and what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from postbacks.broker import memory
from postbacks.broker.versions import is_before, read_versions
from postbacks.errors import BrokerError, HistoryError
from postbacks.history.feed import GAP, REASONS, Feed, place_of
from postbacks.ledger.record import iso

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from sqlalchemy import Connection, Engine

    from postbacks.history.feed import FeedState
    from postbacks.settings import Settings

#: States of the recording.
OFF: Final = "off"
ON: Final = "on"
#: The feed is on, and nobody copies it: no recorder runs, or the one that does cannot go on.
WAITING: Final = "waiting"
CATCHING_UP: Final = "catching up"
RESYNC: Final = "resync under way"
#: The broker cannot be asked.
UNKNOWN: Final = "unknown"

#: Sentence where the drivers are not installed.
MISSING: Final = (
    "SQLAlchemy is not installed: pip install 'postbacks[history]', or 'postbacks[postgres]' for PostgreSQL."
)
#: The first version whose moves write the feed.
FEED_SINCE: Final = "0.2.0"
#: Seconds of lag from which on history catches up, and from which on that is a fault.
CATCHING_UP_FROM_S: Final = 5.0
LAG_FAULT_S: Final = 60.0
#: Ms after its last sign for which a recorder that waits counts as there: it tries again every 10 s (``recorder.py``).
WAITING_SIGN_MS: Final = 20_000


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
        older: versions at work that write no feed.
        rows: postbacks that history has, as its recorder last counted them; None where it has not.
        disk_bytes: what its database takes, as its recorder last measured it.
        recorded_ms: until when everything is recorded, as its recorder last said.
        late_opt_outs: opt-outs that are not delivered in time, as its recorder last counted them.
        oldest_late_opt_out_ms: when the oldest of them was accepted.
        open_incidents: incidents that are open, as its recorder last counted them.
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
    older: tuple[str, ...] = ()
    rows: int | None = None
    disk_bytes: int | None = None
    recorded_ms: int | None = None
    late_opt_outs: int | None = None
    oldest_late_opt_out_ms: int | None = None
    open_incidents: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Database of the history. Times are ms since the epoch on the broker's clock.

    Attributes:
        url: of the database, without password; empty where none is set.
        rows: postbacks that it has.
        disk_bytes: what it takes on its disk.
        postbacks_from_ms: acceptance of the oldest postback; None where it has none.
        attempts_from_ms: from when on attempts are there: of postbacks that ended before, they are pruned.
        documents_from_ms: from when on documents are there.
        recorded_ms: until when it has everything that has changed in the broker.
        unreadable: records that could not be read, and so are not in it.
        fault: why it cannot be asked, a sentence.
    """

    url: str = ""
    rows: int | None = None
    disk_bytes: int | None = None
    postbacks_from_ms: int | None = None
    attempts_from_ms: int | None = None
    documents_from_ms: int | None = None
    recorded_ms: int | None = None
    unreadable: int = 0
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
            "unreadable": store.unreadable,
            "older_versions": list(feed.older),
            "database": store.url or None,
            "rows": feed.rows if store.rows is None else store.rows,
            "disk_bytes": feed.disk_bytes if store.disk_bytes is None else store.disk_bytes,
            "postbacks_from": iso(store.postbacks_from_ms),
            "attempts_from": iso(store.attempts_from_ms),
            "documents_from": iso(store.documents_from_ms),
            "faults": list(self.faults),
        }


def read(client: redis.Redis, settings: Settings) -> Status:
    """Read the whole status; what cannot be asked says so in its part."""
    feed, store = read_feed(client), read_store(settings)
    return Status(feed=feed, store=store, faults=tuple(faults(feed, store, settings)))


def read_feed(client: redis.Redis, *, clock_offset_ms: int = 0) -> FeedStatus:
    """Read what the broker knows, without the database; never raises BrokerError."""
    try:
        state = Feed(client, clock_offset_ms=clock_offset_ms).state()
        limit = memory.limit_of(client)
        older = older_versions(client, clock_offset_ms) if state.on_ms is not None else ()
    except BrokerError as error:
        return FeedStatus(state=UNKNOWN, fault=str(error))
    note = parsed_note(state.note)
    has_lease = bool(state.holder) and (state.lease_ends_ms or 0) > state.now_ms
    waits = note.get("waits", "") if state.now_ms - (state.seen_ms or 0) < WAITING_SIGN_MS else ""
    lag_s = _lag_s(state)
    return FeedStatus(
        state=_state(state, goes_on=has_lease and not waits, resyncs="resync_records" in note, lag_s=lag_s),
        now_ms=state.now_ms,
        since_ms=state.on_ms if state.on_ms is not None else state.off_ms,
        off_reason=state.off_reason,
        holder=state.holder if has_lease else "",
        seen_ms=state.seen_ms,
        lag_s=lag_s,
        entries=state.length,
        bytes=state.bytes,
        share=state.bytes / limit if limit else 0.0,
        gaps=state.gaps,
        gap_entries=state.gap_entries,
        gap_ms=state.gap_ms,
        resync=state.resync,
        resync_records=note.get("resync_records") if has_lease else None,
        resynced_ms=state.resynced_ms,
        waits=waits,
        waits_since_ms=note.get("waits_since_ms") if waits else None,
        older=older,
        rows=note.get("rows"),
        disk_bytes=note.get("disk_bytes"),
        recorded_ms=note.get("recorded_ms"),
        late_opt_outs=note.get("late_opt_outs"),
        oldest_late_opt_out_ms=note.get("oldest_late_opt_out_ms"),
        open_incidents=note.get("open_incidents"),
    )


def doubt(client: redis.Redis) -> str:
    """Say why the history may not know the latest of what it has, a sentence; empty where it knows."""
    feed = read_feed(client)
    if feed.resync:
        why = f"a resync is due ({REASONS.get(feed.resync, feed.resync)})"
    elif feed.state == OFF:
        why = "its feed is off"
    elif (feed.lag_s or 0) > CATCHING_UP_FROM_S:
        why = f"it is {feed.lag_s:,.0f} s behind"
    else:
        return ""
    return f"The history may not know the latest: {why}; `postbacks history status` says more."


def read_store(settings: Settings) -> StoreStatus:
    """Read what the database knows; never raises HistoryError."""
    if not settings.history_url:
        return StoreStatus()
    try:
        from postbacks.history import facts  # noqa: PLC0415 - an extra brings SQLAlchemy
        from postbacks.history.engine import reader  # noqa: PLC0415
        from postbacks.history.transactions import database_errors, display  # noqa: PLC0415
    except ImportError:
        return StoreStatus(url="(unread)", fault=MISSING)
    url = display(settings.history_url)
    try:
        engine = reader(settings)
        with database_errors(engine), engine.connect() as connection:
            known = facts.read(connection)
            oldest_ms = _oldest_ms(connection)
            size = measure(engine)
    except HistoryError as error:
        return StoreStatus(url=url, fault=str(error))

    def ms(name: str) -> int | None:
        return int(known[name]) if name in known else None

    def from_ms(name: str) -> int | None:
        return None if oldest_ms is None else max(oldest_ms, ms(name) or 0)

    return StoreStatus(
        url=url,
        rows=size["rows"],
        disk_bytes=size["disk_bytes"],
        postbacks_from_ms=oldest_ms,
        attempts_from_ms=from_ms(facts.ATTEMPTS_FROM_MS),
        documents_from_ms=from_ms(facts.DOCUMENTS_FROM_MS),
        recorded_ms=ms(facts.RECORDED_MS),
        unreadable=ms(facts.UNREADABLE) or 0,
    )


def measure(engine: Engine) -> dict[str, int]:
    """Count the postbacks of a database, and measure the bytes that it takes: ``rows`` and ``disk_bytes``."""
    from sqlalchemy import func, select, text  # noqa: PLC0415

    from postbacks.history.schema import counts  # noqa: PLC0415
    from postbacks.history.transactions import database_errors  # noqa: PLC0415

    with database_errors(engine), engine.connect() as connection:
        rows = connection.execute(select(func.coalesce(func.sum(counts.c.postbacks), 0))).scalar_one()
        if engine.dialect.name == "sqlite":
            file_of = "SELECT file FROM pragma_database_list WHERE name = 'main'"
            path = connection.execute(text(file_of)).scalar_one()
            return {"rows": int(rows), "disk_bytes": _bytes_of(path)}
        disk_bytes = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    return {"rows": int(rows), "disk_bytes": int(disk_bytes)}


def _bytes_of(path: str) -> int:
    """Return the bytes of SQLite's file and of its write-ahead log, as they take room on the disk."""
    files = [Path(path), Path(f"{path}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


def _oldest_ms(connection: Connection) -> int | None:
    from sqlalchemy import func, select  # noqa: PLC0415

    from postbacks.history.schema import postbacks  # noqa: PLC0415

    oldest_ms: int | None = connection.execute(select(func.min(postbacks.c.accepted_ms))).scalar()
    return oldest_ms


def older_versions(client: redis.Redis, clock_offset_ms: int = 0) -> tuple[str, ...]:
    """Return the versions at work whose moves write no feed."""
    versions = read_versions(client, clock_offset_ms=clock_offset_ms)
    return tuple(sorted(version for version in versions if is_before(version, FEED_SINCE)))


def parsed_note(note: str) -> dict[str, Any]:
    """Parse what a recorder noted of itself (``Feed.note``); empty where it is none."""
    try:
        parsed = json.loads(note)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _lag_s(state: FeedState) -> float | None:
    """Return the age of the oldest change that is not recorded."""
    if state.on_ms is None:
        return None
    if not state.first_id:
        return 0.0
    return max(0.0, (state.now_ms - place_of(state.first_id)[0]) / 1000)


def _state(state: FeedState, *, goes_on: bool, resyncs: bool, lag_s: float | None) -> str:
    if state.on_ms is None:
        return OFF
    if not goes_on:
        return WAITING
    if resyncs:
        return RESYNC
    return CATCHING_UP if (lag_s or 0) > CATCHING_UP_FROM_S else ON


def faults(feed: FeedStatus, store: StoreStatus, settings: Settings) -> Iterator[str]:
    """Yield what is wrong, a sentence each with what to do."""
    if feed.fault:
        yield feed.fault
    elif feed.state == OFF and settings.history_url:
        since = f" since {iso(feed.since_ms)} ({feed.off_reason})" if feed.since_ms else ""
        yield f"The feed is off{since}, so nothing is recorded: `postbacks history run` turns it on."
    elif feed.waits:
        yield f"The recorder waits since {iso(feed.waits_since_ms)}: {feed.waits}"
    elif feed.state == WAITING:
        seen = f" since {iso(feed.seen_ms)}" if feed.seen_ms else ""
        yield (
            f"No recorder has given a sign of life{seen}: start one (`postbacks history run`). Until then the feed keeps "
            f"what changes, in {settings.history_feed_share:.0%} of the broker's memory and for a week at most."
        )
    elif (feed.lag_s or 0) > LAG_FAULT_S:
        yield (
            f"The recorder is {feed.lag_s:.0f} s behind: see its log, the disk of its database, and whether it has a core to "
            "itself."
        )
    if feed.resync == GAP:
        yield (
            f"{feed.gap_entries:,} changes were dropped before they were read, the last at {iso(feed.gap_ms)}: a resync closes "
            "the gap from the records that are still there, by itself."
        )
    if feed.older:
        yield (
            f"Workers of version {', '.join(feed.older)} are at work, which tell the history nothing: replace them. A resync "
            "brings what they do when the last of them has gone."
        )
    if store.fault:
        yield store.fault
    if store.unreadable:
        yield (
            f"{store.unreadable:,} records could not be read, and are not in the history: the recorder's log names them "
            "(history.unreadable)."
        )
