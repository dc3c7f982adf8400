"""Mover of jobs, a duty of the process that runs history: it freezes sets, moves them in slices, and notes the answers.

What it knows of a job is read again whenever the script finds it to be out of date: another process may have gone on with the
job meanwhile. The script alone decides what is moved (``queue/move_job.lua``).
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker import memory
from postbacks.broker.client import text
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.flower_events.client_side import resent, revoked
from postbacks.history.copies import read_rows, rows_of
from postbacks.history.transactions import reading
from postbacks.ledger.record import SCHEMA
from postbacks.ledger.states import DELIVERED
from postbacks.logs import EventLog
from postbacks.operate.jobs import frozen, slices
from postbacks.operate.jobs.freezing import Freezing
from postbacks.operate.jobs.job import (
    ASKED,
    CANCEL,
    ENDED,
    FIRST,
    PAUSED,
    RESEND,
    RUNNING,
    STOPPED,
    UNENDED,
    WAITING_MAX,
)
from postbacks.operate.jobs.status import part_of, stored_jobs
from postbacks.queue.scripts import Scripts
from postbacks.queue.shares import DEAD_GO_PAST, shares_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import redis

    from postbacks.history.recorder import Recorder
    from postbacks.operate.jobs.job import Job
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds of work of a turn.
TURN_S: Final = 0.8
#: Seconds until the next turn while a job waits for answers, and while there is none.
SOON_S: Final = 0.25
LATER_S: Final = 1.0
#: Postbacks of a slice: the script takes the broker for a few ms.
SLICE: Final = 200
#: Share of an account's backlog limit that a group may have open when one more is sent again; the rest is for new events.
ROOM_SHARE: Final = 0.5
#: Postbacks that one call looks at for their answers, and calls a turn.
LOOK: Final = 500
LOOKS: Final = 8
#: Jobs that have ended and are kept, and for how long.
KEPT: Final = 100
KEPT_MS: Final = 30 * 24 * 3_600_000
#: Seconds between two looks for sets and jobs that may go.
TIDY_EVERY_S: Final = 5.0


class Active:
    """Job that runs, as the mover last read it.

    Attributes:
        job: without its parts.
        states: that it moves from.
        parts: account -> its part, as the scripts have it.
        accounts: those that may have something left, whose turn it is first.
        scan: where the look for answers goes on.
    """

    def __init__(self, client: redis.Redis, job: Job) -> None:
        self.job = job
        with broker_errors():
            pipe: Any = client.pipeline(transaction=True)
            pipe.hget(keys.JOB + job.id, "from")
            pipe.hgetall(keys.JOB_PARTS + job.id)
            states, parts = pipe.execute()
        self.states = tuple(text(states or b"").split())
        self.parts: dict[str, dict[str, Any]] = {}
        for account, packed in sorted(parts.items()):
            self.parts[text(account)] = json.loads(packed)
        self.accounts = deque(account for account, part in self.parts.items() if not part.get("done"))
        self.scan = "0"

    def room(self, account: str) -> int:
        """Return how many of an account may be moved now."""
        part = self.parts[account]
        if part.get("done") or part.get("paused"):
            return 0
        return SLICE if self.job.kind == CANCEL else room_of(part)

    def paused_parts(self) -> list[str]:
        """Return the accounts whose parts have paused themselves and are not done."""
        return [name for name, part in self.parts.items() if part.get("paused") and not part.get("done")]


def room_of(part: Mapping[str, Any]) -> int:
    """Return how many of an account may be sent again now.

    As many as were answered may wait, and 50 in any case; each failure in a row takes one off. So where all fail, 50 have
    gone when the part pauses itself, and none beyond them.
    """
    return int(min(SLICE, max(FIRST, part["answered"]) - part["row"] - part["waiting"]))


class Mover:
    """Mover of all jobs.

    Args:
        recorder: beside which it works.
        client: the broker's client; replies come as bytes.
        settings: limits of accounts.
        clock_offset_ms: added to the broker's clock, so that tests can move time.
    """

    name = "jobs"

    def __init__(
        self, recorder: Recorder, client: redis.Redis, settings: Settings, *, clock_offset_ms: int = 0
    ) -> None:
        self._recorder = recorder
        self._client = client
        self._settings = settings
        self.scripts: Final = Scripts(client, clock_offset_ms=clock_offset_ms)
        self._freezing: Freezing | None = None
        self._active: dict[str, Active] = {}
        self._tidy_at_s = 0.0

    def turn(self) -> float:
        """Freeze, move and look for answers, as long as a turn may take; return the seconds until the next."""
        deadline_s = time.monotonic() + TURN_S
        jobs = stored_jobs(self._client)
        unended = [job for job in reversed(jobs) if job.state in UNENDED]
        self._active = {job.id: self._active[job.id] for job in unended if job.id in self._active}
        wait_s = SOON_S if unended else LATER_S
        for job in unended:
            if job.state == ASKED:
                wait_s = min(wait_s, self._freeze(job, deadline_s))
                break  # one after the other, so that the later one finds the set of the former
        running = [job for job in unended if job.state in {RUNNING, PAUSED} and job.frozen_ms]
        for number, job in enumerate(running):
            share_s = (deadline_s - time.monotonic()) / (len(running) - number)
            if self._go_on(job, time.monotonic() + max(0.02, share_s)):
                wait_s = 0.0
        if time.monotonic() >= self._tidy_at_s and self._tidy(jobs):
            self._tidy_at_s = time.monotonic() + TIDY_EVERY_S
        return wait_s

    # -- frozen sets --------------------------------------------------------------------------------

    def _freeze(self, job: Job, deadline_s: float) -> float:
        """Go on with a set, one page at least; return the seconds until there is more to do."""
        if self._freezing is None or self._freezing.job.id != job.id:
            self._freezing = Freezing(
                self._recorder, self._client, job, clock_offset_ms=self.scripts.clock_offset_ms
            )
        freezing = self._freezing
        self._freezing = None  # an error within it ends its steps: the next turn begins anew
        while True:
            done = freezing.step()
            if done:
                return 0.0
            if done is None or time.monotonic() >= deadline_s:
                self._freezing = freezing
                return SOON_S if done is None else 0.0

    def _tidy(self, jobs: Iterable[Job]) -> bool:
        """Drop some of a set whose job has ended, and forget old jobs; return True where nothing is left to do."""
        unended = {job.id for job in jobs if job.state in UNENDED}
        with reading(self._recorder.engine) as connection:
            ended = [job_id for job_id in frozen.sets(connection) if job_id not in unended]
        for job_id in ended[:1]:
            with self._recorder.transaction() as connection:
                frozen.drop(connection, job_id)
        with broker_errors():
            present_ms = now_ms(self._client) + self.scripts.clock_offset_ms
        old = [job for job in jobs if job.ended_ms is not None]
        old = [
            job
            for number, job in enumerate(old)
            if number >= KEPT or (job.ended_ms or 0) < present_ms - KEPT_MS
        ]
        if old:
            with broker_errors():
                pipe = self._client.pipeline(transaction=True)
                for job in old:
                    pipe.zrem(keys.JOBS, job.id)
                    pipe.unlink(keys.JOB + job.id, keys.JOB_PARTS + job.id)
                pipe.execute()
        return not ended

    # -- moves --------------------------------------------------------------------------------------

    def _go_on(self, job: Job, deadline_s: float) -> bool:
        """Look for answers and move; return True where there is more to do at once."""
        active = self._active.get(job.id)
        if active is None:
            with reading(self._recorder.engine) as connection:
                if not frozen.is_frozen(connection, job.id):
                    self._lose(job)
                    return False
            active = self._active[job.id] = Active(self._client, job)
        active.job = job
        if paused := active.paused_parts():  # somebody may have let them go on
            with broker_errors():
                packed: Any = self._client.hmget(keys.JOB_PARTS + job.id, paused)
            active.parts |= {
                name: json.loads(part) for name, part in zip(paused, packed, strict=True) if part
            }
        if job.waiting:
            self._watch(active)
        if job.state != RUNNING:
            return False
        is_more = self._move(active, deadline_s)
        self._settle(active)
        return is_more

    def _move(self, active: Active, deadline_s: float) -> bool:
        """Move slices of its accounts in turn; return True where the time alone has ended it."""
        job = active.job
        shut: set[str] = set()
        if job.kind == RESEND:
            if memory.recent(self._client).share >= DEAD_GO_PAST:
                return False  # nearly full: what is put back would push others out
            with broker_errors():
                paused: Any = self._client.zrange(keys.PAUSED, 0, -1)
            shut = {text(name) for name in paused}
        units_max = int(shares_of(memory.limit_of(self._client), self._settings).units * ROOM_SHARE)
        left_out = 0
        while active.accounts and left_out < len(active.accounts):
            if time.monotonic() >= deadline_s:
                return True
            account = active.accounts[0]
            active.accounts.rotate(-1)
            at_most = 0 if account in shut else active.room(account)
            if at_most <= 0:
                left_out += 1
                continue
            why = self._slice(active, account, at_most, units_max)
            if why in {"rate", "waiting", "gone"}:
                return False
            if why == "end":
                left_out = 0
                if active.parts[account].get("done"):
                    active.accounts.remove(account)
            else:
                shut.add(account)
                left_out += 1
        return False

    def _slice(self, active: Active, account: str, at_most: int, units_max: int) -> str:
        """Move a slice; return why it ended."""
        job, part = active.job, active.parts[account]
        with reading(self._recorder.engine) as connection:
            postbacks = frozen.read_slice(connection, job.id, account, part["cursor"], at_most)
        items = slices.prepare(
            self._recorder.engine, self._client, job.kind, active.states, account, postbacks
        )
        done = self.scripts.move_job(
            job.id,
            account,
            part["cursor"],
            items,
            is_last=len(postbacks) < at_most,
            schema=SCHEMA,
            units_max=max(1, units_max),
            first=FIRST,
            waiting_max=WAITING_MAX,
        )
        if done.why == "stale":
            self._active.pop(job.id, None)  # another process has gone on with it, or somebody has paused it
            return "gone"
        active.parts[account] = json.loads(done.part)
        self._publish(job.kind, done.moved)
        return done.why

    def _publish(self, kind: str, moved: list[str]) -> None:
        """Tell Flower what was moved, while workers publish events."""
        if not moved:
            return
        with broker_errors():
            if not self._client.exists(keys.TASK_EVENTS_ON):
                return
        for postback_id in moved:
            (resent if kind == RESEND else revoked)(postback_id)

    # -- answers ------------------------------------------------------------------------------------

    def _watch(self, active: Active) -> None:
        """Look at what was moved, some a turn, and note what was answered."""
        job = active.job
        for _ in range(LOOKS):
            seen = self.scripts.watch_job(job.id, active.scan, LOOK, FIRST)
            active.scan = seen.scan
            self._note(active, seen.parts, seen.paused)
            if seen.gone and (answers := self._answers_of_gone(seen.gone)):
                late = self.scripts.watch_job(job.id, "", 0, FIRST, answers)
                self._note(active, late.parts, late.paused)
            if active.scan == "0":
                return

    def _note(self, active: Active, parts: dict[str, str], paused: Iterable[str]) -> None:
        for account, packed in parts.items():
            active.parts[account] = json.loads(packed)
        for account in paused:
            sentence = part_of(account, active.parts[account]).why_paused
            log.warning("job.part_paused", sentence, job=active.job.id, account=account)

    def _answers_of_gone(self, postback_ids: Sequence[str]) -> dict[str, str]:
        """Ask the history how those ended whose record has left the broker; those that it has not read yet are left out."""
        with reading(self._recorder.engine) as connection:
            newest = {name: row for name in postback_ids for row in rows_of(connection, name)[:1]}
            copies = {copy.row_id: copy for copy in read_rows(connection, list(newest.values()))}
        answers: dict[str, str] = {}
        for postback_id in postback_ids:
            copy = copies.get(newest.get(postback_id, 0))
            if copy is None:
                answers[postback_id] = "forgotten"
            elif not copy.is_open:
                record = copy.record
                answers[postback_id] = "" if record.state == DELIVERED else record.reason or record.state
        return answers

    # -- ends ---------------------------------------------------------------------------------------

    def _settle(self, active: Active) -> None:
        """End a job of which nothing is left, or pause one of which only parts are left that have paused themselves."""
        job = active.job
        left = [name for name, part in active.parts.items() if not part.get("done")]
        paused = active.paused_parts()
        if len(left) > len(paused):
            return
        with broker_errors():
            if self._client.hlen(keys.JOB_OPEN + job.id):
                return
        if not left:
            if self.scripts.change_job(job.id, {RUNNING}, ENDED) == RUNNING:
                log.info("job.ended", job=job.id, kind=job.kind, by=job.by)
            return
        sentences = [part_of(name, active.parts[name]).why_paused for name in paused]
        note = (
            "; ".join(sentences[:3])
            + (f"; and {len(sentences) - 3:,} more accounts" if len(sentences) > 3 else "")
            + "."
        )
        if self.scripts.change_job(job.id, {RUNNING}, PAUSED, {"note": note}, how="stuck") == RUNNING:
            log.warning("job.paused", note, job=job.id, kind=job.kind, by=job.by)

    def _lose(self, job: Job) -> None:
        note = "Its set is not in the history's database any more; ask for it anew."
        if self.scripts.change_job(job.id, UNENDED, STOPPED, {"note": note}) in UNENDED:
            log.error("job.lost", note, job=job.id, kind=job.kind, by=job.by)
