"""States of unfinished postbacks as the real broker has them now, where history has not read them yet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from events import EVENT
from helpers import Rig, claim, set_account
from redis.connection import AbstractConnection

from postbacks import keys, resend, send_postbacks
from postbacks.broker.client import client_for
from postbacks.history import Query, count, find, search
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.writer import Writer
from postbacks.ledger.record import Attempt
from postbacks.queue.rows import AttemptRow

LANE = "acme/general"
AWAY = client_for("redis://127.0.0.1:1/0", 1.0)


@pytest.fixture
def history(tmp_path):
    """An empty history on SQLite."""
    engine = connect(f"sqlite:///{tmp_path}/history.db")
    prepare(engine)
    yield engine
    engine.dispose()


def record(rig: Rig, history, *ids: str) -> None:
    """Write what the broker has of some postbacks, as the recorder does."""
    writer = Writer(history)
    writer.take_lease()
    writer.write([(i, rig.client.hgetall(keys.record(i))) for i in ids], recorded_id="1-1", recorded_ms=17)


def note(rig: Rig, postback_id: str, number: int, state: str, outcome: str) -> None:
    """Note an attempt, which ends a postback or parks it for an hour."""
    attempt = Attempt(number, 1, outcome, 200 if outcome == "delivered" else 503, 35).to_json()
    mood = "trusted" if outcome == "delivered" else "failed"
    row = AttemptRow(postback_id, LANE, state, number, attempt, 3_600_000, mood, outcome)
    rig.scripts.commit("one", 30_000, 10, 60, [row])


@pytest.fixture
def ids(rig: Rig, history) -> dict[str, str]:
    """Postbacks that history has as waiting; by now each is in a state of its own, and one has left the broker."""
    set_account("acme", url="http://127.0.0.1:8080/")
    names = ["delivered", "parked", "sending", "held", "waiting", "gone"]
    ids = dict(zip(names, send_postbacks("acme", [EVENT] * len(names)), strict=True))
    rig.tick()
    record(rig, history, *ids.values())
    rig.client.lrem(keys.LANE + LANE, 0, ids["gone"])
    rig.client.lrem(keys.LANE + LANE, 0, ids["waiting"])
    rig.client.delete(keys.record(ids["gone"]))
    rig.client.hset(f"{keys.LANE_STATE}{LANE}", "failing", 1)
    claim(rig, "one")
    for name in ("parked", "sending"):
        rig.scripts.begin("one", [ids[name]])
    note(rig, ids["delivered"], 1, "delivered", "delivered")
    note(rig, ids["parked"], 1, "parked", "status")
    return ids


def test_each_unfinished_postback_is_shown_in_the_state_that_it_has_now(rig, history, ids):
    page = search(Query(), client=rig.client, engine=history)
    states = {postback.id: postback.state for postback in page.postbacks}
    expected = {postback_id: name for name, postback_id in ids.items()} | {ids["gone"]: "waiting"}
    assert states == expected
    assert page.recorded_ms == 17
    assert page.read_ms > 1_700_000_000_000
    (delivered,) = [postback for postback in page.postbacks if postback.id == ids["delivered"]]
    assert (delivered.attempts, delivered.outcome, delivered.status, delivered.elapsed_ms) == (
        1,
        "delivered",
        200,
        35,
    )
    assert delivered.ended_ms >= delivered.accepted_ms
    assert find(ids["delivered"], client=rig.client, engine=history) == [delivered]


@pytest.mark.parametrize("state", ["parked", "sending", "held"])
def test_a_live_state_is_searched_and_counted_by_the_broker(rig, history, ids, state):
    for query in (Query(state=state), Query(state=state, account="acme")):
        page = search(query, client=rig.client, engine=history)
        assert [postback.id for postback in page.postbacks] == [ids[state]]
        number = count(query, client=rig.client, engine=history)
        assert number.postbacks == 1
        assert number.read_ms > 1_700_000_000_000
    assert count(Query(state=state, account="globex"), client=rig.client, engine=history).postbacks == 0


def test_what_has_left_the_broker_stays_as_history_has_it(rig, history, ids):
    page = search(Query(state="waiting"), client=rig.client, engine=history)
    assert {postback.id for postback in page.postbacks} == {ids["waiting"], ids["gone"]}
    assert count(Query(state="waiting"), client=rig.client, engine=history).postbacks == 2


@pytest.mark.parametrize(
    "fields", [{"created_ms": "soon"}, {"attempts": "two"}, {"attempt:1": "{"}, {"ended_ms": "inf"}]
)
def test_a_record_that_cannot_be_read_hides_no_other(rig, history, ids, fields):
    """Damaged by hand: the postback stays as history has it, or shows what can be read."""
    rig.client.hset(keys.record(ids["delivered"]), mapping=fields)
    page = search(Query(), client=rig.client, engine=history)
    states = {postback.id: postback.state for postback in page.postbacks}
    assert (len(states), states[ids["parked"]]) == (6, "parked")
    assert states[ids["delivered"]] in {"waiting", "delivered"}
    assert count(Query(state="held"), client=rig.client, engine=history).postbacks == 1


def test_a_record_of_a_later_acceptance_is_not_the_rows(rig, history, ids):
    rig.client.hset(keys.record(ids["parked"]), "created_ms", 1)
    (postback,) = find(ids["parked"], client=rig.client, engine=history)
    assert postback.state == "waiting"
    assert count(Query(state="parked"), client=rig.client, engine=history).postbacks == 0


def test_without_a_broker_all_is_as_history_has_it(history, ids):
    page = search(Query(), client=AWAY, engine=history)
    assert {postback.state for postback in page.postbacks} == {"waiting"}
    assert page.read_ms is None
    waiting = count(Query(state="waiting"), client=AWAY, engine=history)
    assert (waiting.postbacks, waiting.read_ms) == (len(ids), None)
    assert count(Query(state="sending"), client=AWAY, engine=history).postbacks == 0
    assert search(Query(state="held"), client=AWAY, engine=history).postbacks == ()


def test_a_live_state_is_walked_over_all_its_pages(rig, history, monkeypatch):
    """Every third is parked: pages are filled from as many unfinished ones as it takes."""
    monkeypatch.setattr("postbacks.history.live.PAGE", 7)
    set_account("acme", url="http://127.0.0.1:8080/")
    ids = list(send_postbacks("acme", [EVENT] * 40))
    rig.tick()
    record(rig, history, *ids)
    for postback_id in ids[::3]:
        rig.client.hset(keys.record(postback_id), "state", "parked")
    query, found = Query(state="parked", limit=4), []
    while True:
        page = search(query, client=rig.client, engine=history)
        found += page.postbacks
        if not page.next:
            break
        assert len(page.postbacks) == 4
        query = replace(query, cursor=page.next)
    assert sorted(postback.id for postback in found) == sorted(ids[::3])
    assert count(query, client=rig.client, engine=history).postbacks == len(ids[::3])


def test_one_that_was_sent_again_by_hand_is_read_with_its_latest_attempt(rig, history):
    """Seven POSTs or more: the notes of the first six do not say that it is held."""
    set_account("acme", url="http://127.0.0.1:8080/")
    (postback_id,) = send_postbacks("acme", [EVENT])
    rig.tick()
    for number in range(1, 9):
        claim(rig, "one")
        note(rig, postback_id, number, "dead", "status")
        resend(postback_id)
    record(rig, history, postback_id)
    claim(rig, "one")  # its ninth POST begins
    (postback,) = find(postback_id, client=rig.client, engine=history)
    assert (postback.state, postback.attempts, postback.outcome) == ("sending", 9, "status")
    assert count(Query(state="sending"), client=rig.client, engine=history).postbacks == 1
    assert count(Query(state="held"), client=rig.client, engine=history).postbacks == 0


def test_a_page_reads_all_its_states_in_one_round_trip(rig, history, ids, monkeypatch):
    sent = []
    plain = AbstractConnection.send_packed_command
    monkeypatch.setattr(
        AbstractConnection,
        "send_packed_command",
        lambda *given, **more: sent.append(1) or plain(*given, **more),
    )
    search(Query(account="acme"), client=rig.client, engine=history)
    assert len(sent) == 1
