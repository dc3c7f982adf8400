"""Postbacks that a loop holds and does not send: back in their lane, in their order, with no attempt counted."""

from __future__ import annotations

import pytest
import redis
from events import MT
from helpers import check_places, claim, set_account

from postbacks import keys, send_postbacks
from postbacks.delivery.claims import ClaimedPostback, Returner
from postbacks.delivery.held import HeldQueue
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import BrokerError
from postbacks.queue.scripts import Scripts


def test_what_is_given_back_keeps_its_order_and_counts_no_attempt(rig):
    """The front of the lane is as it was."""
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [MT] * 10)
        rig.tick()
        rig.client.hset(keys.LANE_STATE + "acme/mt", mapping={"failing": 1, "limit": 1})
        _, begun, held, _ = claim(rig, "one")
        assert [begun[0][0].decode(), *(row[0].decode() for row in held)] == ids
        rig.scripts.give_back("one", ids[1:])
        assert [one.decode() for one in rig.client.lrange(keys.lane("acme/mt"), 0, -1)] == ids[1:]
        assert {rig.record(one).attempts for one in ids[1:]} == {()}
        assert {rig.client.hget(keys.record(one), "attempts") for one in ids[1:]} == {b"0"}


def test_what_an_ending_loop_holds_of_many_lanes_goes_back_some_at_a_time_each_lane_in_its_order(rig):
    """Whole lanes, so that a lane's first one ends up in front; where the broker fails all is held as before."""
    lanes = {}
    for number in range(5):
        lanes[f"a{number}/mt"] = send_postbacks(f"a{number}", [MT] * 201, url="http://127.0.0.1:1/")
        rig.client.hset(f"{keys.LANE_STATE}a{number}/mt", mapping={"failing": 1, "limit": 1})
    rig.tick()
    rows = claim(rig, "one", held_per_lane=201)[2]
    assert len(rows) == 1000
    held = HeldQueue()
    for row in rows:
        held.add(ClaimedPostback.from_held_row(row, 1))
    with pytest.raises(BrokerError):
        Returner(Scripts(redis.Redis(port=1)), "one").give_back(held)
    assert len(held) == 1000
    unsent = Returner(rig.scripts, "one")
    unsent.give_back(held)
    assert len(held) == 400
    unsent.give_back(held)
    assert len(held) == 0
    for lane, ids in lanes.items():
        assert [one.decode() for one in rig.client.lrange(keys.lane(lane), 0, -1)] == ids[1:]
        assert rig.client.hmget(keys.LANE_STATE + lane, "claimed", "held") == [b"1", b"0"]
    assert check_places(rig.client) == {"waiting": 1000, "sending": 5}


def test_giving_back_passes_over_a_record_that_somebody_has_deleted(rig):
    """The others go back all the same; nothing of it stays among the claims."""
    ids = send_postbacks("acme", [MT] * 5, url="http://127.0.0.1:1/")
    rig.client.hset(keys.LANE_STATE + "acme/mt", mapping={"failing": 1, "limit": 1})
    rig.tick()
    claim(rig, "one")
    rig.client.delete(keys.record(ids[2]))
    assert rig.scripts.give_back("one", ids) == 4
    assert [one.decode() for one in rig.client.lrange(keys.lane("acme/mt"), 0, -1)] == [ids[1], *ids[3:]]
    assert rig.client.hkeys(keys.claims("one")) == [ids[0].encode()]
