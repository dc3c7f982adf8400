"""The history's store: CPU, disk and writing a postback, and what pruning does to writer and search.

    python -m benchmarks.history_store [--old 1000000] [--batches 500] [--url postgresql://…]

Records stand in memory as the recorder reads them: delivery receipts of 410 bytes with two business values, delivered by
their first POST. ``--old`` of them are written as 100 days old, 1,000 accepted a second: the first and the last 20,000 show
how the cost grows within an hour. Then fresh batches of 1,000 are written, half of them with a pruning after each, while
another connection counts an account's dead and finds a number every 20 ms. By default the database is an SQLite file in a
folder of its own; a database of ``--url`` is to be empty.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from benchmarks.machine import percentile
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.history import values
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.schema import HOUR_MS, STATES
from postbacks.history.slots import first_of_hour
from postbacks.history.transactions import reading
from postbacks.history.writer import Writer
from postbacks.ledger.record import Attempt
from postbacks.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

BATCH = 1_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_780_000_000_000
#: Postbacks a second of which the times of acceptance tell.
RATE = 1_000
#: Batches at the begin and at the end of the old ones that are told apart.
EDGE = 20

_COUNT = text(
    f"SELECT count(*) FROM postbacks WHERE account = 7 AND accepted_ms > :since AND state = {STATES['dead']}"
)
_FIND = text("SELECT row_id FROM business_values WHERE slot = :slot AND hash = :hash")


def record(chance: random.Random, accepted_ms: int) -> tuple[str, dict[bytes, bytes]]:
    """Make the record of a delivered receipt."""
    number = chance.randrange(200)
    document = render(
        parse_event({
            "ORIGIN": "SMS_MT", "CODE": "N202", "STATUS": "Message Sent/Delivered", "FROM_MASK": "ACME",
            "TO": f"1555{chance.randrange(10**7):07}", "TRACKINGID": str(uuid.UUID(int=chance.getrandbits(128))),
            "SPID": "0032", "TIMESTAMP": "2026-05-28T20:30:00+00:00", "AGGREGATORID": str(chance.getrandbits(34)),
            "STATUSDETAILS": "Delivered to handset, message accepted by the carrier",
        })
    )  # fmt: skip
    note = Attempt(1, accepted_ms + 40, "delivered", 200, 35).to_json().encode()
    return str(uuid.UUID(int=chance.getrandbits(128))), {
        b"schema": b"1", b"state": b"delivered", b"account": b"a%d" % number, b"group": b"mt", b"origin": b"SMS_MT",
        b"code": b"N202", b"url": b"https://receiver.example/%d" % number, b"endpoint": b"https://receiver.example:443",
        b"xml": document, b"created_ms": b"%d" % accepted_ms, b"sequence": b"%d" % accepted_ms, b"attempts": b"1",
        b"failures": b"0", b"own": b"0", b"ended_ms": b"%d" % (accepted_ms + 80), b"reason": b"", b"attempt:1": note,
    }  # fmt: skip


class Searches(threading.Thread):
    """Searches of another connection, until ``stop``; their times in ms."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.times_ms: list[float] = []
        self._engine = engine
        self._stopped = threading.Event()

    def run(self) -> None:
        wanted = {"slot": first_of_hour(NOW_MS), "hash": values.hash_of("number", "15550000001")}
        while not self._stopped.wait(0.02):
            began = time.perf_counter()
            with reading(self._engine) as connection:
                connection.execute(_COUNT, {"since": NOW_MS}).scalar()
                connection.execute(_FIND, wanted).all()
            self.times_ms.append((time.perf_counter() - began) * 1000)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def written_bytes() -> int:
    """Return the bytes that this process has had written to disks."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["write_bytes"])


def write(writer: Writer, chance: random.Random, batches: int, first_ms: int) -> dict[str, Any]:
    """Write batches; return CPU and bytes a postback."""
    cpu_s, bytes_before = 0.0, written_bytes()
    for number in range(batches):
        at_ms = first_ms + number * BATCH * 1000 // RATE
        records = [record(chance, at_ms + i * 1000 // RATE) for i in range(BATCH)]
        began = time.process_time()
        writer.write(records, recorded_id=f"{at_ms}-0", recorded_ms=at_ms)
        cpu_s += time.process_time() - began
    count = batches * BATCH
    return {"us": cpu_s / count * 1e6, "written": (written_bytes() - bytes_before) / count}


def prune(engine: Engine, writer: Writer, chance: random.Random, batches: int) -> None:
    """Write fresh batches, without pruning and with it, and print what each does to the other and to searches."""
    at_ms = NOW_MS
    for prunes in (False, True):
        searches = Searches(engine)
        searches.start()
        writes_ms, cpu_s, pruned = [], 0.0, 0
        for _ in range(batches // 2):
            records = [record(chance, at_ms + i) for i in range(BATCH)]
            at_ms += BATCH
            began = time.perf_counter()
            writer.write(records, recorded_ms=at_ms)
            writes_ms.append((time.perf_counter() - began) * 1000)
            if prunes:
                began = time.process_time()
                pruned += writer.prune(at_ms, Settings())
                cpu_s += time.process_time() - began
        searches.stop()
        print(
            f"{'with' if prunes else 'without'} pruning: a batch p50 {percentile(writes_ms, 0.5):.0f} p99 "
            f"{percentile(writes_ms, 0.99):.0f} ms; a search p50 {percentile(searches.times_ms, 0.5):.1f} p99 "
            f"{percentile(searches.times_ms, 0.99):.1f} ms"
        )
        if pruned:
            print(f"pruning: {cpu_s / pruned * 1e6:.1f} us of our CPU a row looked at, {pruned:,} rows")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--url")
    options = parser.parse_args()
    if options.old < 3 * EDGE * BATCH:
        parser.error(f"--old is to be {3 * EDGE * BATCH:,} at least")
    with tempfile.TemporaryDirectory(prefix="postbacks-history-") as folder:
        engine = connect(options.url or f"sqlite:///{folder}/history.db")
        prepare(engine)
        writer = Writer(engine)
        writer.take_lease()
        chance = random.Random(1)
        batches, at_ms = options.old // BATCH, (NOW_MS - 100 * DAY_MS) // HOUR_MS * HOUR_MS
        parts = []
        for number in (EDGE, batches - 2 * EDGE, EDGE):
            parts.append(write(writer, chance, number, at_ms))
            at_ms += number * BATCH * 1000 // RATE
        whole = {
            name: (EDGE * (parts[0][name] + parts[2][name]) + (batches - 2 * EDGE) * parts[1][name]) / batches
            for name in parts[0]
        }
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:
                driver: Any = connection.connection.driver_connection
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            disk = Path(folder, "history.db").stat().st_size
        else:
            with reading(engine) as connection:
                disk = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        print(
            f"{options.old:,} postbacks: {whole['us']:.1f} us of our CPU, {disk / options.old:.0f} bytes of disk, "
            f"{whole['written']:,.0f} bytes written by our process each"
        )
        for name, part in (("first", parts[0]), ("last", parts[2])):
            print(
                f"the {name} {EDGE * BATCH:,}: {part['us']:.1f} us, {part['written']:,.0f} bytes written each"
            )
        prune(engine, writer, chance, options.batches)
        engine.dispose()


if __name__ == "__main__":
    main()
