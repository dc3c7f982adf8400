"""Pages of jobs: which go on, and of one how far it is, whose postbacks it moves, and pause, resume and stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.routing import Route

from postbacks.operate import all_jobs, pause_job, read_job, resume_job, stop_job
from postbacks.operate.jobs.words import Pace, outcome, pace
from postbacks.web.actions import done
from postbacks.web.asking import broker_ms
from postbacks.web.filterbar import bar_of
from postbacks.web.forms import read_form
from postbacks.web.live import live
from postbacks.web.reading import shared
from postbacks.web.security.roles import needs, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.operate.jobs.job import Job, Part

#: Seconds for which what was read is shown to others who look.
FRESH_S: Final = 1.0
#: Accounts' parts of a page: those that have paused themselves first, then the largest.
PARTS_MAX: Final = 200


class Facts(NamedTuple):
    """Facts of the page of a job.

    Attributes:
        job: as the broker has it.
        parts: of its accounts, those that have paused themselves first, then the largest.
        pace: None where it does not move.
        outcome: of its postbacks, a sentence each.
        bar: filter bar of what chose its set, persons in it masked; empty where a filter did not.
    """

    job: Job
    parts: list[Part]
    pace: Pace | None
    outcome: list[str]
    bar: str


@needs("viewer")
async def every(request: Request) -> Response:
    """List jobs, the latest first."""
    jobs = await shared(request, "jobs", FRESH_S, all_jobs)
    return live(request, "jobs.html", "jobs_live.html", jobs=jobs)


@needs("viewer")
async def one(request: Request) -> Response:
    """Show a job."""
    job_id: str = request.path_params["job_id"]
    facts = await shared(request, ("job", job_id), FRESH_S, read, job_id)
    return live(request, "job.html", "job_live.html", facts=facts, job=facts.job, parts_max=PARTS_MAX)


def read(job_id: str) -> Facts:
    """Read the facts of a job."""
    job = read_job(job_id)
    parts = sorted(job.parts, key=lambda part: (not part.is_paused, -part.total))
    bar = bar_of(job.query) if job.query is not None else ""
    return Facts(job, parts, pace(job, broker_ms()), outcome(job, has_parts=False), bar)


def _change(change: Callable[..., Job]) -> Callable[[Request], object]:
    """Return the handler of a form that changes a job."""

    @needs("operator")
    async def handler(request: Request) -> Response:
        job_id, fields, viewer = request.path_params["job_id"], await read_form(request), viewer_of(request)
        return await done(
            request, f"/jobs/{job_id}", change, job_id, by=viewer.name, why=fields.get("why", "")
        )

    return handler


routes = [
    Route("/jobs", every),
    Route("/jobs/{job_id}", one),
    *(
        Route(f"/jobs/{{job_id}}/{name}", _change(change), methods=["POST"])
        for name, change in (("pause", pause_job), ("resume", resume_job), ("stop", stop_job))
    ),
]
