"""What a delivering loop has claimed: postbacks to send now, and postbacks held behind a probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.accounts.routing import ACCOUNT_UNUSABLE
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postbacks.delivery.held import HeldQueue
    from postbacks.queue.scripts import Scripts

log = EventLog(__name__)

#: Held postbacks given back by one script, and what is left of the last one's lane.
GIVE_BACK_BATCH: Final = 500
#: Milliseconds after which a postback is looked at again whose account could not be used.
PUT_OFF_MS: Final = 30_000
#: The same where the broker was away while its account was read: no account is to blame, and it is back by then.
LOST_BROKER_MS: Final = 1_000


class Claimed(NamedTuple):
    """A postback whose POST is to begin now: the row of ``claim.lua`` or ``begin.lua``.

    Attributes:
        number: of this attempt, 1 for the first POST.
        failures: attempts before this one that count against the resends.
        version: of its account's row, from which its URL is; empty where there is none.
        own: ``0`` where its URL is the account's, ``1`` where it is the call's own, ``2`` where its account was not known
            either; empty in a record of version 0.1.0.
        at_ms: when the attempt began, on the broker's clock.
        waited_ms: how long the first POST had waited for us by then; -1 for any other, and where it waited for its receiver.
    """

    id: str
    lane: str
    number: int
    failures: int
    account: str
    origin: str
    code: str
    created_ms: int
    sequence: int
    url: str
    xml: bytes
    version: str
    own: str
    at_ms: int
    waited_ms: int = -1

    @classmethod
    def from_row(cls, lane: str, row: Sequence[Any], at_ms: int) -> Claimed:
        """Build one from a row of ``begin.lua``, or one of ``claim.lua`` without its lane and ring."""
        (
            postback_id, number, failures, account, origin, code, created_ms, sequence, url, xml, version, own, waited_ms,
        ) = row  # fmt: skip
        return cls(
            postback_id.decode(), lane, int(number), int(failures), account.decode(), origin.decode(),
            code.decode(), int(created_ms), int(sequence), url.decode(), xml,
            version.decode(), own.decode(), at_ms, int(waited_ms),
        )  # fmt: skip

    @property
    def endpoint(self) -> str:
        """Scheme, host and port that the POST goes to."""
        return endpoint_of(self.url)


class Held(NamedTuple):
    """A postback of a failing lane that waits in this loop for what the probe finds."""

    id: str
    lane: str
    endpoint: str
    attempts: int
    failures: int
    account: str
    origin: str
    code: str
    claimed_ms: int

    @classmethod
    def from_row(cls, row: Sequence[Any], claimed_ms: int) -> Held:
        """Build one from a held row of ``claim.lua``, which was claimed then on the broker's clock."""
        postback_id, lane, endpoint, attempts, failures, account, origin, code = row
        return cls(
            postback_id.decode(), lane.decode(), endpoint.decode(), int(attempts), int(failures),
            account.decode(), origin.decode(), code.decode(), claimed_ms,
        )  # fmt: skip


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
