"""What has come of POSTs and is not yet in the ledger: decided and committed in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from postbacks.delivery.claims import Claimed, Held
from postbacks.delivery.outcomes import Outcome
from postbacks.delivery.report import report
from postbacks.delivery.tally import Tally
from postbacks.ledger.record import Attempt
from postbacks.logs import EventLog
from postbacks.queue.scripts import Argument, Scripts
from postbacks.settings import Settings
from postbacks.taskevents import noted

log = EventLog(__name__)

#: Outcomes that are decided and noted in one go.
NOTE_BATCH: Final = 200
#: Seconds that a noted outcome may wait for others to be noted with.
NOTE_WITHIN_S: Final = 0.004
#: Seconds after which the pace of a lane that had nothing to send is forgotten.
PACE_KEPT_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a failed attempt: parked for ``countdown_s``, or dead."""

    parked: bool
    countdown_s: float = 0.0


#: Tells what follows the failure of a postback: ``(id, account, origin, code, failures so far)``.
Decide = Callable[[Claimed | Held, Outcome], Decision]


class Notes:
    """The outcomes of one loop on their way into the ledger.

    Args:
        scripts: the scripts of the broker.
        token: the loop's name among the claimers.
        settings: the process's settings.
        decide: what follows a failed attempt.
        tally: counts what comes of the attempts.
        on_mood: told the lane of each outcome and its mood: ok, slow or failed.
    """

    def __init__(
        self,
        scripts: Scripts,
        token: str,
        settings: Settings,
        decide: Decide,
        tally: Tally,
        on_mood: Callable[[str, str], None],
    ) -> None:
        self._scripts = scripts
        self._token = token
        self._settings = settings
        self._decide_one = decide
        self._tally = tally
        self._on_mood = on_mood
        self._lease_ms = int(settings.claim_lease_s * 1000)
        self._ended: deque[tuple[Claimed | Held, Outcome, int, int]] = deque()
        self._decided: list[tuple[Claimed | Held, Attempt, list[Argument]]] = []
        self._oldest_s = 0.0

    def __len__(self) -> int:
        """How many are not in the ledger yet."""
        return len(self._ended) + len(self._decided)

    def add(self, postback: Claimed | Held, outcome: Outcome, number: int, at_ms: int) -> None:
        """A POST has ended, or one that counts for this postback."""
        self._ended.append((postback, outcome, number, at_ms))

    def wait_s(self, otherwise_s: float) -> float:
        """Seconds until there is something to do here."""
        if self._ended or len(self._decided) >= NOTE_BATCH:
            return 0.0
        return NOTE_WITHIN_S if self._decided else otherwise_s

    def decide(self) -> None:
        """Decide what follows each outcome, a batch at most: Celery's retry takes its time."""
        if self._ended and not self._decided:
            self._oldest_s = time.monotonic()
        while self._ended and len(self._decided) < NOTE_BATCH:
            postback, outcome, number, at_ms = self._ended.popleft()
            try:
                self._decided.append(self._note_of(postback, outcome, number, at_ms))
            except Exception:
                # One that cannot be decided must not take the others along; its lease settles it.
                log.exception(
                    "delivery.undecided", account=postback.account, id=postback.id, outcome=outcome.name
                )

    def are_due(self, now_s: float, transfers_open: int) -> bool:
        """Whether the decided ones should be committed: there are many, or few to wait for, or they have waited."""
        return bool(self._decided) and (
            len(self._decided) >= min(NOTE_BATCH, max(1, transfers_open))
            or now_s - self._oldest_s >= NOTE_WITHIN_S
        )

    def commit(self) -> None:
        """Note the decided ones, and move their postbacks on, in one step. Raises BrokerError; then they stay."""
        if not self._decided:
            return
        notes = self._decided
        fields = [field for *_, own in notes for field in own]
        counts = self._tally.of(notes)
        results = self._scripts.commit(
            self._token, self._lease_ms, self._settings.lane_max_transfers, PACE_KEPT_S, fields, counts
        )
        self._decided = []
        self._tally.noted(counts)
        noted(notes, results)
        for (postback, attempt, _), (state, next_ms) in zip(notes, results, strict=True):
            report(postback.account, postback.id, attempt, state.decode(), int(next_ms))

    def _note_of(
        self, postback: Claimed | Held, outcome: Outcome, number: int, at_ms: int
    ) -> tuple[Claimed | Held, Attempt, list[Argument]]:
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
            decision = self._decide_one(postback, outcome)
            verdict, mood = ("parked" if decision.parked else "dead"), "failed"
            countdown_ms = int(decision.countdown_s * 1000)
        fields: list[Argument] = [
            postback.id, postback.lane, verdict, number, attempt.to_json(), countdown_ms,
            "shared" if outcome.shared else mood, outcome.name,
        ]  # fmt: skip
        self._on_mood(postback.lane, mood)
        return postback, attempt, fields
