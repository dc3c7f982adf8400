"""Cost of a call for the program that makes it: ``.delay()`` and ``send_postbacks`` beside stock Celery."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import fill
from benchmarks.scenario import Bench, Row, environment
from postbacks import send_postback, send_postbacks
from postbacks.devtools.embedded_broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Callable


def _cpu_ms(call: Callable[[], object], count: int) -> float:
    began_s = time.process_time()
    call()
    return 1000 * (time.process_time() - began_s) / count


def run(bench: Bench) -> list[Row]:
    """In this process, in turn, with the same arguments and the same broker; medians of rounds."""
    one_by_one, at_once = (300, 1_500) if bench.quick else (2_000, 10_000)
    rounds = 3 if bench.quick else 7
    found: dict[str, list[float]] = {name: [] for name in ("delay", "stock_delay", "many", "stock_many")}
    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    # The caller's CPU does not depend on when the broker syncs; waiting for it would only take time.
    with EmbeddedBroker(config={"appendfsync": "no"}) as broker, environment(broker.url):
        stock = importlib.import_module("stock")
        stock.app.conf.broker_url = broker.url
        client = broker.client()
        event = fill.mt(0)
        events = [fill.mt(number) for number in range(at_once)]

        def stock_many() -> None:
            with stock.app.connection_for_write() as connection:
                producer = stock.app.amqp.Producer(connection)
                with producer.batch():
                    for one in events:
                        stock.app.send_task(
                            "stock.send", args=("acme", one), queue="stock", producer=producer
                        )

        calls: dict[str, tuple[Callable[[], object], int]] = {
            "delay": (lambda: [send_postback.delay("acme", event) for _ in range(one_by_one)], one_by_one),
            "stock_delay": (lambda: [stock.send.delay("acme", event) for _ in range(one_by_one)], one_by_one),
            "many": (lambda: send_postbacks("acme", events), at_once),
            "stock_many": (stock_many, at_once),
        }
        send_postback.delay("acme", event)  # what a first call imports and checks is not counted
        stock.send.delay("acme", event)
        for _ in range(rounds):
            for name, (call, count) in calls.items():
                found[name].append(_cpu_ms(call, count))
                client.flushdb()
    ours = {name: statistics.median(values) for name, values in found.items()}
    bench.say(" ".join(f"{name}: {value:.3f} ms" for name, value in ours.items()))
    share = ours["delay"] / ours["stock_delay"]
    times = ours["stock_many"] / ours["many"]
    per_core = 1000 / ours["many"]
    return [
        Row(
            "CPU of `.delay()` in the caller, beside stock Celery's with the same arguments",
            "at most half",
            f"{share:.2f} ({ours['delay']:.3f} ms beside {ours['stock_delay']:.3f} ms)",
            share <= 0.5,
            {**ours, "delay_over_stock": share},
        ),
        Row(
            "`send_postbacks` beside `send_task` in a loop through `Producer.batch`",
            "at least 3 times; the aim is 8,000/s a core",
            f"{times:.1f} times ({per_core:,.0f}/s a core beside {1000 / ours['stock_many']:,.0f}/s)",
            times >= 3,
            {"many_over_stock": times, "per_s_a_core": per_core},
        ),
    ]
