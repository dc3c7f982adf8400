"""100,000 parked, and half as many more: what they take in the worker and in the broker, and when they leave."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks import fill
from benchmarks.machine import percentile, resident_bytes
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Ours
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker

if TYPE_CHECKING:
    import redis

ACCOUNTS = 1_000
MB = 1_000_000
#: Seconds between a failure and its resend, until all are parked, however long that takes; then it is cut short.
COUNTDOWN_S = 3_600
#: Seconds from then until the first of them is due.
DUE_IN_S = 2
#: Seconds for all of it, and of them for the resends; a quiet machine needs half.
WHOLE_S, END_S = 230, 100
#: What the worker may grow by while the last third is parked: allocators' slack, 60 bytes each of 50,000.
GROWTH_MAX_MB = 3
#: Seconds that the wake-up of a loop, its next look and the POST may take.
BEHIND_MAX_S = 0.3


def run(bench: Bench) -> list[Row]:
    """Every account's server answers 500 until all are parked, then 200.

    They come in three parts. The first two warm the worker: in both of its transports every account has its
    connection and its handles, and as many were held at a time as will be. What the third part adds is growth.
    """
    count, accounts = (9_000, 200) if bench.quick else (150_000, ACCOUNTS)
    third = count // 3
    # Short slices of a loop, so that both transports which a worker has are in use before it is measured.
    settings = {
        "POSTBACKS_RETRY_COUNTDOWN_S": str(COUNTDOWN_S),
        "POSTBACKS_DELIVER_SLICE_S": "1.5" if bench.quick else "3",
    }
    with (
        EmbeddedBroker() as broker,
        Receiver(count) as receiver,
        environment(broker.url, **settings) as env,
    ):
        client = broker.client()
        names = [f"a{number}" for number in range(accounts)]
        fill.set_accounts(names, receiver.url)
        receiver.ask("mode 500")
        empty_bytes = client.info("memory")["used_memory_dataset"]
        with Ours(broker, env, bench.folder) as system:
            worker = [system.workers[0].pid]

            def park(first: int, end: int) -> int:
                fill.accept(
                    client,
                    range(first, end),
                    lambda number: (names[number % accounts], receiver.url(number % accounts)),
                )
                left_s = ends_s - END_S - time.monotonic()
                until(lambda: client.zcard(keys.PARKED) == end, max(1.0, left_s), f"all {end:,} parked")
                until(lambda: not client.exists(keys.CLAIMERS), 10, "the end of the loop")
                return resident_bytes(worker)

            ends_s = time.monotonic() + WHOLE_S
            park(0, third)
            warm_bytes = park(third, 2 * third)
            all_bytes = park(2 * third, count)
            broker_bytes = client.info("memory")["used_memory_dataset"] - empty_bytes
            receiver.ask("mode 200")
            countdown_s = COUNTDOWN_S - _cut_short(client)
            until(
                lambda: client.zcard(keys.DONE) == count, max(1.0, ends_s - time.monotonic()), "all delivered"
            )
        arrivals = receiver.arrivals()
        receiver.check(range(count), at_most=2)
    grown_mb = (all_bytes - warm_bytes) / MB
    beyond = broker_bytes / count - len(fill.document(0))
    per_s = _rate(arrivals[:third])
    late, unexplained = _lateness(arrivals, countdown_s, per_s)
    late_p50_s, late_p99_s, p99_s = (
        percentile(late, 0.5),
        percentile(late, 0.99),
        percentile(unexplained, 0.99),
    )
    bench.say(
        f"parked: worker {grown_mb:+.1f} MB, broker {beyond:.0f} B each, late p50 {late_p50_s:.2f} s "
        f"p99 {late_p99_s:.2f} s, beyond {per_s:,.0f}/s p99 {p99_s:.2f} s"
    )
    return [
        Row(
            f"{count:,} parked: memory of the worker",
            f"no growth (at most {GROWTH_MAX_MB} MB from {2 * third:,} of them to all)",
            f"{grown_mb:+.1f} MB (to {all_bytes / MB:.0f} MB)",
            grown_mb <= GROWTH_MAX_MB,
            {"grown_mb": grown_mb, "resident_mb": all_bytes / MB},
        ),
        Row(
            f"{count:,} parked: memory of the broker a postback beyond its XML",
            "at most 1,500 bytes",
            f"{beyond:,.0f} bytes",
            beyond <= 1500,
            {"beyond_xml_bytes": beyond},
        ),
        Row(
            f"{count:,} parked: they leave within the second they are due, up to the send rate",
            f"p99 at most {BEHIND_MAX_S} s behind a sender that never rests, of the rate at which they failed",
            f"{max(0.0, p99_s):.2f} s at {per_s:,.0f}/s (after they are due: p50 {late_p50_s:.2f} s, p99 {late_p99_s:.2f} s)",
            p99_s <= BEHIND_MAX_S,
            {"late_p50_s": late_p50_s, "late_p99_s": late_p99_s, "unexplained_p99_s": p99_s, "per_s": per_s},
        ),
    ]


def _cut_short(client: redis.Redis) -> float:
    """Let all wait less, by the same time, so that the first is due in DUE_IN_S; returns by how many seconds."""
    parked = client.zrange(keys.PARKED, 0, -1, withscores=True)
    seconds, microseconds = client.time()
    less_ms = parked[0][1] - (seconds + DUE_IN_S) * 1000 - microseconds / 1000
    for first in range(0, len(parked), 5_000):
        client.zadd(
            keys.PARKED, {name: at_ms - less_ms for name, at_ms in parked[first : first + 5_000]}, xx=True
        )
    return less_ms / 1000


def _rate(arrivals: list[tuple[int, float, float]]) -> float:
    """First sends a second, from the second quarter to the third: while all were there and none was the last."""
    firsts = sorted(first for _, first, _ in arrivals)
    quarter = len(firsts) // 4
    return 2 * quarter / (firsts[3 * quarter] - firsts[quarter])


def _lateness(
    arrivals: list[tuple[int, float, float]], countdown_s: float, per_s: float
) -> tuple[list[float], list[float]]:
    """Return how late each resend was, and how much later than a sender of this rate explains.

    That sender begins each in the order in which they are due, the moment it is due, and never idles while one is.
    The countdown is taken from the arrival of the first POST, so that what its note took counts as lateness too.
    """
    free_s = 0.0
    late: list[float] = []
    unexplained: list[float] = []
    for due_s, came_s in sorted((first + countdown_s, last) for _, first, last in arrivals):
        free_s = max(due_s, free_s) + 1 / per_s
        late.append(came_s - due_s)
        unexplained.append(came_s - free_s)
    return late, unexplained
