"""The recorder of the history: CPU a postback, the rate that it keeps up with, what it writes, and how far behind it is.

Postbacks are accepted and delivered by the moves themselves, without POSTs: the recorder sees the same records and the
same feed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from benchmarks import fill
from benchmarks.history_search import postgres
from benchmarks.machine import exact_cpu_s, percentile, written_bytes
from benchmarks.scenario import Bench, Row, environment, until
from postbacks import keys
from postbacks.accounts import make_account, redis_accounts
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import RecorderProcess
from postbacks.history import recorder as recorder_module
from postbacks.history.engine import connect
from postbacks.history.recorder import Recorder
from postbacks.history.status import read_feed
from postbacks.queue.rows import AttemptRow
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.version import new_loop_id

if TYPE_CHECKING:
    import redis

ACCOUNTS = 200
#: Postbacks a second of the steady load.
RATE = 1000
#: Seconds of it that are not looked at.
SETTLE_S = 3
CPU_TARGET_US, RATE_TARGET_PER_S, LAG_TARGET_S = 60, 8_000, 3


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
                 fill.delivered(row.number, now_ms), 0, "ok", "delivered")
                for row in begun
            ]  # fmt: skip
            if rows:
                self._scripts.commit(self._token, 30_000, 1000, 86_400, rows)
            count -= len(rows)


def catch_up(url: str, count: int) -> dict[str, float]:
    """Measure a recorder in this process that finds a feed of so many postbacks."""
    with (
        EmbeddedBroker() as broker,
        environment(broker.url, POSTBACKS_HISTORY_URL=url),
        broker.client() as client,
    ):
        recorder = Recorder(client, load())
        gather_s, recorder_module.GATHER_S = recorder_module.GATHER_S, 0
        try:
            while recorder.turn() < 0.5 or client.hexists(keys.HISTORY, "resync"):
                pass
            Deliveries(client).run(count)
            feed_bytes = client.memory_usage(keys.CHANGES, samples=0)
            written = _wal_bytes(url)
            broker_s, cpu_s, began_s = exact_cpu_s(broker.pid), time.process_time(), time.monotonic()
            before = recorder.written
            while recorder.written - before < count or client.xlen(keys.CHANGES):
                recorder.turn()
            took_s = time.monotonic() - began_s
            return {
                "cpu_us": (time.process_time() - cpu_s) / count * 1e6,
                "broker_us": (exact_cpu_s(broker.pid) - broker_s) / count * 1e6,
                "per_s": count / took_s,
                "written_bytes": (_wal_bytes(url) - written) / count,
                "feed_bytes": feed_bytes / count,
            }
        finally:
            recorder_module.GATHER_S = gather_s
            recorder.close()


def _wal_bytes(url: str) -> int:
    """Bytes that went to the disk: of SQLite what this process wrote, of PostgreSQL its write-ahead log."""
    if url.startswith("sqlite"):
        return written_bytes()
    engine = connect(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT pg_current_wal_lsn() - '0/0'")).scalar_one()
    engine.dispose()
    return int(found)


def lag(folder: Path, seconds: float) -> dict[str, float]:
    """Measure how old the oldest change is that is not recorded, every 20 ms, at a steady rate; the recorder is a process."""
    lags: list[float] = []
    with (
        EmbeddedBroker() as broker,
        environment(broker.url, POSTBACKS_HISTORY_URL=f"sqlite:///{folder}/lag.db"),
        broker.client() as client,
        RecorderProcess(env=os.environ, log_path=folder / "recorder.log") as recorder,
    ):
        recorder.wait_for_log("history.recording", 30)
        deliveries = Deliveries(client)
        until(lambda: not client.hexists(keys.HISTORY, "resync"), 30, "the first resync")
        began_s = sampled_s = time.monotonic()
        cpu_s, sent, first = 0.0, 0, 0
        while time.monotonic() < began_s + seconds:
            now_s = time.monotonic()
            due = int((now_s - began_s) * RATE) - sent
            if due >= RATE // 20:
                deliveries.run(due)
                sent += due
            if now_s - began_s > SETTLE_S and now_s - sampled_s > 0.02:
                if not cpu_s:
                    cpu_s, first = exact_cpu_s(recorder.pid), sent
                lags.append(read_feed(client).lag_s or 0.0)
                sampled_s = now_s
            time.sleep(0.005)
        cpu_s = exact_cpu_s(recorder.pid) - cpu_s
    return {
        "p50_s": percentile(lags, 0.5),
        "p99_s": percentile(lags, 0.99),
        "worst_s": max(lags),
        "looks": len(lags),
        "per_s": sent / seconds,
        "cpu_us": cpu_s / (sent - first) * 1e6,
    }


def rows(bench: Bench) -> list[Row]:
    """A recorder that catches up, on both databases, then one that keeps up."""
    count, seconds = (10_000, SETTLE_S + 3) if bench.quick else (100_000, SETTLE_S + 20)
    found = {"SQLite": catch_up(f"sqlite:///{bench.folder}/recorder.db", count)}
    with postgres() as server:
        found["PostgreSQL"] = catch_up(server.url, count)
    bench.found["reading_us"] = found["SQLite"]["broker_us"]
    late = lag(bench.folder, seconds)
    bench.say(f"recorder: {found}, lag: {late}")
    made = [
        row
        for database, one in found.items()
        for row in (
            Row(
                f"history: recorder's CPU a postback, reading the broker included, {database}",
                f"at most {CPU_TARGET_US} µs",
                f"{one['cpu_us'] + one['broker_us']:.0f} µs ({one['cpu_us']:.0f} µs of its own, {one['broker_us']:.1f} µs "
                f"of the broker; {count:,} delivered in its absence)",
                one["cpu_us"] + one["broker_us"] <= CPU_TARGET_US,
                {"database": database, **one},
            ),
            Row(
                f"history: rate of one recorder, {database}",
                f"at least {RATE_TARGET_PER_S:,}/s",
                f"{one['per_s']:,.0f}/s; by its CPU alone {1e6 / one['cpu_us']:,.0f}/s",
                one["per_s"] >= RATE_TARGET_PER_S,
            ),
            Row(
                f"history: bytes written to disk a postback, {database}",
                "stated",
                f"{one['written_bytes']:,.0f}{' of write-ahead log' if database == 'PostgreSQL' else ''}",
                None,
            ),
        )
    ]
    made.append(
        Row(
            f"history: age of the oldest change that is not recorded, at {late['per_s']:,.0f}/s steady",
            f"p99 at most {LAG_TARGET_S} s",
            f"p50 {late['p50_s']:.2f} s, p99 {late['p99_s']:.2f} s, at most {late['worst_s']:.2f} s "
            f"({late['looks']:,} looks; recorder's CPU {late['cpu_us']:.0f} µs a postback)",
            late["p99_s"] <= LAG_TARGET_S,
            late,
        )
    )
    return made
