"""Growing pauses while the broker does not do what a loop asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.logs import EventLog

if TYPE_CHECKING:
    from postbacks.errors import BrokerError

#: The loop's own name: operators know these lines by it.
log = EventLog("postbacks.delivery.loop")

#: Seconds of the first pause, twice as long each time, and of the longest.
FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0


class Backoff:
    """When the broker may be asked again. One line is logged when it is lost, one when it answers again."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._retry_s = 0.0

    def left_s(self, now_s: float) -> float:
        """Seconds until it may be asked again; 0 for now."""
        return max(0.0, self._retry_s - now_s)

    def lost(self, now_s: float, error: BrokerError, transfers_open: int) -> None:
        """It did not answer, or answered with an error."""
        if not self._pause_s:
            log.error("delivery.broker_lost", str(error), open=transfers_open)
        self._pause_s = min(LONGEST_S, 2 * self._pause_s or FIRST_S)
        self._retry_s = now_s + self._pause_s

    def answers(self, transfers_open: int) -> None:
        """It has done what it was asked."""
        if self._pause_s:
            log.info("delivery.broker_back", open=transfers_open)
            self._pause_s = 0.0
