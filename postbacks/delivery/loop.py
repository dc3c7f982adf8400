"""The delivering loop: claim, POST many at once, note. One runs in a worker process at a time.

Who may have how many transfers is decided in ``queue/claim.lua`` for all workers together; this
loop keeps its own two budgets: all its transfers, and the half of them that lanes in trouble share.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from postbacks.delivery.asking import LOOK_AGAIN_S, LOOK_EVERY_S, Asking
from postbacks.delivery.capacity import transfers_allowed
from postbacks.delivery.claims import Claimed, Held, HeldPostbacks
from postbacks.delivery.outcomes import Outcome
from postbacks.delivery.profile import Profile, Profiles
from postbacks.delivery.report import report
from postbacks.delivery.request import headers
from postbacks.delivery.sharing import sharers
from postbacks.delivery.transfer import Transfer
from postbacks.delivery.transport import CurlAdapter
from postbacks.errors import BrokerError, PostbacksError
from postbacks.faults import point
from postbacks.ledger.record import Attempt
from postbacks.queue.scripts import Argument, Scripts
from postbacks.settings import Settings

log = logging.getLogger(__name__)

#: Postbacks begun by one claim at most; bounds how long the script blocks the broker.
CLAIM_BATCH: Final = 400
#: Postbacks held by one loop at most, over all failing lanes.
HELD_MAX: Final = 100_000
#: Outcomes that are decided and noted in one go.
NOTE_BATCH: Final = 200
#: Seconds that a noted outcome may wait for others to be noted with.
NOTE_WITHIN_S: Final = 0.004
#: Milliseconds after which a postback is looked at again whose account could not be used.
PUT_OFF_MS: Final = 30_000
#: Seconds after which the pace of a lane that had nothing to send is forgotten.
PACE_KEPT_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a failed attempt: parked for ``countdown_s``, or dead."""

    parked: bool
    countdown_s: float = 0.0


#: Tells what follows the failure of a postback: ``(id, account, origin, code, failures so far)``.
Decide = Callable[[Claimed | Held, Outcome], Decision]


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
        must_stop: asked often; once true nothing more is claimed.
        on_draining: called once, when the loop has stopped claiming and only finishes what is open.
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
        must_stop: Callable[[], bool] = lambda: False,
        on_draining: Callable[[], None] = lambda: None,
    ) -> None:
        self._scripts = scripts
        self._adapter = adapter
        self._profiles = profiles
        self._settings = settings
        self._decide = decide
        self._slice_s = settings.deliver_slice_s if slice_s is None else slice_s
        self._must_stop = must_stop
        self._on_draining = on_draining
        self._token = token or uuid.uuid4().hex
        self._asking = Asking(scripts, settings, self._token, examines=examines)
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._max_transfers = transfers_allowed(settings)
        self._open: dict[int, tuple[Transfer, Claimed]] = {}  # oldest first
        self._open_of_lane: Counter[str] = Counter()
        self._suspects: set[str] = set()
        self._reported_slow: set[str] = set()
        self._claimed: list[Claimed] = []
        self._held = HeldPostbacks()
        self._held_limit: dict[str, int] = {}
        self._ended: deque[tuple[Claimed | Held, Outcome, int, int]] = deque()
        self._notes: list[tuple[str, Attempt, list[Argument]]] = []
        self._oldest_note_s = 0.0
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
        found = True
        while True:
            now_s = time.monotonic()
            if stop_by_s == math.inf and self._must_stop():
                stop_by_s = now_s + self._settings.stop_within_s
            if self._claiming and (now_s >= slice_ends_s or stop_by_s < math.inf):
                self._drain()
            if now_s >= stop_by_s:
                log.warning("delivery.abandoned open=%d: their lease settles them", len(self._open))
                return self.sent
            try:
                if now_s >= self._broker_retry_s:
                    found = self._talk_to_broker(now_s, found)
                    self._broker_pause_s = 0.0
            except BrokerError as error:
                self._pause(now_s, error)
                if self._must_stop() and not self._open:
                    return self.sent  # the leases settle what could not be noted
            if not self._open and not self._ended and not self._notes and not self._claimed:
                if not self._claiming and not len(self._held):
                    break
                if self._claiming and not found and not len(self._held):
                    self._drain()
                    continue
            for transfer, outcome in self._adapter.wait(self._wait_s()):
                self._end(transfer, outcome)
        self._leave()
        log.debug(
            "delivery.slice_ended posts=%d connections=%d", self.sent, self._adapter.connections - before
        )
        return self.sent

    def _talk_to_broker(self, now_s: float, found: bool) -> bool:
        """Note, give back, claim, renew, as far as each is due; returns whether there was work."""
        self._decide_ended()
        if self._notes and (
            len(self._notes) >= min(NOTE_BATCH, max(1, len(self._open)))
            or now_s - self._oldest_note_s >= NOTE_WITHIN_S
        ):
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
                log.error("delivery.lease_lost token=%s: what is open may be sent twice", self._token)
            self._next_renewal_s = now_s + self._lease_ms / 3000
        return found

    def _wait_s(self) -> float:
        if self._ended or (self._notes and len(self._notes) >= NOTE_BATCH):
            return 0.0
        wait_s = NOTE_WITHIN_S if self._notes else LOOK_EVERY_S
        if self._claiming:
            wait_s = min(wait_s, max(0.0, self._next_claim_s - time.monotonic()))
        return max(wait_s, 0.001) if self._broker_pause_s else wait_s

    def _pause(self, now_s: float, error: BrokerError) -> None:
        if not self._broker_pause_s:
            log.error("delivery.broker_lost open=%d: %s", len(self._open), error)
        self._broker_pause_s = min(2.0, (self._broker_pause_s or 0.05) * 2)
        self._broker_retry_s = now_s + self._broker_pause_s

    def _drain(self) -> None:
        if self._claiming:
            self._claiming = False
            self._on_draining()

    def _leave(self) -> None:
        try:
            self._scripts.give_back(self._token)
        except BrokerError as error:
            log.warning("delivery.broker_lost open=0: %s", error)

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
        """Begin held postbacks of lanes that have room: one at a time while the lane fails."""
        room = self._max_transfers - len(self._open)
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
        self._begin_claimed()

    def _begin_claimed(self) -> None:
        """Begin what is claimed, each with its account's profile.

        Where a profile cannot be had, nothing goes out unsigned: the postback is put off, and no attempt
        of it is counted.
        """
        if not self._claimed:
            return
        claimed, self._claimed = self._claimed, []
        profiles: dict[str, Profile] = {}
        try:
            profiles = self._profiles.look_up({one.account for one in claimed}, claimed[0].at_ms)
        except PostbacksError as error:
            log.error("delivery.accounts_unavailable postbacks=%d: %s", len(claimed), error)  # noqa: TRY400
        put_off = [one.id for one in claimed if one.account not in profiles]
        for one in claimed:
            if one.account not in profiles:
                continue
            try:
                self._begin(one, profiles[one.account])
            except (ValueError, TypeError):
                # A record that somebody has spoilt must not take the others along; its lease settles it.
                log.exception("delivery.not_begun id=%s", one.id)
        if put_off:
            self._scripts.postpone(self._token, PUT_OFF_MS, "account_unusable", put_off)

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
        self._ended.append((claimed, outcome, claimed.number, claimed.at_ms))
        if outcome.name == "connect_timeout" and len(self._held):
            shared = Outcome(
                outcome.name,
                None,
                outcome.elapsed_s,
                f"{outcome.detail} (tried for another one)",
                shared=True,
            )
            for held in sharers(self._held, self._profiles, transfer, claimed):
                self._ended.append((held, shared, held.attempts + 1, claimed.at_ms))

    def _decide_ended(self) -> None:
        """Decide what follows each outcome, a batch at most: Celery's retry takes its time."""
        if self._ended and not self._notes:
            self._oldest_note_s = time.monotonic()
        while self._ended and len(self._notes) < NOTE_BATCH:
            postback, outcome, number, at_ms = self._ended.popleft()
            try:
                self._notes.append(self._note_of(postback, outcome, number, at_ms))
            except Exception:
                # One that cannot be decided must not take the others along; its lease settles it.
                log.exception("delivery.undecided id=%s outcome=%s", postback.id, outcome.name)

    def _note_of(
        self, postback: Claimed | Held, outcome: Outcome, number: int, at_ms: int
    ) -> tuple[str, Attempt, list[Argument]]:
        attempt = Attempt(
            number,
            at_ms,
            outcome.name,
            outcome.status,
            round(outcome.elapsed_s * 1000),
            outcome.detail,
            outcome.excerpt.decode("utf-8", "replace"),
            outcome.shared,
        )
        if outcome.delivered:
            verdict, countdown_ms, mood = "delivered", 0, "ok"
            if outcome.elapsed_s >= self._settings.slow_after_s:
                mood = "slow"
        else:
            decision = self._decide(postback, outcome)
            verdict, mood = ("parked" if decision.parked else "dead"), "failed"
            countdown_ms = int(decision.countdown_s * 1000)
        fields: list[Argument] = [
            postback.id, postback.lane, verdict, number, attempt.to_json(), countdown_ms,
            "shared" if outcome.shared else mood, outcome.name,
        ]  # fmt: skip
        self._mood(postback.lane, mood)
        return postback.account, attempt, fields

    def _mood(self, lane: str, mood: str) -> None:
        (self._suspects.discard if mood == "ok" else self._suspects.add)(lane)
        if lane in self._held_limit:
            known = self._held_limit[lane]
            grown = min(self._settings.lane_max_transfers, known + 1)
            self._held_limit[lane] = 1 if mood == "failed" else grown

    def _commit(self) -> None:
        notes = self._notes
        fields = [field for *_, own in notes for field in own]
        results = self._scripts.commit(
            self._token, self._lease_ms, self._settings.lane_max_transfers, PACE_KEPT_S, fields
        )
        self._notes = []
        self._next_claim_s = 0.0
        self._next_renewal_s = time.monotonic() + self._lease_ms / 3000
        if not len(self._held):
            self._held_limit.clear()
        for (account, attempt, own), (state, next_ms) in zip(notes, results, strict=True):
            report(account, str(own[0]), attempt, state.decode(), int(next_ms))
