"""The delivering loop: claim, POST many at once, note. One runs in a worker process at a time.

Who may have how many transfers is decided in ``queue/claim.lua`` for all workers together; this
loop keeps its own two budgets: all its transfers, and the half of them that lanes in trouble share.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Final

from postbacks.delivery.asking import LOOK_AGAIN_S, LOOK_EVERY_S, Asking
from postbacks.delivery.capacity import transfers_allowed
from postbacks.delivery.claims import Claimed, Held, HeldPostbacks
from postbacks.delivery.notes import NOTE_BATCH, Decide, Notes
from postbacks.delivery.outcomes import Outcome
from postbacks.delivery.profile import Profile, Profiles
from postbacks.delivery.request import headers
from postbacks.delivery.sharing import sharers
from postbacks.delivery.tally import Tally
from postbacks.delivery.transfer import Transfer
from postbacks.delivery.transport import CurlAdapter
from postbacks.errors import BrokerError, PostbacksError
from postbacks.faults import point
from postbacks.logs import EventLog
from postbacks.queue.scripts import Scripts
from postbacks.settings import Settings
from postbacks.taskevents import gone, started
from postbacks.version import VERSION

log = EventLog(__name__)

#: Postbacks begun by one claim at most; bounds how long the script blocks the broker.
CLAIM_BATCH: Final = 50
#: Postbacks held by one loop at most, over all failing lanes.
HELD_MAX: Final = 100_000
#: Milliseconds after which a postback is looked at again whose account could not be used.
PUT_OFF_MS: Final = 30_000


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
        adapter: CurlAdapter,
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
        tally: Tally | None = None,
    ) -> None:
        self._scripts = scripts
        self._adapter = adapter
        self._profiles = profiles
        self._settings = settings
        self._slice_s = settings.deliver_slice_s if slice_s is None else slice_s
        self._must_stop = must_stop
        self._must_leave = must_leave
        self._on_draining = on_draining
        self._token = token or f"{uuid.uuid4().hex}@{VERSION}"
        tally = tally or Tally(adapter)
        self._notes = Notes(scripts, self._token, settings, decide, tally, self._mood)
        self._linger_s = linger_s
        self._asking = Asking(scripts, settings, self._token, examines=examines)
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._max_transfers = transfers_allowed(settings)
        self._open: dict[int, tuple[Transfer, Claimed]] = {}  # oldest first
        self._open_of_lane: Counter[str] = Counter()
        self._suspects: set[str] = set()
        self._reported_slow: set[str] = set()
        self._claimed: list[Claimed] = []
        self._put_off: list[str] = []
        self._held = HeldPostbacks()
        self._held_limit: dict[str, int] = {}
        self._next_claim_s = 0.0
        self._next_begin_s = 0.0
        self._next_renewal_s = 0.0
        self._broker_pause_s = 0.0
        self._broker_retry_s = 0.0
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
                if now_s >= self._broker_retry_s:
                    found = self._talk_to_broker(now_s, found)
                    if self._broker_pause_s:
                        log.info("delivery.broker_back", open=len(self._open))
                    found_s = now_s if found else found_s
                    self._broker_pause_s = 0.0
            except BrokerError as error:
                self._pause(now_s, error)
                if self._must_stop() and not self._open:
                    return self.sent  # the leases settle what could not be noted
            if not self._open and not self._notes and not self._claimed and not self._put_off:
                if not self._claiming and not len(self._held):
                    break
                if self._claiming and not found and not len(self._held) and now_s - found_s >= self._linger_s:
                    self._drain()
                    continue
            for transfer, outcome in self._adapter.wait(self._wait_s()):
                self._end(transfer, outcome)
        self._leave()
        del self._notes  # they hold the loop: with all it has held, it would wait for Python's collector
        log.debug(
            "delivery.loop_ended", posts=self.sent, connections_opened=self._adapter.connections - before
        )
        return self.sent

    def _talk_to_broker(self, now_s: float, found: bool) -> bool:
        """Note, give back, claim, renew, as far as each is due; returns whether there was work."""
        self._notes.decide()
        if self._notes.are_due(now_s, len(self._open)):
            self._commit()
        self._begin_claimed()
        if not self._claiming and len(self._held):
            self._give_back()
        if self._claiming and now_s >= self._next_claim_s:
            found = self._claim(now_s)
        if len(self._held) and now_s >= self._next_begin_s:
            self._begin_held(now_s)
        if now_s >= self._next_renewal_s:
            if not self._scripts.renew(self._token, self._lease_ms) and self._open:
                log.error("delivery.lease_lost", "what is open may be sent twice", token=self._token)
            self._next_renewal_s = now_s + self._lease_ms / 3000
        return found

    def _wait_s(self) -> float:
        wait_s = self._notes.wait_s(LOOK_EVERY_S)
        if not wait_s:
            return 0.0
        if self._claiming:
            wait_s = min(wait_s, max(0.0, self._next_claim_s - time.monotonic()))
        return max(wait_s, 0.001) if self._broker_pause_s else wait_s

    def _pause(self, now_s: float, error: BrokerError) -> None:
        if not self._broker_pause_s:
            log.error("delivery.broker_lost", str(error), open=len(self._open))
        self._broker_pause_s = min(2.0, (self._broker_pause_s or 0.05) * 2)
        self._broker_retry_s = now_s + self._broker_pause_s

    def _abandon(self) -> None:
        """Leave what is open to its lease; what has ended is noted and what is only held goes back."""
        if self._open:
            log.warning("delivery.abandoned", "their lease settles them", open=len(self._open))
        try:
            self._notes.decide()
            self._notes.commit()
            self._give_back()
            if not self._open:
                self._leave()
        except BrokerError as error:
            log.warning("delivery.broker_lost", str(error), open=len(self._open))

    def _drain(self) -> None:
        if self._claiming:
            self._claiming = False
            self._on_draining()

    def _leave(self) -> None:
        try:
            self._scripts.give_back(self._token)
        except BrokerError as error:
            log.warning("delivery.broker_lost", str(error), open=0)

    # -- claiming ---------------------------------------------------------------------------

    def _claim(self, now_s: float) -> bool:
        free = self._max_transfers - len(self._open)
        if free <= 0 or self._claimed:
            self._next_claim_s = now_s + LOOK_EVERY_S
            return True
        at_most = min(free, CLAIM_BATCH)
        try:
            asked = self._asking.claim(
                at_most,
                max(0, self._max_transfers // 2 - sum(self._open_of_lane[lane] for lane in self._suspects)),
                free,
                max(0, HELD_MAX - len(self._held)),
                self._newly_slow(now_s),
            )
        except BrokerError:
            # It may have claimed for us what we do not know of. This loop ends, so that their lease does.
            self._drain()
            raise
        self._next_renewal_s = now_s + self._lease_ms / 3000
        for postback_id, lane_bytes, suspect, *rest in asked.begun:
            lane = lane_bytes.decode()
            (self._suspects.add if suspect else self._suspects.discard)(lane)
            self._claimed.append(Claimed.from_row(lane, (postback_id, *rest), asked.now_ms))
        self._begin_claimed()
        for row in asked.held:
            one = Held.from_row(row, now_s)
            self._held.add(one)
            self._held_limit.setdefault(one.lane, 1)
        self._next_claim_s = now_s + asked.wait_s(at_most)
        return asked.found

    def _newly_slow(self, now_s: float) -> list[str]:
        slow: list[str] = []
        for transfer, claimed in self._open.values():
            if now_s - transfer.started_s < self._settings.slow_after_s:
                break
            if claimed.lane not in self._reported_slow:
                self._reported_slow.add(claimed.lane)
                self._suspects.add(claimed.lane)
                slow.append(claimed.lane)
        return slow

    def _begin_held(self, now_s: float) -> None:
        """Begin held postbacks of lanes that have room: one at a time while the lane fails.

        No more than can be noted: a thousand lanes that fail at once would make POSTs faster than their notes are
        written, and then what is not noted would fill the memory and its resend would be late.
        """
        room = min(self._max_transfers - len(self._open), NOTE_BATCH - len(self._notes))
        chosen: list[Held] = []
        for lane in self._held.lanes():
            count = min(self._held_limit.get(lane, 1) - self._open_of_lane[lane], room - len(chosen))
            if count > 0:
                chosen += self._held.take(lane, count)
        if not chosen:
            return
        try:
            now_ms, rows, later = self._scripts.begin(
                self._token, [held.id for held in chosen], self._settings.endpoint_max_transfers
            )
        except BrokerError:
            self._held.put_back(chosen)  # asked again, the script counts no second attempt
            raise
        if later:
            waiting = {one.decode() for one in later}
            self._held.put_back([held for held in chosen if held.id in waiting])
            self._next_begin_s = now_s + LOOK_AGAIN_S
        lane_of = {held.id: held.lane for held in chosen}
        for row in rows:
            self._claimed.append(Claimed.from_row(lane_of[row[0].decode()], row, now_ms))
        if len(rows) < len(chosen):
            begun = {row[0].decode() for row in rows}
            gone([held for held in chosen if held.id not in begun])
        self._begin_claimed()

    def _begin_claimed(self) -> None:
        """Begin what is claimed, each with its account's profile.

        Where a profile cannot be had, nothing goes out unsigned: the postback is put off, and no attempt
        of it is counted.
        """
        if self._put_off:  # of an earlier turn, in which the broker did not answer
            self._postpone()
        if not self._claimed:
            return
        claimed, self._claimed = self._claimed, []
        profiles: dict[str, Profile] = {}
        try:
            profiles = self._profiles.look_up({one.account for one in claimed}, claimed[0].at_ms)
        except PostbacksError as error:
            log.error("delivery.accounts_unavailable", str(error), postbacks=len(claimed))  # noqa: TRY400
        self._put_off += [one.id for one in claimed if one.account not in profiles]
        for one in claimed:
            if one.account not in profiles:
                continue
            try:
                self._begin(one, profiles[one.account])
            except (ValueError, TypeError):
                # A record that somebody has spoilt must not take the others along; its lease settles it, which
                # ends with this loop's.
                log.exception("delivery.not_begun", account=one.account, id=one.id)
                self._drain()
        started(claimed, profiles)
        if self._put_off:
            self._postpone()

    def _postpone(self) -> None:
        self._scripts.postpone(self._token, PUT_OFF_MS, "account_unusable", self._put_off)
        self._put_off = []

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
        self._open[id(transfer)] = (transfer, claimed)
        self._open_of_lane[claimed.lane] += 1
        self.sent += 1
        self._adapter.start(transfer)
        point("loop:post-begun")

    def _give_back(self) -> None:
        for lane in self._held.take_all():
            if lane:
                self._scripts.give_back(self._token, [held.id for held in lane])

    # -- noting -----------------------------------------------------------------------------

    def _end(self, transfer: Transfer, outcome: Outcome) -> None:
        claimed: Claimed = transfer.owner
        point("loop:answered-not-noted")
        del self._open[id(transfer)]
        self._open_of_lane[claimed.lane] -= 1
        if not self._open_of_lane[claimed.lane]:
            del self._open_of_lane[claimed.lane]
            self._reported_slow.discard(claimed.lane)
        self._notes.add(claimed, outcome, claimed.number, claimed.at_ms)
        if outcome.name == "connect_timeout" and len(self._held):
            shared = Outcome(
                outcome.name,
                None,
                outcome.elapsed_s,
                f"{outcome.detail} (tried for another one)",
                shared=True,
            )
            for held in sharers(self._held, self._profiles, transfer, claimed):
                self._notes.add(held, shared, held.attempts + 1, claimed.at_ms)

    def _mood(self, lane: str, mood: str) -> None:
        (self._suspects.discard if mood == "ok" else self._suspects.add)(lane)
        if lane in self._held_limit:
            known = self._held_limit[lane]
            grown = min(self._settings.lane_max_transfers, known + 1)
            self._held_limit[lane] = 1 if mood == "failed" else grown

    def _commit(self) -> None:
        self._notes.commit()
        self._next_claim_s = 0.0
        self._next_renewal_s = time.monotonic() + self._lease_ms / 3000
        if not len(self._held):
            self._held_limit.clear()
