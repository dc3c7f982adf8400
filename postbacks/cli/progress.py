"""Progress of a job: a bar on a terminal, and its state in sentences."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from postbacks.cli.base import print_json, say, stderr_console, stop_signals
from postbacks.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, Task

    from postbacks.operate.jobs.job import Job

#: Seconds between two looks at a job.
_POLL_S: Final = 0.5
#: Seconds in which its set is frozen, or it is refused, where a recorder works: so long an answer is waited for.
_FROZEN_WITHIN_S: Final = 5.0


def follow_started(job: Job, *, wait: bool, as_json: bool) -> None:
    """Follow a job that has just been asked for: to its end or pause on a terminal and with ``--wait``, else to its begin.

    The id goes to stdout where there is no terminal to show the job at.
    """
    has_terminal = sys.stderr.isatty()
    if not has_terminal and not as_json:
        click.echo(job.id)
    if has_terminal:
        say(f"Job {job.id}. Ctrl-C leaves it running; `postbacks job stop {job.id}` stops it.")
    is_watched = has_terminal or wait
    job = watch(job.id, has_bar=has_terminal) if is_watched else _begun(job)
    if as_json:
        print_json(job.to_public_dict())
    if not is_watched and job.state in {"asked", "running"}:
        words = "runs" if job.state == "running" else "is being chosen"
        say(job.waits or f"Job {job.id} {words}; `postbacks job show {job.id}` says how far it is.")
        return
    # Who has watched has been told of each part that has paused itself.
    say_outcome(job, has_parts=not is_watched)


def _begun(job: Job) -> Job:
    """Wait a little until a job's set is frozen, as another job may hold some of it."""
    from postbacks.operate.jobs.job import ASKED
    from postbacks.operate.jobs.status import read

    deadline_s = time.monotonic() + _FROZEN_WITHIN_S
    while job.state == ASKED and not job.waits and time.monotonic() < deadline_s:
        time.sleep(_POLL_S / 5)
        job = read(job.id)
    return job


def watch(job_id: str, *, has_bar: bool) -> Job:
    """Wait until a job has ended or is paused, with a bar where somebody sees it; Ctrl-C leaves the job running."""
    from postbacks.operate.jobs.job import ASKED, RUNNING
    from postbacks.operate.jobs.status import read
    from postbacks.operate.jobs.words import PAUSED_SAID

    stop_signals()
    try:
        with _progress(disable=not has_bar) as progress:
            task = progress.add_task("", total=None, figures="", runs=True)
            said: set[str] = set()
            while True:
                job = read(job_id)
                completed = job.counts.done - job.waiting
                figures = "" if job.total is None else f"{completed:,} of {job.total:,}"
                runs = job.state in {ASKED, RUNNING}
                progress.update(
                    task,
                    description=_stage(job),
                    total=job.total if runs else job.total or 0,  # a refused job has none
                    completed=completed,
                    figures=figures,
                    runs=runs,
                )
                for sentence in (job.waits, *(part.why_paused for part in job.parts)):
                    if sentence and sentence not in said and len(said) < PAUSED_SAID:
                        said.add(sentence)
                        progress.console.print(printable(sentence))
                if not runs:
                    return job
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        say(
            f"Job {job_id} goes on. `postbacks job show {job_id}` says how far it is, `postbacks job stop {job_id}` "
            "stops it."
        )
        sys.exit(128 + signal.SIGINT)


def _progress(*, disable: bool) -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    from postbacks.history.times import length

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Return the postbacks a second of the last half a minute, and how long the rest takes at this rate."""
            speed = task.finished_speed or task.speed
            words = "" if speed is None else f"{speed:,.0f}/s"
            if task.fields["runs"] and task.time_remaining:
                words += f", {length(round(task.time_remaining * 1000))} left"
            return Text(words)

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        Pace(),
        console=stderr_console(),
        disable=disable,
    )


def _stage(job: Job) -> str:
    """Say in a word or two what a job does at this moment."""
    if job.state == "asked":
        return "choosing"
    failed = f", {job.counts.failed:,} failed" if job.counts.failed else ""
    return f"{job.state}{failed}"


def say_outcome(job: Job, *, has_parts: bool) -> None:
    """Say how a job stands that has ended or does not go on by itself, and which accounts' parts have paused themselves.

    Raises:
        click.ClickException: it was refused, was stopped or is paused.
    """
    from postbacks.operate.jobs.words import outcome

    for sentence in outcome(job, has_parts=has_parts):
        say(sentence)
    if job.state == "refused":
        raise click.ClickException(f"Job {job.id} was refused. {job.note}".strip())
    if job.state == "stopped":
        raise click.ClickException(f"Job {job.id} was stopped. {job.note}".strip())
    if job.state == "paused":
        raise click.ClickException(
            f"Job {job.id} is paused with {job.left:,} left: `postbacks job resume {job.id}` goes on, "
            f"`postbacks job stop {job.id}` leaves them as they are."
        )
