"""Duties of the process that runs history: work beside the recorder, for as long as that one works.

Of all processes that run history one works. So a duty is done by one process at a time, without a lease of its own; what
it writes to the database holds only while the recorder's lease does (``Recorder.transaction``).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from postbacks.errors import AccountsUnavailable, BrokerError, HistoryError
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from postbacks.history.recorder import Recorder
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds between two looks whether the recorder works, and until a duty is tried again after a failure.
EVERY_S: Final = 1.0
#: Seconds after which it is logged again that a duty fails.
LOG_AGAIN_S: Final = 60.0
#: Seconds that a turn has to end when the process ends.
_STOP_WITHIN_S: Final = 5.0


class Duty(Protocol):
    """Work that is done in turns, in a thread of its own.

    Attributes:
        name: a noun, for logs and the thread.
    """

    name: str

    def turn(self) -> float:
        """Do what is to be done now, a second of work at most; return the seconds until the next turn.

        A turn may be cut off at any point by the death of its process, and the next one may be another process's.

        Raises:
            BrokerError: the broker cannot be used; the next turn comes in a second.
            HistoryError: the database cannot be used; the same.
        """


def duties_of(recorder: Recorder, client: redis.Redis, settings: Settings) -> list[Duty]:
    """Return the duties of a process that runs history."""
    from postbacks.operate.forget.duty import ForgetDuty  # noqa: PLC0415 - none but this process needs them
    from postbacks.operate.incidents.finder import Finder  # noqa: PLC0415
    from postbacks.operate.incidents.webhook import NoticeSender  # noqa: PLC0415
    from postbacks.operate.jobs.mover import Mover  # noqa: PLC0415

    return [
        Mover(recorder, client, settings),
        Finder(recorder, client, settings),
        NoticeSender(recorder, client, settings),
        ForgetDuty(recorder, client, settings),
    ]


class Duties:
    """Duties of one process, while a ``with`` block runs.

    Args:
        recorder: the recorder beside which they work.
        duties: what is to be done.
    """

    def __init__(self, recorder: Recorder, duties: Sequence[Duty]) -> None:
        self._recorder = recorder
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(duty,), name=f"postbacks-{duty.name}", daemon=True)
            for duty in duties
        ]

    def __enter__(self) -> Self:
        """Start a thread a duty."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the turns end."""
        self._stop.set()
        deadline_s = time.monotonic() + _STOP_WITHIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _run(self, duty: Duty) -> None:
        logged_s = float("-inf")
        while not self._stop.is_set():
            wait_s = EVERY_S
            if self._recorder.works:
                try:
                    wait_s = duty.turn()
                except (BrokerError, HistoryError, AccountsUnavailable) as error:
                    if time.monotonic() - logged_s >= LOG_AGAIN_S:
                        log.warning("duty.waits", f"{error} This is tried again.", duty=duty.name)
                        logged_s = time.monotonic()
                except Exception as error:
                    if time.monotonic() - logged_s >= LOG_AGAIN_S:
                        log.exception(
                            "duty.failed", f"{type(error).__name__}: this is tried again", duty=duty.name
                        )
                        logged_s = time.monotonic()
            self._stop.wait(wait_s)
