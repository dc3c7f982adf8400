"""Snapshot of the whole system, which metrics, health and doctor show and judge.

A reading costs the broker a bounded number of commands and the caller a bounded number of seconds. One pipeline reads
all that is a count already. What waits stands in lanes, four an account: a script (``snapshot.lua``) goes over the
accounts that have anything, in pages of ``PAGE`` and ``PAGES_MAX`` at most. A page holds the broker for some milliseconds
(docs/monitoring.md has the figure).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker import lua
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import takes_signs, why_refused
from postbacks.monitor.presence import Presence, find_present, is_tick_missing, missing
from postbacks.retry import countdown_ms

if TYPE_CHECKING:
    import redis

    from postbacks.history.status import FeedStatus
    from postbacks.queue.pauses import Pause
    from postbacks.settings import Settings

#: Seconds of nothing but failed attempts in one of its lanes after which an account is down.
DOWN_AFTER_S: Final = 3600
#: Failing lanes that are checked for that, those first that have failed for the longest.
FAILING_MAX: Final = 500
#: Accounts that one call of the script goes over, about (HSCAN).
PAGE: Final = 200
#: Pages of one reading: 20,000 accounts with postbacks on their way.
PAGES_MAX: Final = 100
#: Claims of one loop that are counted one by one.
COUNT_MAX: Final = 2500


@dataclass(slots=True)
class Waiting:
    """Postbacks that wait in the lanes of one group, apart for failing lanes and others.

    Attributes:
        group: of the lanes.
        failing: whether these are the lanes whose last POST failed.
        count: postbacks in them.
        oldest_s: seconds since the longest waiting one could be sent; 0 where none waits.
        oldest_account: account of that one.
        longest: postbacks in the longest of the lanes.
        longest_account: account of that lane.
    """

    group: str
    failing: bool
    count: int = 0
    oldest_s: float = 0.0
    oldest_account: str = ""
    longest: int = 0
    longest_account: str = ""

    @property
    def oldest_lane(self) -> str:
        """Name of the lane of the longest waiting postback; empty where none waits."""
        return keys.lane_name(self.oldest_account, self.group) if self.oldest_account else ""

    @property
    def longest_lane(self) -> str:
        """Name of the lane with the most postbacks; empty where none waits."""
        return keys.lane_name(self.longest_account, self.group) if self.longest else ""


class Still(NamedTuple):
    """An account for which nothing can be sent while postbacks of it wait.

    Attributes:
        state: why (``queue/routes.py``).
        since_ms: when it came into that state.
        waiting: postbacks in its lanes.
    """

    state: str
    since_ms: int
    waiting: int


@dataclass(slots=True)
class Snapshot:
    """The system at one moment, on the broker's clock.

    Attributes:
        now_ms: the moment.
        took_s: how long the reading took.
        complete: False where there were more accounts than one reading goes over.
        refusal: why the broker would refuse a postback, and what to do; empty where it would take it.
        workers: those that give signs of life.
        beats: those that give signs of life.
        last_tick_ms: when a tick last finished; None if none ever has.
        queued: messages in Celery's queue.
        intake: messages that a tick has taken from there and not yet accepted.
        intake_lease_ms: when the lease on them ends; None where no tick holds one.
        work: wake-ups in the workers' queue.
        waiting: by group and by whether the lane fails; without those of ``still`` and ``paused``.
        still: the accounts that stand still.
        paused: the accounts that are paused, as far as anything of them waits.
        accounts_paused: how many are paused.
        quarantined: in flight when their process died; an examiner tries them.
        starting: endpoints that have failed to connect and are not yet as before.
        parked: waiting for a countdown.
        parked_overdue_s: seconds since the first countdown ended that no tick has seen to.
        done: delivered, skipped and cancelled ones in the ledger.
        dead: dead ones in the ledger.
        leases: token of a delivering loop -> when its lease ends, 0 if the loop was seen to die.
        claimed: postbacks in claims.
        in_flight: of them those whose POST may be open.
        accounts: accounts with the most open postbacks, and how many.
        down: accounts that are down -> seconds since when, those first that have been for the longest.
        totals: counts over all workers (``delivery/counters.py``).
        used_memory_bytes: of the broker.
        max_memory_bytes: of the broker; the machine's where it has no limit.
        ledger_bytes: memory that records take, estimated.
        history: feed and recorder of the history; None where none was ever turned on.
    """

    now_ms: int = 0
    took_s: float = 0.0
    complete: bool = True
    refusal: str = ""
    workers: Presence = field(default_factory=Presence)
    beats: Presence = field(default_factory=Presence)
    last_tick_ms: int | None = None
    queued: int = 0
    intake: int = 0
    intake_lease_ms: int | None = None
    work: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    still: dict[str, Still] = field(default_factory=dict)
    paused: dict[str, Pause] = field(default_factory=dict)
    accounts_paused: int = 0
    quarantined: int = 0
    starting: int = 0
    parked: int = 0
    parked_overdue_s: float = 0.0
    done: int = 0
    dead: int = 0
    leases: dict[str, int] = field(default_factory=dict)
    claimed: int = 0
    in_flight: int = 0
    accounts: list[tuple[str, int]] = field(default_factory=list)
    down: dict[str, float] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    used_memory_bytes: int = 0
    max_memory_bytes: int = 0
    ledger_bytes: int = 0
    history: FeedStatus | None = None

    @property
    def tick_age_s(self) -> float | None:
        """Seconds since a tick last finished; None if none ever has."""
        return None if self.last_tick_ms is None else max(0.0, (self.now_ms - self.last_tick_ms) / 1000)

    def tick_missing_for(self, limit_s: float) -> bool:
        """Tell whether no tick has finished within so many seconds."""
        return is_tick_missing(self.last_tick_ms, self.now_ms, limit_s)

    @property
    def presence(self) -> dict[str, Presence]:
        """Kind of process, as Celery calls it -> those that give signs of life."""
        return {"worker": self.workers, "beat": self.beats}

    @property
    def takes_signs(self) -> bool:
        """Tell whether the broker takes signs of life, be it that it would refuse a postback."""
        return takes_signs(self.refusal)

    @property
    def missing(self) -> dict[str, Presence]:
        """Kinds of process of which nobody gives signs of life; empty where the broker takes none."""
        return missing(self.refusal, self.workers, self.beats)

    @property
    def not_taken_in(self) -> int:
        """Messages that no tick has made postbacks of."""
        return self.queued + self.intake

    @property
    def loops(self) -> int:
        """Delivering loops whose lease stands."""
        return sum(ends_ms > self.now_ms for ends_ms in self.leases.values())

    @property
    def loops_expired(self) -> int:
        """Delivering loops whose lease ran out, and whose claims were not taken back."""
        return len(self.leases) - self.loops

    @property
    def oldest_waiting_s(self) -> float:
        """Age of the longest waiting postback of a lane that does not fail."""
        return max((part.oldest_s for part in self.waiting if not part.failing), default=0.0)

    @property
    def open_waiting(self) -> int:
        """Postbacks that wait in lanes, failing ones included."""
        return sum(part.count for part in self.waiting)

    @property
    def failing_waiting(self) -> int:
        """Postbacks that wait in lanes whose last POST failed."""
        return sum(part.count for part in self.waiting if part.failing)

    @property
    def still_waiting(self) -> int:
        """Postbacks that wait for accounts that stand still."""
        return sum(account.waiting for account in self.still.values())

    @property
    def paused_waiting(self) -> int:
        """Postbacks that wait for accounts that are paused."""
        return sum(pause.waiting for pause in self.paused.values())

    @property
    def oldest_paused_s(self) -> float:
        """Age of the longest waiting postback of an account that is paused, since it was accepted; 0 where none waits."""
        accepted_ms = (pause.oldest_ms for pause in self.paused.values() if pause.oldest_ms is not None)
        return max((self.now_ms - oldest_ms for oldest_ms in accepted_ms), default=0) / 1000

    @property
    def longest_failing_lane(self) -> str:
        """Name of the lane with the most postbacks of those whose last POST failed; empty where none waits."""
        failing = (part for part in self.waiting if part.failing)
        part = max(failing, key=lambda part: part.longest, default=None)
        return part.longest_lane if part is not None else ""


def read(
    client: redis.Redis,
    settings: Settings,
    *,
    within_s: float = 2.0,
    memory: bool = True,
    clock_offset_ms: int = 0,
) -> Snapshot:
    """Read the system as it is now.

    Args:
        client: the broker's; its time-out bounds each command.
        settings: for the countdown and the number of accounts to name.
        within_s: no page is begun after so many seconds; the snapshot is then not complete.
        memory: whether to ask for the broker's memory as well.
        clock_offset_ms: added to the broker's clock, so that tests can move time.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    began_s = time.monotonic()
    snapshot = Snapshot()
    with broker_errors():
        pipe = client.pipeline(transaction=False)
        pipe.get(keys.LAST_TICK)
        pipe.zrange(keys.PARKED, 0, 0, withscores=True)
        pipe.hgetall(keys.TOTALS)
        pipe.get(keys.LEDGER_BYTES)
        for key in (keys.QUARANTINE, keys.PARKED, keys.DONE, keys.DEAD):
            pipe.zcard(key)
        pipe.hlen(keys.STARTS)
        pipe.zcard(keys.PAUSED)
        pipe.hget(keys.INTAKE_LEASE, "expires_ms")
        for key in (keys.WORKERS, keys.BEATS):
            pipe.zrange(key, 0, -1, withscores=True)
        for key in (keys.WORK_QUEUE, keys.INTAKE, *keys.QUEUE_LISTS):
            pipe.llen(key)
        pipe.hlen(keys.HISTORY)
        if memory:
            pipe.info("memory")
        (
            last_tick, first_parked, totals, ledger_bytes, snapshot.quarantined, snapshot.parked, snapshot.done,
            snapshot.dead, snapshot.starting, snapshot.accounts_paused, intake_lease, worker_signs, beat_signs,
            snapshot.work, snapshot.intake, *queues,
        ) = pipe.execute()  # fmt: skip
        if memory:
            info = queues.pop()
            snapshot.used_memory_bytes = int(info.get("used_memory") or 0)
            snapshot.max_memory_bytes = int(info.get("maxmemory") or info.get("total_system_memory") or 0)
        has_history = bool(queues.pop())
        _read_lanes(client, settings, snapshot, began_s + within_s, clock_offset_ms)
        snapshot.refusal = why_refused(client)
    if has_history:
        from postbacks.history.status import read_feed  # noqa: PLC0415 - most health checks do without it

        snapshot.history = read_feed(client, clock_offset_ms=clock_offset_ms)
    snapshot.queued = sum(queues)
    snapshot.ledger_bytes = max(0, int(ledger_bytes or 0))
    snapshot.totals = {name.decode(): int(count) for name, count in totals.items()}
    snapshot.workers = find_present(worker_signs, snapshot.now_ms)
    snapshot.beats = find_present(beat_signs, snapshot.now_ms)
    snapshot.last_tick_ms = None if last_tick is None else int(float(last_tick))
    snapshot.intake_lease_ms = None if intake_lease is None else int(float(intake_lease))
    if first_parked:
        snapshot.parked_overdue_s = max(0.0, (snapshot.now_ms - first_parked[0][1]) / 1000)
    snapshot.took_s = time.monotonic() - began_s
    return snapshot


class _Page(NamedTuple):
    """Reply of ``snapshot.lua``, as its header describes it."""

    now_ms: int
    cursor: bytes
    lanes: list[Any]
    backlogs: list[bytes]
    claims: list[Any]
    still: list[Any]
    down: list[Any]
    paused: list[Any]


def _read_lanes(
    client: redis.Redis, settings: Settings, snapshot: Snapshot, deadline_s: float, clock_offset_ms: int
) -> None:
    """Go over the accounts that have postbacks on their way, and write into the snapshot what is found of them."""
    waiting = {
        (group, failing): Waiting(group, failing) for group in keys.GROUPS for failing in (False, True)
    }
    backlogs: dict[str, int] = {}
    for page in _pages(client, settings, snapshot, deadline_s, clock_offset_ms):
        if not snapshot.now_ms:
            _take_first_page(snapshot, page)
        for group, failing, count, oldest_ms, oldest_account, longest, longest_account in page.lanes:
            part = waiting[group.decode(), bool(failing)]
            part.count += count
            oldest_s = (page.now_ms - oldest_ms) / 1000 if oldest_ms else 0.0
            if oldest_s > part.oldest_s:
                part.oldest_s, part.oldest_account = oldest_s, text(oldest_account)
            if longest > part.longest:
                part.longest, part.longest_account = longest, text(longest_account)
        for account, state, since_ms, count in page.still:
            snapshot.still[text(account)] = Still(text(state), int(since_ms), count)
        if page.paused:
            _take_pauses(snapshot, page)
        for account, count in zip(page.backlogs[::2], page.backlogs[1::2], strict=True):
            backlogs[text(account)] = int(count)
    snapshot.waiting = list(waiting.values())
    largest = heapq.nlargest(
        settings.metrics_top_accounts, backlogs.items(), key=lambda item: (item[1], item[0])
    )
    snapshot.accounts = [(account, count) for account, count in largest if count > 0]


def _take_pauses(snapshot: Snapshot, page: _Page) -> None:
    """Take what waits for accounts that are paused."""
    from postbacks.queue.pauses import parse  # noqa: PLC0415 - most health checks do without it

    for account, stored, count, oldest_ms in page.paused:
        pause = parse(text(account), stored)
        snapshot.paused[pause.account] = pause._replace(waiting=count, oldest_ms=oldest_ms)


def _take_first_page(snapshot: Snapshot, page: _Page) -> None:
    """Take what the first page alone has: the time, the claims, and who is down."""
    snapshot.now_ms = page.now_ms
    for token, ends_ms, claimed, in_flight in page.claims:
        snapshot.leases[text(token)] = int(float(ends_ms))
        snapshot.claimed += claimed
        snapshot.in_flight += in_flight
    snapshot.down = {text(account): (page.now_ms - float(since_ms)) / 1000 for account, since_ms in page.down}


def _pages(
    client: redis.Redis, settings: Settings, snapshot: Snapshot, deadline_s: float, clock_offset_ms: int
) -> Iterator[_Page]:
    cursor, script = b"0", lua.load("queue/_shared", "monitor/snapshot")
    for _ in range(PAGES_MAX):
        arguments = (
            clock_offset_ms,
            cursor,
            PAGE,
            countdown_ms(settings),
            COUNT_MAX,
            DOWN_AFTER_S * 1000,
            FAILING_MAX,
            *keys.GROUPS,
        )
        # Read-only, so that a user who may only read can ask; to run it by its digest would need a right to load it.
        reply: Any = client.eval_ro(script.text, len(script.keys), *script.keys, *arguments)
        page = _Page(*reply)
        yield page
        cursor = page.cursor
        if cursor == b"0":
            return
        if time.monotonic() >= deadline_s:
            break
    snapshot.complete = False
