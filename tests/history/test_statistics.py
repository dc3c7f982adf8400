"""Statistics held against a plain count in Python, on both databases."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from records import ACCEPTED_MS, make_record
from sqlalchemy import event

from postbacks.errors import InvalidQuery
from postbacks.history import Query, StatRow, schema, stats
from postbacks.history.statistics import BY, Minute, by_minute
from postbacks.ledger.record import Attempt, Record, iso

HOUR_MS = schema.HOUR_MS


def records(count: int) -> list[tuple[str, dict[bytes, bytes]]]:
    """Postbacks of three accounts, hosts and hours, with every end."""
    rng = random.Random(16)
    made = []
    for number in range(count):
        accepted_ms = ACCEPTED_MS + rng.randrange(3 * HOUR_MS)
        ways = [
            ("delivered", 200, rng.randrange(50)),
            ("status", 500, rng.randrange(900)),
            ("dns", None, rng.randrange(10_000)),
        ]
        posts = rng.choice([[], [0], [0], [1], [2], [1, 0], [1, 2], [2, 1, 0], [1, 1]])
        attempts = tuple(Attempt(n, accepted_ms + n, *ways[way]) for n, way in enumerate(posts, start=1))
        state = (
            "delivered"
            if posts and posts[-1] == 0
            else rng.choice(["dead", "parked", "waiting", "skipped", "cancelled"])
        )
        ended_ms = None if state in {"parked", "waiting"} else accepted_ms + 50
        code, origin, group = rng.choice([("N202", "SMS_MT", "mt"), ("N211", "SMS_MO", "mo")])
        account = rng.choice(["acme", "acme", "beta", "Gamma"])
        made.append(
            make_record(
                f"p{number}", state=state, account=account, origin=origin, code=code, group=group, attempts=attempts,
                url=f"https://{account.lower()}{number % 2}.example/" if posts else "", accepted_ms=accepted_ms, ended_ms=ended_ms,
                reason="" if state == "delivered" else "why",
            )
        )  # fmt: skip
    return made


def counted(key: str, chosen: list[Record]) -> StatRow:
    """Count plainly."""
    answers = sorted(r.attempts[-1].elapsed_ms for r in chosen if r.attempts and r.attempts[-1].status)
    delivered = [r for r in chosen if r.state == "delivered"]
    is_open = [r for r in chosen if r.state in {"parked", "waiting"}]
    dead = [r for r in chosen if r.state == "dead"]
    return StatRow(
        key=key,
        postbacks=len(chosen),
        sent=sum(bool(r.attempts) for r in chosen),
        first=sum(len(r.attempts) == 1 for r in delivered),
        later=sum(len(r.attempts) > 1 for r in delivered),
        dead=len(dead),
        open=len(is_open),
        other=len(chosen) - len(delivered) - len(is_open) - len(dead),
        p50_ms=answers[-(-len(answers) * 50 // 100) - 1] if answers else None,
        p95_ms=answers[-(-len(answers) * 95 // 100) - 1] if answers else None,
        oldest_open_ms=min((r.created_ms for r in is_open), default=None),
    )


@pytest.fixture
def known(writer) -> list[Record]:
    """Records that the history has, 600 of them."""
    made = records(600)
    writer.write(made, recorded_ms=ACCEPTED_MS + 7)
    return [Record.from_hash(*record) for record in made]


KEYS = {
    "account": lambda r: r.account,
    "code": lambda r: f"{r.origin} {r.code}",
    "host": lambda r: r.url[8:-1],
    "hour": lambda r: iso(r.created_ms // HOUR_MS * HOUR_MS),
}


def test_statistics_are_what_a_plain_count_says_by_each_key_and_with_each_filter(known, database):
    queries = {
        Query(): lambda _: True,
        Query(account="acme"): lambda r: r.account == "acme",
        Query(code="N211", since_ms=ACCEPTED_MS + HOUR_MS): lambda r: (
            r.code == "N211" and r.created_ms >= ACCEPTED_MS + HOUR_MS
        ),
        Query(state="dead", until_ms=ACCEPTED_MS + HOUR_MS): lambda r: (
            r.state == "dead" and r.created_ms < ACCEPTED_MS + HOUR_MS
        ),
        Query(host="acme0.example"): lambda r: "//acme0." in r.url,
        Query(account="nobody"): lambda _: False,
    }
    for query, fits in queries.items():
        chosen = [record for record in known if fits(record)]
        for by in BY:
            groups = defaultdict(list)
            for record in chosen:
                groups[KEYS[by](record)].append(record)
            rows = [counted(key, of_key) for key, of_key in groups.items()]
            rows.sort(key=lambda row: (row.key,) if by == "hour" else (-row.postbacks, row.key))
            found = stats(query, by, engine=database)
            assert list(found.rows) == rows, (query, by)
            assert found.total == counted("total", chosen)
            assert found.recorded_ms == ACCEPTED_MS + 7


def test_minutes_are_what_a_plain_count_says(known, database):
    for query, account in (
        (Query(), None),
        (Query(account="acme"), "acme"),
        (Query(account="nobody"), "nobody"),
    ):
        groups = defaultdict(list)
        for record in known:
            if account in {None, record.account}:
                groups[record.created_ms // 60_000 * 60_000].append(record)
        rows = [(at_ms, counted("", groups[at_ms])) for at_ms in sorted(groups)]
        assert by_minute(query, engine=database) == [
            Minute(at_ms, row.first, row.later, row.dead, row.open, row.other) for at_ms, row in rows
        ]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_statistics_read_the_covering_index_alone(known, database):
    plans = []

    @event.listens_for(database, "before_cursor_execute")
    def explain(connection, cursor, statement, parameters, *_):
        if "GROUP BY" in statement:
            plans.append(cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())

    for by in BY:
        stats(Query(since_ms=ACCEPTED_MS), by, engine=database)
        stats(Query(since_ms=ACCEPTED_MS, account="acme"), by, engine=database)
    by_minute(Query(since_ms=ACCEPTED_MS), engine=database)
    assert len(plans) == 9
    assert all("USING COVERING INDEX postbacks_by_" in plan[0][-1] for plan in plans)


@pytest.mark.parametrize(
    ("query", "by", "words"),
    [
        (Query(), "weekday", "by one of account, code, host, hour"),
        (Query(state="sending"), "hour", "the broker alone knows"),
        (Query(since_ms=5, until_ms=4), "hour", "exchange the two times"),
    ],
)
def test_statistics_that_cannot_be_are_refused_with_a_sentence(database, query, by, words):
    with pytest.raises(InvalidQuery, match=words):
        stats(query, by, engine=database)
