"""Queries that cannot be: one sentence each, with the next thing to try."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.history_rows import Rows, fill
from postbacks.errors import InvalidQuery
from postbacks.history import Query, count, pages, search
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.query import LIMIT_MAX


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A history of a hundred postbacks on SQLite."""
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('history')}/history.db")
    prepare(engine)
    fill(engine, Rows(100, days=1))
    yield engine
    engine.dispose()


BAD = [
    (Query(state="deliverd"), "There is no state 'deliverd'. Did you mean delivered? Known: waiting, "),
    (Query(code="n211"), "There is no code 'n211'. Did you mean N211? Known: "),
    (Query(code="X9"), "There is no code 'X9'. Known: E001, "),
    (Query(origin="SMS"), "There is no origin 'SMS'. Did you mean SMS_MT? Known: SUB, "),
    (Query(group="MO"), "There is no group 'MO'. Did you mean mo? Known: general, mo, mt, pass."),
    (Query(outcome="timeout"), "There is no outcome 'timeout'."),
    (Query(account="a b"), "'a b' is no account name"),
    (Query(status=99), "99 is no HTTP status; give one from 100 to 599."),
    (Query(status=600), "600 is no HTTP status"),
    (Query(attempts=-1), "-1 cannot be attempts"),
    (Query(slower_than_ms=2**63), "cannot be slower_than_ms"),
    (Query(limit=0), "A limit of 0 cannot be; give one from 1 to 100,000"),
    (Query(limit=LIMIT_MAX + 1), "A limit of 100001 cannot be"),
    (Query(number="no"), "'no' is no phone number; give its 3 digits or more"),
    (Query(number="+1"), "'+1' is no phone number"),
    (Query(email="ann"), "'ann' is no e-mail address"),
    (Query(tracking_id=""), "An empty tracking_id is in no postback"),
    (Query(host="https://acme.example/x"), "/x' is more than a host; give acme.example alone."),
    (Query(host="a b"), "'a b' is no host; give its name alone"),
    (Query(host="acme.example:8443"), "'acme.example:8443' is more than a host; give acme.example alone."),
    (Query(since_ms=2000, until_ms=1000), "Nothing is accepted since 1970-01-01T00:00:02.000Z and before 1970"),
    (Query(since_ms=2000, until_ms=2000), "exchange the two times"),
    (Query(since_ms=2**62, until_ms=0), "exchange the two times"),
    (Query(code="N202", origin="SUB"), "No postback has code N202 and origin SUB: code N202 is of origin MMS_MT and SMS_MT"),
    (Query(code="N202", group="mo"), "No postback has code N202 and group mo"),
    (Query(group="mo", origin="SMS_MT"), "No postback has group mo and origin SMS_MT: origin SMS_MT is of group mt"),
    (Query(state="delivered", outcome="status"), "No postback has state delivered and outcome status"),
    (Query(state="delivered", status=503), "only status 200 is a delivery; leave one of the two out."),
    (Query(state="delivered", reason="no_url"), "a reason says why it was not delivered"),
    (Query(state="dead", outcome="delivered"), "what has outcome delivered has state delivered"),
    (Query(outcome="delivered", status=404), "No postback has outcome delivered and status 404"),
    (Query(outcome="status", status=200), "status 200 has outcome delivered"),
    (Query(attempts=0, status=503), "No postback has attempts 0 and status 503"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "says"), BAD, ids=[says[:50] for _, says in BAD])
def test_a_query_that_cannot_be_is_one_sentence_with_the_next_thing_to_try(history, query, says):
    for ask in (search, count):
        with pytest.raises(InvalidQuery) as caught:
            ask(query, engine=history)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cursor", ["x", "AAAA", "ÄÖ", "A" * 34, "=" * 40, " "])
def test_what_is_no_cursor_is_refused(history, cursor):
    with pytest.raises(InvalidQuery, match=r"The cursor cannot be read; give the one that the page before"):
        search(Query(cursor=cursor), engine=history)


def test_a_cursor_of_another_query_is_refused_and_one_of_another_time_or_limit_is_not(history):
    query = Query(group="mt", limit=5, since_ms=1)
    page = search(query, engine=history)
    assert page.next
    with pytest.raises(InvalidQuery, match="The cursor is of a query with other filters"):
        search(Query(group="mo", cursor=page.next), engine=history)
    following = search(replace(query, cursor=page.next, limit=7, since_ms=2), engine=history)
    assert len(following.postbacks) == 7
    assert following.postbacks[0].accepted_ms <= page.postbacks[-1].accepted_ms


def test_pages_bring_as_many_as_the_limit_says_a_few_at_a_time(history, monkeypatch):
    monkeypatch.setattr("postbacks.history.listing.PAGE", 8)
    read = list(pages(Query(limit=30), engine=history))
    assert [len(page.postbacks) for page in read] == [8, 8, 8, 6]
    assert [p for page in read for p in page.postbacks] == list(
        search(Query(limit=30), engine=history).postbacks
    )
    assert len([p for page in pages(Query(limit=1000), engine=history) for p in page.postbacks]) == 100
