"""Beat's scheduler: the tick comes every second, whatever happens to the machine's clock."""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import redis
from celery.beat import Scheduler
from celery.beat import logger as celery_log
from celery.schedules import schedule
from kombu.exceptions import OperationalError

from postbacks import keys
from postbacks.broker.errors import broker_errors
from postbacks.broker.sign_of_life import SignOfLife
from postbacks.errors import BrokerError, BrokerUnreachable
from postbacks.logs import EventLog

log = EventLog(__name__)

#: Seconds between two lines of the log that say that the broker takes nothing.
LOG_AGAIN_S: Final = 60.0
#: Seconds between two tries to connect before the first tick; Celery's pauses grow to 30.
CONNECT_AGAIN_S: Final = 1.0
#: Seconds by which the clock must have fallen behind the steady clock to count as put back. A time service corrects
#: less than a tick, and a tick is late by as much.
JUMP_S: Final = 1.0


@dataclass(slots=True)
class _Outage:
    """Time in which the broker takes nothing, and the last line of the log about it."""

    began_s: float
    logged_s: float = -math.inf
    kind: type[BrokerError] | None = None


def _broker_error(error: BaseException | None) -> BrokerError | None:
    """Return a broker's failure as an error whose text is a sentence; None for any other error."""
    if isinstance(error, BrokerError):
        return error
    if not isinstance(error, redis.RedisError | OperationalError | ConnectionError | TimeoutError):
        return None
    try:
        with broker_errors():
            raise error
    except BrokerError as explained:
        return explained


class SteadyScheduler(Scheduler):
    """Keeps intervals when the machine's clock is put back, and logs once a minute that the broker takes nothing.

    Mirrors ``celery.beat.Scheduler``; differs in three things. Entries that run at an interval are reckoned from the
    new time when the clock is put back: Celery 5.7 sends nothing until the clock has come to where it was. (Entries by
    the calendar, ``crontab``, and a clock that is put forward are left alone: both mean what they say.) Where the
    broker fails or refuses, it logs a line a minute and connects once a second: Celery logs two stacks a second, and
    connects ever more seldom. And its loop gives beat's signs of life.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ahead_s = time.time() - time.monotonic()
        self._sign = SignOfLife(keys.BEATS, f"beat@{socket.gethostname()}")
        self._outage: _Outage | None = None
        super().__init__(*args, **kwargs)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send an entry that is due; if the broker does not take it, it is sent when it is due again.

        Mirrors ``celery.beat.Scheduler.apply_entry``; differs in what it logs of the broker's failures.
        """
        celery_log.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 - beat goes on, as Celery's does
            failure = _broker_error(error.__context__)
            if failure is not None:
                self._log_not_sent(failure, entry.name)
            else:
                celery_log.exception("Message Error: %s", error)
        else:
            if self._outage is not None:
                log.info("beat.sent_again", after_s=round(time.monotonic() - self._outage.began_s))
                self._outage = None
            celery_log.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def _log_not_sent(self, failure: BrokerError, entry: str | None) -> None:
        """Log that the broker took nothing: at once where that is new, then once a minute."""
        now_s = time.monotonic()
        outage = self._outage
        if outage is None:
            outage = self._outage = _Outage(began_s=now_s)
        if type(failure) is outage.kind and now_s - outage.logged_s < LOG_AGAIN_S:
            return
        outage.kind, outage.logged_s = type(failure), now_s
        for_s = round(now_s - outage.began_s) or None
        log.error("beat.not_sent", f"{failure} The next one is tried.", entry=entry, for_s=for_s)

    def _ensure_connected(self) -> Any:
        """Connect before the first tick.

        Mirrors ``celery.beat.Scheduler._ensure_connected``; differs in trying as often as ticks are due.
        """

        def log_failure(error: Exception, _interval_s: float) -> None:
            self._log_not_sent(_broker_error(error) or BrokerUnreachable(str(error)), None)

        return self.connection.ensure_connection(
            log_failure,
            self.app.conf.broker_connection_max_retries,
            interval_start=CONNECT_AGAIN_S,
            interval_step=0,
            interval_max=CONNECT_AGAIN_S,
        )

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; return the seconds until the next call.

        Mirrors ``celery.beat.Scheduler.tick``; differs in a clock that was put back, and in the signs of life.
        """
        self._sign.give_when_due()
        ahead_s = time.time() - time.monotonic()
        back_s = self._ahead_s - ahead_s
        if back_s >= JUMP_S:
            log.warning("beat.clock_put_back", "intervals go on", by_s=round(back_s))
            for entry in self.schedule.values():
                if type(entry.schedule) is schedule and entry.last_run_at is not None:
                    entry.last_run_at -= timedelta(seconds=back_s)
            self._heap = None  # is ordered by times of the old clock
        self._ahead_s = ahead_s
        return min(float(super().tick(*args, **kwargs)), self._sign.every_s)

    def close(self) -> None:
        """End, and withdraw the sign of life."""
        super().close()
        self._sign.withdraw()
