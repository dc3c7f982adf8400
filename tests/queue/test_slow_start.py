"""An endpoint that has taken no connection for a while is tried with one postback first, whoever shares it."""

from __future__ import annotations

import threading
import time

from events import MT
from helpers import Rig, black_hole, check_places, environment, set_account

from postbacks import keys, send_postbacks
from postbacks.delivery import session
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.doctor import Doctor


def send(rig: Rig, accounts: range, each: int, port: int) -> list[str]:
    """Postbacks of so many accounts to one port, taken in."""
    ids: list[str] = []
    for number in accounts:
        set_account(f"a{number}", url=f"http://127.0.0.1:{port}/a{number}")
        ids += send_postbacks(f"a{number}", [MT] * each)
    rig.tick()
    return ids


def test_accounts_that_share_a_silent_endpoint_try_it_together_and_keep_their_five_minutes(
    broker, monkeypatch
):
    """A single connection stands for all of them and all loops, in a go or two; new ones' first sends as well."""
    monkeypatch.setattr(session, "CLAIM_BATCH", 4)  # so that both loops hold some
    with environment(POSTBACKS_CONNECT_TIMEOUT_S="0.4"), black_hole() as port, Receiver() as healthy:
        rig = Rig(broker)
        ids = send(rig, range(20), 3, port)
        rig.deliver()
        rig.advance(301)
        new = send(rig, range(20, 25), 3, port)
        set_account("neighbour", url=healthy.url())
        send_postbacks("neighbour", [MT] * 5)
        rig.tick()
        other = Rig(broker)
        other.advance(301)
        beside = threading.Thread(target=other.deliver_lanes)
        beside.start()
        rig.deliver()
        beside.join()
        other.close()
        records = [rig.record(one) for one in ids + new]
        assert {record.state for record in records} == {"parked"}
        assert [len(record.attempts) for record in records] == [2] * len(ids) + [1] * len(new)
        # the first stands for what was held when it began, a second for the rest; a new lane holds one at first
        assert sum(not record.attempts[-1].shared for record in records) <= 3
        for first, second in (record.attempts for record in records[: len(ids)]):
            assert 300 <= (second.at_ms - first.at_ms) / 1000 < 310
        assert len(healthy.received) == 5
        noted = Doctor(rig.scripts, rig.settings, pause_s=0).examine().findings("unreached")
        assert noted == {f"http://127.0.0.1:{port}": f"http://127.0.0.1:{port} has taken none for 5 min"}
        assert check_places(rig.client) == {"parked": len(records), "done": 5}
        rig.close()


def test_a_loop_is_told_of_anothers_time_out_before_it_tries_the_endpoint_itself(rig):
    """The postbacks that it holds may share that time-out; where it knows of one, one of them is tried."""
    wide = {"suspects_max": 100, "free": 2000, "held_per_lane": 100, "slow_lanes": ()}
    send(rig, range(4), 2, 9999)
    since_ms = int(time.time() * 1000)
    rig.client.hset(keys.STARTS, "http://127.0.0.1:9999", f"{since_ms - 60_000} {since_ms - 60_000} 1 0 0 ")
    at_ms, (row,), held, _ = rig.scripts.claim("one", 30_000, at_most=2, held_max=100, **wide)
    _, begun, others, _ = rig.scripts.claim("two", 30_000, at_most=100, held_max=100, **wide)
    assert (len(held), begun, len(others)) == (1, [], 2)
    chosen = [one[0].decode() for one in others]
    assert rig.scripts.begin("two", chosen)[1:] == (
        [],
        [one.encode() for one in chosen],
        [b"http://127.0.0.1:9999"],
        [],
        [],
    )
    rig.scripts.commit(
        "one", 30_000, 10, 60, [(row[0], row[1], "parked", 1, "{}", 1000, "failed", "connect_timeout")]
    )
    told = rig.scripts.begin("two", chosen)
    assert (told.rows, len(told.later)) == ([], len(chosen))
    assert told.tried == [[b"http://127.0.0.1:9999", at_ms, row[5]]]
    now = rig.scripts.begin("two", chosen, known_ms=at_ms)
    assert (len(now.rows), len(now.later)) == (1, len(chosen) - 1)


def test_an_endpoint_that_is_back_gets_one_postback_and_one_more_with_each_connection(broker):
    """While it refuses all are tried; the first one that it takes is alone, and the open ones grow by its answers."""
    delay_s = 0.1
    rig = Rig(broker)
    with dead_port() as port:
        ids = send(rig, range(40), 4, port)
        rig.deliver()
        assert {rig.record(one).attempts[-1].outcome for one in ids} == {"refused"}
        rig.advance(301)
        rig.tick()
        rig.deliver()  # they are tried all the same, each by itself: at most ten at once
        assert {len(rig.record(one).attempts) for one in ids} == {2}
    rig.advance(301)
    rig.tick()
    with Receiver(lambda _: Answer(delay_s=delay_s), port=port) as receiver:
        rig.deliver()
        at_s = [post.monotonic_s for post in receiver.received]
    assert len(at_s) == len(ids) == check_places(rig.client)["done"]
    for number, arrived_s in enumerate(at_s[:100]):
        answered = sum(before_s + delay_s <= arrived_s for before_s in at_s[:number])
        assert number - answered < 1 + answered, f"the {number + 1}. came too early"
    assert not rig.client.exists(keys.STARTS, keys.ENDPOINTS)
    rig.close()


def test_an_account_that_fails_alone_slows_nobody_at_its_endpoint(broker):
    """Answers that are no 200 say nothing about connections; of failures to connect only those do where none succeed."""
    with Receiver(lambda post: Answer(500 if post.path == "/a0" else 200)) as receiver:
        rig = Rig(broker)
        send(rig, range(3), 2, receiver.port)
        rig.deliver()
        assert not rig.client.exists(keys.STARTS)
        for _ in range(3):  # of one account that gives its connections too little time
            send(rig, range(1, 3), 2, receiver.port)
            _, (row, other, *_), *_ = rig.scripts.claim(
                "one", 30_000, at_most=10, suspects_max=10, free=2000, held_max=10, held_per_lane=9,
                slow_lanes=(),
            )  # fmt: skip
            assert rig.client.hvals(keys.STARTS) == [], "others were connected meanwhile"
            failed = (row[0], row[1], "parked", row[3], "{}", 1000, "failed", "connect_timeout")
            rig.scripts.commit("one", 30_000, 10, 60, [failed])
            (start,) = rig.client.hvals(keys.STARTS)
            assert start.split()[2] == b"0", "not for a while yet"
            note = (other[0], other[1], "delivered", other[3], "{}", 0, "ok", "delivered")
            rig.scripts.commit("one", 30_000, 10, 60, [note])
            rig.advance(31)
            rig.tick()
            rig.deliver()
        rig.close()
