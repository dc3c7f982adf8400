"""Wrong logins are slowed, by name and by address, in bounded memory."""

from __future__ import annotations

import pytest

from postbacks.web.security import slowing
from postbacks.web.security.slowing import FREE, REMEMBERED_MAX, WAIT_MAX_S, Slowing

TOKEN = "a-token-of-32-characters-in-all."


class Clock:
    """Clock that a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_the_first_are_free_and_then_each_waits_twice_as_long(clock):
    slow = Slowing(clock)
    assert [slow.attempt("ann", "10.0.0.1") for _ in range(FREE)] == [0] * FREE
    waits = []
    for _ in range(10):
        waits.append(slow.attempt("ann", "10.0.0.1"))
        clock.now_s += waits[-1]
        assert slow.attempt("ann", "10.0.0.1") == 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_name_is_slowed_wherever_it_is_tried_from(clock):
    slow = Slowing(clock)
    for number in range(FREE):
        assert slow.attempt("ann", f"10.0.0.{number}") == 0
    assert slow.attempt("ann", "10.9.9.9") > 0
    assert slow.attempt("bob", "10.9.9.9") == 0


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["2001:db8::1", "2001:db8::2:3"], ["10.0.0.1", "::ffff:10.0.0.1"]],
    ids=["address", "network of IPv6", "the same as IPv6"],
)
def test_an_address_is_slowed_whatever_name_it_tries(clock, addresses):
    slow = Slowing(clock)
    for number in range(FREE):
        assert slow.attempt(f"user{number}", addresses[number % len(addresses)]) == 0
    assert slow.attempt("another", addresses[0]) > 0
    assert slow.attempt("another", "192.0.2.1") == 0


def test_a_right_one_clears_and_quiet_forgets(clock):
    slow = Slowing(clock)
    for _ in range(FREE):
        slow.attempt("ann", "10.0.0.1")
    slow.succeed("ann", "10.0.0.1")
    assert slow.attempt("ann", "10.0.0.1") == 0
    for _ in range(FREE):
        slow.attempt("bob", "10.0.0.2")
    clock.now_s += slowing.FORGET_S
    assert [slow.attempt("bob", "10.0.0.2") for _ in range(FREE)] == [0] * FREE


def test_what_is_remembered_is_bounded(clock):
    slow = Slowing(clock)
    for number in range(REMEMBERED_MAX + 500):
        slow.attempt(f"user{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(slow._wrong) == REMEMBERED_MAX


def test_a_flood_does_not_make_the_wait_endless(clock):
    slow = Slowing(clock)
    for _ in range(10_000):
        slow.attempt("ann", "10.0.0.1")
    clock.now_s += WAIT_MAX_S
    assert slow.attempt("ann", "10.0.0.1") == 0


def test_the_login_waits_even_with_the_right_token(browse):
    browser = browse(web_token=TOKEN)
    for _ in range(FREE):
        assert browser.post("/login", data={"secret": "wrong"}).status_code == 401
    reply = browser.post("/login", data={"secret": TOKEN})
    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) >= 1
    assert "set-cookie" not in reply.headers
    browser.app.state.login.slowing._clock = lambda: slowing.time.monotonic() + WAIT_MAX_S
    assert browser.post("/login", data={"secret": TOKEN}).status_code == 303
