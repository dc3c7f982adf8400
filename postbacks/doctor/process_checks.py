"""What may be wrong with beat, workers, leases and Celery's queues. Each takes a scene and says what is at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.app import DELIVER, DISPATCH, SEND_POSTBACK
from postbacks.broker.fitness import takes_signs
from postbacks.doctor.broker_checks import WHOLE, duration
from postbacks.doctor.scene import CELERY_QUEUE
from postbacks.doctor.versions import versions_at_work

if TYPE_CHECKING:
    from postbacks.doctor.scene import Scene
    from postbacks.settings import Settings

#: Seconds since the last tick from which on ticks are late (they come every second), and missing.
LATE_S: Final = 5.0
MISSING_S: Final = 60.0
#: Seconds that ticks have for what is due: parked postbacks, leases that ran out.
DUE_SLACK_S: Final = 10.0
#: Wake-ups in the workers' queue beyond which they pile up: a tick sends nine at most.
WORK_MAX: Final = 100

_OURS: Final = {keys.QUEUE: {SEND_POSTBACK}, keys.WORK_QUEUE: {DISPATCH, DELIVER}}


def beat(scene: Scene) -> dict[str, str]:
    """No tick has finished for so long that somebody is missing."""
    age_s = scene.tick_age_s
    if age_s is not None and age_s <= MISSING_S:
        return {}
    words = "no tick has ever finished" if age_s is None else f"the last tick finished {duration(age_s)} ago"
    if scene.work:
        words += f"; {scene.work} wait in {keys.WORK_QUEUE} and no worker takes them"
    elif scene.workers:
        words += f"; {_count(len(scene.workers), 'worker')} answered, so it is beat that is missing or stuck"
    else:
        words += f"; {keys.WORK_QUEUE} is empty, so nobody sends any"
    if scene.queue:
        words += f"; {_count(scene.queue, 'postback')} wait{'s' if scene.queue == 1 else ''} to be taken in"
    if age_s is None:
        words += _elsewhere(scene)
    return {WHOLE: words}


def _elsewhere(scene: Scene) -> str:
    """A hint, where this database is empty and another one of the broker is not."""
    every = (name for name in scene.info if name.startswith("db") and name[2:].isdigit())
    others = sorted(name for name in every if name != f"db{scene.database}")
    if not others or scene.queue or any(scene.sizes.values()):
        return ""
    return f". Is POSTBACKS_BROKER_URL the right one? There are keys in {', '.join(others)}"


def gone(scene: Scene, kind: str) -> dict[str, str]:
    """Ticks are late, and no process of this kind (worker, beat) gives signs of life."""
    present = scene.present[kind]
    if present.names or not takes_signs(scene.refusal) or _ticks_come(scene):
        return {}
    return {kind: f"no {kind} has been heard of{present.since}"}


def silent(scene: Scene) -> dict[str, str]:
    """Ticks come, so somebody runs who gives no sign of life."""
    if not _ticks_come(scene):
        return {}
    return {kind: f"no {kind} gives any" for kind, present in scene.present.items() if not present.names}


def _ticks_come(scene: Scene) -> bool:
    return scene.tick_age_s is not None and scene.tick_age_s <= LATE_S


def ticks_late(scene: Scene) -> dict[str, str]:
    """Ticks come, but late."""
    age_s = scene.tick_age_s
    if age_s is None or not LATE_S < age_s <= MISSING_S:
        return {}
    return {WHOLE: f"the last tick finished {duration(age_s)} ago"}


def workers(scene: Scene) -> dict[str, str]:
    """Nobody claims what is ready, or nobody answered."""
    if scene.workers is not None and not scene.workers:
        return {"ping": "no worker answered the ping"}
    live = [token for token, ends_ms in scene.claimers.items() if ends_ms > scene.now_ms]
    if live:
        return {}
    # The first postback is part of the name: in a system that works it is another one at the second look.
    return {
        f"{lane} {head}": f"{lane} is ready, no delivering loop runs" for lane, head in scene.ready.items()
    }


def parked_overdue(scene: Scene) -> dict[str, str]:
    """Countdowns that have ended without a release."""
    if not scene.overdue or scene.overdue_since_ms is None:
        return {}
    late_s = (scene.now_ms - scene.overdue_since_ms) / 1000
    return {WHOLE: f"{_count(scene.overdue, 'postback')}, the first was due {duration(late_s)} ago"}


def leases_overdue(scene: Scene) -> dict[str, str]:
    """Leases that ran out and were not taken back."""
    limit_ms = scene.now_ms - DUE_SLACK_S * 1000
    return {
        token: f"{token[:12]} since {duration((scene.now_ms - ends_ms) / 1000)}"
        for token, ends_ms in scene.claimers.items()
        if 0 < ends_ms < limit_ms
    }


def leases_ahead(scene: Scene, settings: Settings) -> dict[str, str]:
    """Leases that end later than a lease can: the clock was put back."""
    found = {}
    limit_ms = scene.now_ms + (settings.claim_lease_s + DUE_SLACK_S) * 1000
    for token, ends_ms in scene.claimers.items():
        if ends_ms > limit_ms:
            found[token] = f"claims {token[:12]} for {duration((ends_ms - scene.now_ms) / 1000)} more"
    intake_ms = scene.intake_lease_ms or 0
    if intake_ms > scene.now_ms + (settings.intake_lease_s + DUE_SLACK_S) * 1000:
        found["intake"] = f"the intake for {duration((intake_ms - scene.now_ms) / 1000)} more"
    return found


def intake(scene: Scene) -> dict[str, str]:
    """Messages that a tick had taken and nobody holds."""
    if not scene.intake or (scene.intake_lease_ms or 0) > scene.now_ms:
        return {}
    return {WHOLE: _count(scene.intake, "message")}


def unreached(scene: Scene) -> dict[str, str]:
    """Endpoints that take no connection, for longer than one may be tried."""
    ages_s = {endpoint: (scene.now_ms - since_ms) / 1000 for endpoint, since_ms in scene.unreached.items()}
    return {
        endpoint: f"{endpoint} has taken none for {duration(age_s)}"
        for endpoint, age_s in sorted(ages_s.items())
        if age_s > DUE_SLACK_S
    }


def versions(scene: Scene) -> dict[str, str]:
    """Workers of several versions: by their loops' tokens, and by who ticked within the last minute."""
    at_work = versions_at_work(scene.claimers, scene.ticks, scene.last_tick_ms, scene.now_ms)
    if len(at_work) < 2:
        return {}
    return {version: f"{version} {' and '.join(sorted(work))}" for version, work in sorted(at_work.items())}


def work_queue(scene: Scene) -> dict[str, str]:
    """Wake-ups that pile up."""
    return {WHOLE: f"{scene.work} in {keys.WORK_QUEUE}"} if scene.work > WORK_MAX else {}


def foreign_messages(scene: Scene) -> dict[str, str]:
    """Messages in our queues that are not ours, and ours in Celery's."""
    found = {}
    for name, count in scene.tasks.items():
        queue, _, task = name.partition(": ")
        ours = task.startswith("postbacks.")
        if (queue == CELERY_QUEUE and ours) or (queue in _OURS and task not in _OURS[queue]):
            found[name] = f"{count} of {task} in {queue}"
    return found


def unacked(scene: Scene) -> dict[str, str]:
    """Messages that a worker has taken and keeps."""
    return {tag: f"{task} ({tag})" for tag, task in scene.unacked.items() if task.startswith("postbacks.")}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
