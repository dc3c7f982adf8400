"""Status of jobs, as the broker has them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker import memory
from postbacks.broker.client import client, text
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import InvalidQuery, UnknownJob
from postbacks.operate.jobs.filters import from_json, masked
from postbacks.operate.jobs.job import PAUSED, RESEND, RUNNING, Counts, Job, Part
from postbacks.printable import quoted
from postbacks.queue.shares import DEAD_GO_PAST

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

#: Says why no job moves where nobody records.
_NO_RECORDER: Final = "No recorder works now: the job goes on when `postbacks history run` does."


def read(job_id: str, broker: redis.Redis | None = None) -> Job:
    """Read a job, its accounts' parts included.

    Raises:
        UnknownJob: there is none of this id, or it ended too long ago.
        BrokerError: the broker cannot be used.
    """
    broker = broker or client()
    with broker_errors():
        pipe: Any = broker.pipeline(transaction=True)
        pipe.hgetall(keys.JOB + job_id)
        pipe.hlen(keys.JOB_OPEN + job_id)
        pipe.hgetall(keys.JOB_PARTS + job_id)
        fields, waiting, parts = pipe.execute()
    if not fields:
        raise UnknownJob(f"There is no job {quoted(job_id)}; `postbacks jobs` lists them.")
    job = _masked(_job(job_id, fields, waiting, parts, recorder_works=_recorder_works(broker)))
    return replace(job, waits=job.waits or _waits(broker, job))


def all_jobs(broker: redis.Redis | None = None) -> list[Job]:
    """Read all jobs that the broker has, the latest first, without their parts.

    Raises:
        BrokerError: the broker cannot be used.
    """
    return [_masked(job) for job in stored_jobs(broker or client())]


def stored_jobs(broker: redis.Redis) -> list[Job]:
    """Read all jobs as ``all_jobs``, with the person whom a filter names, as their sets are chosen by it.

    Raises:
        BrokerError: the broker cannot be used.
    """
    with broker_errors():
        ids: Any = broker.zrange(keys.JOBS, 0, -1)
        job_ids = [text(job_id) for job_id in reversed(ids)]
        pipe: Any = broker.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hgetall(keys.JOB + job_id)
            pipe.hlen(keys.JOB_OPEN + job_id)
        replies = iter(pipe.execute())
    works = _recorder_works(broker) if job_ids else False
    rows = zip(job_ids, replies, replies, strict=True)
    return [
        _job(job_id, fields, waiting, {}, recorder_works=works) for job_id, fields, waiting in rows if fields
    ]


def _masked(job: Job) -> Job:
    return replace(job, query=masked(job.query))


def feed_is_on(broker: redis.Redis) -> bool:
    """Tell whether a recorder has registered, and is not given up."""
    with broker_errors():
        return bool(broker.exists(keys.CHANGES))


def _waits(broker: redis.Redis, job: Job) -> str:
    """Say why a resend puts nothing back just now though it runs; empty where it does."""
    if job.kind != RESEND or job.state != RUNNING:
        return ""
    if memory.recent(broker).share >= DEAD_GO_PAST:
        return "The broker is nearly full: nothing is put back until it has room."
    left = [part.account for part in job.parts if part.waiting or (part.left and not part.is_paused)]
    with broker_errors():
        ends: Any = broker.zmscore(keys.PAUSED, left) if left else [None]
    if None in ends:
        return ""
    more = f" and {len(left) - 1:,} more that are left" if len(left) > 1 else ""
    return f"Account {left[0]}{more} {'are' if more else 'is'} paused: `postbacks account resume {left[0]}` lets it go on."


def _recorder_works(broker: redis.Redis) -> bool:
    """Tell whether a recorder holds its lease now."""
    with broker_errors():
        pipe: Any = broker.pipeline(transaction=False)
        pipe.hget(keys.HISTORY, "ends_ms")
        pipe.time()
        ends_ms, time = pipe.execute()
    return ends_ms is not None and int(float(ends_ms)) > to_ms(time)


def part_of(account: str, fields: Mapping[str, Any]) -> Part:
    """Read an account's part from its fields (``queue/_job.lua``)."""
    return Part(
        account=account,
        total=int(fields["total"]),
        counts=Counts(*(int(fields.get(name, 0)) for name in Counts._fields)),
        waiting=int(fields["waiting"]),
        failed_in_a_row=int(fields["row"]),
        latest_failure=fields.get("failure", ""),
        is_paused=bool(fields.get("paused")),
    )


def _job(
    job_id: str,
    fields: Mapping[bytes, bytes],
    waiting: int,
    parts: Mapping[bytes, bytes],
    *,
    recorder_works: bool,
) -> Job:
    values = {text(name): text(value) for name, value in fields.items()}

    def number(name: str) -> int | None:
        return int(float(values[name])) if name in values else None

    try:
        query = from_json(values.get("query", ""))
    except InvalidQuery:
        query = None  # of a newer version
    job = Job(
        id=job_id,
        kind=values["kind"],
        state=values["state"],
        by=values.get("by", ""),
        why=values.get("why", ""),
        asked_ms=number("asked_ms") or 0,
        query=query,
        ids=number("ids") or 0,
        rate=float(values["rate"]) if "rate" in values else None,
        total=number("total"),
        frozen_ms=number("frozen_ms"),
        ended_ms=number("ended_ms"),
        counts=Counts(*(number(name) or 0 for name in Counts._fields)),
        waiting=waiting,
        parts=tuple(part_of(text(account), json.loads(packed)) for account, packed in sorted(parts.items())),
        paused_by=values.get("paused_by", ""),
        note=values.get("note", ""),
        waits="",
    )
    if job.is_unended and job.state != PAUSED and not recorder_works:
        return replace(job, waits=_NO_RECORDER)
    return job
