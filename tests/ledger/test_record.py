"""A record's texts: what of them is kept."""

from __future__ import annotations

import pytest

from postbacks.ledger.phases import Phases
from postbacks.ledger.record import MAX_DETAIL, Attempt


def test_an_attempts_detail_is_kept_up_to_a_bound():
    """A URL from an application's own store may be quoted in it; a short one stays as it is."""
    for detail, kept in (
        ("x" * MAX_DETAIL, "x" * MAX_DETAIL),
        ("x" * 3_000, "x" * MAX_DETAIL + "… (3,000 characters)"),
    ):
        attempt = Attempt(1, 0, "bad_url", detail=detail)
        assert Attempt.from_json(attempt.to_json()).detail == kept


#: Phases -> how a note has them, and their words.
PHASES = [
    (Phases(1, 12, 40, 2003, 5), "1,12,40,2003,5", "lookup 1 ms, connect 12 ms, TLS 40 ms, wait 2,003 ms, read 5 ms, to 192.0.2.7"),
    (Phases(0, None, None, 9, 0), "0,,,9,0", "lookup 0 ms, wait 9 ms, read 0 ms, over a kept connection to 192.0.2.7"),
    (Phases(None, 10_000), ",10000", "connect 10,000 ms, to 192.0.2.7"),
    (Phases(7), "7", "lookup 7 ms, to 192.0.2.7"),
]  # fmt: skip


@pytest.mark.parametrize("outcome", ["delivered", "status"])
@pytest.mark.parametrize(("phases", "packed", "words"), PHASES)
def test_an_attempts_phases_are_kept_and_told(outcome, phases, packed, words):
    """The way that nearly all notes take, and the others'."""
    attempt = Attempt(2, 5, outcome, 200, 31, phases=phases, address="192.0.2.7")
    note = attempt.to_json()
    assert f'"phases": "{packed}"' in note
    assert Attempt.from_json(note) == attempt
    assert attempt.course == words
    public = attempt.to_public_dict()
    assert (public["phases"], public["address"]) == (phases.gone_through, "192.0.2.7")


def test_an_attempt_without_phases_says_nothing_of_them():
    """The note stays as it was, byte for byte, and the history reads it the quick way."""
    attempt = Attempt(1, 5, "delivered", 200, 31)
    assert (
        attempt.to_json()
        == '{"number": 1, "at_ms": 5, "outcome": "delivered", "status": 200, "elapsed_ms": 31}'
    )
    assert attempt.course == ""
    assert attempt.to_public_dict().keys().isdisjoint({"phases", "address"})
    behind_a_proxy = attempt._replace(phases=Phases(wait_ms=31))
    assert Attempt.from_json(behind_a_proxy.to_json()) == behind_a_proxy
    assert behind_a_proxy.course == "wait 31 ms, over a kept connection"


@pytest.mark.parametrize("packed", ["1,2,3,4,5,6", "1;2", "-1", "a", "1" * 10])
def test_phases_of_another_version_are_left_out(packed):
    """The attempt is read without them."""
    note = f'{{"number": 1, "at_ms": 5, "outcome": "status", "phases": "{packed}"}}'
    assert Attempt.from_json(note) == Attempt(1, 5, "status")
