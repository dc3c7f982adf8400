"""CPU of a postback, leg by leg, beside the floor: ``python -m benchmarks.legs [--rounds N]``.

Each leg runs alone in this process, with nothing of Celery's and no other thread: take-in (from the queue to the
lanes) and delivery (from the lanes to the notes). The floor's rounds stand between theirs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks import drain, fill
from benchmarks.machine import exact_cpu_s
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, environment
from postbacks import accounts
from postbacks.broker.client import client
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profiles import Profiles
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.queue.intake import Intake
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.tasks import decide
from postbacks.transport.client import CurlClient
from postbacks.worker.process import max_connections, tune_gc


def legs(count: int) -> dict[str, float]:
    """Measure one round of both legs: microseconds of CPU a postback, and the loop's postbacks a second."""
    with EmbeddedBroker() as broker, Receiver(count) as receiver, environment(broker.url):
        connection, settings = client(), load()
        names = [f"a{number}" for number in range(drain.ACCOUNTS)]
        fill.set_accounts(names, receiver.url)
        messages = fill.Messages(connection)
        messages.push(range(count), lambda number: names[number % drain.ACCOUNTS])
        scripts = Scripts(connection)
        found: dict[str, float] = {}
        broker_s, own_s = exact_cpu_s(broker.pid), time.thread_time()
        taken, _ = Intake(scripts, accounts.store(), settings).run(uuid.uuid4().hex, time.monotonic() + 60)
        assert taken == count
        found["take-in, worker"] = 1e6 * (time.thread_time() - own_s) / count
        found["take-in, broker"] = 1e6 * (exact_cpu_s(broker.pid) - broker_s) / count
        adapter = CurlClient(settings, max_connections=max_connections(settings))
        profiles = Profiles(accounts.store(), settings, scripts)
        loop = DeliveryLoop(scripts, adapter, profiles, settings, decide, slice_s=60)
        broker_s, own_s, began_s = exact_cpu_s(broker.pid), time.thread_time(), time.monotonic()
        assert loop.run() == count
        found["delivery, worker"] = 1e6 * (time.thread_time() - own_s) / count
        found["delivery, broker"] = 1e6 * (exact_cpu_s(broker.pid) - broker_s) / count
        found["delivery, a second"] = count / (time.monotonic() - began_s)
        adapter.close()
        receiver.check(range(count))
    return found


def main() -> None:
    """Measure in turns, print medians and each in floors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.legs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=30_000)
    options = parser.parse_args()
    tune_gc()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="postbacks-bench-") as folder:
        bench = Bench(quick=True, folder=Path(folder))
        rounds.extend(
            legs(options.count) | {"floor": 1000 * drain.floor(bench, options.count)["cpu_ms"]}
            for _ in range(options.rounds)
        )
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    per_s = middle.pop("delivery, a second")
    for name, value in middle.items():
        print(f"{name:18} {value:6.1f} µs {value / middle['floor']:5.1f} floors")
    whole = sum(value for name, value in middle.items() if name != "floor")
    print(
        f"{'all legs':18} {whole:6.1f} µs {whole / middle['floor']:5.1f} floors; delivery alone {per_s:,.0f}/s"
    )


if __name__ == "__main__":
    main()
