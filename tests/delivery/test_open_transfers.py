"""Open transfers, divided among lanes that are new, in trouble and well."""

from __future__ import annotations

import pytest

from postbacks.delivery.open_transfers import SuspectCapacity, divide_half


@pytest.mark.parametrize(
    ("troubled", "new", "capacity"),
    [
        (0, 0, SuspectCapacity(suspects=50, troubled=37, new=38, waited=25)),
        (37, 0, SuspectCapacity(suspects=13, troubled=0, new=10, waited=1)),
        (0, 25, SuspectCapacity(suspects=25, troubled=12, new=13, waited=0)),
        (43, 0, SuspectCapacity(suspects=7, troubled=0, new=6, waited=1)),
        (46, 0, SuspectCapacity(suspects=4, troubled=0, new=3, waited=0)),
        (60, 0, SuspectCapacity(suspects=0, troubled=0, new=0, waited=0)),
    ],
)
def test_lanes_in_trouble_and_new_ones_share_half_and_leave_room_for_the_next_new_one(
    troubled, new, capacity
):
    """Of 100 transfers."""
    assert divide_half(100, troubled, new) == capacity


def test_new_lanes_that_all_hang_never_take_the_room_of_the_next_one():
    """Each second as many begin as may, nothing ends, and the seconds are as many as a time-out has."""
    for at_most in (40, 100, 2000):
        troubled = divide_half(at_most, 0, 0).new  # they came at once
        for _ in range(10):
            capacity = divide_half(at_most, troubled, 0)
            assert 1 <= capacity.new <= at_most // 2 - troubled
            troubled += capacity.waited


def test_few_transfers_are_enough_for_each_kind():
    """The least that may be set: a lane in trouble, and a new one."""
    for at_most in (2, 3, 4):
        capacity = divide_half(at_most, 0, 0)
        assert (min(capacity.troubled, 1), min(capacity.new, 1)) == (1, 1)
