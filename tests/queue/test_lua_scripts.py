"""The Lua moves on a real broker: a postback is in exactly one place, whatever is done to it."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from events import EVENT, MO, MT
from helpers import Rig, check_places, claim, environment, set_account

from benchmarks import fill
from postbacks import accounts, keys, send_postback, send_postbacks
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.queue.rows import AttemptRow
from postbacks.queue.shares import Shares
from postbacks.queue.tick import Tick


def test_every_move_leaves_a_postback_in_one_place(rig):
    """Taken in, claimed, given back, noted, parked, released, dead: checked after each step."""
    with environment(POSTBACKS_MAX_RESENDS="1"), Receiver(lambda _: Answer(500)) as receiver:
        rig = Rig_with_settings(rig)
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MT] * 30)
        assert rig.client.llen(keys.QUEUE) == 30
        rig.tick()
        assert check_places(rig.client) == {"waiting": 30}
        _, begun, *_ = claim(rig, "one")
        assert len(begun) == 1  # a lane nobody knows begins with one
        assert check_places(rig.client) == {"waiting": 29, "sending": 1}
        rig.advance(31)
        rig.tick()
        assert check_places(rig.client) == {"waiting": 30}
        rig.deliver()
        assert check_places(rig.client) == {"parked": 30}
        rig.advance(301)
        rig.tick()
        assert check_places(rig.client) == {"waiting": 30}
        rig.deliver()
        assert check_places(rig.client) == {"dead": 30}
        assert rig.client.hget(keys.BACKLOG, "acme") is None
        assert rig.client.exists(keys.READY_TRUSTED, keys.READY_SUSPECT, keys.CLAIMERS) == 0


def Rig_with_settings(rig: Rig) -> Rig:  # noqa: N802 - reads as a constructor
    """The rig with the environment's present settings."""
    from postbacks import settings

    rig.settings = settings.load()
    return rig


def test_a_lane_grows_to_ten_transfers_and_falls_to_one_after_a_failure(rig):
    """Over all workers: a second worker gets nothing beyond the lane's limit."""
    verdict = [200]
    with Receiver(lambda _: Answer(verdict[0])) as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MT] * 40)
        rig.tick()
        rig.deliver()
        assert int(rig.client.hget(keys.LANE_STATE + "acme/mt", "limit")) == 10
        send_postbacks("acme", [MT] * 40)
        rig.tick()
        assert len(claim(rig, "one")[1]) == 10
        assert len(claim(rig, "two")[1]) == 0
        rig.advance(31)
        rig.tick()
        verdict[0] = 500
        rig.deliver()
        assert rig.client.hget(keys.LANE_STATE + "acme/mt", "limit") == b"1"


def test_lanes_take_turns_however_much_one_of_them_holds(rig):
    """Five lanes that are trusted and full share a claim of fifty alike."""
    with Receiver() as receiver:
        for number in range(5):
            set_account(f"a{number}", url=receiver.url())
            send_postbacks(f"a{number}", [MT] * 20)
        rig.tick()
        rig.deliver()
        for number in range(5):
            send_postbacks(f"a{number}", [MT] * (400 if number == 0 else 15))
        rig.tick()
        _, begun, *_ = claim(rig, "one", at_most=25)
        assert set(Counter(row.lane for row in begun).values()) <= {5, 10}
        _, more, *_ = claim(rig, "two", at_most=100)
        assert Counter(row.lane for row in begun + more) == {f"a{n}/mt".encode(): 10 for n in range(5)}


def test_what_is_cancelled_deep_in_a_lane_is_cancelled_at_once_and_ends_when_it_comes_up(rig):
    """Nothing goes over the lane; all of them that stand in front go together, and nothing is sent twice or counted wrong."""
    ids = send_postbacks("acme", [MT] * 40, url="http://127.0.0.1:1/")
    rig.tick()
    for postback_id in ids[10:35]:
        assert rig.scripts.cancel(postback_id, 60, "", 3) == "cancelled"
    assert rig.record(ids[20]).state == "cancelled"
    assert (rig.client.llen(keys.lane("acme/mt")), rig.client.hget(keys.BACKLOG, "acme")) == (40, b"40")
    assert rig.client.zcard(keys.DONE) == 0
    rig.client.hset(keys.LANE_STATE + "acme/mt", mapping={"limit": 12, "suspect": 0})
    _, begun, *_ = claim(rig, "one")
    assert [row.id.decode() for row in begun] == ids[:10] + ids[35:37]
    assert (rig.client.zcard(keys.DONE), rig.client.hget(keys.BACKLOG, "acme")) == (25, b"15")
    assert check_places(rig.client) == {"sending": 12, "done": 25, "waiting": 3}


def test_a_loop_of_the_version_before_passes_nothing_over_that_was_cancelled(rig):
    """Such a loop would leave the postback in no place: while it works, the lane is searched as before."""
    ids = send_postbacks("acme", [MT] * 20, url="http://127.0.0.1:1/")
    rig.tick()
    rig.client.zadd(keys.CLAIMERS, {"0123456789abcdef": 1 << 50})
    assert rig.scripts.cancel(ids[10], 60, "", 3) == "cancelled"
    assert check_places(rig.client) == {"waiting": 19, "done": 1}


def test_within_an_account_mo_goes_before_mt(rig):
    """While MO waits, MT keeps one transfer."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MT] * 30)
        send_postbacks("acme", [MO] * 30)
        rig.tick()
        rig.deliver()
        send_postbacks("acme", [MT] * 50)
        send_postbacks("acme", [MO] * 50)
        rig.tick()
        _, begun, *_ = claim(rig, "one")
        assert Counter(row.lane for row in begun) == {b"acme/mo": 10, b"acme/mt": 1}


def test_lanes_in_trouble_share_half_of_the_transfers(rig):
    """Suspects get no more than what the caller leaves for them; the trusted get the rest."""
    with Receiver() as receiver:
        set_account("good", url=receiver.url())
        send_postbacks("good", [MT] * 30)
        rig.tick()
        rig.deliver()
        for number in range(30):
            set_account(f"new{number}", url=receiver.url())
            send_postbacks(f"new{number}", [MT])
        send_postbacks("good", [MT] * 30)
        rig.tick()
        _, begun, *_ = claim(rig, "one", at_most=20, suspects_max=4)
        assert Counter(bool(row.standing) for row in begun) == {True: 4, False: 10}


def test_no_lane_takes_more_than_its_share_of_the_room_that_is_left(rig):
    """The dynamic threshold: with 64 transfers free a lane gets one."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MT] * 30)
        rig.tick()
        rig.deliver()
        send_postbacks("acme", [MT] * 30)
        rig.tick()
        assert len(claim(rig, "one", free=64)[1]) == 1
        assert len(claim(rig, "two", free=320)[1]) == 4


def test_among_many_lanes_each_gets_no_more_a_turn_than_its_share_of_the_transfers(rig):
    """So each lane's next turn finds the connections of its last: not ten new ones, for which others are closed."""
    for number in range(128):
        rig.client.hset(f"{keys.LANE_STATE}a{number}/mt", mapping={"limit": 10, "suspect": 0})
        send_postbacks(f"a{number}", [MT] * 8, url="http://127.0.0.1:1/")
    rig.tick()
    assert set(Counter(row.lane for row in claim(rig, "one", at_most=50, free=640)[1]).values()) == {5}


def test_a_connect_timeout_counts_for_all_that_were_held_for_the_endpoint(rig):
    """A single connection is tried; fifty postbacks note it as shared, and none waits its own ten seconds."""
    with environment(POSTBACKS_CONNECT_TIMEOUT_S="0.3"), dead_port() as port:
        rig = Rig_with_settings(rig)
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        send_postbacks("acme", [MT] * 52)
        rig.tick()
        rig.deliver()  # refused: the lane fails, each was tried by itself
        rig.advance(301)
        rig.tick()
        now_ms, begun, held, _ = claim(rig, "one")
        assert (len(begun), len(held)) == (1, 51)
        assert rig.scripts.give_back("one", [row.id.decode() for row in held]) == 51
        assert check_places(rig.client) == {"waiting": 51, "sending": 1}
        assert now_ms


def test_what_shares_a_time_out_is_due_at_one_moment_though_it_is_noted_in_several_batches(rig):
    """So it may share the next one; any other failure is due to the millisecond."""
    ids = send_postbacks("acme", [MT] * 4, url="http://127.0.0.1:1/")
    rig.client.hset(keys.LANE_STATE + "acme/mt", mapping={"limit": 10})
    rig.tick()
    claim(rig, "one")
    due = []
    for postback_id, outcome in zip(
        ids, ("connect_timeout", "connect_timeout", "refused", "status"), strict=True
    ):
        row = (postback_id, "acme/mt", "parked", 1, "{}", 300_000, "failed", outcome)
        due += [next_ms for _, next_ms in rig.scripts.commit("one", 30_000, 10, 60, [row])]
        time.sleep(0.011)
    assert due[0] % 1000 == due[1] % 1000 == 0
    assert 0 <= due[1] - due[0] < 30_000
    assert 0 < due[3] - due[2] < 30_000
    assert (due[2] % 1000, due[3] % 1000) != (0, 0)
    now_ms = rig.client.time()[0] * 1000
    assert all(270_000 <= due_ms - now_ms <= 302_000 for due_ms in due)


def test_a_worker_that_lost_its_lease_changes_nothing(rig):
    """The worker's note comes to nothing: the postback is somebody else's."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        result = send_postback.delay("acme", MT)
        rig.tick()
        claim(rig, "zombie")
        rig.advance(31)
        rig.tick()
        note = (result.id, "acme/mt", "delivered", 1, "{}", 0, "ok", "")
        assert rig.scripts.commit("zombie", 30_000, 10, 60, [note]) == [(b"", 0)]
        assert rig.record(result.id).state == "waiting"
        assert [attempt.outcome for attempt in rig.record(result.id).attempts] == ["unknown"]


def test_a_tick_with_much_to_take_in_wakes_loops_once_the_first_batch_is_in_its_lanes(rig):
    """35 messages by tens: when the loops are called, ten wait in their lanes and 25 are yet to come in; once."""
    set_account("acme", url="http://127.0.0.1:8080/")
    with environment(POSTBACKS_INTAKE_BATCH="10"):
        rig = Rig_with_settings(rig)
        send_postbacks("acme", [MO] * 35)
        calls: list[tuple[int, int, int]] = []

        def wake(loops: int) -> None:
            calls.append((loops, rig.client.llen(keys.LANE + "acme/mo"), rig.client.llen(keys.QUEUE)))

        result = Tick(rig.scripts, accounts.store(), rig.settings).run(wake)
    assert calls == [(1, 10, 25)]
    assert result.taken_in == 35
    assert check_places(rig.client) == {"waiting": 35}


def test_what_a_dead_tick_had_taken_in_is_taken_in_again(rig):
    """The intake's lease ends; order is kept and nothing is doubled."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [MT] * 5)
        assert len(rig.scripts.take_in("dead", 10_000, 100).messages) == 5
        later = send_postbacks("acme", [MT] * 5)
        assert rig.scripts.take_in("other", 10_000, 100) is None
        assert rig.tick().taken_in == 0
        rig.advance(11)
        assert rig.tick().taken_in == 10
        waiting = rig.client.lrange(keys.lane("acme/mt"), 0, -1)
        assert [postback_id.decode() for postback_id in waiting] == ids + later
        assert rig.scripts.accept("dead", 1, 10, 0, 0, ()) is None


@pytest.mark.parametrize("dead", [False, True])
def test_records_are_dropped_after_their_retention_and_no_others(rig, dead):
    """Delivered after 7 days, dead after 30; what waits stays."""
    env = {"POSTBACKS_MAX_RESENDS": "0"}
    with environment(**env), Receiver(lambda _: Answer(500 if dead else 200)) as receiver:
        rig = Rig_with_settings(rig)
        set_account("acme", url=receiver.url())
        result = send_postback.delay("acme", MT)
        rig.tick()
        rig.deliver()
        set_account("later", url="http://127.0.0.1:9999/")
        waits = send_postback.apply_async(("later", MT), countdown=86_400 * 365)
        rig.tick()
        days = 30 if dead else 7
        rig.advance(days * 86_400 - 60)
        rig.tick()
        assert rig.client.exists(keys.record(result.id))
        rig.advance(120)
        assert rig.tick().dropped == 1
        assert not rig.client.exists(keys.record(result.id))
        assert rig.record(waits.id).state == "parked"


def test_the_ledger_gives_way_when_it_takes_more_than_its_share_of_memory(rig):
    """The oldest delivered go first; what waits, is parked or is dead stays."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [MT] * 30)
        rig.tick()
        rig.deliver()
        waits = send_postback.delay("acme", MT)
        rig.tick()
        oldest_first = [postback_id.decode() for postback_id in rig.client.zrange(keys.DONE, 0, -1)]
        used = int(rig.client.get(keys.LEDGER_BYTES))
        may_take = Shares(used // 2, 10**12, 10**12, 10**12, 1, 0)
        dropped = rig.scripts.retain(10**9, 10**9, 10**9, may_take, 100).dropped
        assert 10 <= dropped <= 20
        left = {postback_id for postback_id in ids if rig.client.exists(keys.record(postback_id))}
        assert left == set(oldest_first[dropped:])
        assert rig.record(waits.id).state == "waiting"
        check_places(rig.client)


def test_a_record_has_what_is_read_most_in_front_and_its_xml_behind(rig):
    """A listpack keeps the order in which fields were written, and is searched from the first on."""
    set_account("acme", url="http://127.0.0.1:9999/")
    (postback_id,) = send_postbacks("acme", [MT])
    rig.tick()
    assert rig.client.object("encoding", keys.record(postback_id)) == b"listpack"
    fields = list(rig.client.hgetall(keys.record(postback_id)))
    assert fields[:5] == [b"state", b"attempts", b"failures", b"account", b"group"]
    assert fields[-1] == b"xml"


def test_a_delivered_postback_has_no_reason_though_it_was_put_off_before(rig):
    """A reason of a postponement goes with its end; an empty one is not written."""
    set_account("acme", url="http://127.0.0.1:9999/")
    (postback_id,) = send_postbacks("acme", [MT])
    rig.tick()
    claim(rig, "one")
    assert rig.scripts.postpone("one", 1_000, "unusable", [postback_id]) == 1
    assert rig.record(postback_id).reason == "unusable"
    rig.advance(2)
    (row,) = claim(rig, "one")[1]
    note = AttemptRow(postback_id, row.lane.decode(), "delivered", row.number, '{"number": 1}', 0, "ok", "")
    rig.scripts.commit("one", 30_000, 10, 60, [note])
    assert rig.client.hmget(keys.record(postback_id), "state", "reason") == [b"delivered", None]
    check_places(rig.client)


def shares(rig: Rig, rounds: int, **limits: object) -> Counter[bytes]:
    """Return what each lane gets of a worker with room for four, whose POSTs succeed at once."""
    got: Counter[bytes] = Counter()
    for _ in range(rounds):
        _, begun, *_ = rig.scripts.claim(
            "one", 30_000, at_most=4, suspects_max=4, free=2000, held_max=0, held_per_lane=1, slow_lanes=(),
            **limits,
        )  # fmt: skip
        notes = [
            (row.id, row.lane, "delivered", row.number, f'{{"number": {row.number}}}', 0, "ok", "")
            for row in begun
        ]
        rig.scripts.commit("one", 30_000, 10, 60, notes)
        got.update(row.lane for row in begun)
    return got


def test_turns_go_by_weight_and_an_account_with_more_lanes_has_no_more_of_them(rig):
    """While all wait: weight 3 has three turns where others have one, of three lanes together one."""
    for name, options in {"light": {}, "heavy": {"weight": 3}, "wide": {}}.items():
        set_account(name, url="http://127.0.0.1:9999/", **options)
        send_postbacks(name, [MT] * 500)
    send_postbacks("wide", [MO] * 300)
    send_postbacks("wide", [EVENT] * 300)
    while rig.tick().more:
        pass
    shares(rig, 20)  # all are known, and trusted
    got = shares(rig, 100)
    wide = sum(count for lane, count in got.items() if lane.startswith(b"wide/"))
    assert sum(got.values()) == 400
    assert got[b"heavy/mt"] == pytest.approx(240, rel=0.1)
    assert got[b"light/mt"] == pytest.approx(80, rel=0.1)
    assert wide == pytest.approx(80, rel=0.1)
    assert got[b"wide/mt"] < got[b"wide/mo"]
    rig.advance(1)
    equal = shares(rig, 60, weights="general=1 mo=1 mt=2 pass=1")
    assert equal[b"wide/mt"] == pytest.approx(2 * equal[b"wide/mo"], rel=0.2)


def test_what_is_in_quarantine_shuts_no_account_that_nobody_tries_it_for(rig):
    """Room is kept for it while an examiner looks, which comes to it however many wait for their rate before it."""
    for name, count in {"slow": 250, "quick": 2}.items():
        set_account(name, url="http://127.0.0.1:9999/")
        send_postbacks(name, [MT] * count)
        rig.tick()
        if name == "slow":  # in quarantine lanes that answered go first
            rig.client.hset(f"{keys.LANE_STATE}slow/mt", mapping={"limit": 250, "suspect": 0})
        claim(rig, name, at_most=1000, suspects_max=1000, free=20_000)
    rig.scripts.set_pacing({"slow": "1 60000000 0", "quick": "1 0 1"})  # a POST a minute; one open at a time
    rig.advance(31)
    rig.tick()
    assert rig.client.zcard(keys.QUARANTINE) == 251
    assert [row.lane for row in claim(rig, "two")[1]] == [b"quick/mt"]
    rig.advance(31)
    rig.tick()
    got: list[bytes] = []
    for _ in range(200):  # any part of the quarantine, another one each time
        got += [row.lane for row in rig.scripts.examine("examiner", 30_000)[1]]
        assert claim(rig, "three")[1] == [], "its room is kept for what was before it"
        if b"quick/mt" in got:
            break
    assert got.count(b"quick/mt") == 1
    assert got.count(b"slow/mt") <= 2


def test_the_benchmarks_fill_lanes_as_the_tick_does(rig):
    """Their rows are those that the script takes: what they put there is delivered."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        fill.accept(rig.client, range(3), lambda _: ("acme", receiver.url()))
        rig.deliver()
        assert len(receiver.received) == 3
    assert check_places(rig.client) == {"done": 3}
