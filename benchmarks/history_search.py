"""Search of a history: what a list and a count take, by each filter and each pair of two.

``python -m benchmarks.history_search DATABASE_URL ROWS [cpu]`` fills the database first, where it is empty; ``cpu`` counts
this process's CPU time instead of time, for a busy machine and SQLite.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import combinations
from statistics import median

import redis
from sqlalchemy import Engine, text

from benchmarks.history_rows import BEGIN_MS, DAYS, Rows, account_name, fill, short_code
from postbacks.errors import BrokerError, InvalidQuery
from postbacks.history import Query, count, search
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare

DAY_MS = 86_400_000
REPEATS = 3
#: What takes longer is printed.
SLOW_MS = 100


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


def took_ms(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Shortest time of a call, in ms, once its pages are in memory."""
    times = []
    for _ in range(REPEATS):
        begun = clock()
        work()
        times.append((clock() - begun) * 1000)
        if min(times) > SLOW_MS:
            break  # more says nothing else
    return min(times)


def measure(
    engine: Engine, client: redis.Redis, clock: Callable[[], float] = time.perf_counter
) -> Iterator[tuple[str, float, float, int]]:
    """Measure each filter and each pair: its name, ms of a list, ms of a count, and the count."""
    singles = filters(engine)
    for names in [*((name,) for name in singles), *combinations(singles, 2)]:
        query = joined(*(singles[name] for name in names))
        if query is None:
            continue
        try:
            number = count(query, client=client, engine=engine).postbacks
        except InvalidQuery:
            continue  # they exclude each other
        list_ms = took_ms(partial(search, query, client=client, engine=engine), clock)
        count_ms = took_ms(partial(count, query, client=client, engine=engine), clock)
        yield " + ".join(names), list_ms, count_ms, number


class _NoBroker(redis.Redis):
    """Broker that is away: the database alone is measured."""

    def pipeline(self, *_args, **_options):
        raise BrokerError("away")


def main() -> None:
    url, number = sys.argv[1], int(sys.argv[2])
    engine = connect(url)
    prepare(engine)
    with engine.connect() as connection:
        is_empty = connection.execute(text("SELECT count(*) FROM slots")).scalar_one() == 0
    if is_empty:
        begun = time.perf_counter()
        fill(engine, Rows(number))
        print(f"filled in {time.perf_counter() - begun:.0f} s")
    clock = time.process_time if "cpu" in sys.argv[3:] else time.perf_counter
    rows = []
    for row in measure(engine, _NoBroker(), clock):
        rows.append(row)
        if max(row[1:3]) > SLOW_MS:
            name, list_ms, count_ms, found = row
            print(f"{name:60} {list_ms:9.1f} ms {count_ms:9.1f} ms {found:12,}", flush=True)
    print(f"{len(rows)} queries; median list {median(row[1] for row in rows):.1f} ms, ", end="")
    print(f"count {median(row[2] for row in rows):.1f} ms")


if __name__ == "__main__":
    main()
