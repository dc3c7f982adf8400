"""Conditions of the system as a whole, and of accounts at their backlog limit: ticks, the broker's memory, the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker import lua, memory
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import why_refused
from postbacks.history.feed import GAP
from postbacks.history.status import LAG_FAULT_S, StoreStatus, faults, read_feed
from postbacks.ledger.record import iso
from postbacks.monitor import moments
from postbacks.monitor.health import explain_missing_ticks
from postbacks.monitor.presence import find_present
from postbacks.monitor.snapshot import Snapshot
from postbacks.operate.incidents.conditions import Condition, Incomplete
from postbacks.queue import pauses
from postbacks.queue.shares import shares_of

if TYPE_CHECKING:
    from postbacks.operate.incidents.conditions import Look

#: Times the age of a tick at which the system is not healthy, from which on it is an incident.
LATE_TIMES: Final = 3
#: Shares of the broker's memory: from the first on it is an incident, which stands down to the second; from the third on the
#: broker is nearly full.
MEMORY_FROM, MEMORY_DOWN_TO, MEMORY_NEARLY_FULL = 0.80, 0.75, 0.95
#: Shares of an account's limit, in the same way.
BACKLOG_FROM, BACKLOG_DOWN_TO = 0.99, 0.90
#: Lanes that one call of the script goes over, about, and calls of a look: 100,000 lanes.
PAGE: Final = 1000
PAGES_MAX: Final = 100


def late_ticks(look: Look) -> Iterator[Condition]:
    """Yield that no tick finishes, from three times the age on at which the system is not healthy (30 s)."""
    limit_s = look.settings.health_tick_age_s
    with broker_errors():
        pipe = look.client.pipeline(transaction=False)
        pipe.get(keys.LAST_TICK)
        pipe.zrange(keys.WORKERS, 0, -1, withscores=True)
        pipe.zrange(keys.BEATS, 0, -1, withscores=True)
        last_tick, workers, beats = pipe.execute()
    now = Snapshot(
        now_ms=look.now_ms,
        last_tick_ms=None if last_tick is None else int(float(last_tick)),
        workers=find_present(workers, look.now_ms),
        beats=find_present(beats, look.now_ms),
        refusal=why_refused(look.client),
    )
    if now.last_tick_ms is None or not now.tick_missing_for(
        limit_s
    ):  # a system that has never run is none that fails
        return
    age_s = int(now.tick_age_s or 0)
    yield Condition(
        kind="ticks",
        title="ticks are late",
        sentence=" ".join([*explain_missing_ticks(now, limit_s), now.refusal]).strip().rstrip("."),
        advice="Nothing is taken in and nothing is sent again until ticks come: start what is missing; `postbacks doctor` says more.",
        opens=age_s >= LATE_TIMES * limit_s,
        size=age_s,
        since_ms=now.last_tick_ms,
        figures={
            "last_tick": iso(now.last_tick_ms),
            "workers": len(now.workers.names),
            "beats": len(now.beats.names),
        },
    )


def broker_memory(look: Look) -> Iterator[Condition]:
    """Yield that the broker's memory fills up."""
    used = memory.read(look.client)
    if used.share < MEMORY_DOWN_TO:
        return
    full = used.share >= MEMORY_NEARLY_FULL
    yield Condition(
        kind="memory",
        title="the broker's memory fills up",
        sentence=f"the broker uses {used.share:.0%} of its memory"
        + ("; from 98% on it refuses postbacks, and `.delay()` raises" if full else ""),
        advice=(
            "Give it more (maxmemory), or see what fills it: `postbacks doctor` names the accounts with most, "
            "`postbacks drop` gives the dead up that nobody wants any more."
        ),
        opens=used.share >= MEMORY_FROM,
        level=int(full),
        figures={"used_bytes": used.used, "limit_bytes": used.limit, "share": round(used.share, 3)},
    )


def history_behind(look: Look) -> Iterator[Condition]:
    """Yield that the history is behind, or has lost changes. Where its database is away nobody looks, and health says so."""
    feed = read_feed(look.client, clock_offset_ms=look.clock_offset_ms)
    lag_s = feed.lag_s or 0.0
    if feed.fault or (lag_s <= LAG_FAULT_S / 2 and feed.resync != GAP):
        return
    sentences = [sentence.rstrip(".") for sentence in faults(feed, StoreStatus(), look.settings)]
    yield Condition(
        kind="history",
        title="the history is behind",
        sentence="; ".join(sentences) or f"the recorder is {lag_s:.0f} s behind",
        advice="Deliveries are not touched. `postbacks history status` says how it goes on.",
        opens=lag_s > LAG_FAULT_S or feed.resync == GAP,
        size=int(lag_s),
        level=int(feed.resync == GAP),
        since_ms=look.now_ms - int(lag_s * 1000),
        figures={"lag_s": round(lag_s, 1), "feed_entries": feed.entries, "feed_share": round(feed.share, 4)},
    )


def paused_backlogs(look: Look) -> Iterator[Condition]:
    """Yield the paused accounts of which a group has half of its backlog limit open, and more."""
    for backlog in pauses.nearly_full(look.client, look.settings):
        pause = backlog.pause
        reason = f" ({pause.reason})" if pause.reason else ""
        until = (
            f"until {moments.minute(pause.until_ms, look.now_ms)}"
            if pause.until_ms
            else "until somebody resumes it"
        )
        yield Condition(
            kind="paused",
            subject=pause.account,
            title=f"account {pause.account} is paused and fills up",
            sentence=(
                f"paused since {moments.minute(pause.since_ms, look.now_ms)} {until}{reason}; {backlog.units:,} of group "
                f"{backlog.group} are open, of at most {backlog.limit:,}; what comes beyond that is dead at once (backlog_full)"
            ),
            advice=f"`postbacks account resume {pause.account}` lets it go on.",
            size=backlog.units,
            level=int(backlog.units >= backlog.limit * BACKLOG_FROM),
            since_ms=pause.since_ms,
            accounts=(pause.account,),
            figures={"open": backlog.units, "limit": backlog.limit, "group": backlog.group},
        )


def full_backlogs(look: Look) -> Iterator[Condition]:
    """Yield the accounts of which a group has reached its limit of open postbacks.

    Left out are lanes that fail, as their endpoint's incident stands for all its accounts, and those of paused accounts.
    """
    limit = shares_of(memory.limit_of(look.client), look.settings).units
    script = lua.load("queue/_shared", "queue/_routes", "operate/incidents/full")
    lanes: dict[str, tuple[int, bool]] = {}
    cursor, pages = b"0", 0
    while True:
        arguments = (look.clock_offset_ms, cursor, PAGE, int(limit * BACKLOG_DOWN_TO))
        with broker_errors():
            reply: Any = look.client.eval_ro(script.text, len(script.keys), *script.keys, *arguments)
        cursor, found = reply
        lanes.update(
            {
                text(lane): (units, bool(is_failing or is_paused))
                for lane, units, is_failing, is_paused in found
            }
        )
        pages += 1
        if cursor == b"0" or pages >= PAGES_MAX:
            break
    for lane, (units, is_told_elsewhere) in sorted(lanes.items()):
        account, _, group = lane.rpartition("/")
        if is_told_elsewhere:
            continue
        is_full = units >= limit * BACKLOG_FROM
        yield Condition(
            kind="backlog",
            subject=lane,
            title=f"{lane} is at its backlog limit",
            sentence=f"{units:,} postbacks of {account} in group {group} are open, of at most {limit:,}"
            + ("; what comes beyond that is dead at once (backlog_full)" if is_full else ""),
            advice=(
                f"Nothing of it fails, so it comes faster than it is sent: `postbacks account show {account}` says its rate and "
                f"limit, `postbacks list --account {account} --state waiting` what waits. Dead ones can be sent again."
            ),
            opens=is_full,
            size=units,
            accounts=(account,),
            figures={"open": units, "limit": limit, "group": group},
        )
    if cursor != b"0":
        raise Incomplete(f"more than {PAGE * PAGES_MAX:,} lanes are open")
