"""The figures of the whole system, read from the broker in a bounded number of commands and seconds.

One pipeline reads all that is a count already. What waits stands in lanes, four an account, and the accounts that
have anything are gone over in pages of ``PAGE`` by a script (``look.lua``), ``PAGES_MAX`` at most: a page holds the
broker for some milliseconds (docs/monitoring.md has the figure).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import why_refused
from postbacks.monitor.presence import Presence, find_present
from postbacks.queue.scripts import assemble

if TYPE_CHECKING:
    import redis

    from postbacks.settings import Settings

#: Seconds after which an account is down of whose lane every attempt has failed for so long.
DOWN_AFTER_S: Final = 3600
#: Lanes whose last POST failed that are looked at for that, the longest first.
FAILING_MAX: Final = 500
#: Accounts that one call of the script looks at, about (HSCAN).
PAGE: Final = 200
#: Pages that one reading takes: 20,000 accounts with postbacks on their way.
PAGES_MAX: Final = 100
#: Claims of one loop that are counted one by one.
COUNT_MAX: Final = 2500


@dataclass(slots=True)
class Waiting:
    """What waits of one group.

    Attributes:
        group: of the lanes.
        failing: whether these are the lanes whose last POST failed.
        count: postbacks in them.
        oldest_s: seconds since the longest waiting one could be sent; 0 where none waits.
        account: account whose lane has the most of them.
        longest: number of postbacks in that lane.
    """

    group: str
    failing: bool
    count: int = 0
    oldest_s: float = 0.0
    account: str = ""
    longest: int = 0


@dataclass(slots=True)
class Figures:
    """The system at one moment, on the broker's clock.

    Attributes:
        took_s: how long the reading took.
        complete: False where there were more accounts than are looked at.
        refusal: why the broker would refuse a postback, and what to do; empty where it would take it.
        workers: those that give signs of life.
        beats: the same.
        tick_age_s: seconds since a tick last finished; None if none ever has.
        not_taken_in: messages in Celery's queue and in the intake.
        work: wake-ups in the workers' queue.
        waiting: by group and by whether the lane fails.
        quarantined: in flight when their process died; an examiner tries them.
        still: waiting for accounts for which nothing can be sent; not among ``waiting``.
        starting: endpoints that have failed to connect and are not yet as before.
        parked: waiting for a countdown.
        parked_overdue_s: seconds since the first countdown ended that no tick has seen to.
        done: delivered, skipped and cancelled ones in the ledger.
        dead: dead ones in the ledger.
        claimers: delivering loops whose lease stands.
        claimers_expired: leases that ran out and were not taken back.
        claimed: postbacks in claims.
        in_flight: of them those whose POST may be open.
        accounts: accounts with the most open postbacks.
        down: how many accounts have a lane of which every attempt has failed for ``DOWN_AFTER_S``.
        down_longest: those of them that have been for the longest, with their seconds.
        totals: ``queue/counter_names.py`` says what is counted.
        used_memory_bytes: of the broker.
        max_memory_bytes: of the broker; the machine's where it has no limit.
        ledger_bytes: memory that records take, estimated.
    """

    took_s: float = 0.0
    complete: bool = True
    refusal: str = ""
    workers: Presence = field(default_factory=Presence)
    beats: Presence = field(default_factory=Presence)
    tick_age_s: float | None = None
    not_taken_in: int = 0
    work: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    quarantined: int = 0
    still: int = 0
    starting: int = 0
    parked: int = 0
    parked_overdue_s: float = 0.0
    done: int = 0
    dead: int = 0
    claimers: int = 0
    claimers_expired: int = 0
    claimed: int = 0
    in_flight: int = 0
    accounts: list[tuple[str, int]] = field(default_factory=list)
    down: int = 0
    down_longest: list[tuple[str, float]] = field(default_factory=list)
    totals: Mapping[str, int] = field(default_factory=dict)
    used_memory_bytes: int = 0
    max_memory_bytes: int = 0
    ledger_bytes: int = 0

    @property
    def oldest_waiting_s(self) -> float:
        """Age of the longest waiting postback of a lane that does not fail."""
        return max((one.oldest_s for one in self.waiting if not one.failing), default=0.0)

    @property
    def open_waiting(self) -> int:
        """Postbacks that wait in lanes, failing ones included."""
        return sum(one.count for one in self.waiting)

    @property
    def failing_waiting(self) -> int:
        """Postbacks that wait in lanes whose last POST failed."""
        return sum(part.count for part in self.waiting if part.failing)

    @property
    def longest_failing_lane(self) -> str:
        """Name of the lane with the most postbacks of those whose last POST failed; empty where none waits."""
        part = max(
            (part for part in self.waiting if part.failing), key=lambda part: part.longest, default=None
        )
        return keys.lane_name(part.account, part.group) if part is not None and part.longest else ""


def read(
    client: redis.Redis,
    settings: Settings,
    *,
    within_s: float = 2.0,
    memory: bool = True,
    clock_offset_ms: int = 0,
) -> Figures:
    """Read the figures.

    Args:
        client: the broker's; its time-out bounds each command.
        settings: for the countdown and the number of accounts to name.
        within_s: no page is begun after so many seconds; what was found is then not complete.
        memory: whether to ask for the broker's memory as well.
        clock_offset_ms: added to the broker's clock, so that tests can move time.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    began_s = time.monotonic()
    figures = Figures()
    with broker_errors():
        pipe = client.pipeline(transaction=False)
        pipe.get(keys.LAST_TICK)
        pipe.zrange(keys.PARKED, 0, 0, withscores=True)
        pipe.hgetall(keys.TOTALS)
        pipe.get(keys.LEDGER_BYTES)
        for key in (keys.QUARANTINE, keys.PARKED, keys.DONE, keys.DEAD):
            pipe.zcard(key)
        pipe.hlen(keys.STARTS)
        for key in (keys.WORKERS, keys.BEATS):
            pipe.zrange(key, 0, -1, withscores=True)
        for key in (keys.WORK_QUEUE, keys.INTAKE, *keys.QUEUE_LISTS):
            pipe.llen(key)
        if memory:
            pipe.info("memory")
        (
            last_tick, first_parked, totals, ledger, quarantined, parked, done, dead, starting,
            workers, beats, work, *rest,
        ) = pipe.execute()  # fmt: skip
        if memory:
            info = rest.pop()
            figures.used_memory_bytes = int(info.get("used_memory") or 0)
            figures.max_memory_bytes = int(info.get("maxmemory") or info.get("total_system_memory") or 0)
        figures.quarantined, figures.starting = quarantined, starting
        figures.parked, figures.done, figures.dead, figures.work = parked, done, dead, work
        figures.not_taken_in = sum(rest)
        figures.ledger_bytes = max(0, int(ledger or 0))
        figures.totals = {name.decode(): int(count) for name, count in totals.items()}
        now_ms = _lanes(client, settings, figures, began_s + within_s, clock_offset_ms)
        figures.refusal = why_refused(client)
    figures.workers, figures.beats = find_present(workers, now_ms), find_present(beats, now_ms)
    if last_tick is not None:
        figures.tick_age_s = max(0.0, (now_ms - int(last_tick)) / 1000)
    if first_parked:
        figures.parked_overdue_s = max(0.0, (now_ms - first_parked[0][1]) / 1000)
    figures.took_s = time.monotonic() - began_s
    return figures


def _lanes(
    client: redis.Redis, settings: Settings, figures: Figures, deadline_s: float, clock_offset_ms: int
) -> int:
    """Go over the accounts that have postbacks on their way; returns the broker's time in ms."""
    waiting = {
        (group, failing): Waiting(group, failing) for group in keys.GROUPS for failing in (False, True)
    }
    backlog: dict[str, int] = {}
    now_ms = 0
    for page_ms, rows, accounts, claims, still, down in _pages(
        client, settings, figures, deadline_s, clock_offset_ms
    ):
        now_ms = page_ms
        figures.still += still
        for group, failing, count, oldest_ms, account, longest in rows:
            one = waiting[group.decode(), bool(failing)]
            one.count += count
            if oldest_ms:
                one.oldest_s = max(one.oldest_s, (page_ms - oldest_ms) / 1000)
            if longest > one.longest:
                one.account, one.longest = account.decode("utf-8", "replace"), longest
        for name, count in zip(accounts[::2], accounts[1::2], strict=True):
            backlog[name.decode("utf-8", "replace")] = int(count)
        for _, ends_ms, size, open_ in claims:
            alive = float(ends_ms) > page_ms
            figures.claimers += alive
            figures.claimers_expired += not alive
            figures.claimed += size
            figures.in_flight += open_
        if down:
            figures.down = len(down)
            figures.down_longest = [
                (name.decode("utf-8", "replace"), (page_ms - float(since_ms)) / 1000)
                for name, since_ms in down[: settings.metrics_top_accounts]
            ]
    figures.waiting = list(waiting.values())
    top = heapq.nlargest(settings.metrics_top_accounts, backlog.items(), key=lambda item: (item[1], item[0]))
    figures.accounts = [(name, count) for name, count in top if count > 0]
    return now_ms


def _pages(
    client: redis.Redis, settings: Settings, figures: Figures, deadline_s: float, clock_offset_ms: int
) -> Iterator[tuple[int, Sequence[Any], Sequence[Any], Sequence[Any], int, Sequence[Any]]]:
    cursor = b"0"
    for _ in range(PAGES_MAX):
        arguments = (
            clock_offset_ms,
            cursor,
            PAGE,
            int(settings.retry_countdown_s * 1000),
            COUNT_MAX,
            DOWN_AFTER_S * 1000,
            FAILING_MAX,
            *keys.GROUPS,
        )
        # Read-only, so that a user who may only read can ask; to run it by its digest would need a right to load it.
        script = assemble("look", "monitor")
        reply: Any = client.eval_ro(script.text, len(script.keys), *script.keys, *arguments)
        now_ms, cursor, rows, accounts, claims, still, down = reply
        yield now_ms, rows, accounts, claims, still, down
        if cursor == b"0":
            return
        if time.monotonic() >= deadline_s:
            break
    figures.complete = False
