"""The history's store: disk and CPU a postback, and what pruning does to writer and search.

Records stand in memory as the recorder reads them: delivery receipts of 410 bytes with two business values, delivered by
their first POST. Old ones are written as 100 days old. Then fresh batches of 1,000 are written, first without a pruning and
then with one after each, while another connection counts an account's dead and finds a number every 20 ms.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from benchmarks import fill
from benchmarks.history_search import postgres
from benchmarks.machine import percentile, written_bytes
from benchmarks.scenario import Bench, Row
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.history import values
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.schema import HOUR_MS, STATES
from postbacks.history.slots import first_of_hour
from postbacks.history.transactions import reading
from postbacks.history.writer import Writer
from postbacks.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

BATCH = 1_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_780_000_000_000
#: Postbacks a second of which the times of acceptance tell.
RATE = 1_000
#: Bytes of disk a postback at most.
DISK_TARGETS = {"SQLite": 300, "PostgreSQL": 600}

_TRACKING_ID, _NUMBER = "00000000-0000-0000-0000-000000000000", "15550000000"
_DOCUMENT = render(
    parse_event({
        "ORIGIN": "SMS_MT", "CODE": "N202", "STATUS": "Message Sent/Delivered", "FROM_MASK": "ACME",
        "TO": _NUMBER, "TRACKINGID": _TRACKING_ID,
        "SPID": "0032", "TIMESTAMP": "2026-05-28T20:30:00+00:00", "AGGREGATORID": "AG-0000000000",
        "STATUSDETAILS": "Delivered to handset, message accepted by the carrier",
    })
)  # fmt: skip
_COUNT = text(
    f"SELECT count(*) FROM postbacks WHERE account = 7 AND accepted_ms > :since AND state = {STATES['dead']}"
)
_FIND = text("SELECT row_id FROM business_values WHERE slot = :slot AND hash = :hash")


def record(chance: random.Random, accepted_ms: int) -> tuple[str, dict[bytes, bytes]]:
    """Make the record of a delivered receipt."""
    number = chance.randrange(200)
    document = (
        _DOCUMENT.replace(_TRACKING_ID.encode(), str(uuid.UUID(int=chance.getrandbits(128))).encode())
        .replace(_NUMBER.encode(), b"1555%07d" % chance.randrange(10**7))
        .replace(b"AG-0000000000", b"%013d" % chance.getrandbits(34))
    )
    note = fill.delivered(1, accepted_ms + 40).encode()
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


def write(writer: Writer, chance: random.Random, batches: int, first_ms: int) -> float:
    """Write batches; return microseconds of CPU a postback."""
    cpu_s = 0.0
    for number in range(batches):
        at_ms = first_ms + number * BATCH * 1000 // RATE
        records = [record(chance, at_ms + i * 1000 // RATE) for i in range(BATCH)]
        began = time.process_time()
        writer.write(records, recorded_id=f"{at_ms}-0", recorded_ms=at_ms)
        cpu_s += time.process_time() - began
    return cpu_s / (batches * BATCH) * 1e6


def disk_bytes(engine: Engine) -> int:
    """Bytes that the database takes, its write-ahead log apart."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        return Path(str(engine.url.database).removeprefix("file://")).stat().st_size
    with reading(engine) as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def filled(url: str, count: int) -> tuple[Engine, Writer, dict[str, float]]:
    """Write so many old postbacks into an empty database."""
    engine = connect(url)
    prepare(engine)
    writer = Writer(engine)
    writer.take_lease()
    empty, written = disk_bytes(engine), written_bytes()
    cpu_us = write(writer, random.Random(1), count // BATCH, NOW_MS - 100 * DAY_MS)
    return engine, writer, {
        "cpu_us": cpu_us,
        "written_bytes": (written_bytes() - written) / count,
        "disk_bytes": (disk_bytes(engine) - empty) / count,
    }  # fmt: skip


def prune(engine: Engine, writer: Writer, quiet_batches: int) -> dict[str, dict[str, float]]:
    """Write fresh batches, without pruning and then with it until nothing is left to prune."""
    chance, at_ms = random.Random(2), NOW_MS
    found: dict[str, dict[str, float]] = {}
    for prunes in (False, True):
        searches = Searches(engine)
        searches.start()
        writes_ms, cpu_s, pruned, began_s, wrote_at_ms = [], 0.0, 0, time.monotonic(), at_ms
        while True:
            records = [record(chance, at_ms + i) for i in range(BATCH)]
            at_ms += BATCH
            began = time.perf_counter()
            writer.write(records, recorded_ms=at_ms)
            writes_ms.append((time.perf_counter() - began) * 1000)
            if prunes:
                began = time.process_time()
                looked_at = writer.prune(wrote_at_ms, Settings())
                cpu_s += time.process_time() - began
                pruned += looked_at
            if not looked_at if prunes else len(writes_ms) >= quiet_batches:
                break
        searches.stop()
        found["with" if prunes else "without"] = {
            "write_p50_ms": percentile(writes_ms, 0.5), "write_p99_ms": percentile(writes_ms, 0.99),
            "search_p50_ms": percentile(searches.times_ms, 0.5), "search_p99_ms": percentile(searches.times_ms, 0.99),
            "took_s": time.monotonic() - began_s, "cpu_s": cpu_s, "looked_at": pruned, "batches": len(writes_ms),
        }  # fmt: skip
    return found


def rows(bench: Bench) -> list[Row]:
    """Disk of both databases; pruning of SQLite, where writer and searches share a file."""
    old, few, quiet = (20_000, 20_000, 20) if bench.quick else (1_000_000, 200_000, 200)
    engine, writer, sqlite = filled(f"sqlite:///{bench.folder}/store.db", old)
    bench.say(f"SQLite, {old:,}: {sqlite}")
    made = [_disk("SQLite", old, sqlite)]
    pruning = prune(engine, writer, quiet)
    with engine.connect() as connection:
        left = connection.execute(
            text("SELECT count(*) FROM postbacks WHERE accepted_ms < :now"), {"now": NOW_MS}
        )
        assert left.scalar_one() == 0, "not all that is old was pruned"
    engine.dispose()
    bench.say(f"pruning: {pruning}")
    with postgres() as server:
        engine, _, found = filled(server.url, few)
        engine.dispose()
    bench.say(f"PostgreSQL, {few:,}: {found}")
    return [*made, _disk("PostgreSQL", few, found), _pruned(old, pruning)]


def _disk(database: str, count: int, found: dict[str, float]) -> Row:
    return Row(
        f"history: disk a postback, document and two business values included, {database}",
        f"at most {DISK_TARGETS[database]} bytes",
        f"{found['disk_bytes']:.0f} bytes ({count:,} receipts within {count // RATE // 60 + 1} minutes; the writer's CPU "
        f"{found['cpu_us']:.0f} µs each"
        + (f"; {found['written_bytes']:,.0f} bytes written)" if database == "SQLite" else ")"),
        found["disk_bytes"] <= DISK_TARGETS[database],
        found,
    )


def _pruned(count: int, found: dict[str, dict[str, float]]) -> Row:
    beside, quiet = found["with"], found["without"]
    return Row(
        f"history: pruning {count:,} postbacks while others are written and searched, SQLite",
        "stated",
        f"{1e6 * beside['cpu_s'] / count:.1f} µs of CPU each; a batch of {BATCH:,} is written in "
        f"{beside['write_p50_ms']:.0f} ms, p99 {beside['write_p99_ms']:.0f} ms (without pruning "
        f"{quiet['write_p50_ms']:.0f} and {quiet['write_p99_ms']:.0f} ms); a search takes {beside['search_p50_ms']:.1f} ms, "
        f"p99 {beside['search_p99_ms']:.1f} ms (without {quiet['search_p50_ms']:.1f} and {quiet['search_p99_ms']:.1f} ms)",
        None,
        found,
    )
