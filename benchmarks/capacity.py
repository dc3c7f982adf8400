"""Bytes of a postback, and what they come to at a rate, written into docs/capacity.md: ``make capacity`` (ten minutes).

One table of the page is measured: postbacks go the real way, from a call to the note of the answer, into the history and to
the end of their retention. The other one is computed from it, so that a test finds it out of date.
"""

from __future__ import annotations

import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import redis

from benchmarks import fill, history_store
from benchmarks.history_search import postgres
from benchmarks.receiving import Receiver
from benchmarks.scenario import environment, until
from benchmarks.systems import Ours
from postbacks import keys, send_postback, send_postbacks
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.queue.scripts import Scripts
from postbacks.queue.shares import shares_of
from postbacks.settings import load

PAGE: Final = Path(__file__).parents[1] / "docs" / "capacity.md"
#: What the script writes on the page: the part's name, and what stands in it.
PART: Final = re.compile(r"(<!-- capacity: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
NAMES: Final = tuple(f"a{number}" for number in range(100))
#: Postbacks of a round, and of a call.
COUNT, BATCH = 20_000, 500
#: Postbacks that are sent one by one, and how many a second; seconds in which nothing is sent.
ALONE, ALONE_PER_S, IDLE_S = 300, 30, 10
ROUNDS: Final = 3
WAIT_S: Final = 300
#: Bytes by which a document is longer in the round that measures what a byte of it takes.
LONGER: Final = 400
#: Postbacks of the history's databases, as `make bench` has them.
IN_SQLITE, IN_POSTGRES = 1_000_000, 200_000

RATES: Final = (1, 10, 100, 1_000)
HOUR_S, DAY_S = 3_600, 86_400
UNITS: Final = ("bytes", "KB", "MB", "GB", "TB")
#: CPU of a postback and the end of one broker, as docs/scale.md has them: a busy machine measures no CPU.
WORKER_MS, BROKER_MS, BROKER_PER_S = 0.12, 0.09, 10_000
#: Share of a core up to which a worker is planned to be busy; past it docs/operating.md says to add one.
PLANNED: Final = 0.8
#: Share of the broker's memory that delivered postbacks take at most: the default of POSTBACKS_LEDGER_MEMORY_SHARE.
LEDGER_SHARE: Final = 0.3


class Measured(NamedTuple):
    """Figures of one postback, in the order of the page's first table; ``WORDS`` says what each is."""

    message_bytes: float
    record_bytes: float
    aof_bytes: float
    aof_alone_bytes: float
    aof_idle_bytes: float
    copy_bytes: float
    longer_message: float
    longer_record: float
    longer_aof: float
    sqlite_bytes: float
    postgres_bytes: float


#: What a figure is, and its unit.
WORDS: Final = Measured(
    message_bytes="memory of the broker before it is taken in, bytes",
    record_bytes="memory of the broker once it is delivered, with its place in an index, bytes",
    aof_bytes="append-only file, from the call to the end of its retention, bytes, where 500 are sent at a time",
    aof_alone_bytes="the same where one is sent at a time, bytes",
    aof_idle_bytes="append-only file while nothing is sent, bytes a second",
    copy_bytes="snapshot of the broker, bytes of each record in it",
    longer_message="each byte that the document is longer: in memory before it is taken in, bytes",
    longer_record="the same once it is delivered, bytes",
    longer_aof="the same in the append-only file, bytes",
    sqlite_bytes="history in SQLite, bytes",
    postgres_bytes="history in PostgreSQL, bytes",
)  # type: ignore[arg-type]


# -- measured --------------------------------------------------------------------------------------


class Way(NamedTuple):
    """Bytes that the way of a postback takes, as the fields of ``Measured`` have them."""

    message_bytes: float
    record_bytes: float
    aof_bytes: float
    copy_bytes: float


@contextmanager
def stack(folder: Path, count: int) -> Iterator[tuple[Ours, redis.Redis, Receiver]]:
    """Run one worker, a beat and a recorder on a broker that never rewrites its file, and a receiver."""
    name = f"{time.monotonic_ns()}.db"
    with (
        EmbeddedBroker(config={"auto-aof-rewrite-percentage": "0"}) as broker,
        Receiver(count) as receiver,
        environment(broker.url) as env,
        broker.client() as client,
    ):
        fill.set_accounts(NAMES, receiver.url)
        with Ours(broker, env, folder, history_url=f"sqlite:///{folder}/{name}") as system:
            until(lambda: not client.hexists(keys.HISTORY, "resync"), WAIT_S, "the first resync")
            yield system, client, receiver


def memory(client: redis.Redis) -> int:
    """Return the bytes of memory that the broker uses."""
    return int(client.info("memory")["used_memory"])


def written(client: redis.Redis) -> int:
    """Return the bytes of the append-only file."""
    return int(client.info("persistence")["aof_current_size"])


def way(folder: Path, *, longer: int = 0) -> Way:
    """Take delivery receipts the whole way: call, take-in, POST, note, history, end of the retention.

    Args:
        folder: for logs and the history.
        longer: bytes by which each document is longer.
    """
    detail = {"STATUSDETAILS": "x" * (longer - len("<STATUSDETAILS></STATUSDETAILS>"))} if longer else {}
    with stack(folder, COUNT) as (system, client, receiver):
        system.hold()
        memory_before, written_before = memory(client), written(client)
        for first in range(0, COUNT, BATCH):
            events = [fill.mt(number) | detail for number in range(first, first + BATCH)]
            send_postbacks(NAMES[first // BATCH % len(NAMES)], events)
        waiting = memory(client)
        system.let_go()
        receiver.wait_for(COUNT, WAIT_S)
        until(lambda: client.zcard(keys.DONE) == COUNT, WAIT_S, "the notes of all answers")
        system.let_record()
        until(lambda: not client.xlen(keys.CHANGES), WAIT_S, "the history")
        receiver.check(range(COUNT))
        kept = memory(client)
        client.bgsave()
        until(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], WAIT_S, "the snapshot")
        copy = (Path(client.config_get("dir")["dir"]) / "dump.rdb").stat().st_size
        end_retention(client)
        total = (waiting - memory_before, kept - memory_before, written(client) - written_before, copy)
        return Way(*(figure / COUNT for figure in total))


def end_retention(client: redis.Redis) -> None:
    """Let all records leave the broker as if their retention had ended."""
    scripts, shares = Scripts(client), shares_of(0, load())
    while client.zcard(keys.DONE):
        scripts.retain(0, 0, 0, shares, 500)


def alone(folder: Path) -> tuple[float, float]:
    """Return bytes of the append-only file: of a postback that is sent alone, and of an idle second."""
    with stack(folder, ALONE) as (_, client, receiver):
        time.sleep(2)  # the signs of life after a start
        written_before = written(client)
        time.sleep(IDLE_S)
        idle = (written(client) - written_before) / IDLE_S
        written_before, began_s = written(client), time.monotonic()
        for number in range(ALONE):
            send_postback.delay(NAMES[number % len(NAMES)], fill.mt(number))
            time.sleep(max(0.0, began_s + (number + 1) / ALONE_PER_S - time.monotonic()))
        receiver.wait_for(ALONE, WAIT_S)
        until(
            lambda: client.zcard(keys.DONE) == ALONE and not client.xlen(keys.CHANGES), WAIT_S, "the history"
        )
        end_retention(client)
        took_s = time.monotonic() - began_s
        return (written(client) - written_before - idle * took_s) / ALONE, idle


def measure(folder: Path) -> Measured:
    """Measure all of it, the way of a postback in the median of the rounds."""
    rounds = []
    for number in range(ROUNDS):
        rounds.append(way(folder))
        print(f"  round {number + 1}: {rounds[-1]}", flush=True)
    plain = Way(*(statistics.median(figures) for figures in zip(*rounds, strict=True)))
    longer = way(folder, longer=LONGER)
    aof_alone, aof_idle = alone(folder)
    engine, _, in_sqlite = history_store.filled(f"sqlite:///{folder}/store.db", IN_SQLITE)
    engine.dispose()
    with postgres() as server:
        engine, _, in_postgres = history_store.filled(server.url, IN_POSTGRES)
        engine.dispose()
    return Measured(
        plain.message_bytes, plain.record_bytes, plain.aof_bytes, aof_alone, aof_idle, plain.copy_bytes,
        *((longer[at] - plain[at]) / LONGER for at in range(3)),
        in_sqlite["disk_bytes"], in_postgres["disk_bytes"],
    )  # fmt: skip


# -- computed --------------------------------------------------------------------------------------


def size(count: float) -> str:
    """Write bytes with two digits: 3.8 MB."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.1f} {UNITS[power]}" if power and count < 9.95 else f"{count:,.0f} {UNITS[power]}"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it: 8 min."""
    for unit, of_unit_s in (("d", DAY_S), ("h", HOUR_S), ("min", 60)):
        if seconds >= 1.5 * of_unit_s:
            return f"{seconds / of_unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def measured_table(found: Measured) -> str:
    """Write the table of what was measured."""
    rows = [
        (word, f"{figure:,.1f}" if figure < 10 else f"{figure:,.0f}")
        for word, figure in zip(WORDS, found, strict=True)
    ]
    return table(("a delivery receipt, delivered by its first POST", "measured"), rows)


def read_measured(page: str) -> Measured:
    """Read what was measured from the page."""
    (part,) = (match[3] for match in PART.finditer(page) if match[2] == "measured")
    figures = dict(re.findall(r"^\| (.+) \| ([\d,.]+) \|$", part, re.MULTILINE))
    return Measured(*(float(figures[word].replace(",", "")) for word in WORDS))


def capacity_table(found: Measured) -> str:
    """Write what the figures come to at each rate."""

    def row(name: str, figure: Callable[[int], str]) -> tuple[str, ...]:
        return (name, *map(figure, RATES))

    rows = [
        row("postbacks a day", lambda rate: f"{rate * DAY_S:,}"),
        *(
            row(f"broker's memory: delivered ones, kept for {words}", partial(_kept, found, kept_s))
            for words, kept_s in (("an hour", HOUR_S), ("a day", DAY_S), ("7 days", 7 * DAY_S))
        ),
        row(
            f"of `REDIS_MAXMEMORY=1gb` they take {LEDGER_SHARE:.0%} at most, and so stay for",
            lambda rate: duration(min(7 * DAY_S, LEDGER_SHARE * 2**30 / found.record_bytes / rate)),
        ),
        row(
            "broker's memory: what is sent in an hour without workers",
            lambda rate: size(rate * HOUR_S * found.message_bytes),
        ),
        row(
            "append-only file, a second",
            lambda rate: size(
                found.aof_idle_bytes + rate * (found.aof_alone_bytes if rate < BATCH else found.aof_bytes)
            ),
        ),
        *(
            row(
                f"history, {days} days, {database}",
                lambda rate, each=each, days=days: size(rate * days * DAY_S * each),
            )
            for days in (30, 90, 365)
            for database, each in (("SQLite", found.sqlite_bytes), ("PostgreSQL", found.postgres_bytes))
        ),
        row("workers' CPU, cores", lambda rate: f"{max(0.01, rate * WORKER_MS / 1000):.2f}"),
        row("workers, one of them to spare", lambda rate: f"{workers(rate)}"),
        row("broker's CPU, of its one core", lambda rate: f"{max(0.01, rate * BROKER_MS / 1000):.0%}"),
        row("an hour without workers is sent within", lambda rate: duration(max(1, drain_s(rate)))),
    ]
    return table(("at", *(f"{rate:,}/s" for rate in RATES)), rows)


def _kept(found: Measured, kept_s: int, rate: int) -> str:
    return size(rate * kept_s * found.record_bytes)


def workers(rate: float) -> int:
    """Return how many workers are planned for a rate: they are busy for a part of their time, and one may be gone."""
    return math.ceil(rate * WORKER_MS / 1000 / PLANNED) + 1


def drain_s(rate: float) -> float:
    """Return how long all planned workers take to send what came in an hour, beside what comes meanwhile."""
    return rate * HOUR_S / (min(workers(rate) * 1000 / WORKER_MS, BROKER_PER_S) - rate)


def written_page(page: str, found: Measured) -> str:
    """Return the page with its tables of these figures."""
    parts = {"measured": measured_table(found), "table": capacity_table(found)}
    return PART.sub(lambda match: f"{match[1]}{parts[match[2]]}{match[4]}", page)


def main() -> None:
    """Measure, and write the page."""
    with tempfile.TemporaryDirectory(prefix="postbacks-capacity-") as folder:
        found = measure(Path(folder))
    page = PAGE.read_text()
    PAGE.write_text(
        written_page(page, read_measured(written_page(page, found)))
    )  # from figures as they are rounded
    print(measured_table(found))


if __name__ == "__main__":
    main()
