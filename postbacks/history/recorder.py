"""Recorder: copies what has changed in the broker into the history's database.

One recorder works at a time, by a lease in the broker; others wait for it. Each takes a number in the database when it
begins, and its transactions hold only while that number is the latest: so one that was frozen writes nothing old over new.

A turn reads entries from the front of the feed, reads the records that they name, writes them in one transaction, and only
then trims the feed. A recorder that is killed at any point has its work done again, which changes nothing.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue.opt_outs import words_of
from postbacks.errors import BrokerError, HistoryError, HistoryOff, HistoryUnfit, LeaseLost
from postbacks.history import facts, schema
from postbacks.history.engine import connect
from postbacks.history.feed import BROKER, DATABASE, OLDER, REASONS, RESTARTED, Feed, place_of
from postbacks.history.migrations import prepare
from postbacks.history.opt_outs import late
from postbacks.history.records import Records
from postbacks.history.resync import Resync
from postbacks.history.status import measure, older_versions, parsed_note
from postbacks.history.transactions import database_errors, display, reading, writing
from postbacks.history.writer import Writer
from postbacks.killpoints import reach
from postbacks.ledger import journal
from postbacks.logs import EventLog

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator, Sequence

    import redis
    from sqlalchemy import Connection, Engine

    from postbacks.history.feed import Entry
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Time for which a recorder that says nothing keeps the lease.
LEASE_MS: Final = 10_000
#: Seconds between two renewals of it, two looks at a feed that is empty, and until the first try after a failure.
EVERY_S: Final = 1.0
#: Time that changes are left to gather, so that a postback that is accepted and delivered at once is written once.
GATHER_S: Final = 1.5
#: Ids of a batch, doubles included, and different ids of it with which there is no need to wait for more.
BATCH_IDS: Final = 2000
BATCH_POSTBACKS: Final = 1000
#: Entries of the journal that are copied at once.
JOURNAL_ENTRIES: Final = 500
#: Rows that are pruned after a batch.
PRUNE_ROWS: Final = 2000
#: Seconds until rows are pruned again where none had to be.
PRUNE_EVERY_S: Final = 10.0
#: Seconds between two looks for workers that write no feed.
LOOK_FOR_OLDER_S: Final = 10.0
#: Seconds between two notes of what the recorder does.
NOTE_EVERY_S: Final = 2.0
#: Seconds between two looks at the database's size.
MEASURE_EVERY_S: Final = 60.0
#: Seconds between two counts of what is wrong: opt-outs that are late, incidents that are open.
COUNT_EVERY_S: Final = 10.0
_OPEN_INCIDENTS: Final = select(func.count()).where(schema.incidents.c.ended_ms.is_(None))
#: Seconds at most until it is tried again after a failure.
BACKOFF_MAX_S: Final = 10.0
#: Seconds after which it is logged again why the recorder waits.
LOG_AGAIN_S: Final = 60.0
#: Seconds for which a recorder that ends still copies what has gathered.
FINISH_S: Final = 1.0
#: Ids that ``Covered`` has at most, about 30 MB.
COVERED_MAX: Final = 200_000


class Recorder:
    """Recorder of one process.

    Args:
        client: the broker's client; replies come as bytes.
        settings: the database, and what it keeps.
        clock_offset_ms: added to the broker's clock, so that tests can move time.

    Attributes:
        holder: its name among recorders.
        works: True while it holds the lease and writes.
        batches: transactions with changes that it has written.
        written: records that it has written.
        turns: turns that have ended.
    """

    def __init__(self, client: redis.Redis, settings: Settings, *, clock_offset_ms: int = 0) -> None:
        self.holder: Final = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self.works = False
        self.batches = 0
        self.written = 0
        self.turns = 0
        self._client = client
        self._settings = settings
        self._clock_offset_ms = clock_offset_ms
        self._feed = Feed(client, clock_offset_ms=clock_offset_ms)
        self._records = Records(client)
        self._engine = connect(settings.history_url)
        self._writer = Writer(self._engine, opt_out_words=words_of(settings.opt_out_words))
        self._covered = Covered()
        self._trouble = Trouble()
        self._resync: Resync | None = None
        self._older: tuple[str, ...] = ()
        self._note: dict[str, Any] = {}
        self._has_worked = False
        self._stands_by = False
        self._was_started = True
        self._is_off = False
        self._renewed_s = -math.inf
        self._first_seen = ("", 0.0)
        self._next_s: dict[str, float] = {}

    # -- the loop -------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Record until ``stop`` is set; then copy what has gathered, and give the lease back.

        Raises:
            HistoryUnfit: the database cannot be used, and never could.
        """
        try:
            while not stop.is_set():
                stop.wait(self.turn())
            self._finish()
        finally:
            self.close()

    def turn(self) -> float:
        """Do what is to be done now; return the seconds until the next turn.

        Raises:
            HistoryUnfit: as ``run``.
        """
        try:
            wait_s = self._turn()
            self.turns += 1
        except LeaseLost as error:
            self._stop_working(f"{error}")
            return EVERY_S
        except HistoryOff as error:
            self._stand_still(f"{error}")
            return EVERY_S
        except (BrokerError, HistoryError) as error:
            if isinstance(error, HistoryUnfit) and not self._has_worked:
                raise
            return self._wait_after(error)
        if (self.works or self._trouble.is_of_broker) and (waited_s := self._trouble.end()):
            log.info("history.resumed", "broker and database answer again", waited_s=round(waited_s, 1))
        return wait_s

    def close(self) -> None:
        """Give the lease back, and close the database."""
        worked, self.works = self.works, False
        if not self._trouble.is_of_broker:
            with suppress(BrokerError):
                self._feed.release(self.holder)
        self._engine.dispose()
        if worked:
            log.info("history.stopped", "the lease is given back", holder=self.holder)

    @property
    def engine(self) -> Engine:
        """The database, for whoever works beside the recorder in its process."""
        return self._engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction beside the recorder's own, in any thread; it holds only while this recorder works.

        The recorder waits for its end: it must be short.

        Raises:
            LeaseLost: another recorder works, or none does yet.
            HistoryUnavailable: the database does not answer, is locked or full; nothing is written.
        """
        if not self.works:
            raise LeaseLost("This recorder does not work now: nothing was written.")
        with writing(self._engine) as connection:
            self._writer.check_lease(connection)
            yield connection

    @property
    def lease(self) -> int | None:
        """Number of the lease in the database; another one each time that it begins to work."""
        return self._writer.lease

    def lose_urls(self, urls: Collection[int]) -> None:
        """Forget the numbers of URLs that are gone; to be called within ``transaction``, when the writer stands still."""
        self._writer.lose_urls(urls)

    def _turn(self) -> float:
        if not self._holds_lease():
            return EVERY_S
        if not self.works:
            self._begin()
        self._look_for_older()
        self._begin_resync()
        wait_s = self._record()
        if self._is_due("journal", EVERY_S):
            self._copy_journal()
        if self._resync is not None and wait_s:
            self._go_on_with_resync(self._resync)
            wait_s = 0.0
        if self._is_due("note", NOTE_EVERY_S):
            self._tell()
        return min(wait_s, EVERY_S)

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_s.get(what, 0.0):
            return False
        self._next_s[what] = now_s + every_s
        return True

    # -- the lease ------------------------------------------------------------------------------

    def _holds_lease(self) -> bool:
        """Renew the lease when it is time, or try to get it."""
        now_s = time.monotonic()
        if self.works and now_s - self._renewed_s < EVERY_S:
            return True
        if not self._feed.acquire(self.holder, LEASE_MS):
            if self.works:
                self._stop_working("another recorder works by now")
            if not self._stands_by:
                log.info("history.standby", "another recorder works; this one waits for its end")
            self._stands_by = True
            self._was_started = False  # the feed is on, or was turned off since
            return False
        self._stands_by = False
        self._renewed_s = now_s
        if self.works:
            if self._turn_feed_on():  # somebody has emptied the broker
                self._resync = None
            self._look_for_restart()
        return True

    def _look_for_restart(self) -> None:
        """Want a resync where the broker is another process than before: what it has lost comes in no entry.

        The ids of its entries do not always say so: new ones may have come before this recorder has reached it.
        """
        with broker_errors():
            run_id = self._client.info("server")["run_id"]
        before = self._note.get("broker")
        if before == run_id:
            return
        if before:
            self._feed.want_resync(RESTARTED)
            self._next_s.pop("resync", None)
        self._note["broker"] = run_id
        self._tell()

    def _begin(self) -> None:
        """Begin to write: take the number in the database, turn the feed on, and see what the feed cannot tell."""
        state = self._feed.state()
        note = parsed_note(state.note)
        self._older = tuple(note.get("older", ()))
        self._note = {"recorded_id": note.get("recorded_id", ""), "broker": note.get("broker", "")}
        prepare(self._engine)
        self._writer.take_lease()
        self._covered = Covered()
        with database_errors(self._engine), self._engine.connect() as connection:
            recorded_id = facts.get(connection, facts.RECORDED_ID) or ""
        read_id = max(state.trimmed_id, self._note["recorded_id"], key=place_of)
        if self._turn_feed_on():
            self._note["broker"] = ""
        elif place_of(recorded_id) > place_of(self._feed.last_id()):
            self._feed.want_resync(BROKER)
        elif not recorded_id or place_of(recorded_id) < place_of(read_id):
            self._feed.want_resync(DATABASE)
        self._note["recorded_id"] = recorded_id
        self._next_s.clear()
        self._look_for_restart()
        self.works = self._has_worked = True
        log.info(
            "history.recording",
            "changes are copied from now on",
            holder=self.holder,
            database=display(self._settings.history_url),
        )

    def _turn_feed_on(self) -> bool:
        """Turn the feed on where it is off; return True if it was."""
        turned_on = self._feed.register(although_off=self._was_started)
        self._was_started = self._is_off = False
        if not turned_on:
            return False
        log.info(
            "history.feed_on", "the moves tell from now on what changes; a resync brings what the broker has"
        )
        return True

    def _stop_working(self, why: str) -> None:
        self.works = False
        self._resync = None
        log.warning("history.lease_lost", why, holder=self.holder)

    def _stand_still(self, why: str) -> None:
        """Wait, with the lease, for somebody to start a recorder anew: its feed was turned off."""
        self.works = False
        self._resync = None
        if not self._is_off:
            log.warning("history.off", why, holder=self.holder)
        self._is_off = True

    def _wait_after(self, error: BrokerError | HistoryError) -> float:
        """Log why it cannot go on, give the lease back for a recorder that can, and return the seconds to wait."""
        self.works = False
        self._resync = None
        wait_s = self._trouble.begin(str(error), is_of_broker=isinstance(error, BrokerError))
        if self._trouble.is_to_be_logged():
            log.warning("history.waits", f"{error} Deliveries go on; this is tried again.")
        if not self._trouble.is_of_broker:
            with suppress(BrokerError), broker_errors():
                self._tell()
                self._feed.release(self.holder)
        return wait_s

    # -- changes --------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Copy what has gathered, for a moment at most: the feed keeps the rest for the next recorder."""
        deadline_s = time.monotonic() + FINISH_S
        with suppress(BrokerError, HistoryError):
            if self.works:
                self._copy_journal()
            while self.works and time.monotonic() < deadline_s and not self._record(gathers=False):
                pass

    def _record(self, *, gathers: bool = True) -> float:
        """Copy a batch of changes, where there is one; return the seconds until there may be the next."""
        entries, now_ms = self._feed.read(BATCH_IDS)
        if not entries:
            return self._idle(now_ms)
        names = dict.fromkeys(name for entry in entries for name in entry.ids)
        if gathers and len(names) < BATCH_POSTBACKS:
            wait_s = self._gathers_for(entries[0].id, now_ms)
            if wait_s > 0:
                return wait_s
        through = entries[-1].id
        postback_ids = self._covered.without_covered(entries) if self._covered else list(names)
        hashes, newest = self._records.read(postback_ids)
        recorded_ms = now_ms if newest == through else place_of(through)[0]
        self._write(postback_ids, hashes, recorded_id=through, recorded_ms=recorded_ms)
        self._covered.add(postback_ids, place_of(newest), through=place_of(through))
        self._feed.trim(through)
        reach("after:history-trim")
        if self._is_due("prune", PRUNE_EVERY_S):
            self._prune(now_ms)
        return 0.0

    def _copy_journal(self) -> None:
        """Copy the journal's entries that wait, and only then drop them: one that is read again changes nothing."""
        entries = journal.waiting(self._client, JOURNAL_ENTRIES)
        if not entries:
            return
        self._writer.copy_journal([entry for _, entry in entries])
        journal.drop(self._client, entries[-1][0])
        if len(entries) == JOURNAL_ENTRIES:
            self._next_s.pop("journal")

    def _gathers_for(self, first_id: str, now_ms: int) -> float:
        """Return the seconds for which changes are still left to gather; by both clocks, as the broker's may jump."""
        now_s = time.monotonic()
        if self._first_seen[0] != first_id:
            self._first_seen = (first_id, now_s)
        age_ms = now_ms - place_of(first_id)[0]
        return GATHER_S - max(age_ms / 1000, now_s - self._first_seen[1])

    def _idle(self, now_ms: int) -> float:
        """Note that all is recorded, and prune; return the seconds until changes are looked for again."""
        if self._is_due("idle", EVERY_S):
            # A database without an id counts as one that the feed was not read into.
            recorded_id = None if self._note["recorded_id"] else self._id_of_empty_feed()
            self._write([], [], recorded_id=recorded_id, recorded_ms=now_ms)
        if self._is_due("prune", PRUNE_EVERY_S) and self._prune(now_ms):
            return 0.0
        return EVERY_S

    def _id_of_empty_feed(self) -> str | None:
        """Return the id of the latest entry that ever was, where none is left to read."""
        last_id = self._feed.last_id()
        return None if self._feed.read(1)[0] else last_id

    def _write(
        self,
        postback_ids: Sequence[str],
        hashes: Sequence[dict[bytes, bytes]],
        *,
        recorded_id: str | None = None,
        recorded_ms: int | None = None,
    ) -> None:
        reach("before:history-write")
        records = list(zip(postback_ids, hashes, strict=True))
        self._writer.write(records, recorded_id=recorded_id, recorded_ms=recorded_ms)
        reach("after:history-write")
        self.batches += bool(postback_ids)
        self.written += len(postback_ids)
        said = {"recorded_id": recorded_id, "recorded_ms": recorded_ms}
        self._note |= {name: value for name, value in said.items() if value is not None}

    def _prune(self, now_ms: int) -> int:
        """Prune some rows; where there were any, more are pruned after the next batch.

        The earlier of the broker's clock and this machine's decides: one that is wrong by months must not prune all.
        """
        own_ms = time.time_ns() // 1_000_000 + self._clock_offset_ms
        pruned = self._writer.prune(min(now_ms, own_ms), self._settings, PRUNE_ROWS)
        pruned += self._writer.prune_journal(min(now_ms, own_ms), self._settings, PRUNE_ROWS)
        if pruned:
            self._next_s.pop("prune")
        return pruned

    # -- resyncs --------------------------------------------------------------------------------

    def _begin_resync(self) -> None:
        """Begin the resync that is wanted, where none is under way; looked at every second."""
        if self._resync is not None or not self._is_due("resync", EVERY_S):
            return
        reason, gaps = self._feed.begin_resync()
        if reason:
            self._resync = Resync(self._client, self._engine, reason, gaps)
            log.info(
                "history.resync_started",
                "all records of the broker are read",
                why=REASONS.get(reason, reason),
            )

    def _go_on_with_resync(self, resync: Resync) -> None:
        """Copy a page of it, between two batches of changes."""
        postback_ids = resync.next_page()
        if postback_ids:
            hashes, _ = self._records.read(postback_ids)
            self._write(postback_ids, hashes)
        if resync.done:
            self._resync = None
            self._feed.note_resynced(resync.reason, resync.gaps)
            self._next_s.pop("resync", None)
            log.info(
                "history.resync_done", records=resync.records, why=REASONS.get(resync.reason, resync.reason)
            )
            self._tell()

    def _look_for_older(self) -> None:
        """Look for workers that write no feed; want a resync when the last of them has gone."""
        if not self._is_due("older", LOOK_FOR_OLDER_S):
            return
        before, self._older = self._older, older_versions(self._client, self._clock_offset_ms)
        if self._older and self._older != before:
            log.warning(
                "history.older_at_work",
                "its workers do not tell the history what they do; a resync follows when the last of them has gone",
                versions=", ".join(self._older),
            )
        if before and not self._older:
            self._feed.want_resync(OLDER)
            self._next_s.pop("resync", None)
        if before != self._older:
            self._tell()

    # -- what it says of itself -----------------------------------------------------------------

    def _tell(self) -> None:
        """Note in the broker what the recorder does, for ``status.py``."""
        if self.works and self._is_due("measure", MEASURE_EVERY_S):
            self._note |= measure(self._engine)
        if self.works and self._is_due("count", COUNT_EVERY_S):
            self._note |= self._count()
        note = {**self._note, "older": self._older}
        if self._resync is not None:
            note["resync_records"] = self._resync.records
        if not self.works and self._trouble.sentence:
            since_ms = now_ms(self._client) + self._clock_offset_ms - self._trouble.seconds * 1000
            note |= {"waits": self._trouble.sentence, "waits_since_ms": int(since_ms)}
        self._feed.note(self.holder, json.dumps(note))

    def _count(self) -> dict[str, Any]:
        with reading(self._engine) as connection:
            opt_outs = late(connection, self._settings.opt_out_late_s)
            open_incidents = connection.execute(_OPEN_INCIDENTS).scalar_one()
        return {
            "late_opt_outs": opt_outs.postbacks,
            "oldest_late_opt_out_ms": opt_outs.oldest_ms,
            "open_incidents": open_incidents,
        }


class Covered:
    """Ids whose records were read after changes that the feed still tells: those need no second reading.

    No clock is asked: a reading covers the entries up to the newest that the feed had just before it.
    """

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, int]] = {}
        self._last = (0, 0)

    def __bool__(self) -> bool:
        """True where any reading covers what is still to come."""
        return bool(self._newest)

    def without_covered(self, entries: Sequence[Entry]) -> list[str]:
        """Return the ids of these entries that must be read, none twice."""
        newest, nothing = self._newest, (0, 0)
        wanted: dict[str, None] = {}
        for entry in entries:
            place = place_of(entry.id)
            wanted.update(dict.fromkeys(name for name in entry.ids if newest.get(name, nothing) < place))
        return list(wanted)

    def add(self, postback_ids: Sequence[str], newest: tuple[int, int], *, through: tuple[int, int]) -> None:
        """Remember a reading.

        Args:
            postback_ids: whose records were read.
            newest: the feed's newest entry just before.
            through: the entry until which the feed is recorded: readings up to it cover nothing more.
        """
        if (
            newest < self._last or self._last <= through
        ):  # a broker that has lost its latest changes: its entries' ids may come again
            self._newest.clear()
        elif len(self._newest) + len(postback_ids) > COVERED_MAX:
            self._newest = {name: place for name, place in self._newest.items() if place > through}
        self._last = max(newest, through)
        if newest > through and len(self._newest) + len(postback_ids) <= COVERED_MAX:
            self._newest.update(dict.fromkeys(postback_ids, newest))


class Trouble:
    """Time in which broker or database cannot be used.

    Attributes:
        sentence: why, as an error says it; empty while they can.
        is_of_broker: True where it is the broker.
    """

    def __init__(self) -> None:
        self.sentence = ""
        self.is_of_broker = False
        self._since_s = 0.0
        self._backoff_s = 0.0
        self._logged_s = -math.inf

    @property
    def seconds(self) -> float:
        """Seconds since it began; 0 where there is none."""
        return time.monotonic() - self._since_s if self.sentence else 0.0

    def begin(self, sentence: str, *, is_of_broker: bool) -> float:
        """Begin it, or let it go on; return the seconds until the next try."""
        if not self.sentence:
            self._since_s, self._backoff_s, self._logged_s = time.monotonic(), 0.0, -math.inf
        self.sentence, self.is_of_broker = sentence, is_of_broker
        self._backoff_s = min(BACKOFF_MAX_S, self._backoff_s * 2 or EVERY_S)
        return self._backoff_s

    def is_to_be_logged(self) -> bool:
        """Tell whether a line is due: one at its begin, and one a minute."""
        if time.monotonic() - self._logged_s < LOG_AGAIN_S:
            return False
        self._logged_s = time.monotonic()
        return True

    def end(self) -> float:
        """End it; return the seconds that it took, 0 where there was none."""
        seconds, self.sentence, self.is_of_broker = self.seconds, "", False
        return seconds
