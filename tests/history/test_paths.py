"""Paths of searches: which index each combination of filters reads. Plans, not times: they are the same on each machine."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from sqlalchemy import event

from benchmarks.history_rows import Rows, account_name, fill
from benchmarks.history_search import filters, joined
from postbacks.broker.client import client_for
from postbacks.errors import InvalidQuery
from postbacks.history import Query, count, find, search
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare

#: No broker answers there.
AWAY = client_for("redis://127.0.0.1:1/0", 1.0)
#: Tables that grow with the traffic, by the names that statements give them; `slots` has a row for many.
GROWING = re.compile(r"\b(p|v|w|counts|postbacks|business_values)\b")


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A history of a few thousand postbacks on SQLite."""
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('history')}/history.db")
    prepare(engine)
    fill(engine, Rows(3000, days=2))
    yield engine
    engine.dispose()


@pytest.fixture
def plans(history):
    """Plans of the statements that a test has run so far."""
    statements = []

    def note(_connection, _cursor, statement, parameters, _context, _executemany):
        if statement.lstrip().startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(history, "before_cursor_execute", note)

    def read():
        ran, statements[:] = list(statements), []
        with history.connect() as connection:
            driver = connection.connection
            return [
                row[3]
                for statement, parameters in ran
                for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

    yield read
    event.remove(history, "before_cursor_execute", note)


def test_no_pair_of_filters_scans_a_table_that_grows(history, plans):
    singles = filters(history)
    pairs = [joined(*pair) for pair in combinations(singles.values(), 2)]
    queries = [query for query in [*singles.values(), *pairs] if query is not None]
    read = 0
    for query in queries:
        try:
            search(query, client=AWAY, engine=history)
            count(query, client=AWAY, engine=history)
        except InvalidQuery:
            continue  # they exclude each other
        steps = [step for step in plans() if GROWING.search(step)]
        read += len(steps)  # none of an account that has nothing at a host
        assert [step for step in steps if not step.startswith("SEARCH") and "LIMIT" not in step] == [], query
    assert read > len(queries)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(account=account_name(0), state="dead"), "postbacks_by_account"),
        (Query(account=account_name(0), state="waiting"), "postbacks_open"),
        (Query(account=account_name(0), reason="no_url"), "postbacks_troubled"),
        (Query(state="dead", code="N202"), "postbacks_troubled"),
        (Query(opt_outs=True), "postbacks_opt_outs"),
        (Query(opt_outs=True, account=account_name(0), undelivered=True), "postbacks_opt_outs_undelivered"),
        (Query(opt_outs=True, state="dead"), "postbacks_opt_outs_undelivered"),
        (Query(undelivered=True), "postbacks_troubled"),
        (Query(slower_than_ms=2000, origin="SMS_MT"), "postbacks_troubled"),
        (Query(slower_than_ms=100), "postbacks_by_time"),
        (Query(host="platform0.example", code="N202"), "postbacks_by_account"),
        (Query(host="platform0.example", state="dead"), "postbacks_troubled"),
        (Query(tracking_id="MT000000000011", account=account_name(0)), "PRIMARY KEY"),
        (Query(code="N202"), "postbacks_by_time"),
    ],
    ids=str,
)
def test_the_index_is_the_one_that_leads_to_the_fewest(history, plans, query, index):
    search(query, client=AWAY, engine=history)
    steps = [step for step in plans() if re.search(r"\b(p|v)\b USING", step)]
    assert any(index in step.split() or (index == "PRIMARY KEY" and index in step) for step in steps), steps


def test_a_count_without_account_reads_counts_and_no_postbacks(history, plans):
    count(Query(code="N202", state="delivered", status=200, attempts=1), engine=history)
    steps = plans()
    assert any("SEARCH counts USING PRIMARY KEY" in step for step in steps)
    assert not any(re.search(r"\bp\b", step) for step in steps)


def test_an_id_is_found_by_the_slots(history, plans):
    (newest,) = search(Query(limit=1), client=AWAY, engine=history).postbacks
    plans()
    assert find(newest.id, client=AWAY, engine=history) == [newest]
    assert any("SEARCH p USING COVERING INDEX postbacks_by_id" in step for step in plans())
