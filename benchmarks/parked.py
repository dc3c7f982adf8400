"""100,000 parked: what they take in the worker and in the broker, and when they leave."""

from __future__ import annotations

from benchmarks import fill
from benchmarks.machine import percentile, resident_bytes
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Ours
from postbacks import keys
from postbacks.local import EmbeddedBroker

ACCOUNTS = 1_000
MB = 1_000_000


def run(bench: Bench) -> list[Row]:
    """Every account's server answers 500 until all are parked, then 200."""
    count = 4_000 if bench.quick else 100_000
    accounts, countdown_s = (200, 6) if bench.quick else (ACCOUNTS, 60)
    with (
        EmbeddedBroker() as broker,
        Receiver(count) as receiver,
        environment(broker.url, POSTBACKS_RETRY_COUNTDOWN_S=str(countdown_s)) as env,
    ):
        client = broker.client()
        names = [f"a{number}" for number in range(accounts)]
        fill.set_accounts(names, receiver.url)
        receiver.ask("mode 500")
        empty_bytes = client.info("memory")["used_memory_dataset"]
        with Ours(broker, env, bench.folder) as system:
            worker = [system.workers[0].pid]
            fill.accept(
                client,
                range(count),
                lambda number: (names[number % accounts], receiver.url(number % accounts)),
            )
            until(lambda: client.zcard(keys.PARKED) >= count // 10, 60, "a tenth parked")
            tenth_bytes = resident_bytes(worker)
            until(lambda: client.zcard(keys.PARKED) == count, 200, "all parked")
            all_bytes = resident_bytes(worker)
            broker_bytes = client.info("memory")["used_memory_dataset"] - empty_bytes
            stats = receiver.stats()
            failing_per_s = count / (stats["last_s"] - stats["first_s"])
            receiver.ask("mode 200")
            until(lambda: client.zcard(keys.DONE) == count, 240, "all delivered")
        arrivals = receiver.arrivals()
        receiver.check(range(count), at_most=2)
    grown_mb = (all_bytes - tenth_bytes) / MB
    beyond = broker_bytes / count - len(fill.document(0))
    late, queueing = _lateness(arrivals, countdown_s, bench.found.get("per_s", failing_per_s))
    p99_s, excess_p99_s = percentile(late, 0.99), percentile(queueing, 0.99)
    bench.say(
        f"parked: worker +{grown_mb:.1f} MB, broker {beyond:.0f} B each, late p50 {percentile(late, 0.5):.2f} s "
        f"p99 {p99_s:.2f} s, beyond the send rate p99 {excess_p99_s:.2f} s"
    )
    return [
        Row(
            f"{count:,} parked: memory of the worker",
            "no growth (at most 3 MB from a tenth of them to all)",
            f"{grown_mb:+.1f} MB",
            grown_mb <= 3,
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
            "p99 of the lateness that the send rate does not explain at most 1.3 s",
            f"{max(0, excess_p99_s):.2f} s (lateness itself: p50 {percentile(late, 0.5):.2f} s, p99 {p99_s:.2f} s)",
            excess_p99_s <= 1.3,
            {"late_p99_s": p99_s, "excess_p99_s": excess_p99_s, "failing_per_s": failing_per_s},
        ),
    ]


def _lateness(
    arrivals: list[tuple[int, float, float]], countdown_s: float, per_s: float
) -> tuple[list[float], list[float]]:
    """How late each resend was, and how much later than a sender of this rate that never idles beside work."""
    late: list[float] = []
    excess: list[float] = []
    free_s = 0.0
    for due_s, came_s in sorted((first + countdown_s, last) for _, first, last in arrivals):
        free_s = max(due_s, free_s) + 1 / per_s
        late.append(came_s - due_s)
        excess.append(came_s - free_s)
    return late, excess
