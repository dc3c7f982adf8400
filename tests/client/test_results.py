"""Celery's result API on postbacks and groups of them: each call works, or is refused in a sentence; none hangs."""

from __future__ import annotations

import uuid

import pytest
from celery import group
from celery.exceptions import TaskRevokedError, TimeoutError  # noqa: A004 - Celery's
from celery.result import GroupResult, ResultSet
from events import EVENT, MO
from helpers import set_account

from postbacks import PostbackDead, PostbackFailed, resend, send_postback, send_postbacks
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import UnsupportedOption

app = send_postback.app


@pytest.fixture
def sent(rig, receiver):
    """A group of three, one of which is dead; and what takes it in and delivers it."""
    set_account("acme", url=receiver.url())

    def deliver() -> None:
        rig.tick()
        rig.deliver()

    names = ("acme", "nobody", "acme")
    return group(send_postback.s(name, EVENT) for name in names).apply_async(), deliver


def test_a_group_tells_of_each_and_of_all(sent):
    """Counts and states, before and after."""
    results, deliver = sent
    assert len(results) == 3
    assert results.children == results.results
    assert [results.ready(), results.waiting(), results.failed(), results.completed_count()] == [
        False,
        True,
        False,
        0,
    ]
    deliver()
    assert [results.ready(), results.waiting(), results.failed(), results.completed_count()] == [
        True,
        False,
        True,
        2,
    ]
    assert results.successful() is False
    with pytest.raises(PostbackDead):
        results.maybe_throw()


GATHERED = {
    "get": lambda results, **more: results.get(propagate=False, **more),
    "join": lambda results, **more: results.join(propagate=False, **more),
    "join_native": lambda results, **more: results.join_native(propagate=False, **more),
    "iter_native": lambda results, **more: [
        dict(results.iter_native(**more))[result.id]["result"] for result in results
    ],
    "each": lambda results, **more: [result.get(propagate=False, **more) for result in results],
}


@pytest.mark.parametrize("gather", GATHERED.values(), ids=list(GATHERED))
def test_the_results_of_a_group_are_gathered_in_its_order(sent, gather):
    """In every way that Celery has; each waits no longer than it is told."""
    results, deliver = sent
    with pytest.raises(TimeoutError):
        gather(results, timeout=0)
    deliver()
    first, dead, last = gather(results, timeout=0)
    assert (first["status"], last["status"]) == (200, 200)
    assert isinstance(dead, PostbackDead)
    assert dead.outcome == "unknown_account"


@pytest.mark.parametrize("name", ["get", "join", "join_native"])
def test_a_groups_failure_is_raised_and_callbacks_are_called(sent, name):
    """Celery's defaults: propagate, and a callback for each."""
    results, deliver = sent
    deliver()
    with pytest.raises(PostbackDead, match="unknown_account"):
        getattr(results, name)(timeout=0)
    told = []
    getattr(results, name)(timeout=0, propagate=False, callback=lambda one, _: told.append(one))
    assert sorted(told) == sorted(result.id for result in results)


def test_native_iteration_yields_each_as_soon_as_it_has_ended(rig, receiver):
    """The first two, though the third has not ended; asked for twice it is read once."""
    set_account("acme", url=receiver.url())
    ids = send_postbacks("acme", [EVENT] * 2)
    rig.tick()
    rig.deliver()
    late = send_postback.delay("acme", EVENT)
    results = ResultSet([send_postback.AsyncResult(one) for one in [*ids, late.id, ids[0]]], app=app)
    seen, asked = {}, []
    native = results.iter_native(timeout=0.05, interval=0.01, on_interval=lambda: asked.append(1))
    with pytest.raises(TimeoutError, match="1 of the postbacks had not ended"):
        seen.update(native)
    assert {one: meta["status"] for one, meta in seen.items()} == dict.fromkeys(ids, "SUCCESS")
    assert asked
    assert list(ResultSet([], app=app).iter_native()) == []


def test_ids_that_are_uuids_are_gathered_natively_under_what_they_were_given_as(rig, receiver):
    """Celery's own ``AsyncResult`` keeps the UUID, and looks its result up by it."""
    set_account("acme", url=receiver.url())
    ids = [uuid.uuid4(), uuid.uuid4()]
    for postback_id in ids:
        send_postback.apply_async(("acme", EVENT), task_id=postback_id)
    rig.tick()
    rig.deliver()
    results = ResultSet([app.AsyncResult(postback_id) for postback_id in ids], app=app)
    assert [value["status"] for value in results.join_native(timeout=0)] == [200, 200]


def test_then_is_called_once_a_look_finds_the_end(sent):
    """For one, and for a group as soon as all of it has ended."""
    results, deliver = sent
    told = []
    results.then(lambda group: told.append(("group", len(group.results))))
    results[0].then(lambda result: told.append(("one", result.id)))
    assert (results.ready(), told) == (False, [])
    deliver()
    assert [result.ready() for result in results] == [True] * 3
    assert sorted(told) == [("group", 3), ("one", results[0].id)]


def test_a_postback_has_no_children_and_is_collected_alone(sent):
    """The tree that Celery follows is the postback itself."""
    results, deliver = sent
    deliver()
    result = results[0]
    assert result.children == []
    assert [(one.id, value["status"]) for one, value in result.collect(timeout=0)] == [(result.id, 200)]
    assert result.get_leaf()["status"] == 200
    assert len(result.graph) == 1
    assert result.as_tuple() == ((result.id, None), None)


def test_a_postback_exists_as_soon_as_it_is_taken_in(rig, receiver):
    """Whatever its state; PENDING alone would not tell."""
    set_account("acme", url=receiver.url())
    result = send_postback.delay("acme", EVENT)
    assert not result.exists()
    rig.tick()
    assert (result.state, result.exists()) == ("PENDING", True)
    assert not send_postback.AsyncResult("never-sent").exists()


def test_revoking_a_group_cancels_each(rig, receiver):
    """Before it is taken in, and while it waits."""
    set_account("acme", url=receiver.url())
    before = group(send_postback.s("acme", EVENT) for _ in range(2)).apply_async()
    before.revoke()
    waiting = group(send_postback.s("acme", EVENT) for _ in range(2)).apply_async()
    rig.tick()
    waiting.revoke()
    assert rig.deliver() == 0
    for result in [*before, *waiting]:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=0)


KEEP = r"keep its ids \(\[result\.id for result in group\]\).*send_postback\.AsyncResult\(id\)\."
REFUSED = {
    "save": (lambda results: results.save(), "cannot be saved: " + KEEP),
    "delete": (lambda results: results.delete(), "cannot be deleted: " + KEEP),
    "restore": (lambda results: GroupResult.restore(results.id, app=app), "cannot be restored: " + KEEP),
    "forget": (
        lambda results: results.forget(),
        "cannot be forgotten: the ledger keeps it for its retention",
    ),
    "forget one": (lambda results: results[0].forget(), "cannot be forgotten: the ledger keeps it"),
    "stamps": (lambda results: results[0].revoke_by_stamped_headers({"a": "b"}), "revoke them by id"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_the_ledger_cannot_do_is_refused_in_a_sentence(sent, call, words):
    """The sentence says what to do instead."""
    with pytest.raises(UnsupportedOption, match=words):
        call(sent[0])


def test_ids_and_accounts_that_are_uuids_are_taken_as_their_text(rig, receiver):
    """Sending, looking up, cancelling, sending again: all of them."""
    account, one, other, third = (uuid.uuid4() for _ in range(4))
    set_account(account, url=receiver.url("/bad"))
    result = send_postback.apply_async((account, EVENT), task_id=one)
    assert result.id == str(one)
    (many,) = send_postbacks(account, [EVENT])
    send_postback.apply_async((account, EVENT), {"url": receiver.url()}, task_id=other, countdown=0)
    for each in (third, many, uuid.uuid4()):
        send_postback.apply_async((account, EVENT), task_id=each)
    send_postback.AsyncResult(third).revoke()
    app.control.revoke([uuid.UUID(many)])
    app.control.revoke(uuid.uuid4())
    rig.tick()
    for _ in range(6):
        rig.deliver()
        rig.advance(301)
        rig.tick()
    for lookup in (send_postback.AsyncResult, app.AsyncResult):
        assert lookup(other).state == "SUCCESS"
        assert lookup(third).state == lookup(uuid.UUID(many)).state == "REVOKED"
        assert lookup(other).exists()
        with pytest.raises(PostbackDead):
            lookup(one).get(timeout=0)
    assert rig.record(str(one)).account == str(account)
    assert resend(one) == "waiting"


def test_the_result_tells_every_state(rig):
    """PENDING, RETRY with its facts, SUCCESS; FAILURE when dead or skipped; REVOKED when cancelled."""
    answers = {"/ok": 200, "/bad": 500}
    with Receiver(lambda post: Answer(answers[post.path])) as receiver:
        set_account("ok", url=receiver.url("/ok"))
        set_account("bad", url=receiver.url("/bad"))
        good, bad, nobody = (send_postback.delay(name, MO) for name in ("ok", "bad", "nobody"))
        assert {good.state, bad.state, nobody.state} == {"PENDING"}
        rig.tick()
        assert (good.state, bad.state, nobody.state) == ("PENDING", "PENDING", "FAILURE")
        with pytest.raises(PostbackDead, match="unknown_account"):
            nobody.get(timeout=1)
        rig.deliver()
        assert good.state == "SUCCESS"
        assert good.get(timeout=1) == good.info
        assert good.info["status"] == 200
        assert bad.state == "RETRY"
        failed = bad.info
        assert isinstance(failed, PostbackFailed)
        assert (failed.outcome, failed.status, failed.attempts) == ("status", 500, 1)
        assert failed.next_at == rig.record(bad.id).to_public_dict()["next_at"]
        for _ in range(5):
            rig.advance(301)
            rig.tick()
            rig.deliver()
        assert bad.state == "FAILURE"
        with pytest.raises(PostbackDead, match="after 6 attempts"):
            bad.get(timeout=1)


def test_revoke_cancels_what_waits_what_is_parked_and_what_is_still_in_celerys_queue(rig):
    """A revoked postback is never sent again, and its state is REVOKED."""
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        parked = send_postback.delay("acme", MO)
        rig.tick()
        rig.deliver()
        waiting = send_postback.delay("acme", MO)
        rig.tick()
        queued = send_postback.delay("acme", MO)
        for result in (parked, waiting, queued):
            result.revoke()
            assert result.state == "REVOKED"
        rig.tick()
        rig.advance(301)
        rig.tick()
        assert rig.deliver() == 0
        assert len(receiver.received) == 1
        with pytest.raises(TaskRevokedError):
            waiting.get(timeout=1)
