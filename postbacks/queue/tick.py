"""What one beat of the clock does: take in, release, reap, drop, and count the work that waits."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.broker import broker_errors
from postbacks.errors import AccountsUnavailable
from postbacks.logs import EventLog
from postbacks.queue.intake import Intake
from postbacks.version import SILENT, VERSION

if TYPE_CHECKING:
    import redis

    from postbacks.accounts import AccountStore
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds that one tick may work before it hands over to the next one at once.
TICK_BUDGET_S: Final = 0.8
#: Ready lanes that are worth one more delivering process.
LANES_PER_WAKE: Final = 10
#: Postbacks put into lanes by one tick, or in claims, that are worth one more: from such a load on workers share
#: it, though one could still do it alone, so that one that dies takes along no more than its part.
MOVED_PER_WAKE: Final = 100
#: Deliver messages that one tick sends at most.
MAX_WAKES: Final = 8
#: Milliseconds after the last one from which on a tick is late; they come every second.
LATE_MS: Final = 2500
#: Seconds for which the broker's memory is taken to be the same: to ask costs it more than a tick does.
MEMORY_EVERY_S: Final = 10
#: Postbacks of accounts that are gone which one tick ends at most.
RETIRE_BATCH: Final = 1000
#: Share of the ledger's memory that dead postbacks of unknown accounts and without a URL may take.
UNROUTED_SHARE: Final = 0.05
#: Postbacks of a silent loop that one script call takes back; of a small loop five times as many, all at once.
REAP_BATCH: Final = 100
#: Records dropped by one script call.
RETAIN_BATCH: Final = 250


@dataclass(frozen=True, slots=True)
class TickResult:
    """What a tick did.

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
        self._intake = Intake(scripts, accounts, settings)

    def run(self, wake: Callable[[int], None] = lambda _: None) -> TickResult:
        """One tick. Raises BrokerError where the broker cannot be used.

        Args:
            wake: has so many ``deliver`` tasks sent at once, where so much comes in that the tick's end is far.
        """
        deadline_s = time.monotonic() + TICK_BUDGET_S
        try:
            taken_in, more_in = self._intake.run(
                uuid.uuid4().hex, deadline_s, lambda moved: wake(min(MAX_WAKES, 1 + moved // MOVED_PER_WAKE))
            )
        except AccountsUnavailable as error:
            # Nothing is taken in, and it is tried again; what is in the lanes goes on.
            log.error("tick.accounts_unavailable", str(error))  # noqa: TRY400 - a line, not a trace
            taken_in, more_in = 0, False
        batch = self._settings.release_batch
        released, more_due = self._repeat(lambda: self._scripts.release(batch), batch, deadline_s)
        pause_ms = int(self._settings.retry_countdown_s * 1000)
        reaped, more_lost = self._repeat(
            lambda: self._scripts.reap(min(batch, REAP_BATCH), pause_ms), 1, deadline_s
        )
        self._retire()
        dropped, _ = self._repeat(self._retain, RETAIN_BATCH, deadline_s)
        wakes, quarantined = self._waiting(taken_in + released + reaped)
        more = more_in or more_due or more_lost
        return TickResult(taken_in, released, reaped, dropped, wakes, quarantined, more)

    @staticmethod
    def _repeat(step: Callable[[], int], full: int, deadline_s: float) -> tuple[int, bool]:
        """Repeat a step while it finds as much as it may take."""
        total = 0
        while True:
            count = step()
            total += count
            if count < full:
                return total, False
            if time.monotonic() >= deadline_s:
                return total, True

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
        bytes_max = self._ledger_bytes_max()
        return self._scripts.retain(
            int(settings.retention_delivered_s * 1000),
            int(settings.retention_dead_s * 1000),
            bytes_max,
            RETAIN_BATCH,
            int(settings.retention_unrouted_s * 1000),
            int(bytes_max * UNROUTED_SHARE),
        )

    def _ledger_bytes_max(self) -> int:
        limit = _memory_bytes(self._scripts.client, int(time.monotonic() // MEMORY_EVERY_S))
        return int(limit * self._settings.ledger_memory_share) if limit else 1 << 62

    def _waiting(self, moved: int) -> tuple[int, int]:
        """How many deliver tasks there is work for, and what is in quarantine; marks the tick as finished."""
        client = self._scripts.client
        with broker_errors():
            pipe = client.pipeline(transaction=False)
            pipe.zcard(keys.READY_TRUSTED)
            pipe.zcard(keys.READY_SUSPECT)
            pipe.zcard(keys.QUARANTINE)
            pipe.zrange(keys.ASIDE, 0, 0, withscores=True)
            pipe.zrange(keys.PARKED, 0, 0, withscores=True)
            pipe.time()
            pipe.zrange(keys.CLAIMERS, 0, -1)
            trusted, suspect, quarantined, aside, parked, (seconds, microseconds), tokens = pipe.execute()
            for token in tokens:
                pipe.hlen(keys.claims(token.decode()))
            moved += sum(pipe.execute())
            now_ms = seconds * 1000 + microseconds // 1000 + self._scripts.clock_offset_ms
            noted = client.pipeline(transaction=True)  # so that no doctor sees one without the other
            noted.hvals(keys.TICKS)
            noted.set(keys.LAST_TICK, now_ms, get=True)
            noted.hset(keys.TICKS, VERSION, str(now_ms))
            noted.hincrby(keys.TOTALS, "ticks", 1)
            ticks, before_ms, *_ = noted.execute()
            if before_ms and int(before_ms) > max(map(int, ticks), default=0):
                # The tick before this one did not say its version; in a moment only this note will tell of it.
                client.hset(keys.TICKS, SILENT, before_ms)
            if before_ms and now_ms - int(before_ms) > LATE_MS:
                client.hincrby(keys.TOTALS, "late_ticks", 1)
        # What waits for its rate or for room until the next tick needs a loop that looks in time; so does what is
        # parked until then, for which a loop that claims stays anyway.
        soon = any(first and first[0][1] <= now_ms + 1000 for first in (aside, parked if not tokens else ()))
        lanes = trusted + suspect + soon
        # Lanes that the loops at work have emptied, or that have all they may have open, are in no ring.
        more = max(lanes // LANES_PER_WAKE, moved // MOVED_PER_WAKE)
        return (min(MAX_WAKES, 1 + more) if lanes or more else 0), quarantined


@lru_cache(maxsize=8)
def _memory_bytes(client: redis.Redis, _period: int) -> int:
    """What the broker may take, or has; 0 where it does not say. The same answer for a period."""
    with broker_errors():
        memory = client.info("memory")
    return int(memory.get("maxmemory") or 0) or int(memory.get("total_system_memory") or 0)
