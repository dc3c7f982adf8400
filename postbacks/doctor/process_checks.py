"""Checks of beat, workers, leases and Celery's queues. Each takes an inspection and returns what is at fault, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.app import DELIVER, DISPATCH, SEND_POSTBACK
from postbacks.doctor.broker_checks import WHOLE, duration
from postbacks.doctor.details import CELERY_QUEUE

if TYPE_CHECKING:
    from postbacks.doctor.inspection import Inspection

#: Seconds since the last tick from which on ticks are late (they come every second), and missing.
LATE_S: Final = 5.0
MISSING_S: Final = 60.0
#: Seconds that ticks have for what is due: parked postbacks, leases that ran out.
DUE_SLACK_S: Final = 10.0
#: Wake-ups in the workers' queue beyond which they pile up: a tick sends nine at most.
WORK_MAX: Final = 100

_OURS: Final = {keys.QUEUE: {SEND_POSTBACK}, keys.WORK_QUEUE: {DISPATCH, DELIVER}}


def beat(inspection: Inspection) -> dict[str, str]:
    """Report that no tick has finished for so long that a process is missing."""
    snapshot, answered = inspection.snapshot, inspection.details.answered
    if not snapshot.tick_missing_for(MISSING_S):
        return {}
    age_s = snapshot.tick_age_s
    words = "no tick has ever finished" if age_s is None else f"the last tick finished {duration(age_s)} ago"
    if snapshot.work:
        words += f"; {snapshot.work} wait in {keys.WORK_QUEUE} and no worker takes them"
    elif answered:
        words += f"; {_count(len(answered), 'worker')} answered, so it is beat that is missing or stuck"
    else:
        words += f"; {keys.WORK_QUEUE} is empty, so nobody sends any"
    if snapshot.queued:
        verb = "waits" if snapshot.queued == 1 else "wait"
        words += f"; {_count(snapshot.queued, 'postback')} {verb} to be taken in"
    if age_s is None:
        words += _elsewhere(inspection)
    return {WHOLE: words}


def _elsewhere(inspection: Inspection) -> str:
    """Hint at another database of the broker, where this one is empty and that one is not."""
    snapshot, details = inspection.snapshot, inspection.details
    databases = (name for name in details.info if name.startswith("db") and name[2:].isdigit())
    others = sorted(name for name in databases if name != f"db{details.database}")
    if not others or any(
        (snapshot.queued, snapshot.quarantined, snapshot.parked, snapshot.dead, snapshot.done)
    ):
        return ""
    return f". Is POSTBACKS_BROKER_URL the right one? There are keys in {', '.join(others)}"


def gone(inspection: Inspection, kind: str) -> dict[str, str]:
    """Report that ticks are late, and no process of this kind (worker, beat) gives signs of life."""
    snapshot = inspection.snapshot
    if not snapshot.tick_missing_for(LATE_S) or kind not in snapshot.missing:
        return {}
    return {kind: f"no {kind} has been heard of{snapshot.missing[kind].since}"}


def silent(inspection: Inspection) -> dict[str, str]:
    """Report that ticks come, so a process runs that gives no signs of life."""
    snapshot = inspection.snapshot
    if snapshot.tick_missing_for(LATE_S):
        return {}
    return {kind: f"no {kind} gives any" for kind, of_kind in snapshot.presence.items() if not of_kind.names}


def ticks_late(inspection: Inspection) -> dict[str, str]:
    """Report that ticks come, but late."""
    snapshot = inspection.snapshot
    if not snapshot.tick_missing_for(LATE_S) or snapshot.tick_missing_for(MISSING_S):
        return {}
    return {WHOLE: f"the last tick finished {duration(snapshot.tick_age_s or 0)} ago"}


def workers(inspection: Inspection) -> dict[str, str]:
    """Report lanes that are ready and that no loop claims from, or that no worker answered the ping."""
    details = inspection.details
    if details.answered is not None and not details.answered:
        return {"ping": "no worker answered the ping"}
    if inspection.snapshot.loops:
        return {}
    # The first postback is part of the name: in a system that works it is another one at the second inspection.
    return {
        f"{lane} {head}": f"{lane} is ready, no delivering loop runs" for lane, head in details.ready.items()
    }


def parked_overdue(inspection: Inspection) -> dict[str, str]:
    """Report countdowns that have ended without a release."""
    late_s, count = inspection.snapshot.parked_overdue_s, inspection.details.overdue
    if late_s <= DUE_SLACK_S or not count:
        return {}
    return {WHOLE: f"{_count(count, 'postback')}, the first was due {duration(late_s)} ago"}


def leases_overdue(inspection: Inspection) -> dict[str, str]:
    """Report leases that ran out and were not taken back."""
    snapshot = inspection.snapshot
    limit_ms = snapshot.now_ms - DUE_SLACK_S * 1000
    return {
        token: f"{token[:12]} since {duration((snapshot.now_ms - ends_ms) / 1000)}"
        for token, ends_ms in snapshot.leases.items()
        if 0 < ends_ms < limit_ms
    }


def leases_ahead(inspection: Inspection) -> dict[str, str]:
    """Report leases that end later than a lease can: the clock was put back."""
    now_ms, settings = inspection.snapshot.now_ms, inspection.settings
    latest_ms = now_ms + (settings.claim_lease_s + DUE_SLACK_S) * 1000
    findings = {
        token: f"claims {token[:12]} for {duration((ends_ms - now_ms) / 1000)} more"
        for token, ends_ms in inspection.snapshot.leases.items()
        if ends_ms > latest_ms
    }
    intake_ms = inspection.snapshot.intake_lease_ms or 0
    if intake_ms > now_ms + (settings.intake_lease_s + DUE_SLACK_S) * 1000:
        findings["intake"] = f"the intake for {duration((intake_ms - now_ms) / 1000)} more"
    return findings


def intake(inspection: Inspection) -> dict[str, str]:
    """Report messages that a tick had taken and no tick holds."""
    snapshot = inspection.snapshot
    if not snapshot.intake or (snapshot.intake_lease_ms or 0) > snapshot.now_ms:
        return {}
    return {WHOLE: _count(snapshot.intake, "message")}


def unreached(inspection: Inspection) -> dict[str, str]:
    """Report endpoints that take no connection, for longer than one may be tried."""
    now_ms = inspection.snapshot.now_ms
    ages_s = {
        endpoint: (now_ms - since_ms) / 1000 for endpoint, since_ms in inspection.details.unreached.items()
    }
    return {
        endpoint: f"{endpoint} has taken none for {duration(age_s)}"
        for endpoint, age_s in sorted(ages_s.items())
        if age_s > DUE_SLACK_S
    }


def versions(inspection: Inspection) -> dict[str, str]:
    """Report that workers of several versions run, and the work of each."""
    at_work = inspection.details.versions
    if len(at_work) < 2:
        return {}
    return {version: f"{version} {' and '.join(sorted(work))}" for version, work in sorted(at_work.items())}


def work_queue(inspection: Inspection) -> dict[str, str]:
    """Report wake-ups that pile up."""
    count = inspection.snapshot.work
    return {WHOLE: f"{count} in {keys.WORK_QUEUE}"} if count > WORK_MAX else {}


def foreign_messages(inspection: Inspection) -> dict[str, str]:
    """Report messages in our queues that are not ours, and ours in Celery's."""
    findings = {}
    for name, count in inspection.details.tasks.items():
        queue, _, task = name.partition(": ")
        is_ours = task.startswith("postbacks.")
        if (queue == CELERY_QUEUE and is_ours) or (queue in _OURS and task not in _OURS[queue]):
            findings[name] = f"{count} of {task} in {queue}"
    return findings


def unacked(inspection: Inspection) -> dict[str, str]:
    """Report messages that a worker has taken and keeps."""
    return {
        tag: f"{task} ({tag})"
        for tag, task in inspection.details.unacked.items()
        if task.startswith("postbacks.")
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
