"""Status of jobs, as the broker has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postbacks.operate.jobs.job import Job


def read(job_id: str) -> Job:
    """Read a job, its accounts' parts included.

    Raises:
        UnknownJob: there is none of this id, or it ended too long ago.
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError


def all_jobs() -> list[Job]:
    """Read all jobs that the broker has, the latest first, without their parts.

    Raises:
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError
