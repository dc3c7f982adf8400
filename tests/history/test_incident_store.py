"""Incidents and notices in either database, and what is asked of the history for their words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from records import make_record

from postbacks.history.transactions import reading, writing
from postbacks.ledger.record import Attempt
from postbacks.operate.incidents import receivers, store
from postbacks.operate.incidents.conditions import Condition
from postbacks.operate.incidents.course import Course
from postbacks.operate.incidents.store import Incident, Notice
from postbacks.settings import Settings

NOW_MS = 1_795_478_400_000
ENDPOINT = "https://hooks.acme.example:443"
HOUR_MS = 3_600_000


def make_incident(subject: str = "a", **more) -> Incident:
    """Incident that has just opened."""
    course = Course(NOW_MS, NOW_MS, NOW_MS, 1, 0)
    texts = {"title": f"{subject} fails", "sentence": "so it is", "advice": "mend it"}
    return Incident(kind="fault", subject=subject, first_ms=NOW_MS, course=course, **texts | more)


def test_an_incident_is_read_as_it_was_written_and_its_mute_outlives_the_finders_writing(database):
    figures = {"waiting": 5, "outcome": None}
    with writing(database) as connection:
        first, second = store.add(
            connection, [make_incident(accounts=("acme",), figures=figures), make_incident("b")]
        )
        store.mute(connection, first.id, NOW_MS + 1, "they know", "ann")
        ended = replace(second, course=replace(second.course, ended_ms=NOW_MS + 5))
        store.save(connection, [replace(first, size=7), ended])
    with reading(database) as connection:
        assert store.find(connection, first.id) == replace(
            first, size=7, muted_until_ms=NOW_MS + 1, mute_reason="they know", muted_by="ann"
        )
        assert [one.subject for one in store.newest(connection, open_only=False, limit=9)] == ["a", "b"]
        assert [one.subject for one in store.newest(connection, open_only=True, limit=9)] == ["a"]
        assert store.current(connection, NOW_MS + HOUR_MS).keys() == {"fault:a", "fault:b"}
        assert store.current(connection, NOW_MS + HOUR_MS + 5).keys() == {"fault:a"}
        assert store.find(connection, 99) is None


def test_a_notice_is_due_at_its_time_and_goes_with_its_incident(database):
    with writing(database) as connection:
        (incident,) = store.add(connection, [make_incident()])
        made = Notice(
            notice_id="n", incident=incident.id, change="opened", at_ms=NOW_MS, body="{}", next_ms=NOW_MS
        )
        store.add_notices(connection, [made, replace(made, notice_id="m", state=store.MUTED, is_logged=True)])
    with reading(database) as connection:
        assert [notice.notice_id for notice in store.unlogged(connection, 9)] == ["n"]
        assert store.due(connection, NOW_MS - 1) == (None, NOW_MS)
        due, _ = store.due(connection, NOW_MS)
    assert due == replace(made, id=due.id)
    with writing(database) as connection:
        store.mark_logged(connection, [due.id])
        store.update_notice(connection, due.id, {"state": store.SENT, "attempts": 1, "done_ms": NOW_MS})
    with reading(database) as connection:
        assert store.due(connection, NOW_MS) == (None, None)
        assert store.unlogged(connection, 9) == []
        assert [notice.state for notice in store.notices_of(connection, incident.id)] == ["sent", "muted"]
    with writing(database) as connection:
        store.save(connection, [replace(incident, course=replace(incident.course, ended_ms=NOW_MS))])
        assert store.prune(connection, NOW_MS, 9) == 0
        assert store.prune(connection, NOW_MS + 1, 9) == 1
        assert store.notices_of(connection, incident.id) == []


@pytest.fixture
def look(database, writer):
    """Look into a history: two that wait after an attempt, one of them twice; two dead ones; one that beta got."""
    expired = "the server's certificate has expired (OpenSSL: …)"
    first = Attempt(1, NOW_MS - 60_000, "tls", None, 30, detail=expired)
    second = Attempt(2, NOW_MS - 30_000, "tls", None, 30, detail=expired)
    delivered = Attempt(1, NOW_MS - 10_000, "delivered", 200, 20)
    times = {"accepted_ms": NOW_MS - 61_000, "endpoint": ENDPOINT}
    writer.write(
        [
            make_record("waits-1", state="parked", attempts=(first,), failures=1, **times),
            make_record("waits-2", state="parked", attempts=(first, second), failures=2, **times),
            make_record("dead-1", state="dead", attempts=(first,), ended_ms=NOW_MS - 1, **times),
            make_record("dead-2", state="dead", attempts=(first,), ended_ms=NOW_MS - 70_000, **times),
            make_record(
                "beta-1", account="beta", state="delivered", attempts=(delivered,), ended_ms=NOW_MS,
                **times | {"accepted_ms": NOW_MS - 11_000},
            ),
        ]
    )  # fmt: skip
    return SimpleNamespace(engine=database, settings=Settings(), now_ms=NOW_MS)


def test_the_history_says_why_an_endpoint_fails_and_when_the_first_dies(look):
    condition = Condition(
        kind="endpoint", subject=ENDPOINT, title="", sentence="", advice="", accounts=("acme",)
    )
    failure = receivers._ask(look, condition)
    assert (failure.outcome, failure.status, failure.opt_outs) == ("tls", 0, 0)
    assert failure.detail.startswith("the server's certificate has expired")
    # The one with two failures has four resends left, five minutes apart.
    assert failure.first_dies_ms == NOW_MS - 30_000 + 4 * 300_000


def test_the_history_says_whom_an_endpoint_answers_and_what_died_of_it(look):
    condition = Condition(
        kind="endpoint", subject=ENDPOINT, title="", sentence="", advice="", accounts=("acme",)
    )
    with reading(look.engine) as connection:
        assert receivers._answered(connection) == {ENDPOINT: NOW_MS - 11_000}
        assert receivers._last_failed(connection, condition) == (NOW_MS - 30_000, 0)
    incident = make_incident(ENDPOINT, accounts=("acme",))
    for of_account in (True, False):
        since_ms = NOW_MS - 60_500
        assert receivers._dead(look, incident, since_ms, of_account=of_account) == (1, NOW_MS - 61_000)
