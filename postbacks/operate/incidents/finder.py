"""Finder: a duty that looks every few seconds for what stands wrong, and keeps the incidents and their notices.

All of a look is one transaction, which holds only while the recorder works: a look that dies is as if it had not been. The
log gets a notice once it is stored; one whose line was not written before a death gets it from the next finder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.history.transactions import reading
from postbacks.killpoints import reach
from postbacks.logs import EventLog
from postbacks.monitor import moments
from postbacks.operate.incidents import course, receivers, store, words
from postbacks.operate.incidents.conditions import Condition, Incomplete, Look
from postbacks.operate.incidents.course import NOTHING, Seen, advance
from postbacks.operate.incidents.notices import make_notice, write_to_log
from postbacks.operate.incidents.sources import SOURCES
from postbacks.operate.incidents.store import Incident

if TYPE_CHECKING:
    import redis
    from sqlalchemy import Connection

    from postbacks.history.recorder import Recorder
    from postbacks.operate.incidents.conditions import Source
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds between two looks; a look that takes long makes the next one wait for ``REST`` times as long.
EVERY_S: Final = 10.0
REST: Final = 20
#: Time after which an incident of which nothing is new is written again: its course needs the time of its last look.
SAVE_AFTER_MS: Final = 30_000
#: Incidents of a kind that open at one look up to which each is told; more are told as one.
EACH_MAX: Final = 20
#: Kind of the incident that stands for them, and how many of them must still stand.
MANY: Final = "many"
MANY_DOWN_TO: Final = 10
#: Incidents of a look whose words are looked up in full, and the age of words at which they are.
REFINED_MAX: Final = 25
REFINE_AFTER_MS: Final = 60_000
#: Lines that a turn writes to the log at most.
LINES_MAX: Final = 100
#: Seconds between two prunings, and incidents of one.
PRUNE_EVERY_S: Final = 600.0
PRUNE_MAX: Final = 1000
_DAY_MS: Final = 86_400_000


class Finder:
    """Duty that finds incidents.

    Args:
        recorder: the recorder beside which it works.
        client: the broker's.
        settings: from when on what stands is an incident, and whether there is a webhook.
        clock_offset_ms: added to the broker's clock, so that tests can move time.
        sources: what is asked for conditions; None for all that there are.
    """

    name = "incidents"

    def __init__(
        self,
        recorder: Recorder,
        client: redis.Redis,
        settings: Settings,
        *,
        clock_offset_ms: int = 0,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self._recorder = recorder
        self._client = client
        self._settings = settings
        self._receivers = receivers.Receivers()
        known: dict[str, Source] = {receivers.KIND: self._receivers, **SOURCES}
        self._sources = known if sources is None else sources
        self._prune_s = 0.0
        self.clock_offset_ms = clock_offset_ms

    def turn(self) -> float:
        """Look once; return the seconds until the next look.

        Raises:
            BrokerError: the broker cannot be asked; nothing has changed.
            HistoryError: the database cannot be used; nothing has changed.
        """
        began_s = time.monotonic()
        self._log_what_is_stored()
        with broker_errors():
            at_ms = now_ms(self._client) + self.clock_offset_ms
        look = Look(self._client, self._recorder.engine, self._settings, at_ms, self.clock_offset_ms)
        self._keep(look)
        reach("after:notice-store")
        self._log_what_is_stored()
        self._prune(at_ms)
        return max(EVERY_S, REST * (time.monotonic() - began_s))

    def _keep(self, look: Look) -> None:
        standing, incomplete = self._ask(look)
        with reading(look.engine) as connection:
            known = store.current(connection, look.now_ms)
        changes = _Changes(look, known, self._receivers)
        for key in [*standing, *(key for key in known if key not in standing)]:
            kind = key.partition(":")[0]
            condition = standing.get(key)
            if kind == MANY or (condition is None and (kind in incomplete or kind not in self._sources)):
                continue
            changes.take(key, condition)
        changes.gather_many()
        changes.look_up()
        if changes.is_empty:
            return
        with self._recorder.transaction() as connection:
            changes.write(connection)

    def _ask(self, look: Look) -> tuple[dict[str, Condition], set[str]]:
        """Ask all sources; return what stands by its key, and the kinds of which there is more."""
        standing: dict[str, Condition] = {}
        incomplete: set[str] = set()
        for kind, source in self._sources.items():
            try:
                for condition in source(look):
                    standing[condition.key] = condition
            except Incomplete:
                incomplete.add(kind)
        return standing, incomplete

    def _log_what_is_stored(self) -> None:
        with reading(self._recorder.engine) as connection:
            notices = store.unlogged(connection, LINES_MAX)
        if not notices:
            return
        for notice in notices:
            write_to_log(notice)
        with self._recorder.transaction() as connection:
            store.mark_logged(connection, [notice.id for notice in notices])

    def _prune(self, at_ms: int) -> None:
        if time.monotonic() < self._prune_s:
            return
        self._prune_s = time.monotonic() + PRUNE_EVERY_S
        before_ms = at_ms - int(self._settings.history_postbacks_days * _DAY_MS)
        with self._recorder.transaction() as connection:
            store.prune(connection, before_ms, PRUNE_MAX)


class _Changes:
    """Changes of one look, before they are written.

    Args:
        look: the look.
        known: the incidents that are open or may come back, by key.
        of_receivers: the source that knows how an endpoint's incident has ended.
    """

    def __init__(self, look: Look, known: Mapping[str, Incident], of_receivers: receivers.Receivers) -> None:
        self._look = look
        self._receivers = of_receivers
        self._known = known
        self._after = dict(known)
        self._changed: dict[str, str] = {}
        self._conditions: dict[str, Condition] = {}
        self._to_save: set[str] = set()
        self._parts_of: dict[
            str, str
        ] = {}  # key of an incident that opens -> key of the one that stands for it

    @property
    def is_empty(self) -> bool:
        """True where nothing is to be written."""
        return not self._to_save

    def take(self, key: str, condition: Condition | None) -> None:
        """Take what stands of one key, or that it does not stand."""
        now_ms, before = self._look.now_ms, self._known.get(key)
        if condition is not None:
            self._conditions[key] = condition
        seen = None if condition is None else Seen(condition.opens, condition.size, condition.level)
        after, change = advance(None if before is None else before.course, seen, now_ms)
        if after is None:
            return
        if before is None or (change == course.OPENED):
            self._after[key] = _incident_of(condition, after, now_ms)  # type: ignore[arg-type]
        else:
            self._after[key] = replace(before, course=after)
            if condition is not None and change == course.CAME_BACK:
                self._after[key] = replace(_reworded(self._after[key], condition, now_ms), refined_ms=0)
            elif condition is not None and after.is_open:
                self._after[key] = replace(self._after[key], size=condition.size)
        if change != NOTHING:
            self._changed[key] = change
        elif before is not None and before.withheld and before.is_open and not before.is_muted(now_ms):
            self._changed[key] = course.GREW  # what a mute has withheld is told behind it
        is_old = before is None or now_ms - before.course.looked_ms >= SAVE_AFTER_MS
        began_quiet = before is not None and bool(before.course.quiet_ms) != bool(after.quiet_ms)
        if key in self._changed or (after.is_open and (is_old or began_quiet)):
            self._to_save.add(key)

    # -- many at once ------------------------------------------------------------------------------

    def gather_many(self) -> None:
        """Let one incident stand for those of its kind that have opened at this look, where they are many."""
        opened: dict[str, list[str]] = {}
        for key, change in self._changed.items():
            if change in {course.OPENED, course.CAME_BACK}:
                opened.setdefault(key.partition(":")[0], []).append(key)
        kinds = {incident.subject for incident in self._known.values() if incident.kind == MANY}
        for kind in sorted({*opened, *kinds}):
            self._gather(kind, opened.get(kind, []))

    def _gather(self, kind: str, opened: list[str]) -> None:
        key = f"{MANY}:{kind}"
        before = self._known.get(key)
        is_open = before is not None and before.is_open
        parts = [
            incident
            for incident in self._after.values()
            if incident.is_open and is_open and before is not None and incident.part_of == before.id
        ]
        if len(opened) > EACH_MAX or is_open:
            self._parts_of |= dict.fromkeys(opened, key)
            parts += [self._after[part] for part in opened]
        condition = _many(kind, parts, self._look.now_ms) if len(parts) >= MANY_DOWN_TO else None
        self.take(key, condition)

    # -- words -------------------------------------------------------------------------------------

    def look_up(self) -> None:
        """Look up in full what is told, and some of what was not looked up for a while."""
        now_ms = self._look.now_ms
        keys = [key for key in self._changed if key not in self._parts_of]
        old = sorted(
            (incident.refined_ms, key)
            for key, incident in self._after.items()
            if key in self._conditions
            and incident.is_open
            and now_ms - incident.refined_ms >= REFINE_AFTER_MS
        )
        keys += [key for _, key in old if key not in self._changed]
        for key in keys[:REFINED_MAX]:
            incident = self._after[key]
            if incident.is_open and key in self._conditions:
                condition = self._conditions[key]
                refined = condition.refine() if condition.refine is not None else condition
                self._after[key] = _reworded(incident, refined, now_ms)
                self._to_save.add(key)
        for key in self._changed:
            if not self._after[key].is_open:
                self._after[key] = self._ended(self._after[key])

    def _ended(self, incident: Incident) -> Incident:
        """Put an end into words."""
        look = self._look
        if incident.kind == receivers.KIND and incident.accounts:
            ending = self._receivers.ending(look, incident)
            figures = dict(incident.figures) | ending.figures
            return replace(
                incident,
                sentence=ending.sentence,
                advice=ending.advice,
                resend=ending.resend,
                figures=figures,
            )
        since_ms = incident.since_ms or incident.course.opened_ms
        lasted = moments.duration(look.now_ms - incident.course.quiet_ms - since_ms)
        if incident.kind == MANY:
            left = sum(part.is_open and part.part_of == incident.id for part in self._after.values())
            sentence = f"over after {lasted}; {left:,} of them still stand"
            return replace(incident, sentence=sentence, advice="`postbacks incidents` lists them.")
        return replace(incident, sentence=f"over after {lasted}", advice="")

    # -- writing -----------------------------------------------------------------------------------

    def write(self, connection: Connection) -> None:
        """Write incidents, and a notice for each change; what stands for others first, as they name it."""
        numbers = {key: incident.id for key, incident in self._known.items()}
        wholes = {key for key in self._to_save if key.startswith(f"{MANY}:")}
        for keys in (sorted(wholes), sorted(self._to_save - wholes)):
            ready = [self._ready(key, numbers) for key in keys]
            store.save(connection, [incident for incident in ready if incident.id])
            for incident in store.add(connection, [incident for incident in ready if not incident.id]):
                self._after[incident.key] = incident
                numbers[incident.key] = incident.id
        look = self._look
        notices = [
            make_notice(
                self._after[key], change, look.now_ms, look.settings, untold=self._untold(self._after[key])
            )
            for key, change in sorted(self._changed.items())
        ]
        store.add_notices(connection, notices)

    def _ready(self, key: str, numbers: Mapping[str, int]) -> Incident:
        """Return an incident as it is to be written."""
        incident = self._after[key]
        if key in self._parts_of:
            incident = replace(incident, part_of=numbers[self._parts_of[key]])
        if key in self._changed:
            withheld = incident.is_open and incident.is_muted(self._look.now_ms)
            incident = replace(incident, withheld=withheld)
        self._after[key] = incident
        return incident

    def _untold(self, incident: Incident) -> str:
        """Return the state of a notice that is kept and not told; empty for one that is told."""
        if incident.is_muted(self._look.now_ms):
            return store.MUTED
        return store.PART if incident.part_of in self._open_wholes else ""

    @cached_property
    def _open_wholes(self) -> set[int]:
        """Return the numbers of the open incidents that stand for others, once they are written."""
        return {
            incident.id for incident in self._after.values() if incident.kind == MANY and incident.is_open
        }


def _incident_of(condition: Condition, of: course.Course, now_ms: int) -> Incident:
    incident = Incident(
        kind=condition.kind,
        subject=condition.subject,
        title=condition.title,
        sentence=condition.sentence,
        advice=condition.advice,
        first_ms=now_ms,
        course=of,
    )
    return replace(_reworded(incident, condition, now_ms), refined_ms=0)


def _reworded(incident: Incident, condition: Condition, now_ms: int) -> Incident:
    """Return an incident with the words and figures of its condition."""
    since_ms, accounts, figures = condition.since_ms, condition.accounts, dict(condition.figures)
    if incident.course.opened_ms != now_ms:  # whoever was part of it stays part of it
        since_ms = min(filter(None, (incident.since_ms, since_ms)), default=None)
        accounts = tuple(dict.fromkeys((*incident.accounts, *accounts)))[: receivers.ACCOUNTS_MAX]
        if "accounts" in figures:
            figures["accounts"] = max(len(accounts), figures["accounts"], incident.figures.get("accounts", 0))
    return replace(
        incident,
        title=condition.title,
        sentence=condition.sentence,
        advice=condition.advice,
        resend="",
        since_ms=since_ms,
        size=condition.size,
        accounts=accounts,
        figures=figures,
        refined_ms=now_ms,
    )


def _many(kind: str, parts: list[Incident], now_ms: int) -> Condition:
    """Return the condition of many incidents of a kind at once."""
    first = min(parts, key=lambda part: (part.since_ms or now_ms, part.subject))
    since_ms = first.since_ms or first.course.opened_ms
    subjects = [words.host(part.subject) for part in sorted(parts, key=lambda part: part.since_ms or now_ms)]
    is_of_receivers = kind == receivers.KIND
    noun = "endpoint" if is_of_receivers else "incident"
    return Condition(
        kind=MANY,
        subject=kind,
        title="many receivers fail at once" if is_of_receivers else f"many incidents of kind {kind} at once",
        sentence=f"{words.count(len(parts), noun)} since {moments.minute(since_ms, now_ms)}: {words.names(subjects)}; the first: {first.sentence}",
        advice=(
            "So many at once seldom have each a reason of their own: look at the way out of the workers' network, their name "
            "servers, proxy and clock. `postbacks incidents --open` lists them; no notice of each is sent."
        ),
        size=len(parts),
        since_ms=since_ms,
        accounts=tuple(dict.fromkeys(account for part in parts for account in part.accounts))[:20],
        figures={"incidents": len(parts)},
    )
