"""Tick: the work of each second. Make room, take in, release, resume, reap, retire, drop, forget, and count what waits."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.accounts import find_accounts
from postbacks.broker import memory
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import AccountsUnavailable, BrokerUnfit
from postbacks.ledger import journal
from postbacks.logs import EventLog
from postbacks.queue import routes
from postbacks.queue.acceptance import first_in_a_minute
from postbacks.queue.intake import Intake
from postbacks.queue.shares import (
    DEAD_GO_PAST,
    DONE_GO_PAST,
    FEED_KEEPS,
    LEDGER_KEEPS,
    NOTHING_IN_FROM,
    shares_of,
)
from postbacks.retry import countdown_ms

if TYPE_CHECKING:
    from postbacks.accounts import AccountStore
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds that one tick may work before it hands over to the next one at once.
TICK_BUDGET_S: Final = 0.8
#: Ready lanes for which one more delivering process is woken.
LANES_PER_WAKE: Final = 10
#: Postbacks put into lanes by one tick, or in claims, for which one more is woken. One process could carry a greater load,
#: but if it died it would take all of it along.
MOVED_PER_WAKE: Final = 100
#: Deliver messages that one tick sends at most.
MAX_WAKES: Final = 8
#: Postbacks of accounts that are gone which one tick ends at most.
RETIRE_BATCH: Final = 1000
#: Milliseconds after which the latest number of an idle account may be forgotten, and an account's row is old. The account's
#: next number is above the forgotten one unless the broker's clock is put back by more than this.
IDLE_MS: Final = 86_400_000
#: Postbacks of a silent loop that one script call takes back; of a small loop five times as many, all at once.
REAP_BATCH: Final = 100
#: Records dropped by one script call.
RETAIN_BATCH: Final = 250
#: Time without a sign of a recorder after which the feed of the history is turned off, and what is noted then.
FEED_SILENT_MAX_MS: Final = 7 * 86_400_000
FEED_OFF_REASON: Final = "no recorder for seven days"
#: Entries of the journal that one tick writes to the log.
JOURNAL_BATCH: Final = 100
#: Accounts that a line of the log names.
ACCOUNTS_LOGGED: Final = 20


@dataclass(frozen=True, slots=True)
class TickResult:
    """Counts of one tick.

    Attributes:
        taken_in: messages taken in.
        released: parked postbacks that went back to their lanes.
        reaped: postbacks taken back from silent workers.
        dropped: records dropped by the retention.
        wakes: deliver tasks that there is work for.
        quarantined: postbacks that wait for an examiner.
        more: whether there is work left that did not fit in.
    """

    taken_in: int
    released: int
    reaped: int
    dropped: int
    wakes: int
    quarantined: int
    more: bool


class Tick:
    """Runs ticks; any number may run at the same time, in any number of processes."""

    def __init__(self, scripts: Scripts, accounts: AccountStore, settings: Settings) -> None:
        self._scripts = scripts
        self._settings = settings
        self._accounts = accounts
        self._intake = Intake(scripts, accounts, settings)
        self._memory = memory.Memory(0, 0)

    def run(self, wake: Callable[[int], None] = lambda _: None) -> TickResult:
        """Run one tick. Raises BrokerError where the broker cannot be used.

        Args:
            wake: sends this many ``deliver`` tasks at once, when so much comes in that the tick's end is far.
        """
        deadline_s = time.monotonic() + TICK_BUDGET_S
        dropped_early = self._make_room(deadline_s)
        taken_in, more_in = self._take_in(deadline_s, wake)
        batch = self._settings.release_batch
        released, more_due = self._repeat(lambda: self._scripts.release(batch), batch, deadline_s)
        self._resume()
        pause_ms = countdown_ms(self._settings)
        reaped, more_lost = self._repeat(
            lambda: self._scripts.reap(min(batch, REAP_BATCH), pause_ms), 1, deadline_s
        )
        self._retire()
        # As many as came in, however long that takes: else a flood of events that are dead at once would outrun the bound.
        dropped, _ = self._repeat(self._retain, RETAIN_BATCH, deadline_s, at_least=taken_in)
        wakes, quarantined = self._waiting(taken_in + released + reaped)
        self._forget()  # last, as it reads when ticks of older versions finished
        more = more_in or more_due or more_lost
        dropped += dropped_early
        return TickResult(taken_in, released, reaped, dropped, wakes, quarantined, more)

    def _take_in(self, deadline_s: float, wake: Callable[[int], None]) -> tuple[int, bool]:
        """Take messages in, as long as the broker has memory for their records."""
        if self._memory.share >= NOTHING_IN_FROM:
            return 0, False
        try:
            return self._intake.run(
                uuid.uuid4().hex, deadline_s, lambda moved: wake(min(MAX_WAKES, 1 + moved // MOVED_PER_WAKE))
            )
        except AccountsUnavailable as error:
            # Nothing is taken in, and it is tried again; what is in the lanes goes on.
            log.error("tick.accounts_unavailable", str(error))  # noqa: TRY400 - a line, not a trace
            return 0, False

    def _make_room(self, deadline_s: float) -> int:
        """Drop what has ended, before its time, while the broker is about to refuse messages; returns how many."""
        dropped, dropped_dead, entries, unrecorded, accounts = 0, 0, 0, 0, set[str]()
        self._memory = memory.recent(self._scripts.client)
        while self._memory.over(DONE_GO_PAST) and time.monotonic() < deadline_s:
            made = self._scripts.make_room(
                self._memory.over(DONE_GO_PAST),
                self._memory.over(DEAD_GO_PAST),
                int(self._memory.limit * LEDGER_KEEPS),
                RETAIN_BATCH,
                int(shares_of(self._memory.limit, self._settings).feed_bytes * FEED_KEEPS),
            )
            if not made.done + made.dead + made.entries:
                break
            dropped, dropped_dead = dropped + made.done + made.dead, dropped_dead + made.dead
            entries, unrecorded = entries + made.entries, unrecorded + made.unrecorded
            accounts |= made.accounts
            self._memory = memory.read(self._scripts.client)
        self._log_unread(entries)
        self._log_unrecorded(unrecorded)
        if dropped_dead:
            log.warning(
                "ledger.dead_dropped",
                "the broker is full: the oldest dead postbacks were dropped before their retention",
                account=",".join(sorted(filter(None, accounts))[:ACCOUNTS_LOGGED]) or None,
                postbacks=dropped_dead,
            )
        return dropped

    @staticmethod
    def _repeat(step: Callable[[], int], full: int, deadline_s: float, at_least: int = 0) -> tuple[int, bool]:
        """Repeat a step while it takes as much as it may, until the deadline and until it has done ``at_least``."""
        total = 0
        while True:
            count = step()
            total += count
            if count < full:
                return total, False
            if total >= at_least and time.monotonic() >= deadline_s:
                return total, True

    def _forget(self) -> None:
        """Forget the latest numbers of idle accounts, and look some accounts up whose rows are old.

        An application's own store does not tell anybody of an account that it drops.
        """
        _, names = self._scripts.forget(IDLE_MS)
        if not names:
            return
        keep_ms = int(self._settings.account_removed_keep_s * 1000)
        with suppress(AccountsUnavailable):  # the intake logs it
            accounts = find_accounts(self._accounts, names)
            routes.publish(self._scripts, names, accounts, keep_ms=keep_ms, store=self._accounts)

    def _resume(self) -> None:
        """Let accounts go on whose pause was to end by now."""
        if accounts := self._scripts.resume():
            log.info("account.resumed", "its pause was to end by now", account=",".join(sorted(accounts)))

    def _retire(self) -> None:
        """End some of what waits for accounts that have been gone for too long."""
        ended, accounts = self._scripts.retire(RETIRE_BATCH)
        if ended:
            log.warning(
                "account.retired",
                "they were removed; what waited for them is dead",
                account=",".join(sorted(accounts)),
                postbacks=ended,
            )

    def _retain(self) -> int:
        settings = self._settings
        ages_s = (settings.retention_delivered_s, settings.retention_dead_s, settings.retention_unrouted_s)
        may_take = shares_of(self._memory.limit, settings)
        retained = self._scripts.retain(*ages_s, may_take, RETAIN_BATCH)
        for account, count in retained.early.items():
            log.error(
                "retain.dead_dropped",
                "its dead take more than their share of the memory; the oldest are gone for good",
                account=account or None,
                postbacks=count,
            )
        for account in first_in_a_minute(self._scripts, keys.DEAD_LOGGED, retained.near):
            log.warning(
                "retain.many_dead",
                "its dead have nearly filled their share of the memory; then the oldest are gone for good",
                account=account or None,
            )
        self._log_unrecorded(retained.unrecorded)
        return retained.dropped

    def _limit_changes(self) -> None:
        """Hold the feed of the history under its share; turn it off after a week without a recorder."""
        may_take = shares_of(self._memory.limit, self._settings).feed_bytes
        entries, is_off = self._scripts.limit_changes(may_take, FEED_SILENT_MAX_MS, FEED_OFF_REASON)
        self._log_unread(entries)
        if is_off:
            log.warning(
                "feed.off",
                "no recorder has run for seven days, so nothing more is kept for the history; `postbacks history run` begins anew",
            )

    def _log_journal(self) -> None:
        """Write the journal's entries that wait to the log, as no recorder comes for them."""
        with suppress(BrokerUnfit):  # a user with the rights of the version before: the tick does all else
            entries = journal.waiting(self._scripts.client, JOURNAL_BATCH)
            for _, entry in entries:
                log.info(
                    "journal.entry", "the history is off, so that this log alone has it", **entry.to_log()
                )
            if entries:
                journal.drop(self._scripts.client, entries[-1][0])

    def _log_unread(self, entries: int) -> None:
        """Log that entries of the feed were dropped before they were read; once a minute."""
        if entries and first_in_a_minute(self._scripts, keys.FEED_LOGGED, ["gap"]):
            log.warning(
                "feed.gap",
                "the recorder is away or too slow, so the oldest entries of the feed were dropped; a resync closes the gap, from the records still there",
                entries=entries,
            )

    def _log_unrecorded(self, postbacks: int) -> None:
        """Log that records were dropped which the history does not have; once a minute."""
        if postbacks and first_in_a_minute(self._scripts, keys.FEED_LOGGED, ["unrecorded"]):
            log.warning(
                "feed.unrecorded_dropped",
                "the memory is short and the recorder is away or too slow, so postbacks were dropped that the history does not have",
                postbacks=postbacks,
            )

    def _waiting(self, moved: int) -> tuple[int, int]:
        """Limit the feed, or log the journal where there is none, and note that the tick has finished.

        Returns:
            How many deliver tasks there is work for, and what is in quarantine.
        """
        client = self._scripts.client
        with broker_errors():
            pipe = client.pipeline(transaction=False)
            pipe.zcard(keys.READY_TRUSTED)
            pipe.zcard(keys.READY_SUSPECT)
            pipe.zcard(keys.QUARANTINE)
            pipe.zrange(keys.DELAYED, 0, 0, withscores=True)
            pipe.zrange(keys.PARKED, 0, 0, withscores=True)
            pipe.time()
            pipe.zrange(keys.CLAIMERS, 0, -1)
            pipe.exists(
                keys.CHANGES, keys.JOURNAL, keys.JOURNAL
            )  # one command: 1 for the one, 2 for the other
            *counts, delayed, parked, time_reply, tokens, feed_and_journal = pipe.execute()
            trusted, suspect, quarantined = counts
            for token in tokens:
                pipe.hlen(keys.claims(token.decode()))
            moved += sum(pipe.execute())
        if feed_and_journal & 1:
            self._limit_changes()
        elif feed_and_journal & 2:
            self._log_journal()
        self._scripts.note_tick()
        now_ms = to_ms(time_reply) + self._scripts.clock_offset_ms
        # What may go on before the next tick needs a loop that looks in time: what waits for its rate or for room, and what
        # is parked, for which a loop that claims stays anyway.
        soon = any(
            first and first[0][1] <= now_ms + 1000 for first in (delayed, parked if not tokens else ())
        )
        lanes = trusted + suspect + soon
        # Lanes that loops have emptied, or that have all their POSTs open, stand in no ready set: so claims count as well.
        more = max(lanes // LANES_PER_WAKE, moved // MOVED_PER_WAKE)
        return (min(MAX_WAKES, 1 + more) if lanes or more else 0), quarantined
