"""Workers 1, 2 and 4 against a receiver that thinks for 50 ms."""

from __future__ import annotations

from benchmarks import fill
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Ours
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker

ACCOUNTS = 200
DELAY_MS = 50
#: Of one worker: the receiver's delay then bounds it to 640 a second, so that four are needed for the cores.
TRANSFERS = 32


def run(bench: Bench) -> list[Row]:
    """Rate with each number of workers, from a quarter of the backlog to three quarters."""
    seconds = 2 if bench.quick else 10
    rates: dict[int, float] = {}
    for workers in (1, 2, 4):
        count = int(workers * TRANSFERS * 1000 / DELAY_MS * seconds)
        rates[workers] = _rate(bench, workers, count)
        bench.say(f"{workers} workers: {rates[workers]:,.0f}/s")
    bound = TRANSFERS * 1000 / DELAY_MS
    shares = {workers: rate / (workers * rates[1]) for workers, rate in rates.items()}
    return [
        Row(
            f"workers 1, 2, 4 (receiver with {DELAY_MS} ms delay, {TRANSFERS} transfers a worker: at most {bound:,.0f}/s each)",
            "linear until the cores are full (0.9 of linear at 2 and 4)",
            ", ".join(f"{workers}: {rate:,.0f}/s ({shares[workers]:.2f})" for workers, rate in rates.items()),
            shares[2] >= 0.9 and shares[4] >= 0.9,
            {"per_s": rates, "share_of_linear": shares},
        )
    ]


def _rate(bench: Bench, workers: int, count: int) -> float:
    with (
        EmbeddedBroker() as broker,
        Receiver(count, delay_ms=DELAY_MS) as receiver,
        environment(broker.url, POSTBACKS_MAX_TRANSFERS=str(TRANSFERS)) as env,
    ):
        client = broker.client()
        names = [f"a{number}" for number in range(ACCOUNTS)]
        fill.set_accounts(names, lambda number: receiver.url(number, "delay"))
        with Ours(broker, env, bench.folder, workers=workers) as system:
            system.hold()
            until(lambda: not client.llen(keys.WORK_QUEUE), 10, "the last tick")
            fill.accept(
                client,
                range(count),
                lambda number: (names[number % ACCOUNTS], receiver.url(number % ACCOUNTS, "delay")),
            )
            system.let_go()
            until(lambda: client.zcard(keys.DONE) == count, 120, "all delivered")
        receiver.check(range(count))
        times = sorted(first for _, first, _ in receiver.arrivals())
    return (count // 2) / (times[3 * count // 4] - times[count // 4])
