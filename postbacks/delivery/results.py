"""Results of POSTs on their way into the ledger: decided, committed and logged in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.counters import LoopCounters
from postbacks.flower_events import events as task_events
from postbacks.flower_events.publisher import publisher
from postbacks.ledger.record import Attempt, iso
from postbacks.logs import EventLog
from postbacks.queue.rows import AttemptRow, CommittedRow, EndedRow
from postbacks.queue.scripts import Call, commit_call
from postbacks.retry import Decision
from postbacks.settings import Settings
from postbacks.transport.outcomes import OUTCOMES, Outcome

log = EventLog(__name__)

#: Results that are decided and committed in one go.
COMMIT_BATCH: Final = 200
#: Of them at most those of postbacks that share another's time-out: a hundred thousand may come at once.
SHARED_BATCH: Final = COMMIT_BATCH // 2
#: Seconds that a decided result may wait for others to be committed with.
COMMIT_WITHIN_S: Final = 0.004
#: Seconds after which the state of a lane that had nothing to send is forgotten.
LANE_STATE_KEPT_S: Final = 86_400


#: The retry rule: decides what follows the failed attempt of a postback.
Decide = Callable[[ClaimedPostback], Decision]

#: A postback whose POST has ended (or one that counts for it), the outcome, and the begin on the broker's clock.
_Ended = tuple[ClaimedPostback, Outcome, int]


class Result(NamedTuple):
    """A decided attempt: its postback, the attempt, and its row for ``commit.lua``."""

    postback: ClaimedPostback
    attempt: Attempt
    row: AttemptRow


class ResultBatch:
    """The results of one loop that are not in the ledger yet.

    Args:
        loop_id: the loop's name among the claimers.
        settings: the process's settings.
        decide: decides on failed attempts.
        counters: count attempts by what became of them.
    """

    def __init__(self, loop_id: str, settings: Settings, decide: Decide, counters: LoopCounters) -> None:
        self._loop_id = loop_id
        self._settings = settings
        self._decide = decide
        self._counters = counters
        self._lease_ms = int(settings.claim_lease_s * 1000)
        # Bounded by what was open (and one batch more, see `free`), and by what was held.
        self._ended: deque[_Ended] = deque()
        self._shared: deque[_Ended] = deque()
        # A batch each.
        self._decided: list[Result] = []
        self._oldest_s = 0.0
        self._sent: list[Result] = []
        self._counts: Mapping[str, int] = {}

    def __bool__(self) -> bool:
        """True while anything is not in the ledger yet."""
        return bool(self._ended or self._shared or self._decided or self._sent)

    def free(self) -> int:
        """Return the free space in the next commit batch."""
        return COMMIT_BATCH - len(self._ended) - len(self._decided)

    def add(self, postback: ClaimedPostback, outcome: Outcome, at_ms: int) -> None:
        """Add the outcome of a postback's POST, or of another's POST that counts for it, which began at this time."""
        (self._shared if outcome.shared else self._ended).append((postback, outcome, at_ms))

    def wait_s(self, idle_s: float, *, pending: bool) -> float:
        """Return the seconds until there is something to do here.

        Args:
            idle_s: returned where nothing is to be done.
            pending: the broker has yet to answer, so nothing can be sent.
        """
        if self._next_queue() is not None:
            return 0.0
        if pending or not self._decided:
            return idle_s
        return 0.0 if len(self._decided) >= COMMIT_BATCH else COMMIT_WITHIN_S

    def decide(self) -> list[tuple[str, str]]:
        """Decide on each outcome, a batch at most: Celery's retry takes its time.

        Returns:
            The lane of each and its mood: ok, slow or failed.
        """
        moods: list[tuple[str, str]] = []
        if not self._decided:
            self._oldest_s = time.monotonic()
        while (queue := self._next_queue()) is not None:
            postback, outcome, at_ms = queue.popleft()
            try:
                result, mood = self._result_of(postback, outcome, at_ms)
            except Exception:
                # One that cannot be decided must not take the others along; its lease settles it.
                log.exception(
                    "delivery.undecided", account=postback.account, id=postback.id, outcome=outcome.name
                )
            else:
                self._decided.append(result)
                moods.append((postback.lane, mood))
        return moods

    def _next_queue(self) -> deque[_Ended] | None:
        """Return the queue whose head fits into the batch; postbacks that had a POST of their own go first."""
        if self._ended and len(self._decided) < COMMIT_BATCH:
            return self._ended
        if self._shared and len(self._decided) < SHARED_BATCH:
            return self._shared
        return None

    def are_due(self, now_s: float, transfers_open: int) -> bool:
        """True if the decided ones should be committed: there are many, or few others to wait for, or they have waited."""
        return bool(self._decided) and (
            len(self._decided) >= min(COMMIT_BATCH, max(1, transfers_open))
            or now_s - self._oldest_s >= COMMIT_WITHIN_S
        )

    def to_call(self) -> Call | None:
        """Take the decided ones and return the call that commits them; None where there are none.

        ``committed`` or ``requeue`` must follow.
        """
        if not self._decided:
            return None
        self._sent, self._decided = self._decided, []
        self._counts = self._counters.count(self._sent)
        rows = [result.row for result in self._sent]
        limit_max = self._settings.lane_max_transfers
        return commit_call(self._loop_id, self._lease_ms, limit_max, LANE_STATE_KEPT_S, rows, self._counts)

    def committed(self, rows: Sequence[CommittedRow]) -> None:
        """Log and count what was sent: the script has run, and has given back a row of each."""
        results, self._sent = self._sent, []
        self._counters.committed(self._counts)
        publisher.add(task_events.committed, results, rows, OUTCOMES)
        for (postback, attempt, _), row in zip(results, rows, strict=True):
            log_attempt(postback.account, postback.id, attempt, row.state.decode(), int(row.next_ms))

    def requeue(self) -> None:
        """Queue what was sent once more: the broker has not said whether the script has run; twice does no harm."""
        self._decided[:0] = self._sent
        self._sent = []

    def _result_of(self, postback: ClaimedPostback, outcome: Outcome, at_ms: int) -> tuple[Result, str]:
        attempt = Attempt(
            postback.number,
            at_ms,
            outcome.name,
            outcome.status,
            round(outcome.elapsed_s * 1000),
            outcome.detail,
            outcome.excerpt,
            outcome.shared,
            outcome.phases,
            outcome.address,
        )
        if outcome.delivered:
            verdict, countdown_ms, mood = "delivered", 0, "ok"
            if outcome.elapsed_s >= self._settings.slow_after_s:
                mood = "slow"
        else:
            decision = self._decide(postback)
            verdict, mood = ("parked" if decision.parked else "dead"), "failed"
            countdown_ms = int(decision.countdown_s * 1000)
        row = AttemptRow(
            postback.id, postback.lane, verdict, postback.number, attempt.to_json(), countdown_ms,
            "shared" if outcome.shared else mood, outcome.name,
        )  # fmt: skip
        return Result(postback, attempt, row), mood


def log_attempt(account: str, postback_id: str, attempt: Attempt, state: str, next_ms: int) -> None:
    """Write one line about a committed attempt, by the state that it led to (empty: the claim was lost).

    None about a delivered one.
    """
    if state == "delivered":
        return
    facts = {
        "account": account,
        "id": postback_id,
        "attempt": attempt.number,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "next_at": iso(next_ms or None),
        "elapsed_ms": attempt.elapsed_ms,
    }
    if state == "parked":
        log.info("postback.failed", attempt.detail, **facts)
    elif state == "dead":
        log.warning("postback.dead", attempt.detail, **facts)
    elif state == "cancelled":
        log.info("postback.cancelled", attempt.detail, **facts)
    elif not state:
        log.warning("postback.claim_lost", attempt.detail, **facts)


def log_ended_unsent(rows: Sequence[EndedRow]) -> None:
    """Write one line about each postback that ended without a POST."""
    for row in rows:
        facts = {"account": row.account.decode(), "id": row.id.decode(), "reason": row.reason.decode()}
        if row.state == b"skipped":
            log.info("postback.skipped", **facts)
        else:
            log.warning("postback.dead", **facts)
    publisher.add(task_events.ended_unsent, rows)
