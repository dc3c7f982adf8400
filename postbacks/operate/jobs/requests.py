"""Requests: a job is asked for, paused, resumed and stopped. The broker alone is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.operate.jobs.job import CANCEL, RESEND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.history.query import Query
    from postbacks.operate.jobs.job import Job


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
    raise NotImplementedError


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
    raise NotImplementedError


def resume(job_id: str, *, by: str | None = None, why: str = "") -> Job:
    """Let a paused job go on, and each account's part that has paused itself; 50 of each go first again.

    Raises:
        UnknownJob: there is none of this id.
        PostbacksError: neither it nor a part of it is paused.
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError


def stop(job_id: str, *, by: str | None = None, why: str = "") -> Job:
    """Stop a job for good: what it has moved goes on, the rest of its set stays as it is.

    Raises:
        UnknownJob: there is none of this id.
        PostbacksError: it has ended already.
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError
