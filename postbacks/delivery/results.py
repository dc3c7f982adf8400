"""What has come of POSTs and is not yet in the ledger: decided and committed in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from postbacks.delivery.claims import Claimed, Held
from postbacks.delivery.counters import LoopCounters
from postbacks.delivery.report import report
from postbacks.errors import BrokerError
from postbacks.flower_events import events as task_events
from postbacks.flower_events.publisher import publisher
from postbacks.ledger.record import Attempt
from postbacks.logs import EventLog
from postbacks.queue.scripts import Argument, Call, Scripts, commit_call
from postbacks.settings import Settings
from postbacks.transport.outcomes import OUTCOMES, Outcome

log = EventLog(__name__)

#: Outcomes that are decided and noted in one go.
NOTE_BATCH: Final = 200
#: Of them at most those of postbacks that shared another's time-out: a hundred thousand may come at once.
SHARED_BATCH: Final = NOTE_BATCH // 2
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


#: An attempt that is decided: its postback, the attempt, and the fields of ``commit.lua``.
Note = tuple[Claimed | Held, Attempt, list[Argument]]


class ResultBatch:
    """The outcomes of one loop on their way into the ledger.

    Args:
        scripts: the scripts of the broker.
        token: the loop's name among the claimers.
        settings: the process's settings.
        decide: what follows a failed attempt.
        tally: counts what comes of the attempts.
    """

    def __init__(
        self,
        scripts: Scripts,
        token: str,
        settings: Settings,
        decide: Decide,
        tally: LoopCounters,
    ) -> None:
        self._scripts = scripts
        self._token = token
        self._settings = settings
        self._decide_one = decide
        self._tally = tally
        self._lease_ms = int(settings.claim_lease_s * 1000)
        # What was open (and one batch more: `room`), and what was held.
        self._ended: deque[tuple[Claimed | Held, Outcome, int, int]] = deque()
        self._shared: deque[tuple[Claimed | Held, Outcome, int, int]] = deque()
        # A batch each.
        self._decided: list[Note] = []
        self._oldest_s = 0.0
        self._sent: list[Note] = []
        self._counts: Mapping[str, int] = {}

    def __bool__(self) -> bool:
        """Whether anything is not in the ledger yet."""
        return bool(self._ended or self._shared or self._decided or self._sent)

    def room(self) -> int:
        """How many more may end now and still leave with the next notes."""
        return NOTE_BATCH - len(self._ended) - len(self._decided)

    def add(self, postback: Claimed | Held, outcome: Outcome, number: int, at_ms: int) -> None:
        """A POST has ended, or one that counts for this postback."""
        (self._shared if outcome.shared else self._ended).append((postback, outcome, number, at_ms))

    def wait_s(self, otherwise_s: float, *, asked: bool) -> float:
        """Seconds until there is something to do here; ``asked``: nothing can leave before the broker has answered."""
        if self._next() is not None:
            return 0.0
        if asked or not self._decided:
            return otherwise_s
        return 0.0 if len(self._decided) >= NOTE_BATCH else NOTE_WITHIN_S

    def decide(self) -> list[tuple[str, str]]:
        """Decide what follows each outcome, a batch at most: Celery's retry takes its time.

        Returns:
            The lane of each and its mood: ok, slow or failed.
        """
        moods: list[tuple[str, str]] = []
        if not self._decided:
            self._oldest_s = time.monotonic()
        while (waiting := self._next()) is not None:
            postback, outcome, number, at_ms = waiting.popleft()
            try:
                note, mood = self._note_of(postback, outcome, number, at_ms)
            except Exception:
                # One that cannot be decided must not take the others along; its lease settles it.
                log.exception(
                    "delivery.undecided", account=postback.account, id=postback.id, outcome=outcome.name
                )
            else:
                self._decided.append(note)
                moods.append((postback.lane, mood))
        return moods

    def _next(self) -> deque[tuple[Claimed | Held, Outcome, int, int]] | None:
        """Where the next outcome stands that fits into the batch: those whose POST was their own go first."""
        if self._ended and len(self._decided) < NOTE_BATCH:
            return self._ended
        if self._shared and len(self._decided) < SHARED_BATCH:
            return self._shared
        return None

    def are_due(self, now_s: float, transfers_open: int) -> bool:
        """Whether the decided ones should be committed: there are many, or few to wait for, or they have waited."""
        return bool(self._decided) and (
            len(self._decided) >= min(NOTE_BATCH, max(1, transfers_open))
            or now_s - self._oldest_s >= NOTE_WITHIN_S
        )

    def commit(self) -> None:
        """Note the decided ones, and move their postbacks on, in one step. Raises BrokerError; then they stay."""
        call = self.call()
        if call is None:
            return
        try:
            self.heard(self._scripts.run(*call))
        except BrokerError:
            self.not_heard()
            raise

    def call(self) -> Call | None:
        """The script that notes the decided ones and moves their postbacks on; None where there are none.

        ``heard`` or ``not_heard`` says what has come of it.
        """
        if not self._decided:
            return None
        self._sent, self._decided = self._decided, []
        self._counts = self._tally.of(self._sent)
        fields = [field for *_, own in self._sent for field in own]
        limit_max = self._settings.lane_max_transfers
        return commit_call(self._token, self._lease_ms, limit_max, PACE_KEPT_S, fields, self._counts)

    def heard(self, results: Sequence[Sequence[Any]]) -> None:
        """The script has run, with these results."""
        notes, self._sent = self._sent, []
        self._tally.noted(self._counts)
        publisher.add(task_events.committed, notes, results, OUTCOMES)
        for (postback, attempt, _), (state, next_ms) in zip(notes, results, strict=True):
            report(postback.account, postback.id, attempt, state.decode(), int(next_ms))

    def not_heard(self) -> None:
        """The broker has not said whether the script has run: they are noted again, which does no harm."""
        self._decided[:0] = self._sent
        self._sent = []

    def _note_of(
        self, postback: Claimed | Held, outcome: Outcome, number: int, at_ms: int
    ) -> tuple[Note, str]:
        attempt = Attempt(
            number,
            at_ms,
            outcome.name,
            outcome.status,
            round(outcome.elapsed_s * 1000),
            outcome.detail,
            outcome.excerpt,
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
        return (postback, attempt, fields), mood
