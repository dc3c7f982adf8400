"""The recorder of the history: CPU a postback, the rate that it keeps up with, what it writes, and how far behind it is.

    python -m benchmarks.history_recorder [--count 100000] [--seconds 20] [--url postgresql://…]

Postbacks are accepted and delivered by the moves themselves, without POSTs: the recorder sees the same records and the
same feed. By default it writes to an SQLite file in a folder of its own. To measure the lag, a process of the recorder's
own runs while 1,000 postbacks a second are accepted and delivered in this one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import fill
from benchmarks.machine import exact_cpu_s, percentile
from postbacks.accounts import make_account, redis_accounts
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import RecorderProcess
from postbacks.ledger.record import Attempt
from postbacks.queue.rows import AttemptRow
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.version import new_loop_id

if TYPE_CHECKING:
    import redis

ACCOUNTS = 200
RATE = 1000


class Deliveries:
    """Postbacks accepted and delivered by the moves.

    Args:
        client: of the broker.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._scripts = Scripts(client)
        self._token = new_loop_id()
        self._number = 0
        for number in range(ACCOUNTS):
            redis_accounts().set(make_account(f"a{number}", url=f"https://receiver.example/{number}"))

    def run(self, count: int) -> None:
        """Accept so many, then deliver them."""
        first, self._number = self._number, self._number + count
        fill.accept(
            self._client,
            range(first, self._number),
            lambda number: (f"a{number % ACCOUNTS}", f"https://receiver.example/{number % ACCOUNTS}"),
        )
        while count:
            now_ms, begun, _, _ = self._scripts.claim(
                self._token, 30_000, at_most=500, suspects_max=500, free=5000, held_max=0, held_per_lane=0, slow_lanes=()
            )  # fmt: skip
            rows = [
                AttemptRow(row.id.decode(), row.lane.decode(), "delivered", row.number,
                 Attempt(row.number, now_ms, "delivered", 200, 12).to_json(), 0, "ok", "delivered")
                for row in begun
            ]  # fmt: skip
            if rows:
                self._scripts.commit(self._token, 30_000, 1000, 86_400, rows)
            count -= len(rows)


def catch_up(broker: EmbeddedBroker, deliveries: Deliveries, count: int) -> None:
    """Measure a recorder in this process that finds a feed of so many postbacks."""
    from postbacks.history import recorder as module

    module.GATHER_S = 0
    with broker.client() as client:
        recorder = module.Recorder(client, load())
        while recorder.turn() < 0.5 or client.hexists("postbacks:history", "resync"):
            pass
        deliveries.run(count)
        state = recorder._feed.state()  # noqa: SLF001 - the size of what the recorder finds
        print(f"feed: {state.length:,} entries, {state.bytes / count:.0f} bytes a postback")
        written, cpu, wall, io = recorder.written, time.process_time(), time.monotonic(), disk_bytes()
        while recorder.written - written < count or client.xlen("postbacks:changes"):
            recorder.turn()
        cpu, wall, io = time.process_time() - cpu, time.monotonic() - wall, disk_bytes() - io
        written = recorder.written - written
        recorder.close()
    print(f"CPU: {cpu / count * 1e6:.1f} us a postback ({count:,}, of which {written:,} were written)")
    print(f"rate: {count / wall:,.0f} postbacks/s; by its CPU alone {count / cpu:,.0f}/s")
    print(f"written to disk: {io / count:,.0f} bytes a postback")


def disk_bytes() -> int:
    """Bytes that this process has written to a disk."""
    return int(Path("/proc/self/io").read_text().split("\nwrite_bytes: ")[1].split()[0])


def lag(broker: EmbeddedBroker, deliveries: Deliveries, folder: Path, seconds: float) -> None:
    """Measure how old the oldest change is that is not recorded, every 20 ms, at a steady rate."""
    from postbacks.history.status import read_feed

    lags: list[float] = []
    with (
        broker.client() as client,
        RecorderProcess(env=os.environ, log_path=folder / "recorder.log") as recorder,
    ):
        recorder.wait_for_log("history.recording", 30)
        began_s = sampled_s = time.monotonic()
        cpu, sent = 0.0, 0
        while time.monotonic() < began_s + seconds:
            now_s = time.monotonic()
            due = int((now_s - began_s) * RATE) - sent
            if due >= RATE // 20:
                deliveries.run(due)
                sent += due
            if now_s - began_s > 3 and now_s - sampled_s > 0.02:
                cpu = cpu or exact_cpu_s(recorder.pid)
                lags.append(read_feed(client).lag_s or 0.0)
                sampled_s = now_s
            time.sleep(0.005)
        cpu = exact_cpu_s(recorder.pid) - cpu
    print(
        f"lag at {sent / seconds:,.0f}/s: median {percentile(lags, 0.5):.2f} s, p99 {percentile(lags, 0.99):.2f} s, "
        f"at most {max(lags):.2f} s ({len(lags):,} looks); CPU {cpu / (seconds - 3) / RATE * 1e6:.1f} us a postback"
    )


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument(
        "--url", default="", help="database; an SQLite file in a folder of its own where not given"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        os.environ["POSTBACKS_BROKER_URL"] = broker.url
        os.environ["POSTBACKS_HISTORY_URL"] = given.url or f"sqlite:///{name}/history.db"
        with broker.client() as client:
            deliveries = Deliveries(client)
            catch_up(broker, deliveries, given.count)
            lag(broker, deliveries, Path(name), given.seconds)


if __name__ == "__main__":
    main()
