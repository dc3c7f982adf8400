"""World of resend jobs: thousands that died for an unknown account are sent again by jobs while everything is killed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from crash.history_comparison import HistoryComparison
from crash.history_world import HistoryWorld
from postbacks import keys
from postbacks.broker.client import text
from postbacks.ledger.record import Record
from postbacks.operate.jobs.job import UNENDED
from postbacks.operate.jobs.status import all_jobs

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    import redis

    from crash.databases import Database
    from crash.world import Load

#: Seconds in which the postbacks of the jobs have to be dead.
PREPARED_WITHIN_S: Final = 240.0
#: Accounts that nobody knows until their jobs are asked for. As many jobs run beside each other.
LATER: Final = ("later0", "later1", "later2")


class JobsWorld(HistoryWorld):
    """World in which each job sends what has died of one account.

    Args:
        database: kind of the history's database.
        load: of the run; a job has a third of its postbacks beside those of the producer.
        folder: where all files are.
        stack: gets what is to be undone.
        options: as of ``PlannedWorld``.
    """

    def __init__(
        self, database: type[Database], load: Load, folder: Path, stack: ExitStack, **options: Any
    ) -> None:
        super().__init__(database, load, folder, stack, **options)
        asker = self._start_module("jobs", load.postbacks, load.seconds, self.began_s)
        self.senders.append(asker)
        self.supervised.append(asker)

    def _prepare(self) -> None:
        """Let the postbacks die that the jobs send again."""
        asker = self._start_module("jobs", self.load.postbacks, self.load.seconds, 0)
        deadline_s = time.time() + PREPARED_WITHIN_S
        while not asker.finished:
            assert time.time() < deadline_s, "the postbacks of the jobs did not die in time"
            time.sleep(0.05)

    def on_the_way(self, client: redis.Redis) -> dict[str, int]:
        """Count what is not at its end, jobs among it."""
        unended = sum(job.state in UNENDED for job in all_jobs(client))
        return super().on_the_way(client) | ({"jobs": unended} if unended else {})

    def compare_history(self, client: redis.Redis) -> HistoryComparison:
        """Compare ledger and history, and each job's postbacks with the notes of its moves."""
        comparison = super().compare_history(client)
        wrong = dict(comparison.wrong)
        moved: Counter[str] = Counter()
        resent = unnoted = 0
        for key in client.scan_iter(f"{keys.RECORD}*", 1000):
            fields: Any = client.hgetall(key)
            postback_id = text(key).removeprefix(keys.RECORD)
            record = Record.from_hash(postback_id, fields)
            by_jobs = [resend.job for resend in record.resends]
            moved.update(by_jobs)
            resent += bool(by_jobs)
            unnoted += bool(by_jobs) and any(attempt.outcome == "unknown" for attempt in record.attempts)
            if record.account in LATER and (len(by_jobs), record.resends[0].attempts if by_jobs else 0) != (
                1,
                0,
            ):
                wrong[postback_id] = [f"sent again {len(by_jobs)} times by jobs"]
        for job in all_jobs(client):
            right = 0 if job.state == "refused" else job.total or 0
            if (job.counts.moved, moved[job.id]) != (right, right):
                wrong[job.id] = [
                    f"{job.state}: moved {job.counts.moved} of {job.total}, {moved[job.id]} noted"
                ]
        return replace(comparison, wrong=wrong, resent=resent, unnoted=unnoted)
