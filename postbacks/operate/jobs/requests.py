"""Requests: a job is asked for, paused, resumed and stopped. The broker alone is needed."""

from __future__ import annotations

import secrets
from math import ceil
from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import PostbacksError, UnknownJob
from postbacks.operate import journal
from postbacks.operate.identity import user_of
from postbacks.operate.jobs.filters import check_ids, masked, states_of, to_json
from postbacks.operate.jobs.job import (
    ASKED,
    CANCEL,
    KINDS,
    PAUSED,
    RESEND,
    RUNNING,
    STOPPED,
    UNENDED,
    filters_of,
)
from postbacks.operate.jobs.status import feed_is_on, read
from postbacks.operate.older import refuse_older
from postbacks.printable import printable, quoted
from postbacks.privacy import mask_why
from postbacks.queue.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.history.query import Query
    from postbacks.operate.jobs.job import Job

#: Ids that one command writes.
_IDS: Final = 10_000
#: Seconds after which ids go whose job was not asked for, as its program died meanwhile.
_IDS_KEPT_S: Final = 3600
#: Characters of a reason that are kept.
_MAX_WHY: Final = 1000
#: Postbacks a second: one a quarter of an hour, and beyond the other there is no need for a rate.
_RATE_MIN: Final = 0.001
_RATE_MAX: Final = 1_000_000


def start(
    kind: str,
    query: Query | None = None,
    *,
    ids: Iterable[str] = (),
    rate: float | None = None,
    by: str | None = None,
    why: str = "",
) -> Job:
    """Ask for a job; the process that runs history freezes its set and moves it.

    Where no recorder works now, the job waits for one, and ``Job.waits`` says so.

    Args:
        kind: ``resend`` or ``cancel``.
        query: filters that choose its set; beside ids, its state alone.
        ids: of postbacks, given one by one.
        rate: postbacks a second that it moves at most.
        by: who asks; without it the user of this process.
        why: in words, for the journal and for whoever looks at the job.

    Raises:
        InvalidQuery: filters that cannot be, ids and filters together, neither of them, or a state that such a job
            cannot move from.
        PostbacksError: no recorder has registered, or a worker of an older version would do harm; says what to do.
        BrokerError: the broker cannot be used.
    """
    if kind not in KINDS:
        raise PostbacksError(f"There is no job {quoted(kind)}; known: {', '.join(KINDS)}.")
    postback_ids = list(dict.fromkeys(ids))
    check_ids(postback_ids)
    states = states_of(kind, query, by_ids=bool(postback_ids))
    if rate is not None and not _RATE_MIN <= rate <= _RATE_MAX:
        raise PostbacksError(f"A rate of {rate} cannot be; give postbacks a second, such as 50.")
    broker = client()
    if not feed_is_on(broker):
        raise PostbacksError(
            "No recorder has registered: the process that runs history moves jobs; set POSTBACKS_HISTORY_URL and run "
            "`postbacks history run` (`postbacks up` does both). Without it, `postbacks resend --all-dead` sends again "
            "what the broker finds."
        )
    if kind == RESEND:
        refuse_older("would send to the URL that an account had")
    job_id, who = secrets.token_hex(4), user_of(by)
    filters = to_json(query)
    with broker_errors():
        asked_ms = now_ms(broker)
        for first in range(0, len(postback_ids), _IDS):
            broker.rpush(keys.JOB_IDS + job_id, *postback_ids[first : first + _IDS])
            broker.expire(keys.JOB_IDS + job_id, _IDS_KEPT_S)
        pipe = broker.pipeline(transaction=True)
        fields: dict[str, str | int] = {
            "kind": kind,
            "state": ASKED,
            "by": who,
            "why": mask_why(printable(why), broker)[:_MAX_WHY],
            "asked_ms": asked_ms,
            "query": filters,
            "ids": len(postback_ids),
            "from": " ".join(states),
        }
        if rate is not None:
            fields |= {"rate": str(rate), "interval_us": ceil(1_000_000 / rate)}
        pipe.hset(keys.JOB + job_id, mapping=fields)  # type: ignore[arg-type]
        pipe.zadd(keys.JOBS, {job_id: asked_ms})
        pipe.persist(keys.JOB_IDS + job_id)
        pipe.execute()
    shown = masked(query)
    details = {"filters": shown and filters_of(shown), "ids": len(postback_ids), "rate": rate}
    journal.write(kind, job_id, why=why, details={n: v for n, v in details.items() if v}, by=who)
    return read(job_id)


def start_resend(
    query: Query | None = None,
    *,
    ids: Iterable[str] = (),
    rate: float | None = None,
    by: str | None = None,
    why: str = "",
) -> Job:
    """Ask for a job that sends postbacks again, the same bytes; as ``start``."""
    return start(RESEND, query, ids=ids, rate=rate, by=by, why=why)


def start_cancel(
    query: Query | None = None,
    *,
    ids: Iterable[str] = (),
    rate: float | None = None,
    by: str | None = None,
    why: str = "",
) -> Job:
    """Ask for a job that cancels postbacks; as ``start``."""
    return start(CANCEL, query, ids=ids, rate=rate, by=by, why=why)


def pause(job_id: str, *, by: str | None = None, why: str = "") -> Job:
    """Pause a job: what it has moved goes on, nothing more is moved.

    Raises:
        UnknownJob: there is none of this id.
        PostbacksError: it does not run.
        BrokerError: the broker cannot be used.
    """
    who = user_of(by)
    before = Scripts(client()).change_job(job_id, {RUNNING}, PAUSED, {"paused_by": who, "note": ""})
    if before != RUNNING:
        raise _refused(job_id, before, "only one that runs can be paused")
    journal.write("job.pause", job_id, why=why, by=who)
    return read(job_id)


def resume(job_id: str, *, by: str | None = None, why: str = "") -> Job:
    """Let a paused job go on, and each account's part that has paused itself; 50 of each go first again.

    Raises:
        UnknownJob: there is none of this id.
        PostbacksError: neither it nor a part of it is paused.
        BrokerError: the broker cannot be used.
    """
    job = read(job_id)
    may_resume = job.state == PAUSED or (job.state == RUNNING and any(part.is_paused for part in job.parts))
    fields = {"paused_by": "", "note": ""}
    before = job.state
    if may_resume:
        before = Scripts(client()).change_job(job_id, {RUNNING, PAUSED}, RUNNING, fields, how="resume")
    if not may_resume or before not in {RUNNING, PAUSED}:
        raise _refused(job_id, before, "nothing of it is paused")
    journal.write("job.resume", job_id, why=why, by=by)
    return read(job_id)


def stop(job_id: str, *, by: str | None = None, why: str = "") -> Job:
    """Stop a job for good: what it has moved goes on, the rest of its set stays as it is.

    Raises:
        UnknownJob: there is none of this id.
        PostbacksError: it has ended already.
        BrokerError: the broker cannot be used.
    """
    who = user_of(by)
    note = f"Stopped by {who}" + (f": {mask_why(printable(why))[:_MAX_WHY]}" if why else "") + "."
    before = Scripts(client()).change_job(job_id, UNENDED, STOPPED, {"note": note})
    if before not in UNENDED:
        raise _refused(job_id, before, "nothing is left to stop")
    journal.write("job.stop", job_id, why=why, by=who)
    return read(job_id)


def _refused(job_id: str, state: str, why: str) -> PostbacksError:
    if not state:
        return UnknownJob(f"There is no job {quoted(job_id)}; `postbacks jobs` lists them.")
    return PostbacksError(f"Job {job_id} is {state}: {why}.")
