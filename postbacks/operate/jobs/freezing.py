"""Freezing of a job's set: read by its filter or its ids, page by page, written to the database, then handed to the mover."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import InvalidQuery
from postbacks.history import facts
from postbacks.history.transactions import reading
from postbacks.killpoints import reach
from postbacks.logs import EventLog
from postbacks.operate.jobs import frozen, selection
from postbacks.operate.jobs.job import ASKED, ENDED, REFUSED, RUNNING, UNENDED, Counts
from postbacks.operate.jobs.status import stored_jobs
from postbacks.queue.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from postbacks.history.recorder import Recorder
    from postbacks.operate.jobs.job import Job

log = EventLog(__name__)

#: Parts of accounts that one command writes.
_PARTS: Final = 1000


class Freezing:
    """Freezing of one job's set. It is begun anew by whoever goes on after a death.

    Args:
        recorder: whose database it is.
        client: of the broker.
        job: that was asked for.
        clock_offset_ms: added to the broker's clock, so that tests can move time.
    """

    def __init__(
        self, recorder: Recorder, client: redis.Redis, job: Job, *, clock_offset_ms: int = 0
    ) -> None:
        self._recorder = recorder
        self._client = client
        self._scripts = Scripts(client, clock_offset_ms=clock_offset_ms)
        self.job = job
        self._steps = self._run()

    def step(self) -> bool | None:
        """Do a page of it; return True where it is done, and None where it waits for the recorder."""
        try:
            return next(self._steps, True)
        except InvalidQuery as error:
            self._refuse(str(error))
            return True

    def _run(self) -> Iterator[bool | None]:
        """Freeze; yield after each page."""
        job = self.job
        # The history must have read what had changed when the job was asked for: else it would miss the latest.
        while self._recorded_ms() < job.asked_ms:
            yield None
        while not self._drop():  # what somebody has left who died
            yield False
        with self._recorder.transaction() as connection:
            frozen.begin(connection, job.id)
        for _ in self._of_ids() if job.ids else self._of_filters():
            reach("after:freeze-page")
            yield False
        yield self._begin()

    def _recorded_ms(self) -> int:
        with reading(self._recorder.engine) as connection:
            return facts.number(connection, facts.RECORDED_MS) or 0

    def _drop(self) -> bool:
        with self._recorder.transaction() as connection:
            return frozen.drop(connection, self.job.id)

    def _of_ids(self) -> Iterator[None]:
        first = 0
        while True:
            with broker_errors():
                page: Any = self._client.lrange(
                    keys.JOB_IDS + self.job.id, first, first + selection.IDS_PAGE - 1
                )
            if not page:
                return
            chosen = selection.choose(self._recorder.engine, self._client, [text(name) for name in page])
            with self._recorder.transaction() as connection:
                frozen.add_chosen(connection, self.job.id, chosen)
            first += selection.IDS_PAGE
            yield

    def _of_filters(self) -> Iterator[None]:
        job = self.job
        if job.query is None:
            raise InvalidQuery("Its filters are of a newer version; use the version that asked for it.")
        # what was accepted in the same ms was asked for, too
        pages = selection.pages(
            self._recorder.engine, self._client, job.kind, job.query, until_ms=job.asked_ms + 1
        )
        for rows in pages:
            with self._recorder.transaction() as connection:
                frozen.add_rows(connection, job.id, rows)
            yield

    def _begin(self) -> bool:
        """Hand the set to the mover, or refuse the job."""
        job = self.job
        with reading(self._recorder.engine) as connection:
            accounts = frozen.accounts_of(connection, job.id)
            held_by = self._holder(connection)
        if held_by:
            self._refuse(held_by)
            return True
        known = sum(accounts.values())
        unknown = max(0, job.ids - known)
        if not known:
            note = "No postback passes its filters." if not job.ids else "Nobody has any of its ids."
            fields = {"total": str(unknown), "forgotten": str(unknown), "note": note}
            self._scripts.change_job(job.id, {ASKED}, ENDED, fields)
            log.info("job.ended", note, job=job.id, kind=job.kind, by=job.by)
            return True
        packed = {account: _part(total) for account, total in accounts.items()}
        names = list(packed)
        with broker_errors():
            self._client.delete(keys.JOB_PARTS + job.id)
            for first in range(0, len(names), _PARTS):
                some = {name: packed[name] for name in names[first : first + _PARTS]}
                self._client.hset(keys.JOB_PARTS + job.id, mapping=some)  # type: ignore[arg-type]
        with broker_errors():
            frozen_ms = now_ms(self._client) + self._scripts.clock_offset_ms
        with self._recorder.transaction() as connection:
            frozen.end(connection, job.id, frozen_ms)
        reach("before:job-begin")
        fields = {
            "total": str(known + unknown),
            "forgotten": str(unknown),
            "frozen_ms": str(frozen_ms),
        }
        self._scripts.change_job(job.id, {ASKED}, RUNNING, fields)
        log.info("job.started", job=job.id, kind=job.kind, by=job.by, postbacks=known, accounts=len(accounts))
        return True

    def _holder(self, connection: Any) -> str:
        """Say which other job holds some of the set; empty for none."""
        whole = frozen.sets(connection)
        for other in stored_jobs(self._client):
            if other.id == self.job.id or other.state not in UNENDED or other.id not in whole:
                continue
            shared = frozen.overlap(connection, self.job.id, other.id)
            if shared and other.state != ASKED:
                return (
                    f"Job {other.id} ({other.kind}, {other.state}, asked for by {other.by}) holds {shared:,} of these "
                    f"postbacks; wait for its end, or stop it: postbacks job stop {other.id}."
                )
        return ""

    def _refuse(self, sentence: str) -> None:
        self._scripts.change_job(self.job.id, {ASKED}, REFUSED, {"note": sentence})
        log.warning("job.refused", sentence, job=self.job.id, kind=self.job.kind, by=self.job.by)


def _part(total: int) -> str:
    """Write an account's part as it begins (``queue/_job.lua``)."""
    begin = {"total": total, "cursor": "", "waiting": 0, "answered": 0, "row": 0}
    return json.dumps(begin | dict.fromkeys(Counts._fields, 0))
