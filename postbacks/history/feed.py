"""Feed of the history: which postbacks have changed, as the moves publish it, and who reads it.

Each script that accepts, parks, ends, resends or drops postbacks adds one entry with their ids to a stream
(``queue/_changes.lua``). One recorder at a time reads it from its front, copies the records and then trims it. A tick holds
the stream under its share of the broker's memory, and turns the feed off after a week without a recorder
(``queue/limit_changes.lua``). Entries that it dropped are a gap, which a resync closes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from postbacks import keys
from postbacks.broker import lua
from postbacks.broker.client import text
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import HistoryOff

if TYPE_CHECKING:
    import redis

#: Why a resync is wanted: the feed has just been turned on.
REGISTERED: Final = "registered"
#: Why a resync is wanted: entries were dropped before they were read.
GAP: Final = "gap"
#: Why a resync is wanted: somebody has asked for it.
ASKED: Final = "asked"
#: Why a resync is wanted: workers of a version were at work that publishes no changes.
OLDER: Final = "older"
#: Why a resync is wanted: the recorder's database has less than was read from the feed, so it is another one, or older.
DATABASE: Final = "database"
#: Why a resync is wanted: the recorder's database has more than the broker, which has lost its latest changes.
BROKER: Final = "broker"

#: Nodes of the stream that its size is reckoned from; ``_changes.lua`` has the same number.
NODES_SAMPLED: Final = 1000
#: Reason -> the same in words.
REASONS: Final = {
    REGISTERED: "the feed was turned on",
    GAP: "changes were dropped before they were read",
    "refused": "the broker refused changes",
    ASKED: "somebody has asked for it",
    OLDER: "workers of a version were at work that does not tell the history what it does",
    DATABASE: "the database is another one than before, or an older copy of it",
    BROKER: "the broker has lost its latest changes",
}


def place_of(entry_id: str) -> tuple[int, int]:
    """Return the place of an entry in the stream by its id, so that two can be compared; an empty id stands before all."""
    ms, _, number = entry_id.partition("-")
    return int(ms or 0), int(number or 0)


class Entry(NamedTuple):
    """Entry of the feed: postbacks that one script has changed.

    Attributes:
        id: its id in the stream.
        ids: ids of the postbacks.
    """

    id: str
    ids: tuple[str, ...]


class FeedState(NamedTuple):
    """The feed in one instant. Times are ms of the broker's clock.

    Attributes:
        on_ms: since when it is on; None where it is off.
        off_ms: since when it is off; None where it is on, and where it never was on.
        off_reason: why it was turned off.
        length: entries.
        bytes: memory that they take.
        first_id: id of the oldest entry; empty where there is none.
        last_id: id of the newest entry; empty where there is none.
        seen_ms: last sign of a recorder.
        holder: the recorder that holds the lease; empty where none does.
        lease_ends_ms: when its lease ends.
        gaps: how often entries were dropped.
        gap_entries: how many.
        gap_ms: when they were last.
        resync: why a resync is wanted; empty where none is.
        resynced_ms: when a resync has last ended.
        now_ms: the broker's clock.
        note: what the recorder said last of itself (``status.py``), JSON; empty where none has.
    """

    on_ms: int | None
    off_ms: int | None
    off_reason: str
    length: int
    bytes: int
    first_id: str
    last_id: str
    seen_ms: int | None
    holder: str
    lease_ends_ms: int | None
    gaps: int
    gap_entries: int
    gap_ms: int | None
    resync: str
    resynced_ms: int | None
    now_ms: int
    note: str = ""


class Feed:
    """The feed of one broker.

    Args:
        client: the broker's client; replies come as bytes.
        clock_offset_ms: added to the broker's clock, so that tests can move time; 0 otherwise.
    """

    def __init__(self, client: redis.Redis, *, clock_offset_ms: int = 0) -> None:
        self._client = client
        self._clock_offset_ms = clock_offset_ms
        #: Mean of the last reading, so that the next one reads about as much as it may.
        self._ids_per_entry = 50.0

    # -- who records ----------------------------------------------------------------------------

    def acquire(self, holder: str, lease_ms: int) -> bool:
        """Take the lease of recorders or renew it, and give a sign of life; False while another recorder holds it."""
        return bool(self._run("acquire", holder, lease_ms))

    def release(self, holder: str) -> None:
        """Give the lease back, where it is this recorder's."""
        self._run("release", holder)

    def note(self, holder: str, note: str) -> bool:
        """Note what the recorder does, or why it waits; False while another recorder holds the lease."""
        return bool(self._run("note_recorder", holder, note))

    # -- on and off -----------------------------------------------------------------------------

    def register(self, *, although_off: bool = True) -> bool:
        """Turn the feed on; True where it was off: then a resync is wanted (``REGISTERED``).

        Args:
            although_off: also where somebody has turned it off.

        Raises:
            HistoryOff: somebody has turned it off.
        """
        turned_on = self._run("register", int(although_off))
        if turned_on < 0:
            raise HistoryOff(
                "The feed was turned off; `postbacks history run`, started anew, turns it on again."
            )
        return bool(turned_on)

    def turn_off(self, reason: str) -> bool:
        """Turn the feed off and drop its entries; False where it was off."""
        return bool(self._run("turn_off", reason))

    # -- entries --------------------------------------------------------------------------------

    def read(self, at_most_ids: int, after: str = "") -> tuple[list[Entry], int]:
        """Read from the front, whole entries: so many ids at most, but one entry where there is one.

        Args:
            at_most_ids: ids of postbacks.
            after: id of an entry; only what came later is read.

        Returns:
            The entries, and the broker's ms just before they were read; no entry means that nothing is left.
        """
        entries: list[Entry] = []
        count, now_ms = 0, 0
        while count < at_most_ids:
            most = math.ceil((at_most_ids - count) / self._ids_per_entry)
            start = f"({entries[-1].id if entries else after}" if entries or after else "-"
            with broker_errors():
                pipe = self._client.pipeline(transaction=False)
                pipe.time()
                pipe.xrange(keys.CHANGES, start, "+", count=most)
                time_reply, rows = pipe.execute()
            now_ms = to_ms(time_reply) + self._clock_offset_ms
            for entry_id, fields in rows:
                ids = tuple(text(fields[b"ids"]).split())
                if entries and count + len(ids) > at_most_ids:
                    return entries, now_ms
                entries.append(Entry(text(entry_id), ids))
                count += len(ids)
            if entries:
                self._ids_per_entry = max(1.0, count / len(entries))
            if len(rows) < most:
                break
        return entries, now_ms

    def trim(self, through: str) -> None:
        """Drop the entries up to this one, as they are recorded."""
        ms, _, number = through.partition("-")
        with broker_errors():
            self._client.xtrim(keys.CHANGES, minid=f"{ms}-{int(number) + 1}", approximate=False)

    def last_id(self) -> str:
        """Return the id of the newest entry that ever was; ``0-0`` where there was none."""
        with broker_errors():
            try:
                return text(self._client.xinfo_stream(keys.CHANGES)["last-generated-id"])
            except ResponseError as error:
                if "no such key" not in str(error):
                    raise
                return "0-0"

    # -- resyncs --------------------------------------------------------------------------------

    def want_resync(self, reason: str) -> None:
        """Note that a resync is wanted, where the feed is on."""
        self._run("want_resync", reason)

    def note_resynced(self, reason: str, gaps: int) -> None:
        """Note that a resync has ended, which answers this reason unless entries were dropped since it began.

        Args:
            reason: why it was wanted when it began.
            gaps: ``FeedState.gaps`` when it began.
        """
        self._run("note_resynced", reason, gaps)

    # -- all of it ------------------------------------------------------------------------------

    def state(self) -> FeedState:
        """Read the feed's state in one pipeline."""
        with broker_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(keys.HISTORY)
            pipe.xlen(keys.CHANGES)
            pipe.memory_usage(keys.CHANGES, samples=NODES_SAMPLED)
            pipe.xrange(keys.CHANGES, count=1)
            pipe.xrevrange(keys.CHANGES, count=1)
            pipe.time()
            pairs, length, size, oldest, newest, time_reply = pipe.execute()
        fields = {text(name): text(value) for name, value in pairs.items()}

        def ms(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        return FeedState(
            on_ms=ms("on_ms") if size is not None else None, off_ms=ms("off_ms"), off_reason=fields.get("off_reason", ""),
            length=length, bytes=size or 0,
            first_id=text(oldest[0][0]) if oldest else "", last_id=text(newest[0][0]) if newest else "",
            seen_ms=ms("seen_ms"), holder=fields.get("token", ""), lease_ends_ms=ms("ends_ms"),
            gaps=ms("gaps") or 0, gap_entries=ms("gap_entries") or 0, gap_ms=ms("gap_ms"),
            resync=fields.get("resync", ""), resynced_ms=ms("resynced_ms"),
            now_ms=to_ms(time_reply) + self._clock_offset_ms,
            note=fields.get("recorder", ""),
        )  # fmt: skip

    def _run(self, name: str, *arguments: str | int) -> Any:
        """Run a script of this room; a full broker runs it as well."""
        script = lua.load("history/_clock", "queue/_changes", f"history/{name}", when_full=True)
        with broker_errors():
            return self._client.eval(
                script.text, len(script.keys), *script.keys, self._clock_offset_ms, *arguments
            )
