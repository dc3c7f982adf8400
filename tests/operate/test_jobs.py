"""Resend and cancel jobs: each postback of a frozen set is moved once, in order, and whatever is left alone is counted."""

from __future__ import annotations

import pytest
from events import MO, MT
from helpers import remove_account
from recording import both

from postbacks import keys, send_postback
from postbacks.broker.clock import now_ms
from postbacks.errors import InvalidQuery, PostbacksError, UnknownJob
from postbacks.history import Query, copies_of
from postbacks.operate import (
    all_jobs,
    pause_account,
    pause_job,
    preview_job,
    read_job,
    resume_account,
    resume_job,
    start_cancel,
    start_resend,
    stop_job,
)
from postbacks.operate.jobs import frozen, mover, selection
from postbacks.operate.jobs.job import FIRST, Counts
from postbacks.operate.jobs.mover import Mover
from postbacks.operate.resend import resend
from postbacks.queue.actions import cancel


@both
def test_a_filter_sends_each_of_its_dead_again_once_and_the_oldest_of_an_account_first(world):
    acme, beta = world.dead("acme", 3), world.dead("beta", 2)
    world.leave([acme[1]])
    job = start_resend(Query(since_ms=1), why="their gateway was down")
    assert (job.state, job.by, job.kind, job.total, job.waits) == ("asked", "ann", "resend", None, "")
    later = world.dead("acme", 1)  # after the job was asked for
    world.forget_posts()
    world.freeze(job)
    world.turn()
    lane = world.client.lrange(keys.lane("acme/mt"), 0, -1)
    assert [one.decode() for one in lane] == acme
    ended = world.run(job)
    assert (ended.state, ended.total, ended.left) == ("ended", 5, 0)
    assert ended.counts == Counts(moved=5, delivered=5)
    assert [(part.account, part.total, part.waiting) for part in ended.parts] == [
        ("acme", 3, 0),
        ("beta", 2, 0),
    ]
    assert (sorted(world.posts("acme")), sorted(world.posts("beta"))) == (sorted(acme), sorted(beta))
    assert world.state(later[0]) == "dead"
    record = world.rig.record(acme[1])
    assert [(resend.attempts, resend.by, resend.job) for resend in record.resends] == [(1, "ann", job.id)]
    assert [attempt.outcome for attempt in record.attempts] == ["status", "delivered"]
    world.check()
    world.record()
    copy = copies_of(acme[1], engine=world.recorder.engine).copies[0]
    assert copy.record.resends == record.resends
    world.mover._tidy_at_s = 0.0
    world.turn()
    with world.recorder.engine.connect() as connection:
        assert frozen.sets(connection) == []
        assert frozen.accounts_of(connection, job.id) == {}


@both
def test_ids_are_sent_again_and_those_that_nobody_has_are_counted(world):
    acme = world.dead("acme", 3)
    world.leave(acme[:1])
    unrecorded = world.dead("acme", 1, recorded=False)
    unknown = "00000000-0000-4000-8000-000000000000"
    ended = world.run(start_resend(ids=[*acme[:2], *unrecorded, unknown, acme[0]], by="bob"))
    assert (ended.state, ended.total, ended.ids, ended.by) == ("ended", 4, 4, "bob")
    assert ended.counts == Counts(moved=3, delivered=3, forgotten=1)
    assert world.state(acme[2]) == "dead"
    world.check()


def test_what_cannot_be_moved_is_left_and_counted_apart(world):
    acme = world.dead("acme", 6)
    gone = world.dead("gone", 1)
    unknown, no_document, by_hand, later, open_one, erased = acme
    job = world.freeze(start_resend(Query(state="dead")))
    pause_job(job.id)
    remove_account("gone")
    world.leave([unknown, no_document, later])
    with world.recorder.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM postbacks WHERE id = ?", (frozen.ids.pack(unknown),))
        row_id = copies_of(no_document, engine=world.recorder.engine).copies[0].row_id
        connection.exec_driver_sql(
            "DELETE FROM documents WHERE row_id <= ? AND row_id + row_count > ?", (row_id, row_id)
        )
    send_postback.apply_async(("acme", MT | {"TRACKINGID": "3"}), task_id=later)
    world.rig.tick()
    world.rig.scripts.replay(by_hand, "bob")
    world.rig.deliver()
    world.client.hset(keys.record(open_one), "state", "sending")
    world.client.hset(keys.record(erased), "forgotten", 1)
    world.mover._active.clear()
    resume_job(job.id)
    for _ in range(3):
        world.turn()
    counts = read_job(job.id).counts
    world.client.hset(keys.record(open_one), "state", "dead")
    assert counts.changed == 2  # sent again by hand, and a later acceptance of its id
    assert (counts.in_flight, counts.nowhere) == (1, 1)
    assert (counts.forgotten, counts.no_document) == (2, 1)
    assert world.state(gone[0]) == "dead"
    assert read_job(job.id).state == "ended"


@pytest.mark.parametrize("state", ["delivered", "cancelled"])
def test_delivered_and_cancelled_ones_are_sent_again_where_they_are_named(world, state):
    world.account("acme")
    ids = [send_postback.delay("acme", MT | {"TRACKINGID": str(n)}).id for n in range(3)]
    if state == "cancelled":
        world.rig.tick()
        assert [cancel(postback_id) for postback_id in ids] == [state] * 3
    else:
        world.rig.tick()
        world.rig.deliver()
    world.record()
    world.forget_posts()
    assert world.run(start_resend(Query(account="acme"))).total == 0
    job = world.run(start_resend(Query(account="acme", state=state)))
    assert (job.state, job.counts) == ("ended", Counts(moved=3, delivered=3))
    assert sorted(world.posts("acme")) == sorted(ids)
    assert preview_job("resend", Query(account="acme", state="delivered")).names_known
    world.check()
    assert world.client.hlen(keys.BACKLOG) == world.client.hlen(keys.OPEN) == 0
    total = sum(int(world.client.hget(keys.record(postback_id), "bytes")) for postback_id in ids)
    assert int(world.client.get(keys.LEDGER_BYTES)) == total


def test_what_the_broker_has_lost_is_sent_again_from_the_history_where_forgotten_is_named(world):
    """Send them by that state alone, as their end is not known: neither an id nor another filter does."""
    world.account("acme")
    ids = [send_postback.delay("acme", MT | {"TRACKINGID": str(n)}).id for n in range(3)]
    world.rig.tick()
    world.record()
    numbers = [world.rig.record(postback_id).sequence for postback_id in ids]
    world.client.flushdb()
    world.account("acme")
    world.record()
    assert world.run(start_resend(Query(account="acme"))).total == 0
    with pytest.raises(
        PostbacksError, match=f"may have been delivered; `postbacks resend --state forgotten {ids[0]}`"
    ):
        resend(ids[0])
    lost = Query(account="acme", state="forgotten")
    assert (preview_job("resend", lost).total, preview_job("resend", lost).names_known) == (3, True)
    by_id = world.run(start_resend(ids=ids[:1], query=Query(state="forgotten")))
    assert by_id.counts == Counts(moved=1, delivered=1)
    world.record()
    job = world.run(start_resend(lost))
    assert (job.state, job.counts) == ("ended", Counts(moved=2, delivered=2))
    assert world.posts("acme") == ids
    assert [world.rig.record(postback_id).sequence for postback_id in ids] == numbers
    world.record()
    assert {copies_of(name, engine=world.recorder.engine).copies[0].record.state for name in ids} == {
        "delivered"
    }
    world.check()


def test_one_that_was_cancelled_deep_in_its_lane_waits_there_again(world, monkeypatch):
    world.account("acme")
    ids = [send_postback.delay("acme", MT | {"TRACKINGID": str(n)}).id for n in range(5)]
    world.rig.tick()
    assert world.rig.scripts.cancel(ids[2], 60, search_max=1) == "cancelled"
    world.record()
    job = world.run(start_resend(ids=[ids[2]], query=Query(state="cancelled")))
    assert job.counts == Counts(moved=1, delivered=1)
    assert sorted(world.posts("acme")) == sorted(ids)
    world.check()
    assert world.client.hlen(keys.BACKLOG) == 0


def test_a_cancel_takes_what_waits_and_is_parked_and_has_the_open_one_not_sent_again(world):
    world.account("acme")
    ids = [send_postback.delay("acme", MT | {"TRACKINGID": str(n)}).id for n in range(4)]
    ids += [send_postback.apply_async(("acme", MT | {"TRACKINGID": "9"}), countdown=3600).id]
    world.rig.tick()
    world.record()
    world.client.hset(keys.record(ids[0]), "state", "sending")
    job = world.freeze(start_cancel(Query(account="acme")))
    for _ in range(3):
        world.turn()
    job = read_job(job.id)
    world.client.hset(keys.record(ids[0]), "state", "waiting")
    assert (job.state, job.total, job.counts) == ("ended", 5, Counts(moved=4, in_flight=1))
    assert [world.state(one) for one in ids[1:]] == ["cancelled"] * 4
    assert world.client.hget(keys.record(ids[0]), "cancel") == b"1"
    world.check()


@pytest.mark.parametrize("verdict", [503, 200])
def test_fifty_of_an_account_go_first_and_its_part_pauses_where_all_fail(world, verdict):
    acme = world.unrouted("acme", 3 * FIRST)
    world.unrouted("beta", 2)
    world.answers["/acme"] = verdict
    job = world.freeze(start_resend(Query(state="dead")))
    for _ in range(3):
        world.turn()
    assert [part.counts.moved for part in read_job(job.id).parts] == [FIRST, 2]
    job = world.run(job)
    if verdict == 200:
        assert (job.state, job.counts.delivered) == ("ended", 3 * FIRST + 2)
        return
    assert (job.state, job.note, job.paused_by) == ("paused", "acme paused: 50 of 50 failed, 503.", "")
    assert job.left == 2 * FIRST
    assert job.counts == Counts(moved=FIRST + 2, delivered=2, failed=FIRST)
    assert [part.is_paused for part in job.parts] == [True, False]
    world.answers["/acme"] = 200
    resume_job(job.id)
    job = world.run(job)
    assert (job.state, job.note) == ("ended", "")
    assert job.counts == Counts(moved=3 * FIRST + 2, delivered=2 * FIRST + 2, failed=FIRST)
    assert sorted(world.posts("acme")) == sorted(acme)
    world.check()


def test_a_failure_lets_no_other_go_before_one_is_delivered(world):
    ids = world.unrouted("acme", 3 * FIRST)
    job = world.freeze(start_resend(Query(account="acme")))

    def moved_after(*answers: tuple[str, str]) -> int:
        world.mover.scripts.watch_job(job.id, "", 0, FIRST, dict(answers))
        world.mover._active.clear()
        for _ in range(2):
            world.turn()
        return read_job(job.id).counts.moved

    assert moved_after() == FIRST
    assert moved_after(*((postback_id, "503") for postback_id in ids[:20])) == FIRST
    assert moved_after((ids[20], "")) == FIRST + 21


def test_a_job_that_somebody_has_let_go_on_is_not_paused_by_a_mover_that_is_late(world):
    world.unrouted("acme", 2 * FIRST)
    world.answers["/acme"] = 503
    job = world.run(start_resend(Query(account="acme")))
    assert job.state == "paused"
    assert world.rig.scripts.change_job(job.id, {"paused"}, "running") == "paused"
    assert world.rig.scripts.change_job(job.id, {"running"}, "paused", how="stuck") == "running"
    resume_job(job.id)
    assert world.rig.scripts.change_job(job.id, {"running"}, "paused", how="stuck") == "going"
    assert read_job(job.id).state == "running"


@pytest.mark.parametrize(
    ("answered", "row", "waiting", "room"),
    [
        (0, 0, 0, FIRST),
        (10, 10, FIRST - 10, 0),  # all that were answered have failed: 50 have gone
        (10, 9, FIRST - 10, 1),  # one has arrived
        (FIRST - 1, FIRST - 1, 0, 1),
        (120, 0, 100, 20),
        (120, 20, 100, 0),
        (1_000, 0, 0, mover.SLICE),
    ],
)
def test_more_of_an_account_go_as_those_before_are_answered(answered, row, waiting, room):
    """And no more than 50 while all have failed."""
    assert mover.room_of({"answered": answered, "row": row, "waiting": waiting}) == room


def test_a_part_whose_last_fifty_failed_pauses_midway(world):
    world.unrouted("acme", 6 * FIRST)
    job = world.freeze(start_resend(Query(account="acme")))
    while read_job(job.id).counts.delivered < FIRST:
        world.turn()
        world.rig.deliver()
    world.answers["/acme"] = 500
    job = world.run(job)
    assert (job.state, job.note) == ("paused", "acme paused: 50 of 50 failed, 500.")
    assert FIRST <= job.counts.failed < 3 * FIRST
    assert job.left > 0


def test_the_rate_bounds_the_moves_of_each_second(world):
    world.unrouted("acme", 40)
    job = world.freeze(start_resend(Query(account="acme"), rate=5))
    assert job.rate == 5
    began_ms, sooner = job.frozen_ms, 0
    for waited_s in (0, 1, 60, 1):
        world.rig.advance(waited_s)
        for _ in range(3):
            world.turn()
        moved, ended_ms = (
            read_job(job.id).counts.moved,
            now_ms(world.client) + world.rig.scripts.clock_offset_ms,
        )
        most = 1 + 5 * min(waited_s, 1) + 5 * (ended_ms - began_ms - 1000 * waited_s) / 1000
        assert 5 * min(waited_s, 1) <= moved - sooner <= most
        began_ms, sooner = ended_ms, moved
    assert sooner >= 16


def test_at_most_ten_thousand_of_a_job_wait(world, monkeypatch):
    monkeypatch.setattr(mover, "WAITING_MAX", 7)
    world.unrouted("acme", 6)
    world.unrouted("beta", 6)
    job = world.freeze(start_resend(Query(state="dead")))
    for _ in range(3):
        world.turn()
    assert read_job(job.id).waiting == 7
    assert world.run(job).counts.delivered == 12


def test_a_resend_keeps_half_of_the_backlog_limit_for_new_events(world):
    world.unrouted("acme", 30)
    world.mover._settings = world.settings.model_copy(update={"max_waiting_per_account": 20})
    job = world.freeze(start_resend(Query(account="acme")))
    for _ in range(3):
        world.turn()
    assert read_job(job.id).counts.moved == int(world.client.hget(keys.OPEN, "acme/mt")) == 10
    job = world.run(job)
    assert (job.state, job.counts.delivered, world.client.zcard(keys.DEAD)) == ("ended", 30, 0)


def test_a_paused_account_is_not_moved_into(world):
    world.unrouted("acme", 3)
    world.unrouted("beta", 3)
    pause_account("acme")
    job = start_resend(Query(state="dead"))
    for _ in range(5):
        world.turn()
        world.rig.deliver()
    job = read_job(job.id)
    assert (job.state, [part.counts.moved for part in job.parts]) == ("running", [0, 3])
    resume_account("acme")
    assert world.run(job).counts == Counts(moved=6, delivered=6)


def test_two_jobs_over_the_same_postbacks_are_refused(world):
    acme = world.dead("acme", 3)
    first = world.freeze(start_resend(Query(account="acme", state="dead"), by="bob"))
    pause_job(first.id)
    second = world.freeze(start_resend(ids=acme[2:]))
    assert (second.state, second.is_unended) == ("refused", False)
    assert second.note == (
        f"Job {first.id} (resend, paused, asked for by bob) holds 1 of these postbacks; wait for its end, or stop it: "
        f"postbacks job stop {first.id}."
    )
    stop_job(first.id, why="wrong account")
    assert read_job(first.id).note == "Stopped by ann: wrong account."
    assert world.run(start_resend(ids=acme[2:])).counts == Counts(moved=1, delivered=1)
    assert [job.state for job in all_jobs()] == ["ended", "refused", "stopped"]


def test_a_job_is_paused_resumed_and_stopped_by_people(world):
    world.unrouted("acme", 3)
    job = start_resend(Query(account="acme"))
    with pytest.raises(PostbacksError, match=r"is asked: only one that runs can be paused\.$"):
        pause_job(job.id)
    world.freeze(job)
    assert pause_job(job.id, by="bob").paused_by == "bob"
    for _ in range(3):
        world.turn()
    assert read_job(job.id).counts.moved == 0
    assert resume_job(job.id).paused_by == ""
    with pytest.raises(PostbacksError, match="nothing of it is paused"):
        resume_job(job.id)
    assert world.run(job).state == "ended"
    with pytest.raises(PostbacksError, match="nothing is left to stop"):
        stop_job(job.id)
    for action in (pause_job, resume_job, stop_job, read_job):
        with pytest.raises(UnknownJob, match="There is no job 'nine'"):
            action("nine")


def test_a_request_that_cannot_be_is_refused_with_a_sentence(world):
    for query, ids, words in (
        (None, [], "A job wants filters or ids"),
        (Query(), [], "A job wants filters or ids"),
        (Query(account="acme"), ["a1"], "beside ids only a state may be named"),
        (Query(state="waiting"), [], "What is waiting cannot be sent again"),
        (Query(state="dead", attempts=0, status=200), [], "No postback has"),
        (Query(account="", state="dead"), [], "An empty account chooses nothing; give its text, or leave"),
        (Query(code=""), [], "An empty code chooses nothing"),
        (None, ["not an id"], "is no postback's id"),
    ):
        with pytest.raises(InvalidQuery, match=words):
            start_resend(query, ids=ids)
    with pytest.raises(InvalidQuery, match="What is dead cannot be cancelled"):
        start_cancel(Query(state="dead"))
    with pytest.raises(InvalidQuery, match="An empty account chooses nothing"):
        start_cancel(Query(account="", since_ms=1))
    for rate in (0, 1e-320, float("nan"), float("inf")):
        with pytest.raises(PostbacksError, match=f"A rate of {rate} cannot be"):
            start_resend(Query(state="dead"), rate=rate)
    world.client.zadd(keys.CLAIMERS, {"an-older-loop": 2**52})
    with pytest.raises(PostbacksError, match="A worker of an older version is at work"):
        start_resend(Query(state="dead"))
    world.client.delete(keys.CLAIMERS)
    world.recorder.close()
    assert start_resend(Query(state="dead")).waits.startswith("No recorder works now")
    world.client.delete(keys.CHANGES)
    with pytest.raises(PostbacksError, match="No recorder has registered"):
        start_resend(Query(state="dead"))
    assert len(all_jobs()) == 1


def test_a_filter_that_finds_nothing_ends_its_job_at_once(world):
    job = world.run(start_resend(Query(account="nobody")))
    assert (job.state, job.total, job.note) == ("ended", 0, "No postback passes its filters.")


@both
def test_a_preview_counts_what_the_job_would_move_and_changes_nothing(world):
    acme, beta = world.dead("acme", 3), world.dead("beta", 1)
    waiting = send_postback.delay("acme", MO).id
    world.rig.tick()
    world.record()
    seen = preview_job("resend", Query(since_ms=1))
    assert (seen.total, seen.accounts, seen.left_out, seen.names_known) == (
        4,
        {"acme": 3, "beta": 1},
        0,
        False,
    )
    assert {postback.id for postback in seen.sample} == {*acme, *beta}
    assert preview_job("cancel", Query(account="acme")).accounts == {"acme": 1}
    assert preview_job("cancel", Query(account="acme", state="parked")).total == 0
    seen = preview_job("resend", ids=[waiting, acme[0], "unknown"])
    assert (seen.accounts, seen.left_out, [postback.id for postback in seen.sample]) == (
        {"acme": 1},
        2,
        [acme[0]],
    )
    assert preview_job("resend", Query(state="delivered"), ids=acme).left_out == 3
    assert all_jobs() == []


def test_a_set_that_the_database_has_lost_stops_its_job(world):
    world.unrouted("acme", 3)
    job = world.freeze(start_resend(Query(account="acme")))
    with world.recorder.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM job_sets")
    world.mover._active.clear()
    world.turn()
    job = read_job(job.id)
    assert (job.state, job.counts.moved) == ("stopped", 0)
    assert job.note.startswith("Its set is not in the history's database any more")


def test_each_is_moved_once_although_every_mover_is_another_one(world, monkeypatch):
    """Each turn is that of a mover that knows nothing, and repeats what it has done."""
    monkeypatch.setattr(mover, "SLICE", 30)
    ids = world.unrouted("acme", 200)
    world.leave(ids[::5])
    job = world.freeze(start_resend(Query(account="acme")))
    repeated = 0
    moves = world.rig.scripts.run

    class Repeating(Mover):
        def turn(self) -> float:
            calls = []
            run = self.scripts.run
            self.scripts.run = lambda name, arguments: (
                calls.append((name, tuple(arguments))) or run(*calls[-1])
            )
            try:
                return super().turn()
            finally:
                nonlocal repeated
                for name, arguments in calls:
                    if name == "move_job":
                        why, _, moved = moves(name, arguments)
                        repeated += why == b"stale" and not moved

    while read_job(job.id).state == "running":
        world.recorder.turn()
        Repeating(world.recorder, world.client, world.settings).turn()
        world.rig.deliver()
    job = read_job(job.id)
    assert repeated > 4
    assert (job.state, job.counts) == ("ended", Counts(moved=200, delivered=200))
    assert sorted(world.posts("acme")) == sorted(ids)
    world.check()


def test_a_large_set_is_frozen_in_pages_and_dropped_in_pages(world, monkeypatch):
    monkeypatch.setattr(selection, "PAGE", 100)
    monkeypatch.setattr(frozen, "DROP", 100)
    monkeypatch.setattr(mover, "TIDY_EVERY_S", 0.0)
    world.unrouted("acme", 250)
    job = world.freeze(start_resend(Query(account="acme")))
    assert (job.state, job.total) == ("running", 250)
    stop_job(job.id)
    sizes = []
    while not sizes or sizes[-1]:
        world.turn()
        with world.recorder.engine.connect() as connection:
            sizes.append(sum(frozen.accounts_of(connection, job.id).values()))
    assert sizes == [150, 50, 0]
