"""Counters of attempts: the system's totals in the broker, and a worker's own in memory that its processes share.

A batch of results is counted in Python and added to the broker's totals by ``queue/commit.lua``, in the step that
commits it: one HINCRBY a name that occurs in the batch, so a batch of 200 costs about ten and no command of its own.
"""

from __future__ import annotations

import multiprocessing
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.queue.counter_names import (
    ANSWER,
    ANSWER_MS,
    ATTEMPT,
    CONNECTIONS,
    DEAD,
    FIRST_POST,
    FIRST_POST_MS,
    POSTS,
    RENEWALS,
)
from postbacks.transport.outcomes import OUTCOMES

if TYPE_CHECKING:
    from postbacks.delivery.claims import ClaimedPostback
    from postbacks.delivery.results import Result
    from postbacks.ledger.record import Attempt
    from postbacks.transport.client import CurlClient

#: Upper ends, in seconds, of the buckets of answer times; the last before infinity is the answer's limit.
ANSWER_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BUCKETS_MS: Final = tuple(round(bound_s * 1000) for bound_s in ANSWER_BUCKETS_S)

#: Upper ends, in seconds, of the buckets of the wait for a first POST: a tick comes every second.
FIRST_POST_BUCKETS_S: Final = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_FIRST_POST_MS: Final = tuple(round(bound_s * 1000) for bound_s in FIRST_POST_BUCKETS_S)

#: Group -> names of its totals: one of each bucket, and that of the sum.
_FIRST_POST_NAMES: Final = {
    group: (
        *(f"{FIRST_POST}{group}:{number}" for number in range(len(_FIRST_POST_MS) + 1)),
        FIRST_POST_MS + group,
    )
    for group in keys.GROUPS
}

#: Names of what a worker counts of itself, in the order of its shared memory.
WORKER_NAMES: Final = (
    *(ATTEMPT + outcome for outcome in OUTCOMES),
    *(f"{ANSWER}{number}" for number in range(len(ANSWER_BUCKETS_S) + 1)),
    ANSWER_MS,
    *(name for names in _FIRST_POST_NAMES.values() for name in names),
    POSTS,
    CONNECTIONS,
    RENEWALS,
    DEAD,
)
_COLUMNS: Final = {name: number for number, name in enumerate(WORKER_NAMES)}


def count_attempts(attempts: Iterable[tuple[Attempt, str]]) -> Counter[str]:
    """Count attempts, each given with the state that it leads to (``delivered``, ``parked`` or ``dead``).

    An answer's time is from the begin of the POST to its whole header. A POST that had no answer took longer than any
    bucket: left out, a receiver that never answers would look as fast as its one good answer. An attempt that shared
    another one's connection made no POST.
    """
    counts: Counter[str] = Counter()
    for attempt, verdict in attempts:
        counts[ATTEMPT + attempt.outcome] += 1
        if not attempt.shared:
            counts[POSTS] += 1
            answered = attempt.status is not None
            bucket = bisect_left(_BUCKETS_MS, attempt.elapsed_ms) if answered else len(_BUCKETS_MS)
            counts[f"{ANSWER}{bucket}"] += 1
            counts[ANSWER_MS] += attempt.elapsed_ms
        if verdict == "dead":
            counts[DEAD] += 1
    return counts


class WorkerCounters:
    """Counters of one worker, over its threads and children: a row a loop slot, written by one loop at a time.

    They are in memory that is shared over a fork, made before it, and without a lock, which a killed child could keep for
    ever: whoever holds a slot (``process.LoopSlots``) is the only one to write its row.
    """

    def __init__(self, rows: int) -> None:
        self._width = len(WORKER_NAMES)
        self._cells: Any = multiprocessing.RawArray("Q", rows * self._width)

    def add(self, row: int, counts: Mapping[str, int]) -> None:
        """Add counts to a row."""
        for name, count in counts.items():
            self._cells[row * self._width + _COLUMNS[name]] += count

    def total(self) -> dict[str, int]:
        """Return the sums of all rows."""
        return {name: sum(self._cells[number :: self._width]) for name, number in _COLUMNS.items()}


class LoopCounters:
    """Counters of one delivering loop, by batch.

    Args:
        curl: the loop's transport, which counts connections and renewals over all loops that have used it.
        worker: the worker's own counters, where it has any.
        row: the loop's row in them.
    """

    def __init__(self, curl: CurlClient, worker: WorkerCounters | None = None, row: int = 0) -> None:
        self._curl = curl
        self._worker = worker
        self._row = row
        self._connections = curl.connections
        self._renewals = curl.renewals
        self._first_posts: Counter[str] = Counter()
        self._first_posts_sent: Counter[str] = Counter()

    def count_first_posts(self, begun: Iterable[ClaimedPostback], since_s: float) -> None:
        """Count the first POSTs among these, which began so many seconds after their claim, by group and by their wait.

        They are counted with the next batch, whatever becomes of them: a POST that is never answered has left all the same.
        """
        since_ms, counts = round(since_s * 1000), self._first_posts
        for postback in begun:
            if postback.waited_ms >= 0:
                waited_ms = postback.waited_ms + since_ms
                names = _FIRST_POST_NAMES[postback.lane.rpartition("/")[2]]
                counts[names[bisect_left(_FIRST_POST_MS, waited_ms)]] += 1
                counts[names[-1]] += waited_ms

    def count(self, results: Sequence[Result]) -> Counter[str]:
        """Count a batch of the loop's results."""
        counts = count_attempts((attempt, row.verdict) for _, attempt, row in results)
        opened = self._curl.connections - self._connections
        if opened:
            counts[CONNECTIONS] = opened
        renewed = self._curl.renewals - self._renewals
        if renewed:
            counts[RENEWALS] = renewed
        if self._first_posts:
            self._first_posts_sent = Counter(self._first_posts)
            counts.update(self._first_posts_sent)
        return counts

    def committed(self, counts: Mapping[str, int]) -> None:
        """Forget what a batch counted of connections, renewals and first POSTs, which is in the broker now."""
        self._connections += counts.get(CONNECTIONS, 0)
        self._renewals += counts.get(RENEWALS, 0)
        if self._first_posts_sent:
            self._first_posts -= self._first_posts_sent
            self._first_posts_sent = Counter()
        if self._worker is not None:
            self._worker.add(self._row, counts)
