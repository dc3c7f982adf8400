"""Our beat: the tick comes every second, whatever happens to the machine's clock."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from typing import Any, Final

from celery.beat import Scheduler
from celery.beat import logger as celery_log
from celery.schedules import schedule

from postbacks import keys
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.monitor.sign import SignOfLife

log = EventLog(__name__)

#: Seconds between the clock and the steady one from which on the clock was put back. Less than a tick is
#: what a time service corrects, and delays a tick by as much.
JUMP_S: Final = 1.0


class SteadyScheduler(Scheduler):
    """Keeps intervals when the machine's clock is put back, and says in one line that the broker took nothing.

    Mirrors ``celery.beat.Scheduler``; differs in that what runs at an interval is reckoned from the new time
    on: in Celery 5.7 it is silent until the clock has come to where it was. Entries by the calendar
    (``crontab``) are left as they are, and so is a clock that is put forward: both mean what they say. And
    where the broker fails or refuses, Celery's would log two stacks a second. Its loop gives beat's signs of life.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ahead_s = time.time() - time.monotonic()
        self._sign = SignOfLife(keys.BEATS, f"beat@{socket.gethostname()}")
        super().__init__(*args, **kwargs)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send what is due; what the broker does not take is sent when it is due again."""
        celery_log.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 - beat goes on, as Celery's does
            if isinstance(error.__context__, BrokerError):
                log.error("beat.not_sent", f"{error.__context__} The next one is tried.", entry=entry.name)  # noqa: TRY400 - a line, not a trace
            else:
                celery_log.exception("Message Error: %s", error)
        else:
            celery_log.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

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
