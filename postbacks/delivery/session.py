"""What a delivering loop asks the broker for: work to begin, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.logs import EventLog
from postbacks.queue.scripts import Call, claim_call, examine_call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.delivery.open_transfers import Room
    from postbacks.errors import BrokerError
    from postbacks.settings import Settings

#: The loop's own name: operators know these lines by it.
log = EventLog("postbacks.delivery.loop")

#: Seconds between two looks for work while transfers are open and nothing was found.
LOOK_EVERY_S: Final = 0.05
#: Seconds between two looks at least while lanes wait for their rate or for room; a rate makes up for it.
MIN_POLL_S: Final = 0.01
#: A loop with nothing else stays while a waiting lane may go on, or something parked is due, within so many ms; else
#: the tick wakes one in time.
LINGER_FOR_DUE_MS: Final = 1500
#: Seconds of the first pause, twice as long each time, and of the longest.
FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0


class ClaimReply(NamedTuple):
    """What the broker gave.

    Attributes:
        now_ms: the broker's clock.
        begun: rows of postbacks to send now.
        held: rows of postbacks to hold.
        again_ms: until the first lane may go on that waits for its rate or for room, or, where few loops claim, the
            first parked postback is due; -1 where none is.
        ended: rows of postbacks that ended unsent: id, account, origin, code, state, reason.
        still: accounts that stand still, to be looked up.
    """

    now_ms: int
    begun: list[list[Any]]
    held: list[list[Any]]
    next_due_ms: int
    ended: list[list[Any]]
    still: set[str]

    @property
    def found(self) -> bool:
        """Whether there is work, now or soon enough to stay for it."""
        return bool(self.begun) or 0 <= self.next_due_ms <= LINGER_FOR_DUE_MS

    def wait_s(self, at_most: int) -> float:
        """Seconds until it is worth asking again, after a question for so many."""
        held_lanes = len({row[1] for row in self.held})
        if len(self.begun) + held_lanes >= at_most:
            return 0.0
        if self.next_due_ms < 0:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(MIN_POLL_S, self.next_due_ms / 1000))


class ClaimRequest:
    """Asks for one loop.

    Args:
        settings: the process's settings.
        token: the loop's name among the claimers.
        examines: it takes from the quarantine, and from there alone, instead of the lanes.
    """

    def __init__(self, settings: Settings, token: str, *, examines: bool) -> None:
        self._settings = settings
        self._token = token
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._examines = examines

    def call(self, at_most: int, room: Room, free: int, held_max: int, slow_lanes: Iterable[str]) -> Call:
        """The script that claims from the lanes, or takes from the quarantine."""
        settings = self._settings
        if self._examines:
            return examine_call(
                self._token,
                self._lease_ms,
                settings.endpoint_max_transfers,
                int(settings.account_removed_keep_s * 1000),
            )
        return claim_call(
            self._token,
            self._lease_ms,
            at_most=at_most,
            suspects_max=room.suspects,
            shares=(room.troubled, room.new, room.waited),
            free=free,
            held_max=held_max,
            held_per_lane=settings.probe_claims,
            slow_lanes=slow_lanes,
            endpoint_max=settings.endpoint_max_transfers,
            weights=settings.group_weights,
        )

    def read(self, reply: list[Any]) -> ClaimReply:
        """What the script gave."""
        if self._examines:
            now_ms, begun, later, still, ended = reply
            next_due_ms = int(LOOK_EVERY_S * 1000) if later else -1
            return ClaimReply(now_ms, begun, [], next_due_ms, ended, {account.decode() for account in still})
        now_ms, begun, held, next_due_ms, ended, still = reply
        return ClaimReply(now_ms, begun, held, next_due_ms, ended, {account.decode() for account in still})


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
