"""The delivering loop: claim, POST many at once, note. One runs in a worker process at a time.

Who may have how many transfers is decided in ``queue/claim.lua`` for all workers together; this
loop keeps its own two budgets: all its transfers, and the half of them that lanes in trouble share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from postbacks.accounts.routing import ACCOUNT_CHANGED, ACCOUNT_UNUSABLE, BROKER_AWAY, WORKER_STOPPED
from postbacks.delivery.backoff import Backoff
from postbacks.delivery.claims import Claimed, Held, HeldQueue
from postbacks.delivery.counters import LoopCounters
from postbacks.delivery.held import SharedTimeouts
from postbacks.delivery.open_transfers import OpenTransfers
from postbacks.delivery.pipeline import Pipeline
from postbacks.delivery.profiles import Profiles
from postbacks.delivery.report import report_unsent
from postbacks.delivery.request import headers
from postbacks.delivery.results import Decide, ResultBatch
from postbacks.delivery.session import LOOK_EVERY_S, MIN_POLL_S, ClaimRequest
from postbacks.delivery.unsent import LOST_BROKER_MS, PUT_OFF_MS, Returner
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

#: Postbacks begun by one claim at most; bounds how long the script blocks the broker.
CLAIM_BATCH: Final = 50
#: Seconds that a loop which must end at once waits for what it has asked the broker.
ABANDON_HEARS_S: Final = 0.5
#: Milliseconds after which a postback is claimed again for which the broker and the account store did not agree.
TURN_BACK_MS: Final = 1000
#: Postbacks held by one loop at most, over all failing lanes.
HELD_MAX: Final = 100_000


class DeliveryLoop:
    """Sends what is ready until nothing is, its slice of time ends, or it is told to stop.

    Args:
        scripts: the scripts of the broker.
        adapter: the transport; its connections outlive the loop.
        profiles: the accounts' limits, TLS, headers and signatures.
        settings: the process's settings.
        decide: what follows a failed attempt.
        slice_s: seconds that it claims; None for the setting's.
        token: its name among the claimers; None for a new one.
        examines: it takes from the quarantine, and from there alone, instead of the lanes.
        linger_s: seconds that it goes on looking where it finds nothing.
        must_stop: asked often; once true nothing more is claimed.
        must_leave: asked often; once true the loop ends at once, whatever is open.
        on_draining: called once, when the loop has stopped claiming and only finishes what is open.
        tally: counts what comes of the attempts.
    """

    def __init__(
        self,
        scripts: Scripts,
        adapter: CurlClient,
        profiles: Profiles,
        settings: Settings,
        decide: Decide,
        *,
        slice_s: float | None = None,
        token: str | None = None,
        examines: bool = False,
        linger_s: float = 0.0,
        must_stop: Callable[[], bool] = lambda: False,
        must_leave: Callable[[], bool] = lambda: False,
        on_draining: Callable[[], None] = lambda: None,
        tally: LoopCounters | None = None,
    ) -> None:
        self._scripts = scripts
        self._adapter = adapter
        self._profiles = profiles
        self._settings = settings
        self._slice_s = settings.deliver_slice_s if slice_s is None else slice_s
        self._must_stop = must_stop
        self._must_leave = must_leave
        self._on_draining = on_draining
        self._token = token or new_loop_id()
        self._tally = tally or LoopCounters(adapter)
        self._notes = ResultBatch(scripts, self._token, settings, decide, self._tally)
        self._linger_s = linger_s
        self._asking = ClaimRequest(settings, self._token, examines=examines)
        self._exchange = Pipeline(scripts, settings.broker_timeout_s, adapter.watch)
        self._asked_for = 0  # transfers that the claim which is on its way may bring
        self._asked_for_suspects = 0  # of them those of suspects
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._max_transfers = max_transfers(settings)
        self._open = OpenTransfers(self._max_transfers, settings.slow_after_s)
        self._claimed: list[Claimed] = []
        self._claimed_s = 0.0
        self._unsent = Returner(scripts, self._token)
        self._held = HeldQueue()
        self._sharing = SharedTimeouts(self._held, profiles, self._notes)
        self._next_claim_s = 0.0
        self._next_begin_s = 0.0
        self._room_made = False
        self._next_renewal_s = 0.0
        self._backoff = Backoff()
        self._claiming = True
        self.sent = 0

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> int:
        """Run to the end; returns how many POSTs were made.

        What is in flight when the loop is told to stop is finished; what is only held goes back
        without an attempt. While the broker does not answer, the loop goes on with what is open
        and asks again with growing pauses; what it cannot note before its lease ends is sent again
        by somebody else.
        """
        try:
            return self._run()
        finally:
            self._exchange.drop()

    def _run(self) -> int:
        before = self._adapter.connections
        slice_ends_s = time.monotonic() + self._slice_s
        stop_by_s = math.inf
        found, found_s = True, time.monotonic()
        while True:
            now_s = time.monotonic()
            if stop_by_s == math.inf and self._must_stop():
                stop_by_s = now_s + self._settings.stop_within_s
            if self._claiming and (now_s >= slice_ends_s or stop_by_s < math.inf):
                self._drain()
            if now_s >= stop_by_s or self._must_leave():
                self._abandon()
                return self.sent
            try:
                if not self._backoff.left_s(now_s):
                    found = self._talk_to_broker(now_s, found)
                    found_s = now_s if found else found_s
            except BrokerError as error:
                self._backoff.lost(now_s, error, len(self._open))
                if self._must_stop() and not self._open:
                    return self.sent  # the leases settle what could not be noted
            if not (self._open or self._exchange or self._notes or self._claimed or self._unsent):
                if not self._claiming and not len(self._held):
                    break
                if self._claiming and not found and not len(self._held) and now_s - found_s >= self._linger_s:
                    self._drain()
                    continue
            for transfer, outcome in self._adapter.wait(self._wait_s()):
                self._end(transfer, outcome)
        self._unsent.leave()
        opened = self._adapter.connections - before
        log.debug("delivery.loop_ended", posts=self.sent, connections_opened=opened)
        return self.sent

    def _talk_to_broker(self, now_s: float, found: bool) -> bool:
        """Hear, note, claim, give back, renew, as far as each is due; returns whether there was work."""
        if self._exchange and (self._adapter.heard or self._exchange.overdue(now_s)):
            found = self._hear(now_s, found)
        self._decide()
        if not self._exchange:
            self._ask(now_s)
        self._begin_claimed()  # while the broker works
        if len(self._held) and not self._claiming:
            self._unsent.give_back(self._held)
        elif len(self._held) and now_s >= self._next_begin_s:
            self._begin_held(now_s)
        if now_s >= self._next_renewal_s:
            if not self._scripts.renew(self._token, self._lease_ms) and self._open:
                log.error("delivery.lease_lost", "what is open may be sent twice", token=self._token)
            self._broker_answers(now_s)
        return found

    def _ask(self, now_s: float) -> None:
        """Send the notes and the claim that are due, together: a note makes room for more."""
        notes_due = self._notes.are_due(now_s, len(self._open))
        claims = self._claiming and (notes_due or now_s >= self._next_claim_s)
        free = self._free()
        if claims and free <= 0:
            self._next_claim_s = now_s + LOOK_EVERY_S
            claims = False
        note = self._notes.call() if notes_due or claims else None
        calls = [note] if note is not None else []
        if claims:
            slow_lanes = self._open.newly_slow(now_s)
            room = self._open.room(self._claimed)
            self._asked_for = min(free, CLAIM_BATCH)
            self._asked_for_suspects = min(self._asked_for, room.suspects)
            held_max = max(0, HELD_MAX - len(self._held))
            calls.append(self._asking.call(self._asked_for, room, free, held_max, slow_lanes))
        if calls:
            try:
                self._exchange.send(calls)
            except BrokerError:
                self._not_heard(claimed=claims)
                raise

    def _hear(self, now_s: float, found: bool) -> bool:
        """The broker's answer to the notes, to the claim, or to both."""
        asked = self._exchange.asked
        claimed = asked[-1].name != "commit"
        failed: BrokerError | None = None
        try:
            for call, reply in zip(asked, self._exchange.hear(), strict=True):
                if isinstance(reply, BrokerError):
                    failed = failed or reply
                elif call.name == "commit":
                    self._noted(reply)
                else:
                    found = self._begin_answered(now_s, reply)
            if failed:
                raise failed
        except BrokerError:
            self._not_heard(claimed=claimed)
            raise
        self._asked_for = self._asked_for_suspects = 0
        self._broker_answers(now_s)
        return found

    def _noted(self, results: list[list[Any]]) -> None:
        self._notes.heard(results)
        if self._room_made:
            self._next_begin_s, self._room_made = 0.0, False
        self._held.forget_limits()

    def _broker_answers(self, now_s: float) -> None:
        """The broker has done what it was asked, and has renewed the lease with it."""
        self._next_renewal_s = now_s + self._lease_ms / 3000
        self._backoff.answers(len(self._open))

    def _not_heard(self, *, claimed: bool) -> None:
        self._notes.not_heard()
        self._asked_for = self._asked_for_suspects = 0
        if claimed:
            # It may have claimed for us what we do not know of. This loop ends, so that their lease does.
            self._drain()

    def _wait_s(self) -> float:
        now_s = time.monotonic()
        if self._backoff.left_s(now_s):
            return max(0.001, min(LOOK_EVERY_S, self._backoff.left_s(now_s)))
        if not self._claiming and len(self._held):
            return 0.0
        wait_s = self._notes.wait_s(LOOK_EVERY_S, asked=bool(self._exchange))
        if self._claiming and not self._exchange:
            wait_s = min(wait_s, max(0.0, self._next_claim_s - now_s))
        return wait_s

    def _abandon(self) -> None:
        """Leave what is open to its lease; what has ended is noted and what is only held goes back."""
        if self._open:
            log.warning("delivery.abandoned", "their lease settles them", open=len(self._open))
        try:
            if self._exchange:
                if self._exchange.wait(ABANDON_HEARS_S):
                    self._hear(time.monotonic(), found=False)
                else:
                    self._exchange.drop()
                    self._not_heard(claimed=True)
            self._decide()
            self._notes.commit()
            while len(self._held):
                self._unsent.give_back(self._held)
            self._unsent.add((claimed.id for claimed in self._claimed), 0, WORKER_STOPPED)
            self._claimed.clear()
            self._unsent.postpone()
            if not self._open:
                self._unsent.leave()
        except BrokerError as error:
            log.warning("delivery.broker_lost", str(error), open=len(self._open))

    def _drain(self) -> None:
        if self._claiming:
            self._claiming = False
            self._on_draining()

    # -- claiming ---------------------------------------------------------------------------

    def _begin_answered(self, now_s: float, reply: list[Any]) -> bool:
        """Begin and hold what was claimed; returns whether there was work."""
        asked = self._asking.read(reply)
        self._claimed_s = now_s
        for postback_id, lane_bytes, suspect, *rest in asked.begun:
            lane = lane_bytes.decode()
            self._open.judge(lane, in_trouble=suspect == 1, is_new=suspect == 2)
            self._claimed.append(Claimed.from_row(lane, (postback_id, *rest), asked.now_ms))
        for row in asked.held:
            one = Held.from_row(row, asked.now_ms)
            self._held.add(one)
            self._open.judge(one.lane, in_trouble=True)
        self._next_claim_s = now_s + asked.wait_s(self._asked_for)
        report_unsent(asked.ended)
        if asked.still:
            self._look_again(asked.still, asked.now_ms)
        return asked.found

    def _look_again(self, accounts: set[str], now_ms: int) -> None:
        """Look accounts up that stand still; what has changed is written where the scripts read it."""
        try:
            self._profiles.look_up(accounts, now_ms, anew=True)
        except PostbacksError as error:
            log.error("delivery.accounts_unavailable", str(error), postbacks=0)  # noqa: TRY400

    def _free(self) -> int:
        return self._max_transfers - len(self._open) - len(self._claimed)

    def _begin_held(self, now_s: float) -> None:
        """Begin held postbacks of lanes that have room: one at a time while the lane fails.

        No more than can be noted: a thousand lanes that fail at once would make POSTs faster than their notes are
        written, and then what is not noted would fill the memory and its resend would be late.
        """
        room = self._open.room(self._claimed).troubled - self._asked_for_suspects

        def allowed(lane: str) -> int:
            nonlocal room
            count = self._held.limit(lane) - self._open.of_lane(lane)
            if self._open.is_in_trouble(lane):
                count = max(0, min(count, room))
                room -= count
            return count

        chosen = self._held.choose(allowed, min(self._free() - self._asked_for, self._notes.room()))
        if not chosen:
            return
        try:
            now_ms, rows, later, full, tried, moved = self._scripts.begin(
                self._token,
                [held.id for held in chosen],
                self._settings.endpoint_max_transfers,
                self._sharing.told_ms,
            )
        except BrokerError:
            self._held.put_back(chosen)  # asked again, the script counts no second attempt
            raise
        gone_elsewhere = {raw_id.decode() for raw_id in moved}
        waiting = {one.decode() for one in later} | gone_elsewhere
        self._held.settle(chosen, waiting, {endpoint.decode() for endpoint in full})
        self._sharing.others(tried)
        if waiting:
            self._next_begin_s = now_s + MIN_POLL_S
        lane_of = {held.id: held.lane for held in chosen}
        for row in rows:  # first: they have begun, whatever the broker answers to what follows
            self._claimed.append(Claimed.from_row(lane_of[row[0].decode()], row, now_ms))
        for lane in {lane_of[postback_id] for postback_id in gone_elsewhere}:
            self._unsent.give_back_lane(self._held, lane)
        if len(rows) + len(waiting) < len(chosen):
            known = waiting | {row[0].decode() for row in rows}
            publisher.add(task_events.cancelled_while_held, [held for held in chosen if held.id not in known])
        self._begin_claimed()

    def _begin_claimed(self) -> None:
        """Begin what is claimed, each with its account's profile.

        Where a profile cannot be had, nothing goes out unsigned: the postback is put off, and no attempt
        of it is counted.
        """
        self._unsent.postpone()  # those of an earlier turn, in which the broker did not answer
        if not self._claimed:
            return
        claimed, self._claimed = self._claimed, []
        profiles: dict[str, Profile] = {}
        delay_ms, reason = TURN_BACK_MS, ACCOUNT_CHANGED
        try:
            profiles = self._profiles.agree_on(claimed)
        except PostbacksError as error:
            log.error("delivery.accounts_unavailable", str(error), postbacks=len(claimed))  # noqa: TRY400
            delay_ms, reason = PUT_OFF_MS, ACCOUNT_UNUSABLE
            if isinstance(error, BrokerUnreachable):
                delay_ms, reason = LOST_BROKER_MS, BROKER_AWAY
        self._unsent.add((one.id for one in claimed if one.id not in profiles), delay_ms, reason)
        ready = [postback for postback in claimed if postback.id in profiles]
        for one in ready:
            try:
                self._begin(one, profiles[one.id])
            except (ValueError, TypeError):
                # A record that somebody has spoilt must not take the others along; its lease settles it, which
                # ends with this loop's.
                log.exception("delivery.not_begun", account=one.account, id=one.id)
                self._drain()
        self._tally.began(ready, time.monotonic() - self._claimed_s)
        publisher.add(task_events.started, ready)
        self._unsent.postpone()

    def _begin(self, claimed: Claimed, profile: Profile) -> None:
        lines = headers(
            claimed.id,
            claimed.number,
            claimed.created_ms,
            claimed.sequence,
            claimed.at_ms,
            claimed.xml,
            profile,
        )
        transfer = Transfer(claimed.url, claimed.xml, lines, profile, owner=claimed)
        self._open.begin(transfer, claimed)
        self.sent += 1
        self._adapter.start(transfer)
        reach("loop:post-begun")

    # -- noting -----------------------------------------------------------------------------

    def _end(self, transfer: Transfer, outcome: Outcome) -> None:
        claimed: Claimed = transfer.owner
        reach("loop:answered-not-noted")
        self._open.end(transfer, claimed)
        self._notes.add(claimed, outcome, claimed.number, claimed.at_ms)
        if len(self._held) and self._held.sleeps_any(claimed.endpoint):
            self._room_made = True
        if outcome.name == "connect_timeout":
            self._sharing.own(transfer, claimed, outcome)

    def _decide(self) -> None:
        """Have it decided what follows the outcomes; each lane's limit for what is held of it follows its mood."""
        for lane, mood in self._notes.decide():
            self._open.judge(lane, in_trouble=mood != "ok")
            self._held.follow(lane, mood, self._settings.lane_max_transfers)
