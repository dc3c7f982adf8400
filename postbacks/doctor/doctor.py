"""The doctor: two looks, what stands in both, and the repairs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postbacks.app import app
from postbacks.doctor import audit, scene
from postbacks.doctor import scripts as moves
from postbacks.doctor.broker_checks import duration, server, size, used_and_limit
from postbacks.doctor.process_checks import DUE_SLACK_S
from postbacks.doctor.table import CHECKS, Check, Look
from postbacks.retry import countdown_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings

#: Seconds between the two looks: two ticks and a claim.
PAUSE_S: Final = 2.5
#: Seconds that a worker has to answer a ping.
PING_S: Final = 1.0
#: Rounds of looking and repairing: leases, then places, then counts, and what they bring to light.
ROUNDS: Final = 6
#: What is repaired together, in this order: a count is right only when everything is in its place.
_STAGES: Final = (
    {"leases-ahead", audit.OWNERLESS},
    {audit.NO_RECORD, audit.NO_PLACE, audit.TWO_PLACES, audit.WRONG_PLACE},
    {audit.PACE, audit.ENDPOINTS, audit.LANES_STUCK, audit.LANES_EMPTY, audit.LANES_TWICE},
    {audit.BACKLOG},
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found: nothing, where all is well."""

    check: Check
    found: Mapping[str, str]

    @property
    def level(self) -> str:
        """``ok``, ``note`` or ``wrong``."""
        return self.check.level if self.found else "ok"

    @property
    def words(self) -> list[str]:
        """What is at fault, each in words."""
        named = self.check.name in audit.FAULTS
        return [f"{key}: {detail}" if named else detail for key, detail in self.found.items()]

    @property
    def sentence(self) -> str:
        """What is wrong, in words, with the first few that are at fault."""
        words, more = self.words[:3], len(self.found) - 3
        return f"{self.check.says}: {'; '.join(words)}{f'; and {more:,} more' if more > 0 else ''}."

    def to_public_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        shown: dict[str, Any] = {"check": self.check.name, "level": self.level}
        if self.found:
            shown |= {
                "says": self.sentence,
                "do": self.check.remedy,
                "fixable": bool(self.check.fix),
                "count": len(self.found),
                "found": dict(list(self.found.items())[:100]),
            }
        return shown


@dataclass(frozen=True, slots=True)
class Repair:
    """What was repaired: the finding, as it stood before."""

    result: Result

    def to_public_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "fixed": self.result.check.name,
            "did": self.result.check.fix,
            "count": len(self.result.found),
            "found": dict(list(self.result.found.items())[:100]),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found, in the order of the table, how the system stands and how far it looked, in a few words."""

    results: tuple[Result, ...]
    facts: tuple[str, ...]
    progress: str

    @property
    def wrong(self) -> list[Result]:
        """What makes the exit code 1."""
        return [result for result in self.results if result.level == "wrong"]

    def found(self, name: str) -> Mapping[str, str]:
        """What a check found."""
        return next(result.found for result in self.results if result.check.name == name)


class Doctor:
    """Examines the system on one broker, and repairs it.

    Args:
        scripts: the scripts of the broker.
        settings: the settings that workers have as well.
        within_s: seconds that a survey of all records may take.
        pause_s: between the two looks, if not ``PAUSE_S``.
        ping: whether workers are asked, through Celery, to answer.
    """

    def __init__(
        self,
        scripts: Scripts,
        settings: Settings,
        *,
        within_s: float = 60,
        pause_s: float | None = None,
        ping: bool = False,
    ) -> None:
        self._scripts = scripts
        self._settings = settings
        self._within_s = within_s
        self._pause_s = PAUSE_S if pause_s is None else pause_s
        self._ping = ping
        self._second: audit.Audit | None = None

    def examine(self) -> Report:
        """Look, and where something seems wrong look again; only what stands both times is reported.

        The second look takes each postback and lane that was suspected alone, in a script that sees all
        its places in one instant: one that moved while the first look passed by is not suspected any more.
        """
        first = Look(self._look(), audit.survey(self._scripts, self._within_s), self._settings)
        found = {check.name: check.find(first) for check in CHECKS}
        last = first
        if any(found[check.name] for check in CHECKS if check.level == "wrong" or check.fix):
            time.sleep(self._pause_s)
            last = Look(self._look(), audit.recheck(self._scripts, first.survey), self._settings)
        self._second = last.survey
        results = [
            Result(
                check,
                # The second survey only looks at what the first suspected.
                check.find(last)
                if check.name in audit.FAULTS
                else _both(found[check.name], check.find(last)),
            )
            for check in CHECKS
        ]
        return Report(tuple(results), _facts(last), _progress(last.survey))

    def _look(self) -> scene.Scene:
        workers = None
        if self._ping:
            answers = app.control.ping(timeout=PING_S)
            workers = sorted(name for answer in answers for name in answer)
        return scene.look(self._scripts, overdue_slack_ms=int(DUE_SLACK_S * 1000), workers=workers)

    def fix(self) -> tuple[Report, list[Repair]]:
        """Examine and repair until nothing is left that can be repaired without guessing.

        Returns:
            The last report, and what was repaired.
        """
        done: list[Repair] = []
        for _ in range(ROUNDS):
            report = self.examine()
            broken = [result for result in report.results if result.found and result.check.fix]
            stage = next((stage for stage in _STAGES if stage & {one.check.name for one in broken}), None)
            if stage is None:
                return report, done
            for result in broken:
                if result.check.name in stage:
                    self._repair(result.check.name, list(result.found))
                    done.append(Repair(result))
        return self.examine(), done

    def _repair(self, name: str, subjects: list[str]) -> None:
        scripts = self._scripts
        tokens = audit.tokens_of_claims(scripts.client)
        if name in _STAGES[0]:
            lease_ms = int(self._settings.claim_lease_s * 1000)
            intake_ms = int(self._settings.intake_lease_s * 1000)
            orphans = subjects if name == audit.OWNERLESS else []
            moves.settle_leases(scripts, lease_ms, intake_ms, int(DUE_SLACK_S * 1000), orphans)
            pause_ms = countdown_ms(self._settings)
            while orphans and scripts.reap(self._settings.release_batch, pause_ms):
                pass
        elif name in _STAGES[1]:
            seen = self._second.seen if self._second else {}
            known = moves.places(scripts, dict.fromkeys(subjects, ()))
            youngest_first = sorted(known, key=lambda place: -place.sequence)
            ids = {place.id: seen.get(place.id, ()) for place in youngest_first}
            moves.places(scripts, ids, tokens, settle=True)
        elif name == audit.ENDPOINTS:
            moves.endpoints(scripts, tokens, settle=True)
        elif name in _STAGES[2]:
            moves.lanes(scripts, subjects, tokens, settle=True)
        else:
            moves.backlogs(scripts, subjects, tokens, settle=True)


def _both(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """What stands in both looks, as it stood in the second."""
    return {key: words for key, words in second.items() if key in first}


def _progress(done: audit.Audit) -> str:
    return done.progress if done.complete else f"{done.progress}: give it more time (--within)"


def _loops(at_work: int, found: audit.Audit) -> str:
    if not (at_work or found.waiting or found.sending):
        return "nothing to deliver just now"  # a worker's loops end when their lanes are empty
    return _several(at_work, "delivering loop")


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _facts(look: Look) -> tuple[str, ...]:
    """How the system stands, in a few lines."""
    now, found = look.scene, look.survey
    used, limit, _ = used_and_limit(now)
    memory = f"{size(used)} of {size(limit)}" if limit else size(used)
    file = f"appendfsync {now.fsync or 'unknown'}" if now.info.get("aof_enabled") else "no append-only file"
    age_s = now.tick_age_s
    tick = "no tick yet" if age_s is None else f"last tick {duration(max(0.0, age_s))} ago"
    loops = sum(1 for ends_ms in now.claimers.values() if ends_ms > now.now_ms)
    heard = ", ".join(_several(len(present.names), kind) for kind, present in now.present.items())
    answered = "" if now.workers is None else f", {len(now.workers)} workers answered"
    postbacks = (
        f"{now.queue:,} to be taken in, {found.waiting:,} waiting, {found.sending:,} claimed, "
        f"{now.sizes['parked']:,} parked, {now.sizes['dead']:,} dead, {now.sizes['done']:,} done"
    )
    return (
        f"{server(now)}, {memory}, {file}",
        f"{tick}, {heard}, {_loops(loops, found)}{answered}",
        postbacks,
    )
