"""A record's texts: what of them is kept."""

from __future__ import annotations

from postbacks.ledger.record import MAX_DETAIL, Attempt


def test_an_attempts_detail_is_kept_up_to_a_bound():
    """A URL from an application's own store may be quoted in it; a short one stays as it is."""
    for detail, kept in (
        ("x" * MAX_DETAIL, "x" * MAX_DETAIL),
        ("x" * 3_000, "x" * MAX_DETAIL + "… (3,000 characters)"),
    ):
        attempt = Attempt(1, 0, "bad_url", detail=detail)
        assert Attempt.from_json(attempt.to_json()).detail == kept
