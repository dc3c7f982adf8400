"""Held postbacks of a loop: none may stay behind in a lane's queue, whatever has been taken meanwhile."""

from __future__ import annotations

import pytest

from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.held import HeldQueue


def held(postback_id: str, account: str, endpoint: str) -> ClaimedPostback:
    """Return a held postback."""
    return ClaimedPostback(postback_id, f"{account}/mt", 1, 0, account, "SMS_MT", "N201", endpoint, 1)


@pytest.mark.parametrize(
    "rows",
    [
        [("a1", "a", "e1"), ("b1", "b", "e2")],
        [("b1", "b", "e2"), ("a1", "a", "e1")],
        [("a1", "a", "e1"), ("a2", "a", "e2")],
        [("a2", "a", "e2"), ("a1", "a", "e1")],
    ],
)
def test_all_lanes_are_taken_though_some_have_shared_a_time_out(rows):
    """Their ids still stand in the queues; the taking ends, and leaves no lane behind."""
    queue = HeldQueue()
    for row in rows:
        queue.add(held(*row))
    assert [postback.id for postback in queue.take_endpoint("e2", 1, {"a", "b"})] == [
        rows[1][0] if rows[1][2] == "e2" else rows[0][0]
    ]
    assert [postback.id for postback in queue.take_lanes(500)] == ["a1"]
    assert len(queue) == 0
    assert queue.take_lanes(500) == []
    queue.add(held("a3", "a", "e1"))
    assert [postback.id for postback in queue.take_lanes(500)] == ["a3"]


def test_one_that_was_put_back_and_claimed_again_is_taken_once():
    """The answer to the giving back was lost, and a claim on its way brought it again."""
    queue = HeldQueue()
    postback = held("a1", "a", "e1")
    queue.put_back([postback])
    queue.add(postback)
    assert queue.take_lanes(500) == [postback]
    assert queue.take_lanes(500) == []


def test_whole_lanes_are_taken_until_they_are_enough():
    """So the first of a lane ends up in front of it, whichever script gives it back."""
    queue = HeldQueue()
    for number in range(6):
        queue.add(held(f"p{number}", "abc"[number // 2], "e1"))
    assert [postback.id for postback in queue.take_lanes(3)] == ["p0", "p1", "p2", "p3"]
    assert len(queue) == 2
