"""Session of a delivering loop with the broker: everything that the loop says to it, and what comes back.

A commit and a claim go out together and their replies are read later, while the loop moves bytes (``pipeline.py``).
Whatever else the loop asks for is waited for. After an error the session pauses, for longer each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker.errors import broker_errors
from postbacks.delivery.claims import Returner
from postbacks.delivery.pipeline import Pipeline
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.queue.rows import Begun, ClaimRow, CommittedRow, EndedRow, HeldRow
from postbacks.queue.scripts import Call, claim_call, examine_call

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postbacks.delivery.claims import ClaimedPostback
    from postbacks.delivery.open_transfers import OpenTransfers, SuspectCapacity
    from postbacks.delivery.results import ResultBatch
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings
    from postbacks.transport.client import CurlClient

log = EventLog(__name__)

#: Postbacks begun by one claim at most; bounds how long the script blocks the broker.
CLAIM_BATCH: Final = 50
#: Seconds between two claims while transfers are open and nothing was found.
POLL_EVERY_S: Final = 0.05
#: Seconds between two claims at least while lanes wait for their rate or for room; a rate makes up for it.
MIN_POLL_S: Final = 0.01
#: A loop with nothing else stays while a waiting lane may go on, or something parked is due, within so many ms; else
#: the tick wakes a loop in time.
LINGER_FOR_DUE_MS: Final = 1500
#: Seconds of the first pause after an error, twice as long each time, and of the longest.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0


class Budget(NamedTuple):
    """Limits of a claim.

    Attributes:
        free: transfers that the loop may begin.
        held: postbacks that it may hold beside those that it holds.
        claimed: postbacks that are about to begin and count as open.
    """

    free: int
    held: int
    claimed: Sequence[ClaimedPostback]


class ClaimReply(NamedTuple):
    """Reply of the broker to a claim.

    Attributes:
        now_ms: the broker's clock.
        begun: postbacks to send now.
        held: postbacks to hold.
        next_due_ms: time until the first lane may go on that waits for its rate or for room, or, where few loops claim,
            until the first parked postback is due; -1 where there is none.
        ended: postbacks that ended unsent.
        still: accounts that stand still, to be looked up.
    """

    now_ms: int
    begun: list[ClaimRow]
    held: list[HeldRow]
    next_due_ms: int
    ended: list[EndedRow]
    still: set[str]

    @property
    def has_work(self) -> bool:
        """True if there is work, now or soon enough to stay for it."""
        return bool(self.begun) or 0 <= self.next_due_ms <= LINGER_FOR_DUE_MS

    def wait_s(self, at_most: int) -> float:
        """Return the seconds until another claim is worth it, after one for so many postbacks."""
        held_lanes = len({row.lane for row in self.held})
        if len(self.begun) + held_lanes >= at_most:
            return 0.0
        if self.next_due_ms < 0:
            return POLL_EVERY_S
        return min(POLL_EVERY_S, max(MIN_POLL_S, self.next_due_ms / 1000))


class ClaimRequest:
    """Builds the claims of one loop, and parses their replies.

    Args:
        settings: the process's settings.
        loop_id: the loop's name among the claimers.
        examines: True to claim from the quarantine alone, instead of from the lanes.
    """

    def __init__(self, settings: Settings, loop_id: str, *, examines: bool) -> None:
        self._settings = settings
        self._loop_id = loop_id
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._examines = examines

    def call(
        self, at_most: int, budget: Budget, suspects: SuspectCapacity, slow_lanes: Iterable[str]
    ) -> Call:
        """Return the call of ``claim.lua``, or of ``examine.lua``."""
        settings = self._settings
        if self._examines:
            return examine_call(
                self._loop_id,
                self._lease_ms,
                settings.endpoint_max_transfers,
                int(settings.account_removed_keep_s * 1000),
            )
        return claim_call(
            self._loop_id,
            self._lease_ms,
            at_most=at_most,
            suspects_max=suspects.suspects,
            shares=(suspects.troubled, suspects.new, suspects.waited),
            free=budget.free,
            held_max=budget.held,
            held_per_lane=settings.probe_claims,
            slow_lanes=slow_lanes,
            endpoint_max=settings.endpoint_max_transfers,
            weights=settings.group_weights,
        )

    def read(self, reply: list[Any]) -> ClaimReply:
        """Parse the reply of ``claim.lua`` or ``examine.lua``."""
        if self._examines:
            now_ms, begun, later, still, ended = reply
            held, next_due_ms = [], int(POLL_EVERY_S * 1000) if later else -1
        else:
            now_ms, begun, held, next_due_ms, ended, still = reply
        return ClaimReply(
            now_ms,
            [ClaimRow(*row) for row in begun],
            [HeldRow(*row) for row in held],
            next_due_ms,
            [EndedRow(*row) for row in ended],
            {account.decode() for account in still},
        )


class Backoff:
    """Growing pauses while the broker fails. One line is logged when it is lost, one when it answers again."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._until_s = 0.0

    def left_s(self, now_s: float) -> float:
        """Return the seconds until the broker may be asked again; 0 for now."""
        return max(0.0, self._until_s - now_s)

    def failed(self, now_s: float, error: BrokerError, transfers_open: int) -> None:
        """Begin a pause: the broker did not answer, or answered with an error."""
        if not self._pause_s:
            log.error("delivery.broker_lost", str(error), open=transfers_open)
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        self._until_s = now_s + self._pause_s

    def answered(self, transfers_open: int) -> None:
        """Forget the pauses: the broker has done what it was asked."""
        if self._pause_s:
            log.info("delivery.broker_back", open=transfers_open)
            self._pause_s = 0.0


class Reply(NamedTuple):
    """Replies of the broker to a commit, to a claim, or to both.

    Attributes:
        committed: True if results are in the ledger now.
        claim: the claim's reply.
        error: error that one of the two ended with.
    """

    committed: bool = False
    claim: ClaimReply | None = None
    error: BrokerError | None = None


class Session:
    """The session of one loop with the broker.

    Args:
        scripts: the scripts of the broker.
        settings: the process's settings.
        loop_id: the loop's name among the claimers.
        curl: the transport, which tells when a reply can be read.
        results: results that are to be committed.
        open_transfers: the loop's open transfers.
        examines: True to claim from the quarantine alone, instead of from the lanes.

    Attributes:
        returner: returns claimed postbacks that are not sent.
        expected: transfers that the claim under way may bring.
        expected_suspects: of them those of suspects.
        claim_lost: True once a claim had no reply. It may have claimed what this loop does not know of, so the loop is to
            end, and its lease with it.
    """

    def __init__(
        self,
        scripts: Scripts,
        settings: Settings,
        loop_id: str,
        curl: CurlClient,
        results: ResultBatch,
        open_transfers: OpenTransfers,
        *,
        examines: bool,
    ) -> None:
        self._scripts = scripts
        self._settings = settings
        self._loop_id = loop_id
        self._curl = curl
        self._results = results
        self._open = open_transfers
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._request = ClaimRequest(settings, loop_id, examines=examines)
        self._pipeline = Pipeline(scripts, settings.broker_timeout_s, curl.watch)
        self._backoff = Backoff()
        self._next_claim_s = 0.0
        self._next_renewal_s = 0.0
        self.returner = Returner(scripts, loop_id)
        self.expected = 0
        self.expected_suspects = 0
        self.claim_lost = False

    def __bool__(self) -> bool:
        """True while a reply is awaited, or anything is still to be committed or postponed."""
        return bool(self._pipeline or self._results or self.returner)

    # -- commit and claim, which are not waited for ---------------------------------------------

    def send(self, now_s: float, budget: Budget | None) -> None:
        """Send the commit and the claim that are due, together: a commit makes room for more. None: claim nothing.

        Nothing is sent while a reply is awaited.

        Raises:
            BrokerError: they may have run, or not.
        """
        if self._pipeline:
            return
        commits = self._results.are_due(now_s, len(self._open))
        claims = budget is not None and (commits or now_s >= self._next_claim_s)
        if claims and budget is not None and budget.free <= 0:
            self._next_claim_s = now_s + POLL_EVERY_S
            claims = False
        commit = self._results.to_call() if commits or claims else None
        calls = [commit] if commit is not None else []
        if claims and budget is not None:
            calls.append(self._claim(now_s, budget))
        if not calls:
            return
        try:
            self._pipeline.send(calls)
        except BrokerError:
            self._lose(has_claim=claims)
            raise

    def _claim(self, now_s: float, budget: Budget) -> Call:
        slow_lanes = self._open.mark_slow(now_s)
        suspects = self._open.suspect_capacity(budget.claimed)
        self.expected = min(budget.free, CLAIM_BATCH)
        self.expected_suspects = min(self.expected, suspects.suspects)
        return self._request.call(self.expected, budget, suspects, slow_lanes)

    def receive(self, now_s: float) -> Reply:
        """Read the replies if they have come; else return an empty one.

        Raises:
            BrokerError: they took too long, or the connection has ended.
        """
        if self._pipeline and (self._curl.watched_ready or self._pipeline.timed_out(now_s)):
            return self._read_replies(now_s)
        return Reply()

    def receive_last(self, now_s: float, within_s: float) -> Reply:
        """Wait for the replies that are awaited, no longer than this, and give up what does not come.

        Raises:
            BrokerError: the connection has ended.
        """
        if self._pipeline:
            if self._pipeline.reply_ready(within_s):
                return self._read_replies(now_s)
            self._pipeline.close()
            self._lose(has_claim=True)
        return Reply()

    def _read_replies(self, now_s: float) -> Reply:
        calls = self._pipeline.pending
        has_claim = calls[-1].name != "commit"
        committed, claim, error = False, None, None
        try:
            for call, reply in zip(calls, self._pipeline.receive(), strict=True):
                if isinstance(reply, BrokerError):
                    error = error or reply
                elif call.name == "commit":
                    self._results.committed([CommittedRow(*row) for row in reply])
                    committed = True
                else:
                    claim = self._request.read(reply)
                    self._next_claim_s = now_s + claim.wait_s(self.expected)
        except BrokerError:
            self._lose(has_claim=has_claim)
            raise
        if error is None:
            self.expected = self.expected_suspects = 0
            self._answered(now_s)
        else:
            self._lose(has_claim=has_claim)
        return Reply(committed, claim, error)

    def _lose(self, *, has_claim: bool) -> None:
        self._results.requeue()
        self.expected = self.expected_suspects = 0
        self.claim_lost = self.claim_lost or has_claim

    def commit_now(self) -> None:
        """Commit the decided results and wait for the reply. Raises BrokerError; then they stay."""
        call = self._results.to_call()
        if call is None:
            return
        try:
            self._results.committed([CommittedRow(*row) for row in self._scripts.run(*call)])
        except BrokerError:
            self._results.requeue()
            raise

    # -- what is waited for -----------------------------------------------------------------------

    def begin(self, postbacks: Iterable[ClaimedPostback], latest_timeout_ms: int) -> Begun:
        """Begin attempts of held postbacks, as far as their endpoints have room.

        Args:
            postbacks: held ones whose POST is to be made now.
            latest_timeout_ms: begin of the latest POST whose time-out the loop knows of.

        Raises:
            BrokerError: they may have begun; asked again, the script counts no second attempt.
        """
        ids = [postback.id for postback in postbacks]
        return self._scripts.begin(
            self._loop_id, ids, self._settings.endpoint_max_transfers, latest_timeout_ms
        )

    def paused_accounts(self) -> set[str]:
        """Ask which accounts are paused. Raises BrokerError."""
        with broker_errors():
            accounts: Any = self._scripts.client.zrange(keys.PAUSED, 0, -1)
        return {account.decode() for account in accounts}

    def renew(self, now_s: float) -> None:
        """Renew the lease if neither a claim nor a commit has done so lately."""
        if now_s < self._next_renewal_s:
            return
        if not self._scripts.renew(self._loop_id, self._lease_ms) and self._open:
            log.error("delivery.lease_lost", "what is open may be sent twice", token=self._loop_id)
        self._answered(now_s)

    def _answered(self, now_s: float) -> None:
        """Record that the broker has done what it was asked, and has renewed the lease with it."""
        self._next_renewal_s = now_s + self._lease_ms / 3000
        self._backoff.answered(len(self._open))

    # -- pauses -------------------------------------------------------------------------------------

    def failed(self, now_s: float, error: BrokerError) -> None:
        """Pause after an error of the broker."""
        self._backoff.failed(now_s, error, len(self._open))

    def pause_s(self, now_s: float) -> float:
        """Return the seconds for which the broker is not to be asked."""
        return self._backoff.left_s(now_s)

    def wait_s(self, now_s: float, *, claiming: bool) -> float:
        """Return the seconds after which there is something to send, if nothing comes before."""
        if pause_s := self.pause_s(now_s):
            return max(0.001, min(POLL_EVERY_S, pause_s))
        wait_s = self._results.wait_s(POLL_EVERY_S, pending=bool(self._pipeline))
        if claiming and not self._pipeline:
            wait_s = min(wait_s, max(0.0, self._next_claim_s - now_s))
        return wait_s

    def close(self) -> None:
        """Close the connection, with whatever is still to come on it."""
        self._pipeline.close()
