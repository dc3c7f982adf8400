"""Our beat: the tick comes every second, whatever happens to the machine's clock."""

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

#: Seconds from a line that says that the broker takes nothing to the next, while it does not.
SAY_AGAIN_S: Final = 60.0
#: Seconds from one try to connect to the next, before the first tick; Celery's grow to 30.
CONNECT_AGAIN_S: Final = 1.0
#: Seconds between the clock and the steady one from which on the clock was put back. Less than a tick is
#: what a time service corrects, and delays a tick by as much.
JUMP_S: Final = 1.0


@dataclass(slots=True)
class _Outage:
    """Time in which the broker takes nothing, and what was said of it last."""

    began_s: float
    said_s: float = -math.inf
    kind: type[BrokerError] | None = None


def _broker_error(error: BaseException | None) -> BrokerError | None:
    """Return what a broker's failure is in a sentence; None for any other error."""
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
    """Keeps intervals when the machine's clock is put back, and says once a minute that the broker takes nothing.

    Mirrors ``celery.beat.Scheduler``; differs in that what runs at an interval is reckoned from the new time
    on: in Celery 5.7 it is silent until the clock has come to where it was. Entries by the calendar
    (``crontab``) are left as they are, and so is a clock that is put forward: both mean what they say. And
    where the broker fails or refuses, Celery's would log two stacks a second, and connect ever more seldom. Its loop gives
    beat's signs of life.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ahead_s = time.time() - time.monotonic()
        self._sign = SignOfLife(keys.BEATS, f"beat@{socket.gethostname()}")
        self._outage: _Outage | None = None
        super().__init__(*args, **kwargs)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send what is due; what the broker does not take is sent when it is due again."""
        celery_log.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 - beat goes on, as Celery's does
            fault = _broker_error(error.__context__)
            if fault is not None:
                self._note_not_sent(fault, entry.name)
            else:
                celery_log.exception("Message Error: %s", error)
        else:
            if self._outage is not None:
                log.info("beat.sent_again", after_s=round(time.monotonic() - self._outage.began_s))
                self._outage = None
            celery_log.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def _note_not_sent(self, fault: BrokerError, entry: str | None) -> None:
        """Say that the broker took nothing: at once where that is new, then once a minute."""
        now_s = time.monotonic()
        outage = self._outage
        if outage is None:
            outage = self._outage = _Outage(began_s=now_s)
        if type(fault) is outage.kind and now_s - outage.said_s < SAY_AGAIN_S:
            return
        outage.kind, outage.said_s = type(fault), now_s
        for_s = round(now_s - outage.began_s) or None
        log.error("beat.not_sent", f"{fault} The next one is tried.", entry=entry, for_s=for_s)

    def _ensure_connected(self) -> Any:
        """Connect before the first tick, and try again as often as ticks are due."""

        def note(error: Exception, _interval_s: float) -> None:
            self._note_not_sent(_broker_error(error) or BrokerUnreachable(str(error)), None)

        return self.connection.ensure_connection(
            note,
            self.app.conf.broker_connection_max_retries,
            interval_start=CONNECT_AGAIN_S,
            interval_step=0,
            interval_max=CONNECT_AGAIN_S,
        )

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Look once at what is due; return the seconds until the next look."""
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
        """End in order."""
        super().close()
        self._sign.withdraw()
