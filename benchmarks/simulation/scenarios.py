"""What is simulated at full size: a day of 50 million MT, a carrier's storm, customers that are down for an hour."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.simulation.costs import Costs
from benchmarks.simulation.figures import Figures, Lateness
from benchmarks.simulation.rules import Account, Piece
from benchmarks.simulation.system import Load, System
from benchmarks.simulation.words import Result, lines_of, memory_bytes, words, words_of
from benchmarks.simulation.world import (
    ACCOUNTS,
    DAY_S,
    KEEPS_UP,
    MT_A_DAY,
    POSTBACKS_AN_MT,
    TROUBLES,
    choose,
    keeping_up,
    make_accounts,
    rate_of_day,
)
from postbacks.settings import Settings

#: The promise that is looked for: the target of ``benchmarks/steady.py`` for a loaded system, at p99.
PROMISE_S: Final = 1.5
#: The day is looked at for so long each quarter of an hour; between two looks only lanes that fall behind change.
QUARTER_S, LOOK_S, SETTLE_S = 900, 12, 4
#: The largest accounts, shown apart.
LARGE: Final = 20
#: Workers tried at most.
WORKERS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to do.

    Attributes:
        scale: of the whole: half of it is half of the accounts and half of the events.
        seed: of all chance.
        look_s: seconds of each quarter of an hour that a day is looked at.
    """

    scale: float = 1.0
    seed: int = 1
    look_s: float = LOOK_S

    @property
    def accounts(self) -> int:
        """How many."""
        return max(20, round(ACCOUNTS * self.scale))

    @property
    def mean_per_s(self) -> float:
        """Postbacks a second in the mean of the day."""
        return MT_A_DAY * POSTBACKS_AN_MT * self.scale / DAY_S

    @property
    def peak_per_s(self) -> float:
        """At the height of the day."""
        rate = rate_of_day(self.mean_per_s)
        return max(rate(at_s) for at_s in range(0, DAY_S, QUARTER_S))


# -- the day --------------------------------------------------------------------------------


def look(
    costs: Costs, settings: Settings, size: Size, per_s: float, workers: int, *, seconds: float, behind: dict[int, float] | None = None
) -> System:  # fmt: skip
    """A system at a steady rate for some seconds; ``behind`` are postbacks that accounts wait for already."""
    accounts = make_accounts(random.Random(size.seed), size.accounts)
    system = System(costs, settings, accounts, workers=workers, seed=size.seed)
    for number, count in (behind or {}).items():
        account = accounts[number]
        _fall_behind(system, account, count, account.share * per_s)
    system.add(Load(accounts, lambda _: per_s, SETTLE_S + seconds))
    system.figures.measures_from_s = SETTLE_S
    system.run(SETTLE_S + seconds)
    assert system.rules.lost() == 0
    return system


def _fall_behind(system: System, account: Account, count: float, per_s: float) -> None:
    """Put what an account has not had yet into its lane, the oldest first."""
    lane = account.lane("mt")
    for left in range(int(count), 0, -10):
        at_s = -left / per_s
        system.rules.accept([(lane, Piece(min(10, left), at_s, at_s, 0))])


def workers_needed(
    costs: Costs, settings: Settings, size: Size, per_s: float
) -> tuple[int | None, list[dict[str, float]]]:
    """The least number of workers with which those who can keep up have their postbacks within the promise."""
    tried = []
    for workers in range(1, WORKERS_MAX + 1):
        system = look(costs, settings, size, per_s, workers, seconds=size.look_s)
        numbers = keeping_up(system.accounts, settings, per_s)
        late = system.figures.together(system.figures.first, numbers)
        tried.append({"workers": workers, **late.shown(), "broker_busy": broker_busy(system.figures)})
        if late.percentile(0.99) <= PROMISE_S:
            return workers, tried
        if workers >= 3 and tried[-1]["broker_busy"] > 0.97 and tried[-2]["broker_busy"] > 0.97:
            break  # it is the broker that has no more
    return None, tried


def broker_busy(figures: Figures) -> float:
    """The part of the time in which the broker worked, once it had settled."""
    return statistics.fmean(one.broker_busy for one in figures.samples if one.at_s > SETTLE_S)


def most_per_s(
    costs: Costs, settings: Settings, size: Size, workers: int
) -> tuple[float, str, list[dict[str, float]]]:
    """The highest rate at which so many workers keep the promise, to a sixteenth, and where more would stand."""
    tried: list[dict[str, float]] = []
    good, per_s, step, place = 0.0, 2 * size.peak_per_s, 1.25, ""
    while step > 1.05 and per_s > size.peak_per_s / 16:
        system = look(costs, settings, size, per_s, workers, seconds=size.look_s)
        late = system.figures.together(
            system.figures.first, keeping_up(system.accounts, settings, per_s)
        ).percentile(0.99)
        rules = system.rules
        tried.append(
            {
                "per_s": per_s,
                "p99_s": late,
                "broker_busy": broker_busy(system.figures),
                "queued": rules.queued,
            }
        )
        if late <= PROMISE_S:
            good = max(good, per_s)
        else:
            place = "Celery's queue" if rules.queued > 2 * per_s else "the lanes"
            per_s /= step
            step = 1 + (step - 1) / 2 if good else step
        per_s *= step if good else 1
    return good, place, tried


def day(costs: Costs, size: Size, say: Callable[[str], None]) -> Result:
    """24 hours in 96 looks, with the workers that the peak needs."""
    settings = Settings()
    result = Result("day")
    workers, tried = workers_needed(costs, settings, size, size.peak_per_s)
    say(f"day: workers for {size.peak_per_s:,.0f}/s: {workers}")
    most, place, edge = most_per_s(costs, settings, size, max(4, workers or 4))
    say(f"day: the promise is kept up to {most:,.0f}/s")
    rate = rate_of_day(size.mean_per_s)
    behind: dict[int, float] = {}
    small, large, slow = Lateness(), Lateness(), Lateness()
    lines: dict[str, list[float]] = {
        name: [] for name in ("at_s", "per_s", "p99_s", "broker_busy", "behind", "memory_gb")
    }
    longest = 0
    for quarter in range(DAY_S // QUARTER_S):
        at_s = (quarter + 0.5) * QUARTER_S
        per_s = rate(at_s)
        system = look(costs, settings, size, per_s, max(1, workers or 4), seconds=size.look_s, behind=behind)
        figures, accounts = system.figures, system.accounts
        up = set(keeping_up(accounts, settings, size.peak_per_s))
        here = figures.together(figures.first, [n for n in up if n >= LARGE])
        small.merge([here])
        large.merge([figures.together(figures.first, [n for n in up if n < LARGE])])
        slow.merge([figures.together(figures.first, [a.number for a in accounts if a.number not in up])])
        longest = max(
            longest, max(one.queued + one.waiting for one in figures.samples) - int(sum(behind.values()))
        )
        behind = _later(system, behind, QUARTER_S)
        for name, value in (
            ("at_s", at_s), ("per_s", per_s), ("p99_s", here.percentile(0.99)),
            ("broker_busy", broker_busy(figures)), ("behind", sum(behind.values())),
            ("memory_gb", memory_bytes(costs, figures.samples[-1]) / 1e9),
        ):  # fmt: skip
            lines[name].append(value)
    result.lines = lines
    accounts = make_accounts(random.Random(size.seed), size.accounts)
    keep = set(keeping_up(accounts, settings, size.peak_per_s))
    limited = [account for account in accounts if account.number not in keep]
    more = look(
        costs, Settings(lane_max_transfers=30), size, size.peak_per_s, max(2, workers or 4), seconds=60
    )
    eased = more.figures.together(more.figures.first, [account.number for account in limited])
    result.facts = [
        ("postbacks", f"{size.mean_per_s * DAY_S / 1e6:,.0f} million, {size.mean_per_s:,.0f}/s in the mean, {size.peak_per_s:,.0f}/s at noon"),
        ("workers needed at noon", words_of(workers)),
        (f"accounts after the {LARGE} largest: lateness p50, p99, worst", words(small)),
        (f"the {LARGE} largest that can keep up: the same", words(large)),
        (f"the {len(limited)} that get more at noon than {KEEPS_UP:.0%} of what 10 transfers carry (ranks {', '.join(str(a.number + 1) for a in limited) or 'none'})", words(slow)),
        ("the same at noon, after a minute, with 30 transfers a lane", words(eased)),
        ("most that is behind, all of it theirs", f"{max(lines['behind']):,.0f} postbacks"),
        ("longest queue besides", f"{longest:,}, what a second brings"),
        ("broker's thread: busy in the mean, at noon", f"{statistics.fmean(lines['broker_busy']):.0%}, {max(lines['broker_busy']):.0%}"),
        (f"the promise (p99 at most {PROMISE_S} s) is kept up to", f"{most:,.0f}/s with {max(4, workers or 4)} workers; more stands in {place}"),
    ]  # fmt: skip
    result.numbers = {
        "workers": workers, "workers_tried": tried, "most_per_s": most, "edge": edge, "small": small.shown(),
        "large": large.shown(), "limited": slow.shown(), "limited_ranks": [a.number + 1 for a in limited],
        "behind_most": max(lines["behind"]), "longest": longest,
    }  # fmt: skip
    return result


def _later(system: System, before: dict[int, float], after_s: float) -> dict[int, float]:
    """What accounts are behind by after some more time, from what their lanes have at the end of a look."""
    found = {}
    elapsed_s = system.env.now
    for account in system.accounts:
        lane = account.lane("mt")
        if lane.count > 50 or account.number in before:
            grows = (lane.count - before.get(account.number, 0.0)) / elapsed_s
            left = lane.count + grows * (after_s - elapsed_s)
            if left > 50:
                found[account.number] = left
    return found


# -- the storm ------------------------------------------------------------------------------

#: Seconds that the carrier was stuck, and in which it then sends everything.
STUCK_S, RELEASED_IN_S = 3600, 300
#: How long what follows is looked at.
AFTER_S: Final = 600
#: What the carrier has of all messages.
CARRIER_SHARE: Final = 0.4


def storm(costs: Costs, size: Size, say: Callable[[str], None], *, transfers: int = 10) -> Result:
    """At noon: the receipts of an hour, of the carrier that has most, within five minutes."""
    settings = Settings(lane_max_transfers=transfers)
    rate = rate_of_day(size.mean_per_s)
    noon_s = 12.5 * 3600
    stuck = sum(rate(noon_s - s) for s in range(0, STUCK_S, 60)) * 60 / POSTBACKS_AN_MT * CARRIER_SHARE
    accounts = make_accounts(random.Random(size.seed), size.accounts)
    storm_per_s = stuck / RELEASED_IN_S
    needed, tried = workers_needed(costs, settings, size, size.peak_per_s + storm_per_s)
    workers = needed or 4
    system = System(costs, settings, accounts, workers=workers, seed=size.seed)
    begin_s = 60.0
    end_s = begin_s + RELEASED_IN_S
    system.add(
        Load(
            accounts,
            lambda at_s: (
                rate(noon_s + at_s - begin_s) * (1 if at_s > begin_s else 1 - CARRIER_SHARE / POSTBACKS_AN_MT)
            ),
            end_s + AFTER_S,
        )
    )
    system.add(Load(accounts, lambda at_s: storm_per_s if begin_s <= at_s < end_s else 0.0, end_s))
    system.figures.measures_from_s = begin_s
    system.run(end_s)
    up = set(keeping_up(accounts, settings, size.peak_per_s + storm_per_s))
    while system.env.now < end_s + AFTER_S:
        system.run(system.env.now + 30)
        if (
            all(accounts[number].lane("mt").count < 20 for number in range(len(accounts)))
            and system.rules.queued < 20_000
        ):
            break
    assert system.rules.lost() == 0
    figures = system.figures
    say(f"storm, {transfers} transfers a lane: {stuck:,.0f} at once; ended at {system.env.now:.0f} s")
    small = figures.together(figures.first, [n for n in up if n >= LARGE])
    others = figures.together(figures.first, [a.number for a in accounts if a.number not in up])
    behind = sum(a.lane("mt").count > 100 for a in accounts)
    samples = figures.samples
    drained_s = next((one.at_s - end_s for one in samples if one.at_s > end_s and one.queued < 20_000), None)
    result = Result("storm" if transfers == 10 else f"storm-{transfers}")
    result.lines = lines_of(samples, costs)
    result.facts = [
        ("postbacks", f"{stuck / 1e6:.2f} million in {RELEASED_IN_S / 60:.0f} minutes, {storm_per_s:,.0f}/s, beside {size.peak_per_s:,.0f}/s"),
        ("workers needed for it", words_of(needed)),
        ("transfers a lane", f"{transfers}"),
        (f"the {len(up)} accounts that can keep up: lateness p50, p99, worst", words(small)),
        (f"the {len(accounts) - len(up)} that get more than {KEEPS_UP:.0%} of what their transfers carry: the same", words(others)),
        ("most in Celery's queue", f"{max(one.queued for one in samples):,}"),
        ("most in lanes", f"{max(one.waiting for one in samples):,}"),
        ("Celery's queue is empty again", "at no time" if drained_s is None else f"{max(0, drained_s):,.0f} s after the last receipt came"),
        (f"accounts that are still behind {(system.env.now - end_s) / 60:.0f} minutes after", f"{behind}"),
        ("broker's thread: busy while it lasts", f"{statistics.fmean(one.broker_busy for one in samples if begin_s < one.at_s < end_s):.0%}"),
        ("broker's memory for what waits, at most", f"{max(result.lines['memory_gb']):.2f} GB"),
    ]  # fmt: skip
    result.numbers = {"count": stuck, "small": small.shown(), "others": others.shown(), "keeping_up": len(up), "behind": behind,
        "drained_s": drained_s, "workers_tried": tried, "workers": workers}  # fmt: skip
    return result


# -- customers that are down ----------------------------------------------------------------

DOWN_SHARE: Final = 0.05
DOWN_S: Final = 3600
#: When it begins: the hour in which the day's rate is about its mean.
DOWN_FROM_S: Final = 8 * 3600


def outage(costs: Costs, size: Size, say: Callable[[str], None], *, down_s: float = DOWN_S) -> Result:
    """5% of the customers are down for an hour of the morning: a quarter of them in each way.

    With as few workers as keep the promise to the others.
    """
    for workers in (1, 2, 4, 8):
        result = _outage(costs, size, say, workers, down_s)
        if result.numbers["during"]["p99_s"] <= PROMISE_S:
            break
    return result


def _outage(costs: Costs, size: Size, say: Callable[[str], None], workers: int, down_s: float) -> Result:
    settings = Settings()
    chance = random.Random(size.seed)
    accounts = make_accounts(chance, size.accounts)
    down = choose(chance, accounts, DOWN_SHARE)
    rate = rate_of_day(size.mean_per_s)
    system = System(costs, settings, accounts, workers=workers, seed=size.seed, sample_every_s=5.0)
    begin_s = 120.0
    end_s = begin_s + down_s
    kinds = {account.number: TROUBLES[place % len(TROUBLES)] for place, account in enumerate(down)}
    for account in down:
        system.add_trouble(account, kinds[account.number], begin_s, end_s)
    resends_s = settings.max_resends * settings.retry_countdown_s
    until_s = end_s + resends_s + 120
    system.add(Load(accounts, lambda at_s: rate(DOWN_FROM_S - begin_s + at_s), until_s))
    figures = system.figures
    system.run(begin_s)
    before = figures.together(figures.first, keeping_up(accounts, settings, size.peak_per_s))
    before_p99_s = before.percentile(0.99)
    figures.first.clear()
    system.run(end_s)
    during = figures.together(figures.first, keeping_up(accounts, settings, size.peak_per_s))
    during_small = figures.together(
        figures.first, [n for n in keeping_up(accounts, settings, size.peak_per_s) if n >= LARGE]
    )
    waited_at_end = {kind: sum(a.backlog for a in down if kinds[a.number] == kind) for kind in TROUBLES}
    dead_at_end = system.rules.dead
    say(f"outage: {figures.posts:,} POSTs so far, healthy p99 {during.percentile(0.99):.2f} s")
    recovered_s = None
    while system.env.now < until_s:
        system.run(min(until_s, system.env.now + 10))
        if recovered_s is None and all(a.lane("mt").count < 20 for a in down):
            recovered_s = system.env.now - end_s
    assert system.rules.lost() == 0
    samples = figures.samples
    of_down = {
        kind: figures.together(figures.delivered, [a.number for a in down if kinds[a.number] == kind])
        for kind in TROUBLES
    }
    share = sum(account.share for account in down)
    result = Result("outage")
    result.lines = lines_of(samples, costs)
    result.facts = [
        ("customers that are down", f"{len(down)} of {len(accounts):,}, who get {share:.1%} of the events"),
        ("workers needed", f"{workers}"),
        ("the healthy: lateness p99 in the minutes before, in the hour", f"{before_p99_s:.2f} s, {during.percentile(0.99):.2f} s"),
        (f"the healthy after the {LARGE} largest, in the hour: p50, p99, worst", words(during_small)),
        *(
            (f"{NAMES[kind]}: from event to answer of 200, p50, p99, worst", words(of_down[kind]))
            for kind in TROUBLES
        ),
        ("waiting or parked when the hour ends", ", ".join(f"{NAMES[kind]} {count:,}" for kind, count in waited_at_end.items())),
        ("most parked", f"{max(one.parked for one in samples):,}"),
        ("dead after their last resend", f"{system.rules.dead:,} of {sum(one.share for one in down) * sum(rate(DOWN_FROM_S + s) for s in range(0, int(down_s), 60)) * 60:,.0f} that came for them"),
        ("their lanes are empty again", f"{recovered_s:,.0f} s after they are back" if recovered_s is not None else "not within half an hour"),
        ("attempts that shared another's connect time-out", f"{figures.shared:,}"),
        ("most transfers open", f"{max(one.open for one in samples):,} of {workers * settings.max_transfers:,}"),
        ("broker's thread: busy in the mean", f"{statistics.fmean(one.broker_busy for one in samples):.0%}"),
        ("broker's memory for what waits, at most", f"{max(result.lines['memory_gb']):.2f} GB"),
    ]  # fmt: skip
    result.numbers = {
        "before_p99_s": before_p99_s, "during": during.shown(), "during_small": during_small.shown(),
        "down": {kind: late.shown() for kind, late in of_down.items()}, "waiting_at_end": waited_at_end,
        "dead": system.rules.dead, "dead_at_end": dead_at_end, "recovered_s": recovered_s, "shared": figures.shared,
    }  # fmt: skip
    return result


#: How the ways of being down are called in the table.
NAMES: Final = {
    "hang": "silent after the connection", "drop": "no connection", "refuse": "refuses", "500": "answers 500",
}  # fmt: skip
