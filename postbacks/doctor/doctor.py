"""The doctor: two inspections, the findings that stand in both, and the repairs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postbacks.app import app
from postbacks.doctor import audit, details
from postbacks.doctor.broker_checks import duration, server, size
from postbacks.doctor.inspection import Inspection
from postbacks.doctor.process_checks import DUE_SLACK_S
from postbacks.doctor.scripts import (
    count_backlogs,
    count_endpoints,
    count_lanes,
    locate,
    repair_leases,
)
from postbacks.doctor.table import CHECKS, Check
from postbacks.monitor import snapshot
from postbacks.retry import countdown_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings

#: Seconds between the two inspections: two ticks and a claim.
PAUSE_S: Final = 2.5
#: Seconds that a worker has to answer a ping.
PING_S: Final = 1.0
#: Rounds of inspecting and repairing: leases, then places, then counts, and what they bring to light.
ROUNDS: Final = 6
#: Findings that JSON output has of one check.
JSON_MAX: Final = 100
#: Checks that are repaired together, in this order: a count is right only when everything is in its place.
_STAGES: Final = (
    {"leases-ahead", audit.ORPHANED_CLAIMS},
    {audit.NO_RECORD, audit.NO_PLACE, audit.TWO_PLACES, audit.WRONG_PLACE},
    {audit.PACE, audit.ENDPOINTS, audit.LANES_STUCK, audit.LANES_EMPTY, audit.LANES_TWICE},
    {audit.BACKLOG},
)


@dataclass(frozen=True, slots=True)
class Result:
    """Findings of one check; none where all is well."""

    check: Check
    findings: Mapping[str, str]

    @property
    def level(self) -> str:
        """``ok``, ``note`` or ``wrong``."""
        return self.check.level if self.findings else "ok"

    @property
    def words(self) -> list[str]:
        """The findings, each in words."""
        named = self.check.name in audit.AUDITED
        return [f"{subject}: {words}" if named else words for subject, words in self.findings.items()]

    @property
    def sentence(self) -> str:
        """The message of the check with the first few findings."""
        words, more = self.words[:3], len(self.findings) - 3
        return f"{self.check.message}: {'; '.join(words)}{f'; and {more:,} more' if more > 0 else ''}."

    def to_public_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        fields: dict[str, Any] = {"check": self.check.name, "level": self.level}
        if self.findings:
            fields |= {
                "says": self.sentence,
                "do": self.check.remedy,
                "fixable": bool(self.check.fix),
                "count": len(self.findings),
                "found": dict(list(self.findings.items())[:JSON_MAX]),
            }
        return fields


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of what one check had found, as it stood before."""

    result: Result

    def to_public_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "fixed": self.result.check.name,
            "did": self.result.check.fix,
            "count": len(self.result.findings),
            "found": dict(list(self.result.findings.items())[:JSON_MAX]),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Results of all checks in the order of the table, how the system stands, and how far the audit came."""

    results: tuple[Result, ...]
    facts: tuple[str, ...]
    progress: str

    @property
    def wrong(self) -> list[Result]:
        """The results that make the exit code 1."""
        return [result for result in self.results if result.level == "wrong"]

    def findings(self, name: str) -> Mapping[str, str]:
        """Return the findings of one check."""
        return next(result.findings for result in self.results if result.check.name == name)


class Doctor:
    """Examines the system on one broker, and repairs it.

    Args:
        scripts: the scripts of the broker.
        settings: the settings that workers have as well.
        within_s: seconds that an audit may take.
        pause_s: between the two inspections, if not ``PAUSE_S``.
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

    def examine(self) -> Report:
        """Inspect, and where something seems wrong inspect again; only what stands both times is reported."""
        return self._examine()[0]

    def _examine(self) -> tuple[Report, Inspection]:
        """Return the report, and the inspection that it is of.

        The second inspection rechecks each postback and lane that was suspected alone, in a script that reads all
        its places in one instant: one that moved during the first audit is not suspected any more.
        """
        first = last = self._inspect(None)
        suspicions = {check.name: check.check(first) for check in CHECKS}
        if any(suspicions[check.name] for check in CHECKS if check.level == "wrong" or check.fix):
            time.sleep(self._pause_s)
            last = self._inspect(first.audit)
        results = [
            Result(
                check,
                # The recheck keeps to what the first audit suspected.
                check.check(last)
                if check.name in audit.AUDITED
                else _in_both(suspicions[check.name], check.check(last)),
            )
            for check in CHECKS
        ]
        return Report(tuple(results), _facts(last), _progress(last.audit)), last

    def _inspect(self, suspicions: audit.Audit | None) -> Inspection:
        """Inspect the system; its postbacks and lanes all, or only those that an audit suspected."""
        scripts, settings = self._scripts, self._settings
        answered = None
        if self._ping:
            answers = app.control.ping(timeout=PING_S)
            answered = sorted(name for answer in answers for name in answer)
        now = snapshot.read(scripts.client, settings, clock_offset_ms=scripts.clock_offset_ms)
        overdue_before_ms = now.now_ms - int(DUE_SLACK_S * 1000)
        return Inspection(
            now,
            details.read(scripts, settings, overdue_before_ms=overdue_before_ms, answered=answered),
            audit.run(scripts, self._within_s) if suspicions is None else audit.recheck(scripts, suspicions),
            settings,
        )

    def fix(self) -> tuple[Report, list[Repair]]:
        """Examine and repair until nothing is left that can be repaired without guessing.

        Returns:
            The last report, and what was repaired.
        """
        repairs: list[Repair] = []
        for _ in range(ROUNDS):
            report, inspection = self._examine()
            broken = [result for result in report.results if result.findings and result.check.fix]
            names = {result.check.name for result in broken}
            stage = next((stage for stage in _STAGES if stage & names), None)
            if stage is None:
                return report, repairs
            for result in broken:
                if result.check.name in stage:
                    self._repair(result.check.name, list(result.findings), inspection.audit)
                    repairs.append(Repair(result))
        return self.examine(), repairs

    def _repair(self, name: str, subjects: list[str], known: audit.Audit) -> None:
        scripts = self._scripts
        tokens = audit.tokens_of_claims(scripts.client)
        if name in _STAGES[0]:
            lease_ms = int(self._settings.claim_lease_s * 1000)
            intake_ms = int(self._settings.intake_lease_s * 1000)
            orphans = subjects if name == audit.ORPHANED_CLAIMS else []
            repair_leases(scripts, lease_ms, intake_ms, int(DUE_SLACK_S * 1000), orphans)
            pause_ms = countdown_ms(self._settings)
            while orphans and scripts.reap(self._settings.release_batch, pause_ms):
                pass
        elif name in _STAGES[1]:
            placements = locate(scripts, dict.fromkeys(subjects, ()))
            youngest_first = sorted(placements, key=lambda placement: -placement.sequence)
            lanes_of = {placement.id: known.lanes_of.get(placement.id, ()) for placement in youngest_first}
            locate(scripts, lanes_of, tokens, repair=True)
        elif name == audit.ENDPOINTS:
            count_endpoints(scripts, tokens, repair=True)
        elif name in _STAGES[2]:
            count_lanes(scripts, subjects, tokens, repair=True)
        else:
            count_backlogs(scripts, subjects, tokens, repair=True)


def _in_both(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the findings that stand both times, as they stood the second time."""
    return {subject: words for subject, words in second.items() if subject in first}


def _progress(done: audit.Audit) -> str:
    return done.progress if done.complete else f"{done.progress}: give it more time (--within)"


def _facts(inspection: Inspection) -> tuple[str, ...]:
    """Say how broker, processes and postbacks stand, in a line each."""
    now, more, counted = inspection.snapshot, inspection.details, inspection.audit
    memory = size(now.used_memory_bytes)
    if now.max_memory_bytes:
        memory += f" of {size(now.max_memory_bytes)}"
    file = f"appendfsync {more.fsync or 'unknown'}" if more.info.get("aof_enabled") else "no append-only file"
    tick = "no tick yet" if now.tick_age_s is None else f"last tick {duration(now.tick_age_s)} ago"
    signs = ", ".join(_several(len(presence.names), kind) for kind, presence in now.presence.items())
    # A worker's loops end when their lanes are empty.
    is_idle = not (now.loops or counted.waiting or counted.sending)
    loops = "nothing to deliver just now" if is_idle else _several(now.loops, "delivering loop")
    answered = "" if more.answered is None else f", {len(more.answered)} workers answered"
    postbacks = (
        f"{now.queued:,} to be taken in, {counted.waiting:,} waiting, {counted.sending:,} claimed, "
        f"{now.parked:,} parked, {now.dead:,} dead, {now.done:,} done"
    )
    return (
        f"{server(more.info)}, {memory}, {file}",
        f"{tick}, {signs}, {loops}{answered}",
        postbacks,
    )


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
