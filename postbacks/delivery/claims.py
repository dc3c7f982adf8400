"""Claimed postbacks of a delivering loop, and the return of those that it does not send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.accounts.routing import ACCOUNT_UNUSABLE
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.delivery.held import HeldQueue
    from postbacks.queue.rows import BegunRow, ClaimRow, HeldRow
    from postbacks.queue.scripts import Scripts

log = EventLog(__name__)

#: Held postbacks that one script gives back at least, as far as there are so many; whole lanes go together.
GIVE_BACK_BATCH: Final = 500
#: Milliseconds after which a postback whose account could not be used is claimed again.
POSTPONED_MS: Final = 30_000
#: The same where the broker was away while the account was read: no account is to blame, and the broker is back by then.
BROKER_AWAY_MS: Final = 1_000


class ClaimedPostback(NamedTuple):
    """A postback that a loop has claimed: its attempt has begun, or it is held behind the probe of its lane.

    A held one leaves out what is not listed before ``begun``: its URL is read when its attempt begins.

    Attributes:
        number: number of the attempt that has begun, or is next while held; 1 for the first POST.
        failures: attempts before this one that count against the resends.
        url: URL of the POST; the endpoint alone while held.
        at_ms: time at which the attempt began, or at which a held one was claimed, on the broker's clock.
        begun: True if the attempt has begun and is counted.
        created_ms: time of acceptance; None while held.
        sequence: number of the postback in its account.
        version: version of the account's row that the URL comes from; empty where there is none.
        url_source: ``0`` if the URL is the account's, ``1`` if it is the call's own, ``2`` if it is the call's own and the account
            was not known either; empty in a record of version 0.1.0.
        waited_ms: time for which the first POST had waited for us when it was claimed; -1 for any other POST, and for
            one that waited for its receiver.
    """

    id: str
    lane: str
    number: int
    failures: int
    account: str
    origin: str
    code: str
    url: str
    at_ms: int
    begun: bool = False
    created_ms: int | None = None
    sequence: int = 0
    xml: bytes = b""
    version: str = ""
    url_source: str = ""
    waited_ms: int = -1

    @classmethod
    def from_begun_row(cls, lane: str, row: BegunRow | ClaimRow, at_ms: int) -> ClaimedPostback:
        """Build a begun postback from a row of ``begin.lua``, ``claim.lua`` or ``examine.lua``."""
        return cls(
            row.id.decode(), lane, row.number, int(row.failures), row.account.decode(), row.origin.decode(),
            row.code.decode(), row.url.decode(), at_ms, True, int(row.created_ms), int(row.sequence), row.xml,
            row.version.decode(), row.own.decode(), row.waited_ms,
        )  # fmt: skip

    @classmethod
    def from_held_row(cls, row: HeldRow, at_ms: int) -> ClaimedPostback:
        """Build a held postback from a held row of ``claim.lua``."""
        return cls(
            row.id.decode(), row.lane.decode(), int(row.attempts) + 1, int(row.failures), row.account.decode(),
            row.origin.decode(), row.code.decode(), row.endpoint.decode(), at_ms,
        )  # fmt: skip

    @property
    def endpoint(self) -> str:
        """Scheme, host and port that the POST goes to."""
        return endpoint_of(self.url) if self.begun else self.url


class Returner:
    """Returns claimed postbacks of one loop to the broker, without an attempt.

    Args:
        scripts: the scripts of the broker.
        loop_id: the loop's name among the claimers.
    """

    def __init__(self, scripts: Scripts, loop_id: str) -> None:
        self._scripts = scripts
        self._loop_id = loop_id
        self._ids: dict[tuple[int, str], list[str]] = {}  # by delay (ms) and reason; of one claim

    def __bool__(self) -> bool:
        """True while postbacks wait for the next ``postpone``."""
        return bool(self._ids)

    def add(self, ids: Iterable[str], delay_ms: int = POSTPONED_MS, reason: str = ACCOUNT_UNUSABLE) -> None:
        """Queue these postback ids for the next ``postpone`` call."""
        if new_ids := list(ids):
            self._ids.setdefault((delay_ms, reason), []).extend(new_ids)

    def postpone(self) -> None:
        """Park what was added, its attempt taken back. Raises BrokerError; then the rest stays queued."""
        while self._ids:
            (delay_ms, reason), ids = next(iter(self._ids.items()))
            self._scripts.postpone(self._loop_id, delay_ms, reason, ids)
            del self._ids[delay_ms, reason]

    def give_back(self, held: HeldQueue) -> None:
        """Give a batch of held postbacks back to their lanes. With more, results that come meanwhile would wait too long.

        Raises:
            BrokerError: all of them are held as before.
        """
        self._give_back(held, held.take_lanes(GIVE_BACK_BATCH))

    def give_back_lane(self, held: HeldQueue, lane: str) -> None:
        """Give all held postbacks of a lane back, since its account sends elsewhere now, or is paused.

        Raises:
            BrokerError: all of them are held as before.
        """
        self._give_back(held, held.take_lane(lane))

    def _give_back(self, held: HeldQueue, postbacks: list[ClaimedPostback]) -> None:
        try:
            self._scripts.give_back(self._loop_id, [postback.id for postback in postbacks])
        except BrokerError:
            held.put_back(postbacks)  # given back once more, the script moves none twice
            raise

    def leave(self) -> None:
        """Take the loop, which claims nothing more, off the claimers."""
        try:
            self._scripts.give_back(self._loop_id)
        except BrokerError as error:
            log.warning("delivery.broker_lost", str(error), open=0)
