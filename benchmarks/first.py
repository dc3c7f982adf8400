"""A first rough measurement: postbacks beside the textbook task, in one run, interleaved.

Each round enqueues a backlog with the workers stopped, starts them, and takes the time from the first
to the last POST at a receiver of its own process, and the CPU that worker, beat and broker used for
it. The event's way into the queue is not part of it. Figures are ratios and CPU time: machines drift.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RECEIVER = """
import sys, time
from postbacks.receiver import Receiver
with Receiver(keep=False) as receiver:
    print(receiver.url(), flush=True)
    want = int(sys.argv[1])
    first = None
    while receiver.count < want:
        if first is None and receiver.count:
            first, seen = time.monotonic(), receiver.count
        time.sleep(0.005)
    print(time.monotonic() - first, flush=True)
"""
EVENT = {
    "ORIGIN": "SMS_MT", "CODE": "N202", "STATUS": "Message Sent/Delivered", "FROM": "86717",
    "TO": "15552312102", "TRACKINGID": "MT_0123456789", "SPID": "0007",
    "TIMESTAMP": "2013-11-05T05:41:08-05:00",
}  # fmt: skip
ACCOUNTS = 20


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes and their children have used."""
    ticks = 0
    wanted = set(pids)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) in wanted or int(fields[1]) in wanted:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(name: str, count: int, log_dir: Path) -> dict[str, float]:
    """One round of one contender: postbacks a second and CPU milliseconds a postback."""
    from postbacks.local import CeleryProcess, EmbeddedBroker, LocalStack

    with EmbeddedBroker() as broker:
        env = {
            "POSTBACKS_BROKER_URL": broker.url,
            "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8",
            "BENCH_BROKER_URL": broker.url,
            "PYTHONPATH": str(Path(__file__).parent / "peers"),
        }
        receiver = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, str(count)], stdout=subprocess.PIPE, text=True
        )
        url = receiver.stdout.readline().strip()
        fill = subprocess.run(
            [sys.executable, __file__, "--fill", name, "--url", url, "--count", str(count)],
            env={**os.environ, **env}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        if name == "postbacks":
            stack = LocalStack(broker, env=env, log_dir=log_dir)
        else:
            stack = CeleryProcess(
                "worker", env=env, app="textbook", log_path=log_dir / "textbook.log",
                args=["--pool=prefork", "--concurrency=2", "--loglevel=WARNING", "--without-mingle"],
            )  # fmt: skip
        before_s = cpu_s([broker.pid])
        with stack:
            took_s = float(receiver.stdout.readline())
            pids = (
                [process.pid for process in (*stack.workers, *stack.beats)]
                if name == "postbacks"
                else [stack.pid]
            )
            used_s = cpu_s(pids) + cpu_s([broker.pid]) - before_s
        receiver.wait()
        return {"per_s": count / took_s, "cpu_ms": 1000 * used_s / count, "fill_s": float(fill.stdout)}


def fill(name: str, url: str, count: int) -> None:
    """Put a backlog into the queue, in a process of its own; prints how long that took."""
    import time

    from postbacks.accounts import make_account, redis_accounts
    from postbacks.catalogue import parse_event
    from postbacks.tasks import send_postbacks
    from postbacks.xml import render

    began_s = time.monotonic()
    if name == "postbacks":
        for number in range(ACCOUNTS):
            redis_accounts().set(make_account(f"a{number}", url=url))
            send_postbacks(f"a{number}", [EVENT] * (count // ACCOUNTS))
    else:
        from textbook import app, post

        xml = render(parse_event(EVENT)).decode()
        with app.producer_pool.acquire(block=True) as producer, producer.batch():
            for _ in range(count):
                post.apply_async((url, xml), producer=producer)
    print(time.monotonic() - began_s)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill")
    parser.add_argument("--url")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.fill:
        fill(options.fill, options.url, options.count)
        return
    counts = {"postbacks": options.count, "textbook": max(1, options.count // 10)}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in counts}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, count in counts.items():
                rounds[name].append(measure(name, count, Path(folder)))
                print(
                    name,
                    json.dumps({key: round(value, 3) for key, value in rounds[name][-1].items()}),
                    flush=True,
                )
    middle = {
        name: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        for name, ones in rounds.items()
    }
    ours, theirs = middle["postbacks"], middle["textbook"]
    print(f"postbacks: {ours['per_s']:.0f}/s, {ours['cpu_ms']:.2f} ms CPU each (worker, beat and broker)")
    print(f"textbook:  {theirs['per_s']:.0f}/s, {theirs['cpu_ms']:.2f} ms CPU each (worker and broker)")
    print(f"ratio:     {ours['per_s'] / theirs['per_s']:.1f} times the rate, "
          f"{theirs['cpu_ms'] / ours['cpu_ms']:.1f} times less CPU")  # fmt: skip


if __name__ == "__main__":
    main()
