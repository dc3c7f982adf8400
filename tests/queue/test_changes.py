"""The feed of the history: what each move tells it, and that it costs one command a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from events import EVENT, MO, MT
from helpers import Rig, claim, set_account

from postbacks import keys, send_postback, send_postbacks, settings
from postbacks.accounts import Account, store
from postbacks.doctor import scripts as doctor
from postbacks.history.feed import Feed
from postbacks.ledger.states import DELIVERED, PARKED
from postbacks.queue.message import NEWER
from postbacks.queue.routes import row_of
from postbacks.queue.rows import AcceptRow, AttemptRow
from postbacks.queue.scripts import Scripts
from postbacks.queue.shares import Shares
from postbacks.queue.tick import Tick

URL = "http://127.0.0.1:9999/"
LEASE_MS = 30_000
LANE = "acme/mt"
NOTHING: set[str] = set()

#: A case gives up control once before its move, and then gives the ids that the move is to tell.
Case = Callable[[Rig], Iterator[set[str]]]


def waiting(rig: Rig, count: int = 3) -> list[str]:
    """Postbacks of acme that wait, whose lane is trusted."""
    set_account("acme", url=URL)
    ids = send_postbacks("acme", [MT] * count)
    rig.client.hset(keys.LANE_STATE + LANE, mapping={"limit": 10, "suspect": 0})
    rig.tick()
    return ids


def sending(rig: Rig, count: int = 3) -> list[str]:
    """Postbacks whose POSTs a loop has begun."""
    ids = waiting(rig, count)
    assert len(claim(rig, "loop")[1]) == count
    return ids


def held(rig: Rig, count: int = 3) -> list[str]:
    """Postbacks that a loop holds behind the first one."""
    ids = waiting(rig, count + 1)
    rig.client.hset(keys.LANE_STATE + LANE, mapping={"failing": 1, "suspect": 1, "limit": 1})
    rig.client.zrem(keys.READY_TRUSTED, LANE)
    rig.client.zadd(keys.READY_SUSPECT, {LANE: 0})
    assert len(claim(rig, "loop")[2]) == count
    return ids[1:]


def dead(rig: Rig, count: int = 2) -> list[str]:
    """Dead postbacks of an account that nobody knows."""
    ids = send_postbacks("nobody", [MT] * count)
    rig.tick()
    return ids


def switch_off(rig: Rig) -> None:
    """Switch the origin of acme's postbacks off."""
    row = Account(name="acme", url=URL, off=frozenset({"SMS_MT"}))
    rig.scripts.set_routes(3_600_000, {"acme": row_of(row)})


def attempt(postback_id: str, verdict: str, mood: str = "ok", reason: str = "status") -> AttemptRow:
    """First attempt of a postback, as the loop notes it."""
    return AttemptRow(postback_id, LANE, verdict, 1, '{"number": 1}', 300_000, mood, reason)


def commit(rig: Rig, *rows: AttemptRow) -> None:
    rig.scripts.commit("loop", LEASE_MS, 10, 60, rows)


def accept(rig: Rig) -> Iterator[set[str]]:
    """Take in one that waits, one with a countdown, one that is dead at once, one that is known; three under one id."""
    set_account("acme", url=URL)
    send_postback.apply_async(("acme", MT), task_id="known")
    rig.tick()
    ids = {"twice", send_postback.delay("acme", MO).id, send_postback.delay("nobody", MO).id}
    ids.add(send_postback.apply_async(("acme", EVENT), countdown=60).id)
    send_postback.apply_async(("acme", MT), task_id="known")
    for event in (MT, MT, EVENT):
        send_postback.apply_async(("acme", event), task_id="twice")
    yield NOTHING
    rig.tick()
    dead_ids = [raw.decode() for raw in rig.client.zrange(keys.DEAD, 0, -1)]
    (kept_id,) = (postback_id for postback_id in dead_ids if rig.record(postback_id).first_id == "twice")
    yield ids | {kept_id}


def accept_cancelled(rig: Rig) -> Iterator[set[str]]:
    """Take in one that was cancelled before it came."""
    set_account("acme", url=URL)
    send_postback.apply_async(("acme", MT), task_id="early")
    rig.scripts.cancel("early", 60)
    yield NOTHING
    rig.tick()
    assert rig.record("early").state == "cancelled"
    yield {"early"}


def claims(rig: Rig) -> Iterator[set[str]]:
    """To claim ends nothing."""
    waiting(rig)
    yield NOTHING
    assert len(claim(rig, "loop")[1]) == 3
    yield NOTHING


def claim_of_what_is_off(rig: Rig) -> Iterator[set[str]]:
    """Skipped where they come up."""
    ids = waiting(rig)
    switch_off(rig)
    yield NOTHING
    assert not claim(rig, "loop")[1]
    yield set(ids)


def begin(rig: Rig) -> Iterator[set[str]]:
    """Begin three of which one was revoked while it was held."""
    ids = held(rig)
    rig.scripts.cancel(ids[1], 60)
    yield NOTHING
    rig.scripts.begin("loop", ids)
    yield {ids[1]}


def give_back(rig: Rig) -> Iterator[set[str]]:
    """The same; the others only wait again."""
    ids = held(rig)
    rig.scripts.cancel(ids[1], 60)
    yield NOTHING
    assert rig.scripts.give_back("loop", ids) == 3
    yield {ids[1]}


def postpone(rig: Rig) -> Iterator[set[str]]:
    """Parked, one of them cancelled."""
    ids = sending(rig)
    rig.scripts.cancel(ids[1], 60)
    yield NOTHING
    assert rig.scripts.postpone("loop", 30_000, "account_unusable", [*ids, "unknown"]) == 3
    yield set(ids)


def commits(rig: Rig) -> Iterator[set[str]]:
    """Delivered, parked, dead and cancelled; and one whose claim was lost."""
    ids = sending(rig, 5)
    rig.scripts.cancel(ids[3], 60)
    rig.client.hdel(keys.claims("loop"), ids[4])
    yield NOTHING
    commit(
        rig, attempt(ids[0], DELIVERED), attempt(ids[1], PARKED), attempt(ids[2], "dead"), attempt(ids[3], PARKED),
        attempt(ids[4], DELIVERED),
    )  # fmt: skip
    yield set(ids[:4])


def commit_again(rig: Rig) -> Iterator[set[str]]:
    """The answer to a commit was lost: the second one changes nothing."""
    ids = sending(rig)
    commit(rig, *(attempt(postback_id, DELIVERED) for postback_id in ids))
    yield NOTHING
    commit(rig, *(attempt(postback_id, DELIVERED) for postback_id in ids))
    yield NOTHING


def release(rig: Rig) -> Iterator[set[str]]:
    """Release three; not told, as the live state of what is not at its end stands in its record."""
    ids = sending(rig)
    commit(rig, *(attempt(postback_id, PARKED) for postback_id in ids))
    rig.advance(301)
    yield NOTHING
    assert rig.scripts.release(100) == 3
    yield NOTHING


def reap(rig: Rig) -> Iterator[set[str]]:
    """Each POST that may have begun has an attempt now, its outcome unknown; held ones only wait again."""
    held(rig)
    (open_post,) = (
        raw.decode() for raw, kind in rig.client.hgetall(keys.claims("loop")).items() if kind == b"1"
    )
    rig.advance(31)
    yield NOTHING
    assert rig.scripts.reap(100, 300_000) == 4
    yield {open_post}


def reap_of_one_alone(rig: Rig) -> Iterator[set[str]]:
    """Parked, as its process died while it was tried alone."""
    ids = sending(rig, 1)
    rig.client.hset(keys.claims("loop"), ids[0], 2)
    rig.advance(31)
    yield NOTHING
    assert rig.scripts.reap(100, 300_000) == 1
    assert rig.record(ids[0]).state == PARKED
    yield set(ids)


def in_quarantine(rig: Rig) -> list[str]:
    """Postbacks that were in flight when their process died."""
    ids = sending(rig)
    rig.advance(31)
    rig.scripts.reap(100, 300_000)
    assert rig.client.zcard(keys.QUARANTINE) == 3
    return ids


def examine(rig: Rig) -> Iterator[set[str]]:
    """Begun, so nothing has changed."""
    in_quarantine(rig)
    yield NOTHING
    assert len(rig.scripts.examine("examiner", LEASE_MS)[1]) == 3
    yield NOTHING


def examine_what_is_off(rig: Rig) -> Iterator[set[str]]:
    """Skipped."""
    ids = in_quarantine(rig)
    switch_off(rig)
    yield NOTHING
    rig.scripts.examine("examiner", LEASE_MS)
    yield set(ids)


def examine_what_stands_still(rig: Rig) -> Iterator[set[str]]:
    """Parked until the account is there again."""
    ids = in_quarantine(rig)
    rig.scripts.set_routes(3_600_000, {"acme": row_of(None)})
    yield NOTHING
    rig.scripts.examine("examiner", LEASE_MS)
    assert rig.client.zcard(keys.PARKED) == 3
    yield set(ids)


def retire(rig: Rig) -> Iterator[set[str]]:
    """Dead, as their account is gone for good."""
    ids = waiting(rig)
    rig.scripts.set_routes(1000, {"acme": row_of(None)})
    rig.advance(2)
    yield NOTHING
    assert rig.scripts.retire(100)[0] == 3
    yield set(ids)


def cancel(rig: Rig) -> Iterator[set[str]]:
    """Cancel one that waits, one in flight, one that nobody knows and one that has ended."""
    ids = waiting(rig)
    claim(rig, "loop", at_most=1)
    ended = dead(rig)
    yield NOTHING
    assert rig.scripts.cancel(ids[0], 60) == "sending"
    assert rig.scripts.cancel(ids[1], 60) == "cancelled"
    assert rig.scripts.cancel("unknown", 60) == "cancelled"
    assert rig.scripts.cancel(ended[0], 60) == "dead"
    yield {ids[1]}


def cancel_deep_in_a_lane(rig: Rig) -> Iterator[set[str]]:
    """Told when it is cancelled, not when it comes up."""
    ids = waiting(rig, 9)
    yield NOTHING
    assert rig.scripts.cancel(ids[4], 60, "", 2) == "cancelled"
    claim(rig, "loop")
    assert rig.client.zcard(keys.DONE) == 1
    yield {ids[4]}


def replay(rig: Rig) -> Iterator[set[str]]:
    """Send a dead one again, and once more while it waits."""
    ids = dead(rig)
    yield NOTHING
    assert rig.scripts.replay(ids[0]) == "waiting"
    assert rig.scripts.replay(ids[0]) == "waiting"
    assert rig.scripts.replay("unknown") == ""
    yield {ids[0]}


def replay_of_a_newer_message(rig: Rig) -> Iterator[set[str]]:
    """Put a message back into the queue: it leaves the ledger."""
    ids = dead(rig)
    rig.client.hset(keys.record(ids[0]), mapping={"raw": "{}", "reason": f"{NEWER} of tomorrow"})
    yield NOTHING
    assert rig.scripts.replay(ids[0]) == "queued"
    yield {ids[0]}


def drop(rig: Rig) -> Iterator[set[str]]:
    """By hand; one that is not dead is left alone."""
    ids, others = dead(rig), waiting(rig)
    yield NOTHING
    assert rig.scripts.drop(1 << 50, "", [*ids, *others]) == 2
    yield set(ids)


def retract(rig: Rig) -> Iterator[set[str]]:
    """Drop what was kept under another id."""
    ids = dead(rig)
    yield NOTHING
    assert rig.scripts.retract(ids[0])
    assert not rig.scripts.retract(ids[0])
    yield {ids[0]}


def retain(rig: Rig) -> Iterator[set[str]]:
    """Drop what is past its retention: not told, as its copy stays."""
    dead(rig)
    rig.client.xtrim(keys.CHANGES, maxlen=0)
    rig.client.hdel(keys.HISTORY, "unrecorded_ms")
    rig.advance(10)
    yield NOTHING
    assert rig.scripts.retain(1, 1, 1, Shares(*[1 << 50] * 6), 100).dropped == 2
    yield NOTHING


def doctor_takes_back(rig: Rig) -> Iterator[set[str]]:
    """A claim that is lost: its attempt stands in the record now."""
    ids = sending(rig)
    rig.client.hdel(keys.claims("loop"), ids[0])
    yield NOTHING
    doctor.locate(rig.scripts, dict.fromkeys(ids, ()), ["loop"])
    doctor.locate(rig.scripts, dict.fromkeys(ids, ()), ["loop"], repair=True)
    assert rig.record(ids[0]).attempts
    yield {ids[0]}


def doctor_ends(rig: Rig) -> Iterator[set[str]]:
    """The same of one that was revoked meanwhile."""
    ids = sending(rig)
    rig.scripts.cancel(ids[0], 60)
    rig.client.hdel(keys.claims("loop"), ids[0])
    yield NOTHING
    doctor.locate(rig.scripts, dict.fromkeys(ids, ()), ["loop"], repair=True)
    assert rig.record(ids[0]).state == "cancelled"
    yield {ids[0]}


CASES: list[Case] = [
    accept, accept_cancelled, claims, claim_of_what_is_off, begin, give_back, postpone, commits, commit_again, release,
    reap, reap_of_one_alone, examine, examine_what_is_off, examine_what_stands_still, retire, cancel,
    cancel_deep_in_a_lane, replay, replay_of_a_newer_message, drop, retract, retain, doctor_takes_back, doctor_ends,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_move_tells_the_feed_what_it_has_changed_and_nothing_else(rig, case):
    """Each id once, whichever the move; and what did not change is not told."""
    feed = Feed(rig.client)
    assert feed.register()
    run = case(rig)
    next(run)
    before = feed.last_id()
    expected = next(run)
    entries, _ = feed.read(10_000, before)
    assert sorted(postback_id for entry in entries for postback_id in entry.ids) == sorted(expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_where_the_feed_is_off_nothing_is_written(rig, case):
    """No key appears, whatever moves."""
    run = case(rig)
    next(run)
    next(run)
    assert rig.client.exists(keys.CHANGES, keys.HISTORY) == 0


@pytest.mark.parametrize(
    ("case", "entries"),
    [(accept, 1), (commits, 1), (postpone, 1), (retire, 1), (claims, 0), (commit_again, 0)],
)
def test_the_feed_costs_one_command_a_call_whether_it_is_on_or_off(rig, case, entries):
    """Nothing is spent on asking whether it is on, nor where nothing has changed."""
    counts = []
    for is_on in (False, False, True):  # the first time, its script may have to be loaded
        rig.client.flushdb()
        rig.scripts.clock_offset_ms = 0
        run = case(rig)
        next(run)
        if is_on:
            Feed(rig.client).register()
        rig.client.config_resetstat()
        next(run)
        stats = {
            name: stat["calls"]
            for name, stat in rig.client.info("commandstats").items()
            if "config" not in name
        }
        assert stats.get("cmdstat_xadd", 0) == entries
        counts.append(stats)
    _, off, on = counts
    if case is not accept:  # which runs a whole tick, that limits the feed
        assert on == off


def test_a_large_batch_is_several_entries_in_the_order_of_their_coming(rig):
    """An entry holds a thousand ids at most."""
    feed = Feed(rig.client)
    feed.register()
    set_account("acme", url=URL)
    ids = send_postbacks("acme", [MT] * 2500)
    rows = rig.scripts.take_in("tick", 10_000, 2500)
    assert len(rows.messages) == 2500
    accepted = [
        AcceptRow(
            postback_id, "acme", "mt", "SMS_MT", "N202", URL, URL, b"<xml/>", "waiting", "", b"", "", b"digest", "0"
        )
        for postback_id in ids
    ]  # fmt: skip
    rig.scripts.accept("tick", 1, 10_000, 1 << 50, 2500, accepted)
    entries, _ = feed.read(10_000)
    assert [len(entry.ids) for entry in entries] == [1000, 1000, 500]
    assert [postback_id for entry in entries for postback_id in entry.ids] == ids
    assert feed.state().bytes / len(ids) < 45


def test_a_user_of_the_broker_without_the_right_to_the_feed_delivers_all_the_same(rig):
    """Rights of the version before do: as long as the feed is off nothing is noted, and then that a resync is wanted."""
    ids = waiting(rig)
    rules = {"keys": ["*"], "categories": ["+@all"], "commands": ["-xadd"]}
    rig.client.acl_setuser("former", enabled=True, passwords=["+secret"], **rules)
    address = rig.client.connection_pool.connection_kwargs
    with redis.Redis(address["host"], address["port"], username="former", password="secret") as client:
        moves = Scripts(client)
        assert moves.cancel(ids[0], 60) == "cancelled"
        assert rig.client.exists(keys.CHANGES, keys.HISTORY) == 0
        feed = Feed(rig.client)
        feed.register()
        feed.note_resynced("registered", 0)
        assert moves.cancel(ids[1], 60) == "cancelled"
        assert (feed.state().resync, feed.state().length) == ("refused", 0)
    rig.client.acl_deluser("former")


def test_ticks_of_a_user_without_any_right_to_the_feed_go_on(rig):
    """Rights of the version before: what a tick does for the feed is left out, on a broker that is nearly full, too."""
    Feed(rig.client).register()
    set_account("acme", url=URL)
    send_postbacks("acme", [MT] * 3)
    send_postbacks("nobody", [MT] * 3)
    of_feed = ["-xadd", "-xlen", "-xrange", "-xtrim", "-unlink", "-memory|usage"]
    rules = {"keys": ["*"], "categories": ["+@all"], "commands": of_feed}
    rig.client.acl_setuser("former", enabled=True, passwords=["+secret"], **rules)
    address = rig.client.connection_pool.connection_kwargs
    with redis.Redis(address["host"], address["port"], username="former", password="secret") as client:
        moves = Scripts(client)
        tick = Tick(moves, store(), settings.load()).run()
        assert (tick.taken_in, tick.wakes > 0) == (6, True)
        moves.clock_offset_ms = 8 * 86_400_000
        assert moves.limit_changes(1, 7 * 86_400_000, "silent") == (0, False)
        moves.clock_offset_ms = 0
        assert moves.make_room(1, 10_000, 0, 100, 0).dead == 3
    rig.client.acl_deluser("former")
