"""Phases of attempts in the ledger: of which they are kept, over a whole way with a real receiver."""

from __future__ import annotations

from events import MT
from helpers import set_account

from postbacks import keys, send_postback
from postbacks.devtools.receiver import Answer, Receiver


def test_a_first_post_that_delivers_costs_no_byte_and_each_other_has_its_phases(rig):
    """The second attempt was quick as well; but what was sent again is looked into."""
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
    note = rig.client.hget(keys.record(well), "attempt:1")
    assert b"phases" not in note
    assert b"address" not in note
    failed, delivered = rig.record(flaky).attempts
    assert (failed.outcome, delivered.outcome) == ("status", "delivered")
    for attempt in (failed, delivered):
        assert sum(attempt.phases.gone_through.values()) == attempt.elapsed_ms
        assert attempt.address == "127.0.0.1"
    assert delivered.phases.over_kept_connection
