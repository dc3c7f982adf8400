"""What one beat of the clock does: take in, release, reap, drop, and count the work that waits."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.broker import broker_errors
from postbacks.errors import AccountsUnavailable
from postbacks.queue.intake import Intake

if TYPE_CHECKING:
    from postbacks.accounts import AccountStore
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings

log = logging.getLogger(__name__)

#: Seconds that one tick may work before it hands over to the next one at once.
TICK_BUDGET_S: Final = 0.8
#: Ready lanes that are worth one more delivering process.
LANES_PER_WAKE: Final = 10
#: Deliver messages that one tick sends at most.
MAX_WAKES: Final = 8
#: Records dropped by one script call.
RETAIN_BATCH: Final = 500


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

    def run(self) -> TickResult:
        """One tick. Raises BrokerError where the broker cannot be used."""
        deadline_s = time.monotonic() + TICK_BUDGET_S
        try:
            taken_in, more_in = self._intake.run(uuid.uuid4().hex, deadline_s)
        except AccountsUnavailable as error:
            # Nothing is taken in, and it is tried again; what is in the lanes goes on.
            log.error("tick.accounts_unavailable %s", error)  # noqa: TRY400 - a line, not a trace
            taken_in, more_in = 0, False
        batch = self._settings.release_batch
        released, more_due = self._repeat(lambda: self._scripts.release(batch), batch, deadline_s)
        pause_ms = int(self._settings.retry_countdown_s * 1000)
        reaped, more_lost = self._repeat(lambda: self._scripts.reap(batch, pause_ms), 1, deadline_s)
        dropped, _ = self._repeat(self._retain, RETAIN_BATCH, deadline_s)
        wakes, quarantined = self._waiting()
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

    def _retain(self) -> int:
        settings = self._settings
        return self._scripts.retain(
            int(settings.retention_delivered_s * 1000),
            int(settings.retention_dead_s * 1000),
            self._ledger_bytes_max(),
            RETAIN_BATCH,
        )

    def _ledger_bytes_max(self) -> int:
        with broker_errors():
            memory = self._scripts.client.info("memory")
        limit = int(memory.get("maxmemory") or 0) or int(memory.get("total_system_memory") or 0)
        return int(limit * self._settings.ledger_memory_share) if limit else 1 << 62

    def _waiting(self) -> tuple[int, int]:
        """How many deliver tasks there is work for, and what is in quarantine; marks the tick as finished."""
        client = self._scripts.client
        with broker_errors():
            pipe = client.pipeline(transaction=False)
            pipe.zcard(keys.READY_TRUSTED)
            pipe.zcard(keys.READY_SUSPECT)
            pipe.zcard(keys.QUARANTINE)
            pipe.zrange(keys.ASIDE, 0, 0, withscores=True)
            pipe.time()
            trusted, suspect, quarantined, aside, (seconds, microseconds) = pipe.execute()
            now_ms = seconds * 1000 + microseconds // 1000 + self._scripts.clock_offset_ms
            client.set(keys.LAST_TICK, now_ms)
        # what waits for its rate or for room until the next tick needs a loop that looks in time
        lanes = trusted + suspect + (1 if aside and aside[0][1] <= now_ms + 1000 else 0)
        return (min(MAX_WAKES, 1 + lanes // LANES_PER_WAKE) if lanes else 0), quarantined
