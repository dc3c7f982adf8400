"""Causes why a postback has not been sent: each a clause with figures, from its situation in the broker.

``CLAUSES`` has them all. What the broker cannot tell (what a loop has in its memory, whether the account store answers)
is no cause here; the clause that comes nearest says where to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.accounts.routing import reason_words
from postbacks.broker.errors import FULL
from postbacks.ledger import states
from postbacks.ledger.record import iso
from postbacks.monitor import moments
from postbacks.monitor.presence import is_tick_missing, missing
from postbacks.monitor.situation import POSITION_MAX, TURN_MAX, Ended, Queued, read
from postbacks.queue import routes
from postbacks.queue.shares import NOTHING_IN_FROM
from postbacks.version import worker_of

if TYPE_CHECKING:
    import redis

    from postbacks.ledger.ledger import Claim
    from postbacks.ledger.record import Record
    from postbacks.monitor.situation import Endpoint, Standing
    from postbacks.settings import Settings

#: Clause of each cause. A figure with a noun behind the colon is a number of it, one with ``~`` a time.
CLAUSES: Final = {
    # what moves every postback
    "broker_refuses": "the broker takes no writes: {words}",
    "no_tick": "no tick has {words}",
    "no_worker": "no worker has been heard of{words}: start one (celery -A postbacks worker)",
    "no_beat": "no beat has been heard of{words}: start one (celery -A postbacks beat)",
    # not taken in yet
    "in_queue": "it waits in Celery's queue for a tick, {ahead:message} before it",
    "in_intake": "a tick has taken it from Celery's queue, {ahead:message} before it; {words} {until:~}",
    "queue_not_emptied": (
        "ticks finish and have not emptied the queue since {since:~}: more comes than they take in, or the account store "
        "fails (the workers' logs say tick.accounts_unavailable)"
    ),
    "memory_full": "the broker's memory is full to {percent}%: from 110% on nothing is taken in until something has ended",
    # in its lane
    "behind": "behind {words} of its account's postbacks in group {group}",
    "account_paused": "its account is paused since {since:~}, until {words}",
    "account_still": "its account stands still: it {words}",
    "rate": "its account's rate of {rate} lets the next POST begin at {at:~}",
    "account_limit": "its account has {open:POST} open of at most {limit}{words}",
    "endpoint_limit": "{endpoint} has {open:POST} open{words} (POSTBACKS_ENDPOINT_MAX_TRANSFERS)",
    "slow_start": "{endpoint} {words} {since:~}: it starts slowly, with {limit:POST} at a time, {open} open",
    "probe": "its receiver has failed since {since:~}: one POST at a time{words}",
    "lane_limit": "its lane has {open:POST} open{words} of at most {limit} just now",
    "priority": "{count:postback} of its account's {groups} go first",
    "turn": "its lane is ready: {words}, {loops:delivering loop} at work",
    "no_turn": "its lane has no turn, so no loop comes to it: postbacks doctor --fix gives it one",
    "misplaced": "its record says {state}, and it stands nowhere: postbacks doctor --fix puts it where it belongs",
    # in the quarantine
    "quarantine": (
        "it was in flight when its process died, so an examiner tries it {words}; {count:postback} in quarantine"
    ),
    # parked
    "countdown": "its caller wants it sent at {at:~}",
    "resend": "attempt {failed} failed ({failure}); attempt {attempt} of {of} is due at {at:~}{words}",
    "put_off": "put off without an attempt until {at:~}: {words}",
    "pause": "its process died while it was sent alone; it is tried alone again at {at:~}",
    "overdue": "it was due at {since:~}, and no tick or loop has released it",
    # at a loop
    "held": "held by {words}: no POST of it has begun",
    "open": "attempt {attempt} is under way since {since:~}, by {words}",
    "lease_over": "{words}; a tick takes it over",
    "revoked": "it was revoked: {words}",
}  # fmt: skip

#: Milliseconds after which what is due is overdue: ticks come every second.
OVERDUE_MS: Final = 2500
#: Milliseconds for which an endpoint has to take no connection before it starts slowly (``queue/_slow_start.lua``).
SLOW_START_AFTER_MS: Final = 10_000
#: Microseconds that a rate catches up with (``queue/_pacing.lua``).
BURST_US: Final = 50_000
#: Words for room that is free and that a lane waits for all the same.
_REST: Final = "; the rest has just come free, or is kept for the quarantine"
#: Words for the rings that lanes take turns in.
RING_WORDS: Final = {"trusted": "answer in time", "suspect": "are new, slow or failing"}
#: Groups that those of weight 0 give way to (``queue/_priority.lua``).
URGENT: Final = ("general", "mo")


class Cause(NamedTuple):
    """Cause why a postback has not been sent.

    Attributes:
        name: key of ``CLAUSES``.
        sentence: the clause with its figures.
        figures: by name; times as ISO 8601.
    """

    name: str
    sentence: str
    figures: Mapping[str, Any]

    def to_public_dict(self) -> dict[str, Any]:
        """Return the cause as ``postbacks show --json`` prints it."""
        return {"cause": self.name, "sentence": self.sentence, **self.figures}


class Explanation(NamedTuple):
    """Answer to why a postback has not been sent.

    Attributes:
        record: its record; None where the ledger has none.
        claim: the loop that has it.
        causes: the most decisive first; none of what has ended.
        looked_at: messages of Celery's queue that were looked at for it, and how many there are; of one without a record.
    """

    record: Record | None
    claim: Claim | None
    causes: tuple[Cause, ...]
    looked_at: tuple[int, int] = (0, 0)


def explain(
    client: redis.Redis, postback_id: str, settings: Settings, *, clock_offset_ms: int = 0
) -> Explanation:
    """Say why a postback has not been sent; ``situation.read`` says how much the broker is asked for it.

    Args:
        client: the broker's.
        postback_id: its id.
        settings: for what no worker tells the broker: resends, weights of groups, the age of a tick that is late.
        clock_offset_ms: added to the broker's clock, so that tests can move time.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    situation = read(client, postback_id, clock_offset_ms=clock_offset_ms)
    if isinstance(situation, Ended):
        return Explanation(situation.record, None, ())
    if isinstance(situation, Queued):
        causes = tuple(_of_message(situation, settings))
        return Explanation(None, None, causes, (situation.looked_at, situation.waiting))
    return Explanation(situation.record, situation.claim, tuple(_of_record(situation, settings)))


# -- the parts of a clause ----------------------------------------------------------------------


class _Figure(NamedTuple):
    """Figure of a clause, formatted as ``CLAUSES`` says."""

    value: Any
    now_ms: int

    def __format__(self, spec: str) -> str:
        if spec == "~":
            return _moment(self.value, self.now_ms)
        if isinstance(self.value, int):
            plural = "s" if spec and self.value != 1 else ""
            return f"{self.value:,} {spec}{plural}".rstrip()
        return str(self.value)


#: Figures that are times, in ms.
_TIMES: Final = frozenset({"since", "at", "until", "examined"})


def _cause(now_ms: int, name: str, *, words: str = "", **figures: Any) -> Cause:
    formatted = {figure: _Figure(value, now_ms) for figure, value in figures.items()}
    times = {figure: iso(value) for figure, value in figures.items() if figure in _TIMES}
    return Cause(name, CLAUSES[name].format(words=words, **formatted), figures | times)


def _moment(at_ms: int | None, now_ms: int) -> str:
    """Put a time into words: the clock's, and how long ago or in how long."""
    if at_ms is None:
        return "an unknown time"
    away = _span(abs(at_ms - now_ms) / 1000)
    return f"{moments.second(at_ms, now_ms)} ({f'in {away}' if at_ms > now_ms else f'{away} ago'})"


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size_s, name, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size_s:
            return f"{seconds // size_s:.0f} {name} {seconds % size_s // part_s:.0f} {part}"
    return f"{seconds:.0f} s"


def _bound(exact: bool) -> str:
    return "" if exact else "more than "


def _rate_text(interval_us: int) -> str:
    per_s = 1_000_000 / interval_us
    return f"{per_s:g}/s" if per_s >= 1 else f"{per_s * 60:g}/min"


# -- what moves every postback ------------------------------------------------------------------


def _of_system(situation: Queued | Standing, settings: Settings) -> Iterator[Cause]:
    """Yield what keeps every postback: a broker that takes no writes, missing ticks, and who is missing for them."""
    now_ms, system = situation.now_ms, situation.system
    # A full broker takes all moves of what was accepted, and no move waits for replicas.
    if system.refusal and FULL not in system.refusal and "POSTBACKS_WAIT_REPLICAS" not in system.refusal:
        yield _cause(now_ms, "broker_refuses", words=system.refusal)
    tick_ms = system.last_tick_ms
    if not is_tick_missing(tick_ms, now_ms, settings.health_tick_age_s):
        return
    words = "ever finished" if tick_ms is None else f"finished since {_moment(tick_ms, now_ms)}"
    yield _cause(now_ms, "no_tick", words=words, since=tick_ms)
    for kind, presence in missing(system.refusal, system.workers, system.beats).items():
        if not (kind == "worker" and system.loops):  # a worker of an older version gives no signs
            yield _cause(now_ms, f"no_{kind}", words=presence.since, since=presence.last_ms)


# -- not taken in yet ---------------------------------------------------------------------------


def _of_message(queued: Queued, settings: Settings) -> Iterator[Cause]:
    now_ms, system = queued.now_ms, queued.system
    if queued.lease_ms is not None:
        ends = (
            "its lease ends at"
            if queued.lease_ms > now_ms
            else "the next one accepts it, as its lease ended at"
        )
        yield _cause(now_ms, "in_intake", words=ends, ahead=queued.ahead, until=queued.lease_ms)
    elif queued.ahead is not None:
        yield _cause(now_ms, "in_queue", ahead=queued.ahead)
    if not queued.waiting:
        return
    if system.memory_share >= NOTHING_IN_FROM:
        yield _cause(now_ms, "memory_full", percent=round(system.memory_share * 100))
    missing = tuple(_of_system(queued, settings))
    yield from missing
    emptied_ms = system.emptied_ms
    if not missing and emptied_ms is not None and now_ms - emptied_ms > settings.health_tick_age_s * 1000:
        yield _cause(now_ms, "queue_not_emptied", since=emptied_ms)


# -- a record that has not ended ----------------------------------------------------------------


def _of_record(standing: Standing, settings: Settings) -> Iterator[Cause]:
    if standing.record.state not in {*states.STATES, states.HELD}:
        return  # a newer version's: where it should stand is not known here
    if not standing.in_place:
        yield _cause(standing.now_ms, "misplaced", state=standing.record.state)
    elif standing.record.state == states.PARKED:
        yield from _of_countdown(standing, settings)
    elif standing.record.state == states.WAITING:
        yield from _of_system(standing, settings)
        yield from _of_quarantine(standing, settings) if standing.quarantine else _of_lane(standing, settings)
    else:
        yield from _of_claim(standing, settings)


def _of_countdown(standing: Standing, settings: Settings) -> Iterator[Cause]:
    now_ms, record, at_ms = standing.now_ms, standing.record, standing.record.next_ms
    last = record.attempts[-1] if record.attempts else None
    if record.reason:
        words = reason_words(record.reason, record.origin)
        yield _cause(now_ms, "put_off", words=words, at=at_ms, reason=record.reason)
    elif standing.account.state in routes.STILL_WORDS and b"suspicion" in standing.fields:
        yield _still(standing, at_ms)
    elif standing.fields.keys() & {b"alone_deaths", b"alone_lapses"}:
        yield _cause(now_ms, "pause", at=at_ms)
    elif b"suspicion" in standing.fields:  # `examine.lua` parks what stands still
        yield _cause(now_ms, "put_off", words="its account stood still", at=at_ms, reason=None)
    elif last is None:
        yield _cause(now_ms, "countdown", at=at_ms)
    else:
        of = len(record.attempts) + 1 + settings.max_resends - record.failures
        yield _cause(
            now_ms,
            "resend",
            words="; if it fails, the postback is dead" if last.number + 1 == of else "",
            failed=last.number,
            failure=f"answered {last.status}" if last.status else last.outcome.replace("_", " "),
            outcome=last.outcome,
            attempt=last.number + 1,
            of=of,
            at=at_ms,
        )
    yield from _of_pause(standing)
    if at_ms is not None and now_ms - at_ms > OVERDUE_MS:
        yield _cause(now_ms, "overdue", since=at_ms)
        yield from _of_system(standing, settings)


def _of_quarantine(standing: Standing, settings: Settings) -> Iterator[Cause]:
    now_ms, quarantine = standing.now_ms, standing.quarantine
    if quarantine is not None:
        words = "alone" if quarantine.alone else "with a few others"
        if quarantine.examined_ms is not None:
            words += f", and last looked at {_moment(quarantine.examined_ms, now_ms)}"
        yield _cause(
            now_ms, "quarantine", words=words, alone=quarantine.alone, count=quarantine.size,
            examined=quarantine.examined_ms,
        )  # fmt: skip
    yield from _of_pause(standing)
    yield from _of_gates(standing, settings, ahead_us=standing.account.interval_us)


def _of_claim(standing: Standing, settings: Settings) -> Iterator[Cause]:
    """Yield who has it, since when its POST is open, or what that waits for."""
    now_ms, claim = standing.now_ms, standing.claim
    if claim is None:
        return
    worker, loop = worker_of(claim.token) or None, claim.token.partition("@")[0]
    by = f"worker {worker}" if worker else f"loop {loop[:12]} of an older worker"
    is_held = claim.attempt is None
    if is_held:
        yield _cause(now_ms, "held", words=by, worker=worker, loop=loop)
    else:
        yield _cause(
            now_ms, "open", words=by, attempt=claim.attempt, since=claim.since_ms, worker=worker, loop=loop
        )
    if b"cancel" in standing.fields:
        words = "it ends instead of being sent" if is_held else "should its POST fail, it is not sent again"
        yield _cause(now_ms, "revoked", words=words)
    if claim.ends_ms < now_ms:
        words = "its process has died" if not claim.ends_ms else "the lease of its loop has ended"
        yield _cause(now_ms, "lease_over", words=words, since=claim.ends_ms or None)
        yield from _of_system(standing, settings)
    yield from _of_pause(standing)
    if is_held:
        yield from _of_probe(standing)
        yield from _of_slow_start(standing)
        yield from _of_gates(standing, settings)


def _of_lane(standing: Standing, settings: Settings) -> Iterator[Cause]:
    """Yield what is before it in its lane, and what its lane waits for."""
    now_ms, lane, account, endpoint = standing.now_ms, standing.lane, standing.account, standing.endpoint
    lane_state, group = lane.state, standing.record.group
    ahead, exact = (POSITION_MAX, False) if lane.ahead is None else (lane.ahead, True)
    if ahead:
        words = f"{_bound(exact)}{ahead:,}"
        yield _cause(now_ms, "behind", words=words, ahead=ahead, exact=exact, group=group)
    if account.state in routes.STILL_WORDS:
        yield _still(standing, lane.delayed_until_ms)
        yield from _of_pause(standing)
        return
    if account.pause is not None:
        yield from _of_pause(standing)
        return
    yield from _of_probe(standing)
    yield from _of_slow_start(standing)
    if lane.delayed_until_ms is not None and account.interval_us:
        yield _rate(standing, lane.delayed_until_ms)
    elif account.waits_ms is not None:
        yield _account_limit(standing)
    elif endpoint.waits_ms is not None:
        if not _start_limit(endpoint, now_ms):
            yield _endpoint_limit(standing, settings)
    elif not lane_state.claimable:
        if not lane_state.failing:
            words = f" and {lane_state.held:,} held" if lane_state.held else ""
            yield _cause(
                now_ms,
                "lane_limit",
                words=words,
                open=lane_state.open,
                held=lane_state.held,
                limit=lane_state.limit,
            )
    elif lane.ring:
        before, exact = (TURN_MAX, False) if lane.turn is None else (lane.turn, True)
        lanes = f"{_bound(exact)}{_Figure(before, now_ms):lane} before it"
        words = f"{lanes} among those that {RING_WORDS[lane.ring]}"
        loops = standing.system.loops
        yield _cause(now_ms, "turn", words=words, before=before, exact=exact, ring=lane.ring, loops=loops)
    else:
        yield _cause(now_ms, "no_turn")
    yield from _of_priority(standing, settings)


# -- what more than one kind waits for ----------------------------------------------------------


def _of_pause(standing: Standing) -> Iterator[Cause]:
    """Yield that the account is paused: since when, until when, by whom and why."""
    pause, now_ms = standing.account.pause, standing.now_ms
    if pause is None:
        return
    words = f"`postbacks account resume {pause.account}`"
    if pause.until_ms is not None:
        words = f"{_moment(pause.until_ms, now_ms)} or {words}"
    said = ", ".join(filter(None, (pause.by and f"by {pause.by}", pause.reason and f"{pause.reason!r}")))
    words += f" (paused {said})" if said else ""
    yield _cause(
        now_ms, "account_paused", words=words, since=pause.since_ms, until=pause.until_ms, by=pause.by or None,
        reason=pause.reason or None,
    )  # fmt: skip


def _still(standing: Standing, at_ms: int | None) -> Cause:
    state = standing.account.state
    again = "" if at_ms is None else f"; looked at again at {_moment(at_ms, standing.now_ms)}"
    words = routes.STILL_WORDS[state] + again
    return _cause(standing.now_ms, "account_still", words=words, account_state=state, at=at_ms)


def _rate(standing: Standing, at_ms: int) -> Cause:
    return _cause(standing.now_ms, "rate", rate=_rate_text(standing.account.interval_us), at=at_ms)


def _account_limit(standing: Standing) -> Cause:
    account = standing.account
    words = _REST if account.open < account.most else ""
    return _cause(standing.now_ms, "account_limit", words=words, open=account.open, limit=account.most)


def _endpoint_limit(standing: Standing, settings: Settings) -> Cause:
    endpoint, most = standing.endpoint, settings.endpoint_max_transfers
    words = f" of at most {most:,}" if most else ", and no room for more"
    words += _REST if endpoint.open < most else ""
    return _cause(standing.now_ms, "endpoint_limit", words=words, endpoint=endpoint.name, open=endpoint.open)


def _of_priority(standing: Standing, settings: Settings) -> Iterator[Cause]:
    """Yield how many of its account's go first, where its group gives way (``queue/_priority.lua``)."""
    account, group = standing.account, standing.record.group
    weights = dict(part.split("=") for part in settings.group_weights.split(","))
    has_own = bool(account.interval_us or account.most)
    if weights.get(group) != "0" or (standing.lane.state.failing and not has_own):
        return
    groups = [
        other for other in URGENT
        if other != group and weights[other] != "0" and account.lane_states[other].waiting and not account.lane_states[other].failing
    ]  # fmt: skip
    if groups:
        count = sum(account.lane_states[other].waiting for other in groups)
        yield _cause(standing.now_ms, "priority", count=count, groups=" and ".join(groups))


def _of_probe(standing: Standing) -> Iterator[Cause]:
    lane_state = standing.lane.state
    if lane_state.failing:
        parts = [f"{lane_state.open:,} open"] if lane_state.open else []
        parts += [f"{lane_state.held:,} held"] if lane_state.held else []
        words = "".join(f", {part}" for part in parts)
        yield _cause(
            standing.now_ms,
            "probe",
            words=words,
            since=standing.lane.failing_ms,
            open=lane_state.open,
            held=lane_state.held,
        )


def _start_limit(endpoint: Endpoint, now_ms: int) -> int:
    """Return how many POSTs an endpoint's slow start lets be open now; 0 for any number (``_slow_start.lua``)."""
    start = endpoint.start
    if start is None:
        return 0
    if not start.limit and now_ms - start.since_ms >= SLOW_START_AFTER_MS:
        return 1
    rests = not endpoint.open and now_ms - start.last_ms >= SLOW_START_AFTER_MS
    return 1 if start.limit and rests else start.limit


def _of_slow_start(standing: Standing) -> Iterator[Cause]:
    now_ms, endpoint = standing.now_ms, standing.endpoint
    limit = _start_limit(endpoint, now_ms)
    if endpoint.start is not None and limit:
        words = "took its last connection at" if endpoint.start.is_up else "has taken no connection since"
        yield _cause(
            now_ms, "slow_start", words=words, endpoint=endpoint.name, since=endpoint.start.since_ms, limit=limit,
            open=endpoint.open,
        )  # fmt: skip


def _of_gates(standing: Standing, settings: Settings, ahead_us: int = 0) -> Iterator[Cause]:
    """Yield what a postback waits for whose lane does not wait in its stead: one that is held, or in the quarantine.

    Args:
        standing: of the postback.
        settings: for the endpoints' limit, which the broker does not know.
        ahead_us: how much sooner than the lanes it may take a POST of its account's rate.
    """
    now_ms, account, endpoint = standing.now_ms, standing.account, standing.endpoint
    at_ms = -(-(account.next_us - BURST_US - ahead_us) // 1000)
    if account.interval_us and at_ms > now_ms:
        yield _rate(standing, at_ms)
    if account.most and account.open >= account.most:
        yield _account_limit(standing)
    if 0 < settings.endpoint_max_transfers <= endpoint.open:
        yield _endpoint_limit(standing, settings)
