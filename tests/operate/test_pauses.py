"""Pauses of accounts: nothing of it goes out, nothing is lost, all goes on in order; and whoever looks is told."""

from __future__ import annotations

import sys
import threading
import types

import pytest
from events import EVENT, MO
from helpers import Rig, black_hole, check_places, claim, environment, eventually, remove_account, set_account

from postbacks import accounts, keys, send_postback, send_postbacks, settings
from postbacks.broker.clock import now_ms
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.doctor import Doctor
from postbacks.errors import InvalidAccount, PostbacksError, UnknownAccount
from postbacks.ledger import journal
from postbacks.monitor import snapshot
from postbacks.operate import pause_account, paused_accounts, resume_account
from postbacks.operate.pauses import nearly_full
from postbacks.privacy import masker
from postbacks.version import new_loop_id

HOUR_S = 3600


def wait_in_lane(rig: Rig, account: str, count: int) -> list[str]:
    """Let postbacks of an account be accepted."""
    ids = send_postbacks(account, [EVENT] * count)
    rig.tick()
    return ids


def lane_of(rig: Rig, account: str) -> list[str]:
    return [raw.decode() for raw in rig.client.lrange(keys.lane(f"{account}/general"), 0, -1)]


# -- what is sent -----------------------------------------------------------------------------------


def test_nothing_of_a_paused_account_goes_out_and_all_of_it_in_its_order_afterwards(rig, receiver):
    set_account("acme", url=receiver.url("/acme"))
    set_account("globex", url=receiver.url("/globex"))
    ids = wait_in_lane(rig, "acme", 30)
    pause_account("acme", reason="they move", by="ann")
    later = wait_in_lane(rig, "acme", 10)  # new events are accepted as ever
    wait_in_lane(rig, "globex", 5)
    rig.deliver()
    assert [post.path for post in receiver.received] == ["/globex"] * 5
    assert lane_of(rig, "acme") == ids + later
    check_places(rig.client)
    resume_account("acme")
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"limit": 1, "suspect": 0})
    rig.deliver_lanes()
    rig.deliver_lanes()
    sent = [post.postback_id for post in receiver.received if post.path == "/acme"]
    assert sorted(sent) == sorted(ids + later)
    assert sent[0] == ids[0]


def test_what_is_open_is_finished_and_its_resend_waits_in_the_lane(rig):
    """A failure parks as ever; when its countdown has ended it joins the lane."""
    may_answer = threading.Event()
    with Receiver(lambda _: Answer(500 if may_answer.wait(20) else 200)) as receiver:
        set_account("acme", url=receiver.url())
        postback_id, second = wait_in_lane(rig, "acme", 2)
        loop = threading.Thread(target=rig.deliver_lanes)
        loop.start()
        eventually(lambda: receiver.count, what="the POST")
        pause_account("acme")
        may_answer.set()
        loop.join(60)
        assert receiver.count == 1
    assert (rig.record(postback_id).state, rig.record(second).state) == ("parked", "waiting")
    rig.advance(301)
    rig.tick()
    rig.deliver()
    assert lane_of(rig, "acme") == [second, postback_id]
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())  # a change of the account ends no pause
        rig.deliver()
        assert receiver.count == 0
        resume_account("acme")
        rig.deliver()
        assert {post.postback_id: post.attempt for post in receiver.received} == {second: 1, postback_id: 2}


def test_two_loops_at_work_claim_nothing_more(rig, broker, receiver):
    """They end, as there is nothing to do; what was sent was claimed before."""
    set_account("acme", url=receiver.url())
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"limit": 10, "suspect": 0})
    ids = wait_in_lane(rig, "acme", 1000)
    other = Rig(broker)
    loops = [threading.Thread(target=worker.deliver_lanes) for worker in (rig, other)]
    for loop in loops:
        loop.start()
    eventually(lambda: receiver.count > 20, what="some POSTs")
    pause_account("acme")
    open_posts = sum(rig.client.hlen(key) for key in rig.client.scan_iter(keys.CLAIMS + "*"))
    done = rig.client.zcard(keys.DONE)
    for loop in loops:
        loop.join(60)
    other.close()
    assert rig.client.zcard(keys.DONE) <= done + open_posts
    assert lane_of(rig, "acme") == ids[-len(lane_of(rig, "acme")) :] != []
    check_places(rig.client)


def test_what_a_loop_holds_goes_back_in_its_order_while_the_probe_is_open(rig):
    """Within a second; so it shares no time-out, neither its own probe's nor another account's."""
    with black_hole() as port, environment(POSTBACKS_CONNECT_TIMEOUT_S="3"):
        rig.settings = settings.load()
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        ids = wait_in_lane(rig, "acme", 20)
        rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
        loop = threading.Thread(target=rig.deliver_lanes)
        loop.start()
        try:
            eventually(lambda: rig.adapter._open, what="the probe")
            assert lane_of(rig, "acme") == []
            pause_account("acme")
            eventually(lambda: lane_of(rig, "acme") == ids[1:], what="what was held in its lane")
            assert rig.adapter._open, "the probe had ended first"
        finally:
            loop.join(60)
    records = [rig.record(postback_id) for postback_id in ids]
    assert [(record.state, len(record.attempts)) for record in records] == [("parked", 1)] + [
        ("waiting", 0)
    ] * 19


def test_a_loop_that_asks_to_begin_what_it_holds_is_told_to_give_it_back(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    ids = wait_in_lane(rig, "acme", 3)
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
    _, (probe,), held, _ = claim(rig, loop_id := new_loop_id())
    assert [probe.id.decode(), *(row.id.decode() for row in held)] == ids
    pause_account("acme")
    begun = rig.scripts.begin(loop_id, ids[1:])
    assert ([], ids[1:]) == (begun.rows, [raw.decode() for raw in begun.moved])


def test_what_is_in_quarantine_waits_as_well(rig, receiver):
    set_account("acme", url=receiver.url())
    (postback_id,) = wait_in_lane(rig, "acme", 1)
    claim(rig, new_loop_id())
    rig.advance(31)
    rig.tick()
    assert rig.client.zcard(keys.QUARANTINE) == 1
    pause_account("acme")
    rig.deliver()
    assert (receiver.count, rig.record(postback_id).state) == (0, "parked")
    resume_account("acme")
    rig.advance(31)
    rig.tick()
    rig.deliver()
    assert (receiver.count, rig.record(postback_id).state) == (1, "delivered")


def test_new_events_beyond_the_backlog_limit_are_dead_as_ever(rig, receiver):
    with environment(POSTBACKS_MAX_WAITING_PER_ACCOUNT="10"):
        rig.settings = settings.load()
        set_account("acme", url=receiver.url())
        pause_account("acme")
        wait_in_lane(rig, "acme", 4)
        assert nearly_full(rig.client, rig.settings) == []
        wait_in_lane(rig, "acme", 1)
        (backlog,) = nearly_full(rig.client, rig.settings)
        assert (backlog.pause.account, backlog.group, backlog.units, backlog.limit) == (
            "acme",
            "general",
            5,
            10,
        )
        ids = wait_in_lane(rig, "acme", 6)
        assert [rig.record(postback_id).state for postback_id in ids] == ["waiting"] * 5 + ["dead"]
        assert rig.record(ids[-1]).reason == "backlog_full"
        resume_account("acme")
        assert nearly_full(rig.client, rig.settings) == []


# -- how a pause begins and ends --------------------------------------------------------------------


def test_a_pause_ends_by_itself_at_its_time(rig, receiver):
    """The tick ends it; a claim knows it as soon, where there is something that gives the lane its turn."""
    set_account("acme", url=receiver.url())
    wait_in_lane(rig, "acme", 2)
    pause_account("acme", until_ms=now_ms(rig.client) + 60_000)
    rig.deliver()
    rig.advance(30)
    rig.tick()
    rig.deliver()
    assert (receiver.count, list(paused_accounts())) == (0, ["acme"])
    rig.advance(31)
    assert rig.tick().wakes >= 1
    assert paused_accounts() == {}
    rig.deliver()
    assert receiver.count == 2


def test_a_claim_begins_what_comes_after_the_end_of_a_pause_without_a_tick(rig, receiver):
    set_account("acme", url=receiver.url())
    send_postback.apply_async(("acme", EVENT), countdown=30)
    rig.tick()
    pause_account("acme", until_ms=now_ms(rig.client) + 10_000)
    rig.advance(31)
    rig.deliver_lanes()
    assert receiver.count == 1


def test_pausing_again_changes_end_and_reason_and_not_the_beginning(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    until_ms = now_ms(rig.client) + 60_000
    first = pause_account("acme", until_ms=until_ms, reason="they move", by="ann")
    second = pause_account("acme", reason="they said tomorrow", by="bob")
    assert (first.until_ms, first.reason, first.by) == (until_ms, "they move", "ann")
    assert second == first._replace(until_ms=None, reason="they said tomorrow", by="bob")
    rig.advance(HOUR_S)
    rig.tick()
    assert paused_accounts() == {"acme": second}


def test_resuming_tells_what_was_paused_and_of_another_account_that_it_was_not(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    pause_account("acme", reason="they move")
    wait_in_lane(rig, "acme", 3)
    pause_account("acme", reason="+15559876501 has called")
    ended = resume_account("acme")
    assert (ended.reason, ended.waiting) == (f"{masker().number('15559876501')} has called", 3)
    assert resume_account("acme") is None
    with pytest.raises(UnknownAccount, match="There is no account 'nobody'"):
        resume_account("nobody")


def test_the_journal_has_both(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    pause_account("acme", reason="they move", by="ann")
    resume_account("acme", why="+15559876501 has called", by="bob")
    entries = [entry for _, entry in journal.waiting(rig.client, 10)]
    entries = [(entry.action, entry.subject, entry.by, entry.why) for entry in entries]
    assert entries == [
        ("account.pause", "acme", "ann", "they move"),
        ("account.resume", "acme", "bob", f"{masker().number('15559876501')} has called"),
    ]


def test_an_unknown_account_a_passed_end_and_a_long_reason_are_refused(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    with pytest.raises(UnknownAccount, match="There is no account 'nobody'"):
        pause_account("nobody")
    with pytest.raises(PostbacksError, match="which has passed: by the broker's clock it is"):
        pause_account("acme", until_ms=now_ms(rig.client) - 1)
    with pytest.raises(PostbacksError, match="The reason has 501 characters; 500 are the most"):
        pause_account("acme", reason="x" * 501)
    assert not rig.client.exists(keys.PAUSED, keys.PAUSES)


def test_a_pause_is_refused_beside_a_worker_that_does_not_know_it(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    rig.client.hset(keys.TICKS, "0.1.0", now_ms(rig.client))
    with pytest.raises(InvalidAccount, match=r"0\.1\.0 ticks\) and does not know pauses: it would send"):
        pause_account("acme")
    assert not rig.client.exists(keys.PAUSED)


def test_an_account_of_an_applications_own_store_is_paused_as_well(rig, receiver, monkeypatch):
    known = {"theirs": accounts.make_account("theirs", url=receiver.url())}
    module = types.ModuleType("own_accounts")
    module.store = types.SimpleNamespace(
        get_many=lambda names: {name: known[name] for name in names if name in known}
    )
    monkeypatch.setitem(sys.modules, "own_accounts", module)
    with environment(POSTBACKS_ACCOUNTS="own_accounts:store"):
        pause_account("theirs")
        wait_in_lane(rig, "theirs", 2)
        rig.deliver()
        assert receiver.count == 0
        with pytest.raises(
            UnknownAccount, match=r"own_accounts:store \(POSTBACKS_ACCOUNTS\) does not have it"
        ):
            pause_account("acme")
        resume_account("theirs")
        rig.deliver()
        assert receiver.count == 2


def test_the_pause_of_a_removed_account_ends_with_what_waits_for_it(rig, receiver):
    """Set again within the hour it is paused as before; afterwards it is a new account."""
    set_account("acme", url=receiver.url())
    wait_in_lane(rig, "acme", 2)
    pause_account("acme")
    remove_account("acme")
    rig.deliver()
    set_account("acme", url=receiver.url())
    rig.deliver()
    assert (receiver.count, list(paused_accounts())) == (0, ["acme"])
    remove_account("acme")
    rig.advance(HOUR_S + 1)
    rig.tick()
    assert not rig.client.exists(keys.PAUSED, keys.PAUSES, keys.ROUTES, keys.BACKLOG)
    set_account("acme", url=receiver.url())
    wait_in_lane(rig, "acme", 1)
    rig.deliver()
    assert receiver.count == 1


def test_a_row_that_was_lost_comes_back_paused(rig, receiver):
    """And a pause of which nothing but the row is left can be ended."""
    set_account("acme", url=receiver.url())
    pause_account("acme", until_ms=now_ms(rig.client) + 10**9)
    rig.client.delete(keys.ROUTES)
    wait_in_lane(rig, "acme", 1)
    rig.deliver()
    rig.client.delete(keys.PAUSED, keys.PAUSES)
    rig.deliver()
    assert receiver.count == 0
    resume_account("acme")
    rig.deliver()
    assert receiver.count == 1


# -- who looks --------------------------------------------------------------------------------------


def test_a_paused_account_makes_no_system_unwell_and_is_told_apart(rig):
    """Count what waits for it apart; when the account goes on it has waited for us since then."""
    set_account("acme", url="http://127.0.0.1:9999/")
    send_postbacks("acme", [EVENT, MO])
    rig.tick()
    pause_account("acme", reason="they move")
    rig.deliver()
    rig.advance(2 * HOUR_S)
    rig.tick()

    def look() -> snapshot.Snapshot:
        return snapshot.read(rig.client, rig.settings, clock_offset_ms=rig.scripts.clock_offset_ms)

    seen = look()
    assert (seen.accounts_paused, seen.paused_waiting, seen.open_waiting, seen.still) == (1, 2, 0, {})
    assert 2 * HOUR_S <= seen.oldest_paused_s < 2 * HOUR_S + 60
    assert (seen.oldest_waiting_s, seen.paused["acme"].reason) == (0, "they move")
    assert Doctor(rig.scripts, rig.settings, pause_s=0).examine().findings("lanes-stuck") == {}
    rig.scripts.resume("acme")
    seen = look()
    assert (seen.paused, seen.open_waiting) == ({}, 2)
    assert seen.oldest_waiting_s < 60


def test_an_account_that_is_paused_is_not_down(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    wait_in_lane(rig, "acme", 1)
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1})
    rig.client.zadd(keys.FAILING, {"acme/general": 1})
    assert list(snapshot.read(rig.client, rig.settings).down) == ["acme"]
    pause_account("acme")
    assert snapshot.read(rig.client, rig.settings).down == {}


# -- what it costs ----------------------------------------------------------------------------------


def commands_of_a_claim(rig: Rig) -> dict[str, int]:
    """Claim a hundred postbacks of ten accounts anew; return the commands that the broker ran for it."""
    names = [f"healthy{number}" for number in range(10)]
    for name in names:
        rig.client.hset(
            keys.LANE_STATE + f"{name}/general", mapping={"limit": 10, "suspect": 0, "claimed": 0}
        )
        send_postbacks(name, [EVENT] * 10)
    rig.tick()
    rig.client.delete(keys.CLAIMERS)  # fewer loops look for what is due
    rig.client.config_resetstat()
    _, begun, _, _ = claim(rig, new_loop_id())
    stats = rig.client.info("commandstats")
    assert len(begun) == 100
    return {
        name: stat["calls"]
        for name, stat in stats.items()
        if not name.startswith(("cmdstat_info", "cmdstat_config"))
    }


def test_many_paused_accounts_cost_the_others_nothing(rig):
    """A claim runs the same commands beside a thousand postbacks of 50 paused accounts as without them."""
    for number in range(10):
        set_account(f"healthy{number}", url="http://127.0.0.1:9999/")
    commands_of_a_claim(rig)
    before = commands_of_a_claim(rig)
    for number in range(50):
        set_account(f"paused{number}", url="http://127.0.0.1:9999/")
        pause_account(f"paused{number}")
        send_postbacks(f"paused{number}", [EVENT] * 20)
    rig.tick()
    claim(rig, new_loop_id())  # takes their lanes out of their turns, once
    assert commands_of_a_claim(rig) == before
