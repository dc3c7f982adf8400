"""Nothing to do: CPU and broker commands a second, beside a stock Celery app whose beat sends a no-op."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.machine import cpu_s
from benchmarks.scenario import Bench, Row, environment
from benchmarks.systems import Ours
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import LocalStack


def run(bench: Bench) -> list[Row]:
    """Both at the same time, each with a broker of its own, after a few seconds to settle."""
    settle_s, watch_s = (2, 4) if bench.quick else (5, 25)
    with EmbeddedBroker() as broker, EmbeddedBroker() as other:
        logs = bench.folder / "noop"
        logs.mkdir(exist_ok=True)
        peers = str(Path(__file__).parent / "peers")
        stock_env = {"PYTHONPATH": peers, "BENCH_BROKER_URL": other.url}
        with (
            environment(broker.url) as env,
            Ours(broker, env, bench.folder) as ours,
            LocalStack(other, app="noop", env=stock_env, log_dir=logs) as stock,
        ):
            time.sleep(settle_s)
            client = broker.client()
            before, stock_before_s = ours.cpu(), _cpu_s(stock)
            commands_before = client.info("stats")["total_commands_processed"]
            began_s = time.monotonic()
            time.sleep(watch_s)
            took_s = time.monotonic() - began_s
            after, stock_s = ours.cpu(), _cpu_s(stock) - stock_before_s
            commands = client.info("stats")["total_commands_processed"] - commands_before - 1
    parts = {name: 1000 * (after[name] - before[name]) / took_s for name in after}
    both = parts["worker"] + parts["beat"]
    stock_ms = 1000 * stock_s / took_s
    bench.say(f"idle: {parts}, stock {stock_ms:.1f} ms")
    return [
        Row(
            "idle: CPU a second of worker and beat together",
            "at most 20 ms",
            f"{both:.0f} ms (a no-op tick of stock Celery: {stock_ms:.0f} ms; our broker {parts['broker']:.0f} ms)",
            both <= 20,
            {**parts, "stock_ms": stock_ms},
        ),
        Row(
            "idle: broker commands a second", "stated", f"{commands / took_s:.0f}", None,
            {"commands_per_s": commands / took_s},
        ),
    ]  # fmt: skip


def _cpu_s(stack: LocalStack) -> float:
    return cpu_s(process.pid for process in (*stack.workers, *stack.beats))
