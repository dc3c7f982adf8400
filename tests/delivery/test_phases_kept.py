"""Phases and address of attempts in the ledger, over a whole way with a real receiver."""

from __future__ import annotations

from events import MT
from helpers import set_account

from postbacks import send_postback
from postbacks.devtools.receiver import Answer, Receiver


def test_each_attempt_has_its_phases_and_its_address(rig):
    """A first POST that delivers at once, one that fails, and the one after it over the kept connection."""
    with Receiver(
        lambda post: Answer(503 if post.attempt == 1 and post.path == "/flaky" else 200)
    ) as receiver:
        for name in ("well", "flaky"):
            set_account(name, url=receiver.url(f"/{name}"))
        well, flaky = (send_postback.delay(name, MT).id for name in ("well", "flaky"))
        for _ in range(2):
            rig.tick()
            rig.deliver()
            rig.advance(301)
    attempts = rig.record(well).attempts + rig.record(flaky).attempts
    assert [attempt.outcome for attempt in attempts] == ["delivered", "status", "delivered"]
    for attempt in attempts:
        assert sum(attempt.phases.gone_through.values()) == attempt.elapsed_ms
        assert attempt.address == "127.0.0.1"
    assert attempts[-1].phases.over_kept_connection
