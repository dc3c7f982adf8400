"""Cost of task events: CPU a postback with events off, on and sampled, on and all shown, interleaved.

Run it as ``python -m benchmarks.events_cost``. Each round delivers a backlog; with events on somebody
listens, in a process that is not counted (Flower's own cost is Flower's). CPU is that of worker, beat and broker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks.machine import cpu_s

RECEIVER = """
import sys, time
from postbacks.devtools.receiver import Receiver
with Receiver(keep=False) as receiver:
    print(receiver.url(), flush=True)
    want, first = int(sys.argv[1]), None
    while receiver.count < want:
        first = first or (receiver.count and time.monotonic())
        time.sleep(0.005)
    print(time.monotonic() - first, flush=True)
"""
FILL = """
import sys
from benchmarks.fill import mt, set_accounts
from postbacks import send_postbacks
url, count = sys.argv[1], int(sys.argv[2])
names = [f"a{number}" for number in range(20)]
set_accounts(names, lambda _: url)
for name in names:
    send_postbacks(name, [mt(number) for number in range(count // 20)])
"""

LISTENER = """
import sys, redis
pubsub = redis.Redis.from_url(sys.argv[1]).pubsub()
pubsub.psubscribe("/0.postbacks.events*")
print("ready", flush=True)
for message in pubsub.listen():
    if message["type"] == "pmessage":
        print(len(message["data"]), flush=True)
"""
#: Case -> whether the worker sends events, and its limit a second.
CASES = {"off": (False, 500), "on, 500/s": (True, 500), "on, all": (True, 1_000_000)}


def measure(case: str, count: int, folder: Path) -> dict[str, float]:
    """Measure one round of one case: postbacks a second and CPU milliseconds a postback."""
    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.stack import LocalStack

    on, per_s = CASES[case]
    (folder / "celeryconfig.py").write_text(f"worker_send_task_events = {on}\n")
    with EmbeddedBroker() as broker:
        env = {
            "POSTBACKS_BROKER_URL": broker.url, "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8",
            "POSTBACKS_EVENTS_PER_S": str(per_s), "PYTHONPATH": str(folder),
        }  # fmt: skip
        python = [sys.executable, "-c"]
        receiver = subprocess.Popen([*python, RECEIVER, str(count)], stdout=subprocess.PIPE, text=True)
        heard = folder / "heard"
        with heard.open("w") as output:
            listener = subprocess.Popen([*python, LISTENER, broker.url], stdout=output)
        try:
            while not heard.stat().st_size:
                time.sleep(0.01)
            url = receiver.stdout.readline().strip()
            subprocess.run([*python, FILL, url, str(count)], env={**os.environ, **env}, check=True)
            before_s = cpu_s([broker.pid])
            with LocalStack(broker, env=env, log_dir=folder, cwd=folder) as stack:
                took_s = float(receiver.stdout.readline())
                pids = [process.pid for process in (*stack.workers, *stack.beats)]
                used_s = cpu_s(pids) + cpu_s([broker.pid]) - before_s
        finally:
            for process in (receiver, listener):
                process.kill()
                process.wait()
    heard_bytes = sum(int(line) for line in heard.read_text().split()[1:])
    return {"per_s": count / took_s, "cpu_ms": 1000 * used_s / count, "heard_kb": heard_bytes / 1000}


def alone(count: int = 2000, batch: int = 100) -> tuple[float, float]:
    """CPU microseconds a postback of the events alone, off and on, in this process with a real broker."""
    from postbacks.devtools.embedded_broker import EmbeddedBroker

    with EmbeddedBroker() as broker:
        os.environ |= {"POSTBACKS_BROKER_URL": broker.url, "POSTBACKS_EVENTS_PER_S": "1000000"}
        from postbacks.delivery.claims import ClaimedPostback
        from postbacks.flower_events import events
        from postbacks.flower_events.publisher import publisher
        from postbacks.ledger.record import Attempt
        from postbacks.queue.rows import AcceptRow
        from postbacks.transport.outcomes import OUTCOMES

        def publish_all() -> float:
            began_s = time.process_time()
            for at in range(0, count, batch):
                publisher.add(events.accepted, [1] * batch, rows[at : at + batch])
                publisher.add(events.started, postbacks[at : at + batch])
                results = [[b"delivered", 0]] * batch
                publisher.add(events.committed, notes[at : at + batch], results, OUTCOMES)
            publisher.flush()
            return (time.process_time() - began_s) / count * 1e6

        publisher.configure("worker@host", "postbacks.events")
        postbacks = [
            ClaimedPostback(
                str(uuid.uuid4()), "acme/mt", 1, 0, "acme", "SMS_MT", "N202", "", 1, True, 1, 1, b"", "", "0"
            )
            for _ in range(count)
        ]
        rows = [
            AcceptRow(
                postback.id, "acme", "mt", "SMS_MT", "N202", "", "", b"", "waiting", "", b"", "", b"", "0"
            )
            for postback in postbacks
        ]
        notes = [(postback, Attempt(1, 1, "delivered", 200, 5), []) for postback in postbacks]
        off_us = statistics.median(publish_all() for _ in range(9))
        publisher.switch(True)
        on_us = statistics.median(publish_all() for _ in range(9))
        publisher.switch(False)
        return off_us, on_us


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    off_us, on_us = alone()
    print(f"the events alone: off {off_us:.2f}, on {on_us:.1f} microseconds of CPU a postback", flush=True)
    rounds: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for case in CASES:
                rounds[case].append(measure(case, options.count, Path(folder)))
                print(case, {name: round(value, 3) for name, value in rounds[case][-1].items()}, flush=True)
    middle = {
        case: {name: statistics.median(one[name] for one in ones) for name in ones[0]}
        for case, ones in rounds.items()
    }
    for case, figures in middle.items():
        ratio = figures["cpu_ms"] / middle["off"]["cpu_ms"]
        print(
            f"{case:10} {figures['per_s']:6.0f}/s  {figures['cpu_ms']:.3f} ms CPU each  {ratio:.2f} times off"
        )


if __name__ == "__main__":
    main()
