"""Dashboard: what each page and each live part takes, with the filters that people type.

    python -m benchmarks.web_pages [--rows 1000000] [--days 1] [--url sqlite:////…/history.db]

``make bench`` does it with 100,000 postbacks and with a million, all of the last 24 hours, as pages count a day. The
application runs in this process, on SQLite, beside a broker with 200 accounts. A *first look* finds nothing in the
reading layer; what is *repeated* within two seconds finds the answer there. CPU is that of this process until the answer
is there, the broker's apart.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import httpx
from sqlalchemy import Engine, event, text

from benchmarks import fill
from benchmarks.history_rows import ACCOUNTS, Rows, account_name, short_code
from benchmarks.history_rows import fill as fill_history
from benchmarks.machine import commands
from benchmarks.scenario import Bench, Row, environment
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.history import Query, facts, ids, schema
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.transactions import writing
from postbacks.operate import start_resend
from postbacks.settings import load
from postbacks.web.app import make_app
from postbacks.web.config import Config

if TYPE_CHECKING:
    import redis
    from starlette.applications import Starlette

#: Postbacks -> most ms that a page may take.
TARGETS_MS: Final = {100_000: 100, 1_000_000: 300}
#: First looks at each page.
LOOKS: Final = 3
#: Words of the filter bar: those that people type, frequent and rare.
FILTERS: Final = (
    "",
    "state:dead",
    "state:delivered",
    "state:waiting",
    "undelivered",
    "opt-outs",
    "account:{largest}",
    "account:{largest} state:dead",
    "account:{middle}",
    "account:{middle} code:N202 since:2h",
    "code:N202",
    "code:N811",
    "to:15552310137",
    "to:{short_code}",
    "tracking-id:{tracking_id}",
    "since:2h",
    "since:2h state:dead",
    "since:15m",
    "slower-than:500ms",
    "slower-than:2s",
    "slower-than:500ms account:{largest}",
    "host:{host}",
    "host:{platform}",
    "status:404",
    "status:503 account:{largest}",
    "attempts:3",
    "reason:no_url",
    "code:N202 slower-than:300ms since:12h",
    "account:{middle} code:N811 status:404 since:2h",
    "state:delivered host:{platform} since:1d",
)


class Look(NamedTuple):
    """Look at a page.

    Attributes:
        cpu_ms: of this process until the answer was there.
        wall_ms: of the same.
        statements: that the database was asked.
        commands: that the broker was.
        bytes: of the answer's body, packed.
        is_whole: not given up by its time limit.
    """

    cpu_ms: float
    wall_ms: float
    statements: int
    commands: int
    bytes: int
    is_whole: bool


@dataclass
class Looks:
    """Looks at one page.

    Attributes:
        first: at the page, that found nothing in the reading layer.
        live: at the live part, that found nothing there either.
        again: at either, just behind one of these.
    """

    first: list[Look] = field(default_factory=list)
    live: list[Look] = field(default_factory=list)
    again: list[Look] = field(default_factory=list)


class Statements:
    """Counter of what a process asks its databases."""

    def __init__(self) -> None:
        self.number = 0
        event.listen(Engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.number += 1

    def close(self) -> None:
        """Count no more."""
        event.remove(Engine, "before_cursor_execute", self._count)


def pages(engine: Engine) -> dict[str, str]:
    """Name each page that is looked at -> its address."""
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT id, row_id FROM postbacks WHERE state = 3 AND attempts = 6 ORDER BY row_id LIMIT 1")
        ).one()
        submitted = connection.execute(
            text(
                "SELECT p.row_id FROM postbacks p JOIN codes c ON c.id = p.code WHERE c.code = 'N201' LIMIT 1"
            )
        ).scalar_one()
        incident_id = connection.execute(text("SELECT min(id) FROM incidents")).scalar_one()
    names = {
        "largest": account_name(0),
        "middle": account_name(60),
        "short_code": short_code(0),
        "tracking_id": f"MT{submitted - 1:012d}",
        "host": f"hooks.{account_name(1)}.example",
        "platform": "platform0.example",
    }
    found = {
        "/": "/",
        "/incidents": "/incidents",
        "/incidents/ID": f"/incidents/{incident_id}",
        "/accounts": "/accounts",
        "/accounts/NAME": f"/accounts/{names['largest']}",
        "/opt-outs": "/opt-outs",
        "/jobs": "/jobs",
        "/journal": "/journal",
        "/system": "/system",
        "/postbacks/ID": f"/postbacks/{ids.unpack(row.id)}",
        "/story/TRACKINGID": f"/story/{names['tracking_id']}",
        "/filter?q=account:a": "/filter?q=account:a",
    }
    for words in FILTERS:
        typed = words.format(**names)
        found[f"/postbacks {words}".strip()] = f"/postbacks?q={quote(typed)}" if typed else "/postbacks"
    return found


@contextmanager
def dashboard(url: str, number: int, days: int) -> Iterator[tuple[Starlette, Engine, redis.Redis]]:
    """Make a dashboard beside a broker with accounts and a history of so many postbacks that ends now."""
    engine = connect(url)
    prepare(engine)
    with engine.connect() as connection:
        is_empty = connection.execute(text("SELECT count(*) FROM slots")).scalar_one() == 0
    now_ms = time.time_ns() // 1_000_000
    if is_empty:
        fill_history(engine, Rows(number, days=days, begin_ms=now_ms - days * 86_400_000))
        with writing(engine) as connection:
            connection.execute(schema.incidents.insert(), [incident(n, now_ms) for n in range(100)])
    with (
        EmbeddedBroker() as broker,
        environment(broker.url, POSTBACKS_HISTORY_URL=url, POSTBACKS_USER="ann"),
        broker.client() as client,
    ):
        fill.set_accounts(
            [account_name(number) for number in range(ACCOUNTS)], lambda number: f"http://127.0.0.1/{number}"
        )
        client.xgroup_create(keys.CHANGES, "recorder", mkstream=True)  # as a recorder turns the feed on
        start_resend(Query(account=account_name(1), state="dead"), why="their gateway was down")
        with writing(engine) as connection:
            facts.put(connection, {facts.RECORDED_MS: now_ms})
        app = make_app(Config(load()))
        try:
            yield app, engine, client
        finally:
            app.state.reading.close()
            engine.dispose()


def incident(number: int, now_ms: int) -> dict[str, Any]:
    """Make the row of an incident of an account; each fifth is open."""
    at_ms, account = now_ms - 60_000 * (number + 10), account_name(number)
    name = f"{account}'s receiver"
    return {
        "kind": "account", "subject": account, "first_ms": at_ms, "opened_ms": at_ms, "looked_ms": at_ms,
        "told_ms": at_ms, "told_size": 3, "told_level": 1, "quiet_ms": 0, "times_back": 0, "grew_ms": None,
        "ended_ms": at_ms + 300_000 if number % 5 else None, "since_ms": at_ms, "size": 12, "title": name,
        "sentence": f"{name} answers 503.", "advice": "Ask its developers.", "accounts": f'["{account}"]',
        "figures": '{"waiting": 12, "dead": 3}', "resend": "", "refined_ms": at_ms, "part_of": None,
        "muted_until_ms": None, "mute_reason": None, "muted_by": None, "withheld": 0,
    }  # fmt: skip


async def look(
    app: Starlette, client: redis.Redis, statements: Statements, address: str, *, live: bool
) -> Look:
    """Look at a page, or at its live part."""
    headers = {"Accept-Encoding": "gzip", **({"HX-Request": "true"} if live else {})}
    calls, asked = _calls(client), statements.number
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=headers
    ) as browser:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        answer = await browser.get(address)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    assert answer.status_code in {200, 503}, (address, answer.status_code)
    # What goes on behind an answer that did not wait for it belongs to this look.
    await settle(app)
    return Look(
        1000 * cpu_s,
        1000 * wall_s,
        statements.number - asked,
        _calls(client) - calls - 1,
        answer.num_bytes_downloaded,
        answer.status_code == 200,
    )


async def settle(app: Starlette) -> None:
    """Wait until nothing is read any more."""
    while app.state.reading.is_busy:  # noqa: ASYNC110 - threads end without a word
        await asyncio.sleep(0.001)


def _calls(client: redis.Redis) -> int:
    return sum(calls for calls, _ in commands(client).values())


async def measure(app: Starlette, engine: Engine, client: redis.Redis) -> dict[str, Looks]:
    """Look at each page and each live part, the rounds one after the other."""
    statements = Statements()
    found: dict[str, Looks] = {}
    addresses = pages(engine)
    for number in range(LOOKS + 1):
        for name, address in addresses.items():
            looks = found.setdefault(name, Looks())
            for live in (False, True):
                app.state.reading.forget()
                first = await look(app, client, statements, address, live=live)
                again = await look(app, client, statements, address, live=live)
                if number:  # the first round brings the pages of the file into memory
                    (looks.live if live else looks.first).append(first)
                    looks.again.append(again)
    statements.close()
    return found


def rows(bench: Bench, url: str, number: int, days: int = 1) -> list[Row]:
    """Measure with a history of so many postbacks, which is filled where it is empty."""
    began_s = time.monotonic()
    with dashboard(url, number, days) as (app, engine, client):
        bench.say(f"{number:,} postbacks written in bulk in {time.monotonic() - began_s:.0f} s")
        found = asyncio.run(measure(app, engine, client))
    target_ms = next((ms for most, ms in TARGETS_MS.items() if number <= most), max(TARGETS_MS.values()))
    pages = {name: _figures(looks) for name, looks in found.items()}
    slowest, parts = (
        max(pages.items(), key=lambda page: page[1][name][0]) for name in ("cpu_ms", "live_cpu_ms")
    )
    given_up = [name for name, figures in pages.items() if figures["given_up"]]
    return [
        Row(
            f"dashboard: first look at any of {len(pages)} pages and filters, {number:,} postbacks of {days} d, SQLite",
            f"at most {target_ms} ms",
            f"slowest `{slowest[0]}`, {_words(slowest[1]['cpu_ms'])}, in time {_words(slowest[1]['wall_ms'])}; median page "
            f"{median(figures['cpu_ms'][0] for figures in pages.values()):.0f} ms; again at most "
            f"{max(figures['again_ms'][0] for figures in pages.values()):.0f} ms; at most "
            f"{max(figures['bytes'] for figures in pages.values()):,} bytes"
            + (f"; given up: {', '.join(given_up)}" if given_up else ""),
            slowest[1]["cpu_ms"][0] <= target_ms and not given_up,
            {"rows": number, "target_ms": target_ms, "pages": pages},
        ),
        Row(
            f"dashboard: first look at a live part, counts included, {number:,} postbacks of {days} d, SQLite",
            "stated",
            f"slowest `{parts[0]}`, {_words(parts[1]['live_cpu_ms'])}, in time {_words(parts[1]['live_wall_ms'])}",
            None,
        ),
    ]


def _words(times_ms: tuple[float, float]) -> str:
    return f"{times_ms[0]:.0f} ms (at most {times_ms[1]:.0f})"


def _figures(looks: Looks) -> dict[str, Any]:
    """Return medians and worst of the times of a page, and the medians of what else it takes."""

    def times(some: list[Look], name: str) -> tuple[float, float]:
        values = [getattr(one, name) for one in some]
        return median(values), max(values)

    return {
        "cpu_ms": times(looks.first, "cpu_ms"),
        "wall_ms": times(looks.first, "wall_ms"),
        "live_cpu_ms": times(looks.live, "cpu_ms"),
        "live_wall_ms": times(looks.live, "wall_ms"),
        "again_ms": times(looks.again, "cpu_ms"),
        "given_up": sum(not one.is_whole for one in (*looks.first, *looks.live)),
        **{
            name: round(median(getattr(one, name) for one in looks.first))
            for name in ("statements", "commands", "bytes")
        },
    }


def main() -> None:
    """Measure and print rows of the table."""
    from benchmarks.report import table, web_pages

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postbacks-web-") as folder:
        url = given.url or f"sqlite:///{folder}/history.db"
        made = rows(Bench(quick=False, folder=Path(folder)), url, given.rows, given.days)
        print(table(made) + web_pages(made))
    print(f"load average {', '.join(f'{one:.1f}' for one in os.getloadavg())}")


if __name__ == "__main__":
    main()
