"""The promise's numbers with the default settings: 300 s, 5 resends, and what each state says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from events import EVENT, MO
from helpers import environment, running, set_account, short_and_long

from postbacks import PostbackDead, resend, send_postback
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.ledger.ledger import Ledger


def test_by_default_a_postback_is_resent_every_300_seconds_and_at_most_5_times(rig):
    """The scripts' clock is moved; nothing else is."""
    with Receiver(lambda _: Answer(503)) as receiver:
        set_account("acme", url=receiver.url())
        result = send_postback.delay("acme", MO)
        assert rig.tick().taken_in == 1
        for number in range(1, 6):
            assert rig.deliver() == 1
            record = rig.record(result.id)
            assert (record.state, len(record.attempts), record.failures) == ("parked", number, number)
            waits_ms = record.next_ms - record.attempts[-1].at_ms
            assert 300_000 <= waits_ms < 310_000
            rig.advance(289)
            rig.tick()
            assert rig.record(result.id).state == "parked"
            assert rig.deliver() == 0
            rig.advance(12)
            assert rig.tick().released == 1
            assert rig.record(result.id).state == "waiting"
        assert rig.deliver() == 1
        assert rig.record(result.id).state == "dead"
        rig.advance(86_400)
        rig.tick()
        assert rig.deliver() == 0
        assert [post.attempt for post in receiver.received] == [1, 2, 3, 4, 5, 6]


def test_a_resend_leaves_when_it_is_due_and_waits_for_no_tick(rig):
    """A claim releases it; a tick wakes a loop for what is due before the next tick, and for nothing else."""
    with Receiver(lambda _: Answer(503)) as receiver:
        set_account("acme", url=receiver.url())
        send_postback.delay("acme", MO)
        rig.tick()
        assert rig.deliver() == 1
        rig.advance(290)
        assert rig.tick().wakes == 0
        assert rig.deliver() == 0
        rig.advance(9.2)
        tick = rig.tick()
        assert (tick.released, tick.wakes) == (0, 1)
        rig.scripts.renew("claims already", 1000)
        assert rig.deliver() == 1  # the loop stays for what is left of the 300 s
    assert [post.attempt for post in receiver.received] == [1, 2]


@pytest.mark.parametrize(("resends", "countdown_s"), [(0, 300), (1, 0), (2, 0.5), (7, 60)])
def test_the_cap_and_the_countdown_are_settings(broker, resends, countdown_s):
    """POSTBACKS_MAX_RESENDS and POSTBACKS_RETRY_COUNTDOWN_S; a countdown of 0 is one."""
    from helpers import Rig

    values = {"POSTBACKS_MAX_RESENDS": str(resends), "POSTBACKS_RETRY_COUNTDOWN_S": str(countdown_s)}
    with environment(**values), Receiver(lambda _: Answer(500)) as receiver:
        rig = Rig(broker)
        set_account("acme", url=receiver.url())
        result = send_postback.delay("acme", MO)
        rig.tick()
        sent = 0
        while sent <= resends:
            assert rig.record(result.id).state == "waiting"
            at_once = (
                rig.deliver()
            )  # a loop stays for what is due within LINGER_FOR_DUE_MS, and so sends it all
            assert at_once == (resends + 1 if countdown_s < 1 else 1)
            sent += at_once
            rig.advance(countdown_s + 1)
            rig.tick()
        assert rig.record(result.id).state == "dead"
        assert len(receiver.received) == resends + 1
        rig.close()


def test_a_dead_postback_can_be_sent_again_with_the_same_bytes_and_a_higher_number(rig):
    """Replay: all resends before it again, its attempts kept."""
    with environment(POSTBACKS_MAX_RESENDS="0"):
        answers = [Answer(500), Answer(200)]
        with Receiver(lambda _: answers.pop(0)) as receiver:
            set_account("acme", url=receiver.url())
            result = send_postback.delay("acme", MO)
            rig.tick()
            rig.deliver()
            assert rig.record(result.id).state == "dead"
            set_account("acme", url=receiver.url("/other"))  # it follows its account
            assert resend(result.id) == "waiting"
            rig.deliver()
            assert rig.record(result.id).state == "delivered"
            assert resend(result.id) == "delivered"
            assert resend("no-such-id") == ""
            first, second = receiver.received
    assert (first.attempt, second.attempt, second.path) == (1, 2, "/other")
    assert first.body == second.body


@pytest.mark.parametrize("pool", short_and_long("prefork", "threads"))
def test_an_endpoint_that_always_answers_500_gets_six_posts_spaced_by_the_countdown_and_then_none(
    broker, tmp_path, pool
):
    """1 first send and 5 resends; then the postback is dead and its result says FAILURE."""
    env = {"POSTBACKS_RETRY_COUNTDOWN_S": "1"}
    with Receiver(lambda _: Answer(500, b"sorry")) as receiver, running(broker, tmp_path, pool=pool, env=env):
        set_account("acme", url=receiver.url())
        result = send_postback.delay("acme", EVENT)
        with pytest.raises(PostbackDead) as dead:
            result.get(timeout=60)
        posts = receiver.received
        assert [post.attempt for post in posts] == [1, 2, 3, 4, 5, 6]
        assert {post.body for post in posts} == {render(parse_event(EVENT))}
        gaps_s = [later.at - earlier.at for earlier, later in pairwise(posts)]
        assert min(gaps_s) >= 0.95, gaps_s
    assert result.state == "FAILURE"
    assert (dead.value.outcome, dead.value.status, dead.value.attempts) == ("status", 500, 6)
    record = Ledger(broker.client()).get(result.id)
    assert record.state == "dead"
    assert [attempt.excerpt for attempt in record.attempts] == ["sorry"] * 6
