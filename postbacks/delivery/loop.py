"""The delivering loop: claim, POST many at once, commit. One loop claims in a worker process at a time.

``queue/claim.lua`` decides for all workers together who may have how many transfers. This loop keeps its own two
budgets: all its transfers, and the half of them that suspects share (``open_transfers.py``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Final

from postbacks.accounts.routing import ACCOUNT_CHANGED, ACCOUNT_UNUSABLE, BROKER_AWAY, WORKER_STOPPED
from postbacks.delivery.claims import BROKER_AWAY_MS, POSTPONED_MS, ClaimedPostback
from postbacks.delivery.counters import LoopCounters
from postbacks.delivery.held import HeldQueue, SharedTimeouts
from postbacks.delivery.open_transfers import OpenTransfers
from postbacks.delivery.profiles import Profiles
from postbacks.delivery.request import headers
from postbacks.delivery.results import Decide, ResultBatch, log_ended_unsent
from postbacks.delivery.session import MIN_POLL_S, Budget, ClaimReply, Reply, Session
from postbacks.errors import BrokerError, BrokerUnreachable, PostbacksError
from postbacks.flower_events import events as task_events
from postbacks.flower_events.publisher import publisher
from postbacks.killpoints import reach
from postbacks.logs import EventLog
from postbacks.queue.scripts import Scripts
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.limits import max_transfers
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer
from postbacks.version import new_loop_id

log = EventLog(__name__)

#: Seconds that a loop which must end at once waits for the reply that it awaits.
LAST_REPLY_S: Final = 0.5
#: Milliseconds after which a postback is claimed again for which the broker and the account store did not agree.
CHANGED_MS: Final = 1000
#: Seconds between two looks for accounts that were paused, while anything is held.
PAUSES_EVERY_S: Final = 0.5
#: Postbacks held by one loop at most, over all failing lanes.
HELD_MAX: Final = 100_000


class DeliveryLoop:
    """Sends what is ready until nothing is, its slice of time ends, or it is asked to stop.

    Args:
        scripts: the scripts of the broker.
        curl: the transport; its connections outlive the loop.
        profiles: the accounts' limits, TLS, headers and signatures.
        settings: the process's settings.
        decide: decides on failed attempts.
        slice_s: seconds for which the loop claims; None for the setting's.
        loop_id: its name among the claimers; None for a new one.
        examines: True to claim from the quarantine alone, instead of from the lanes.
        linger_s: seconds for which the loop goes on claiming where it finds nothing.
        must_stop: called often; once it returns true nothing more is claimed.
        must_leave: called often; once it returns true the loop ends at once, whatever is open.
        on_draining: called once, when the loop has stopped claiming and only finishes what is open.
        counters: count what becomes of the attempts.

    Attributes:
        sent: POSTs that have begun.
    """

    def __init__(
        self,
        scripts: Scripts,
        curl: CurlClient,
        profiles: Profiles,
        settings: Settings,
        decide: Decide,
        *,
        slice_s: float | None = None,
        loop_id: str | None = None,
        examines: bool = False,
        linger_s: float = 0.0,
        must_stop: Callable[[], bool] = lambda: False,
        must_leave: Callable[[], bool] = lambda: False,
        on_draining: Callable[[], None] = lambda: None,
        counters: LoopCounters | None = None,
    ) -> None:
        self._curl = curl
        self._profiles = profiles
        self._settings = settings
        self._slice_s = settings.deliver_slice_s if slice_s is None else slice_s
        self._linger_s = linger_s
        self._must_stop = must_stop
        self._must_leave = must_leave
        self._on_draining = on_draining
        self._counters = counters or LoopCounters(curl)
        loop_id = loop_id or new_loop_id()
        self._max_transfers = max_transfers(settings)
        self._open = OpenTransfers(self._max_transfers, settings.slow_after_s)
        self._results = ResultBatch(loop_id, settings, decide, self._counters)
        self._session = Session(
            scripts, settings, loop_id, curl, self._results, self._open, examines=examines
        )
        self._claimed: list[ClaimedPostback] = []  # their POSTs are to begin
        self._claimed_s = 0.0
        self._held = HeldQueue()
        self._timeouts = SharedTimeouts(self._held, profiles, self._results)
        self._next_begin_s = 0.0
        self._next_pauses_s = 0.0
        self._room_made = False
        self._claiming = True
        self._slice_ends_s = math.inf
        self._stop_by_s = math.inf
        self._has_work = True
        self._had_work_s = 0.0
        self.sent = 0

    # -- the loop -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Run to the end; returns how many POSTs were made.

        What is in flight when the loop is asked to stop is finished; what is only held goes back without an attempt.
        While the broker does not answer, the loop goes on with what is open and asks again with growing pauses; what it
        cannot commit before its lease ends is sent again by somebody else.
        """
        self._had_work_s = time.monotonic()
        self._slice_ends_s = self._had_work_s + self._slice_s
        connections = self._curl.connections
        try:
            while True:
                now_s = time.monotonic()
                self._drain_if_due(now_s)
                if now_s >= self._stop_by_s or self._must_leave():
                    self._abandon()
                    break
                broker_failed = not self._talk_to_broker(now_s)
                if broker_failed and self._must_stop() and not self._open:
                    break  # the leases settle what could not be committed
                if self._is_done(now_s):
                    self._session.returner.leave()
                    break
                self._move_bytes()
        finally:
            self._session.close()
        opened = self._curl.connections - connections
        log.debug("delivery.loop_ended", posts=self.sent, connections_opened=opened)
        return self.sent

    def _drain_if_due(self, now_s: float) -> None:
        """Claim nothing more once the loop's slice has ended, or its worker is asked to stop."""
        if self._stop_by_s == math.inf and self._must_stop():
            self._stop_by_s = now_s + self._settings.stop_within_s
        if now_s >= self._slice_ends_s or self._stop_by_s < math.inf:
            self._drain()

    def _drain(self) -> None:
        """Claim nothing more, and finish what is open."""
        if self._claiming:
            self._claiming = False
            self._on_draining()

    def _talk_to_broker(self, now_s: float) -> bool:
        """Make one round with the broker, if it does not rest after an error; returns False if it fails."""
        if self._session.pause_s(now_s):
            return True
        try:
            self._make_round(now_s)
        except BrokerError as error:
            if self._session.claim_lost:
                self._drain()
            self._session.failed(now_s, error)
            return False
        return True

    def _make_round(self, now_s: float) -> None:
        """Take what has come, commit, claim, begin, give back and renew, as far as each is due."""
        self._take(now_s, self._session.receive(now_s))
        self._decide()
        self._session.send(now_s, self._budget() if self._claiming else None)
        self._begin_claimed()  # while the broker works
        if len(self._held) and not self._claiming:
            self._session.returner.give_back(self._held)
        elif len(self._held):
            if now_s >= self._next_pauses_s:
                self._give_back_paused(now_s)
            if now_s >= self._next_begin_s:
                self._begin_held(now_s)
        self._session.renew(now_s)
        if self._has_work:
            self._had_work_s = now_s

    def _is_done(self, now_s: float) -> bool:
        """True once nothing is under way and nothing more is to be claimed, or nothing was found for a while."""
        if self._open or self._session or self._claimed or len(self._held):
            return False
        if not self._has_work and now_s - self._had_work_s >= self._linger_s:
            self._drain()
        return not self._claiming

    def _move_bytes(self) -> None:
        """Let the transport work until something has ended or there is something to say to the broker."""
        for transfer, outcome in self._curl.wait(self._wait_s()):
            self._end(transfer, outcome)

    def _wait_s(self) -> float:
        now_s = time.monotonic()
        if len(self._held) and not self._claiming and not self._session.pause_s(now_s):
            return 0.0  # the next batch of them is to be given back
        return self._session.wait_s(now_s, claiming=self._claiming)

    def _abandon(self) -> None:
        """Leave what is open to its lease, commit what has ended, and return what has not begun."""
        if self._open:
            log.warning("delivery.abandoned", "their lease settles them", open=len(self._open))
        session = self._session
        try:
            now_s = time.monotonic()
            self._take(now_s, session.receive_last(now_s, LAST_REPLY_S))
            self._decide()
            session.commit_now()
            while len(self._held):
                session.returner.give_back(self._held)
            session.returner.add((postback.id for postback in self._claimed), 0, WORKER_STOPPED)
            self._claimed.clear()
            session.returner.postpone()
            if not self._open:
                session.returner.leave()
        except BrokerError as error:
            log.warning("delivery.broker_lost", str(error), open=len(self._open))
        if session.claim_lost:
            self._drain()

    # -- claims -------------------------------------------------------------------------------------

    def _free(self) -> int:
        return self._max_transfers - len(self._open) - len(self._claimed)

    def _budget(self) -> Budget:
        return Budget(self._free(), max(0, HELD_MAX - len(self._held)), self._claimed)

    def _take(self, now_s: float, reply: Reply) -> None:
        """Take the broker's replies: a commit has made room, and a claim has brought postbacks."""
        if reply.committed:
            if self._room_made:
                self._next_begin_s, self._room_made = 0.0, False
            self._held.forget_limits()
        if reply.claim is not None:
            self._take_claim(now_s, reply.claim)
        if reply.error is not None:
            raise reply.error

    def _take_claim(self, now_s: float, claim: ClaimReply) -> None:
        self._claimed_s = now_s
        for row in claim.begun:
            lane = row.lane.decode()
            self._open.mark(lane, troubled=row.standing == 1, new=row.standing == 2)
            self._claimed.append(ClaimedPostback.from_begun_row(lane, row, claim.now_ms))
        for held_row in claim.held:
            postback = ClaimedPostback.from_held_row(held_row, claim.now_ms)
            self._held.add(postback)
            self._open.mark(postback.lane, troubled=True)
        log_ended_unsent(claim.ended)
        if claim.still:
            self._look_up_again(claim.still, claim.now_ms)
        self._has_work = claim.has_work

    def _look_up_again(self, accounts: set[str], now_ms: int) -> None:
        """Look accounts up that stand still, and publish what has changed to the scripts."""
        try:
            self._profiles.look_up(accounts, now_ms, anew=True)
            self._profiles.publish()
        except PostbacksError as error:
            log.error("delivery.accounts_unavailable", str(error), postbacks=0)  # noqa: TRY400

    # -- POSTs --------------------------------------------------------------------------------------

    def _begin_claimed(self) -> None:
        """Begin the POSTs of what is claimed, each with its account's profile.

        Where a profile cannot be had, nothing goes out unsigned: the postback is postponed, and no attempt of it is
        counted.
        """
        returner = self._session.returner
        returner.postpone()  # those of an earlier round, in which the broker did not answer
        if not self._claimed:
            return
        claimed, self._claimed = self._claimed, []
        delay_ms, reason = CHANGED_MS, ACCOUNT_CHANGED
        try:
            profiles = self._profiles.agree_on(claimed)
            self._profiles.publish()
        except PostbacksError as error:
            log.error("delivery.accounts_unavailable", str(error), postbacks=len(claimed))  # noqa: TRY400
            profiles = {}
            delay_ms, reason = POSTPONED_MS, ACCOUNT_UNUSABLE
            if isinstance(error, BrokerUnreachable):
                delay_ms, reason = BROKER_AWAY_MS, BROKER_AWAY
        ready = [postback for postback in claimed if postback.id in profiles]
        returner.add((postback.id for postback in claimed if postback.id not in profiles), delay_ms, reason)
        for postback in ready:
            try:
                self._begin(postback, profiles[postback.id])
            except (ValueError, TypeError):
                # A record that somebody has spoilt must not take the others along; its lease settles it, which
                # ends with this loop's.
                log.exception("delivery.not_begun", account=postback.account, id=postback.id)
                self._drain()
        self._counters.count_first_posts(ready, time.monotonic() - self._claimed_s)
        publisher.add(task_events.started, ready)
        returner.postpone()

    def _begin(self, postback: ClaimedPostback, profile: Profile) -> None:
        lines = headers(
            profile,
            postback.xml,
            postback_id=postback.id,
            number=postback.number,
            created_ms=postback.created_ms or 0,
            sequence=postback.sequence,
            at_ms=postback.at_ms,
        )
        transfer = Transfer(postback.url, postback.xml, lines, profile, owner=postback)
        self._open.begin(transfer, postback)
        self.sent += 1
        self._curl.start(transfer)
        reach("loop:post-begun")

    def _begin_held(self, now_s: float) -> None:
        """Begin held postbacks of lanes that have room: one at a time while the lane fails.

        No more begin than can be committed. A thousand lanes that fail at once would make POSTs faster than their
        results are written; those would fill the memory, and their resends would be late.
        """
        held, session = self._held, self._session
        at_most = min(self._free() - session.expected, self._results.free())
        picked = held.pick(self._held_allowance(), at_most)
        if not picked:
            return
        try:
            begun = session.begin(picked, self._timeouts.latest_known_ms)
        except BrokerError:
            held.put_back(picked)  # asked again, the script counts no second attempt
            raise
        moved = _decode_all(begun.moved)
        later = _decode_all(begun.later) | moved
        held.resolve(picked, later, _decode_all(begun.full))
        self._timeouts.on_reported(begun.tried)
        if later:
            self._next_begin_s = now_s + MIN_POLL_S
        lanes = {postback.id: postback.lane for postback in picked}
        for row in begun.rows:  # first: they have begun, whatever the broker answers to what follows
            lane = lanes[row.id.decode()]
            self._claimed.append(ClaimedPostback.from_begun_row(lane, row, begun.now_ms))
        for lane in {lanes[postback_id] for postback_id in moved}:
            session.returner.give_back_lane(held, lane)
        if len(begun.rows) + len(later) < len(picked):  # the script knew nothing of the others any more
            accounted_for = later | {row.id.decode() for row in begun.rows}
            publisher.add(
                task_events.cancelled_while_held,
                [postback for postback in picked if postback.id not in accounted_for],
            )
        self._begin_claimed()

    def _give_back_paused(self, now_s: float) -> None:
        """Give back what is held of accounts that are paused by now, so that it shares no other's time-out."""
        self._next_pauses_s = now_s + PAUSES_EVERY_S
        for lane in self._held.lanes_of(self._session.paused_accounts()):
            self._session.returner.give_back_lane(self._held, lane)

    def _held_allowance(self) -> Callable[[str], int]:
        """Return a function that tells how many held postbacks of a lane may begin, and counts them."""
        capacity = self._open.suspect_capacity(self._claimed).troubled - self._session.expected_suspects

        def allowed(lane: str) -> int:
            nonlocal capacity
            count = self._held.limit(lane) - self._open.of_lane(lane)
            if self._open.is_troubled(lane):
                count = max(0, min(count, capacity))
                capacity -= count
            return count

        return allowed

    # -- results ------------------------------------------------------------------------------------

    def _end(self, transfer: Transfer, outcome: Outcome) -> None:
        postback: ClaimedPostback = transfer.owner
        reach("loop:answered-not-noted")
        self._open.end(transfer, postback)
        self._results.add(postback, outcome, postback.at_ms)
        if len(self._held) and self._held.has_blocked(postback.endpoint):
            self._room_made = True
        if outcome.name == "connect_timeout":
            self._timeouts.on_own_timeout(transfer, postback, outcome)

    def _decide(self) -> None:
        """Decide on the outcomes that have come; a lane's mood sets how many of its held postbacks may be open."""
        for lane, mood in self._results.decide():
            self._open.mark(lane, troubled=mood != "ok")
            self._held.record_mood(lane, mood, self._settings.lane_max_transfers)


def _decode_all(texts: Iterable[bytes]) -> set[str]:
    return {text.decode() for text in texts}
