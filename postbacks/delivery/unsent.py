"""What a delivering loop has claimed and does not send: put off for a while, or back to its lane at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.accounts.routing import ACCOUNT_UNUSABLE
from postbacks.errors import BrokerError
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.delivery.claims import Held, HeldQueue
    from postbacks.queue.scripts import Scripts

log = EventLog(__name__)

#: Held postbacks given back by one script, and what is left of the last one's lane.
GIVE_BACK_BATCH: Final = 500
#: Milliseconds after which a postback is looked at again whose account could not be used.
PUT_OFF_MS: Final = 30_000
#: The same where the broker was away while its account was read: no account is to blame, and it is back by then.
LOST_BROKER_MS: Final = 1_000


class Returner:
    """Returns for one loop what no attempt is counted of.

    Args:
        scripts: the scripts of the broker.
        token: the loop's name among the claimers.
    """

    def __init__(self, scripts: Scripts, token: str) -> None:
        self._scripts = scripts
        self._token = token
        self._ids: dict[tuple[int, str], list[str]] = {}  # by delay (ms) and reason; of one claim

    def __bool__(self) -> bool:
        """Whether the broker has not been told of all that is put off."""
        return bool(self._ids)

    def add(self, ids: Iterable[str], delay_ms: int = PUT_OFF_MS, reason: str = ACCOUNT_UNUSABLE) -> None:
        """Have the next ``postpone`` put these off."""
        if new := list(ids):
            self._ids.setdefault((delay_ms, reason), []).extend(new)

    def postpone(self) -> None:
        """Put off what was added. Raises BrokerError; then it is still to be done."""
        while self._ids:
            (delay_ms, reason), ids = next(iter(self._ids.items()))
            self._scripts.postpone(self._token, delay_ms, reason, ids)
            del self._ids[delay_ms, reason]

    def give_back(self, held: HeldQueue) -> None:
        """Give back some of what is held: while it is much, what ends meanwhile is to be noted in time.

        Raises:
            BrokerError: all of it is held as before.
        """
        self._return(held, held.take_lanes(GIVE_BACK_BATCH))

    def give_back_lane(self, held: HeldQueue, lane: str) -> None:
        """Give back all that is held of a lane: its account sends elsewhere now.

        Raises:
            BrokerError: all of it is held as before.
        """
        self._return(held, held.take_lane(lane))

    def _return(self, held: HeldQueue, postbacks: list[Held]) -> None:
        try:
            self._scripts.give_back(self._token, [postback.id for postback in postbacks])
        except BrokerError:
            held.put_back(postbacks)  # given back again, the script moves none twice
            raise

    def leave(self) -> None:
        """The loop ends and claims nothing more."""
        try:
            self._scripts.give_back(self._token)
        except BrokerError as error:
            log.warning("delivery.broker_lost", str(error), open=0)
