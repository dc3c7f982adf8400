"""Words of jobs: what has become of their postbacks, and how fast they move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.operate.jobs.job import CANCEL, RESEND, RUNNING

if TYPE_CHECKING:
    from postbacks.operate.jobs.job import Job

#: Accounts' parts that have paused themselves and are said.
PAUSED_SAID: Final = 20
#: Kind of a job -> what has become of what it moved.
_MOVED: Final = {RESEND: "put back", CANCEL: "cancelled"}


class Pace(NamedTuple):
    """Pace of a job since its set was frozen.

    Attributes:
        per_s: postbacks a second.
        left_ms: how long the rest takes at this pace.
    """

    per_s: float
    left_ms: int


def pace(job: Job, now_ms: int) -> Pace | None:
    """Return how fast a job moves; None where it does not move, or has not begun."""
    if job.frozen_ms is None or not job.counts.done or job.state != RUNNING or job.waits:
        return None
    per_s = job.counts.done * 1000 / max(1, now_ms - job.frozen_ms)
    return Pace(per_s, round(job.left / per_s * 1000))


def outcome(job: Job, *, has_parts: bool) -> list[str]:
    """Return what has become of a job's postbacks, a sentence each."""
    counts, lines = job.counts, []
    if job.total is None:
        return []
    of = f"{job.total:,} postback{'' if job.total == 1 else 's'}"
    words = f"{counts.moved:,} of {of} {_MOVED[job.kind]}"
    if job.kind == RESEND and counts.moved:
        words += f": {counts.delivered:,} delivered, {counts.failed:,} failed"
        words += f", {job.waiting:,} wait" if job.waiting else ""
    lines.append(f"{words}.")
    if left_alone := words_left_alone(job):
        lines.append(f"Left alone: {left_alone}.")
    if has_parts:
        paused = [f"{part.why_paused}." for part in job.parts if part.why_paused]
        lines += paused[:PAUSED_SAID]
        if len(paused) > PAUSED_SAID:
            lines.append(f"{len(paused) - PAUSED_SAID:,} accounts more are paused.")
    return lines


def words_left_alone(job: Job) -> str:
    """Say how many postbacks a job has left alone, and why, apart."""
    reasons = {
        "changed": "in another state by then",
        "in_flight": "with a POST under way"
        + (", which is not repeated should it fail" if job.kind == CANCEL else ""),
        "forgotten": "forgotten, or known neither to the broker nor to the history",
        "no_document": "without a document",
        "nowhere": "with nowhere to go, as the account is not known or has no URL for it",
    }
    return "; ".join(
        f"{count:,} {words}" for name, words in reasons.items() if (count := getattr(job.counts, name))
    )
