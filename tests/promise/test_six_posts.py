"""The promise's numbers with the default settings: 300 s, 5 resends, and what each state says."""

from __future__ import annotations

import pytest
from celery.exceptions import TaskRevokedError
from events import MO
from helpers import environment, set_account

from postbacks import PostbackDead, PostbackFailed, resend, send_postback
from postbacks.devtools.receiver import Answer, Receiver


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
            at_once = rig.deliver()  # a loop stays for what is due within STAY_MS, and so sends it all
            assert at_once == (resends + 1 if countdown_s < 1 else 1)
            sent += at_once
            rig.advance(countdown_s + 1)
            rig.tick()
        assert rig.record(result.id).state == "dead"
        assert len(receiver.received) == resends + 1
        rig.close()


def test_the_result_tells_every_state(rig):
    """PENDING, RETRY with its facts, SUCCESS; FAILURE when dead or skipped; REVOKED when cancelled."""
    answers = {"/ok": 200, "/bad": 500}
    with Receiver(lambda post: Answer(answers[post.path])) as receiver:
        set_account("ok", url=receiver.url("/ok"))
        set_account("bad", url=receiver.url("/bad"))
        good, bad, nobody = (send_postback.delay(name, MO) for name in ("ok", "bad", "nobody"))
        assert {good.state, bad.state, nobody.state} == {"PENDING"}
        rig.tick()
        assert (good.state, bad.state, nobody.state) == ("PENDING", "PENDING", "FAILURE")
        with pytest.raises(PostbackDead, match="unknown_account"):
            nobody.get(timeout=1)
        rig.deliver()
        assert good.state == "SUCCESS"
        assert good.get(timeout=1) == good.info
        assert good.info["status"] == 200
        assert bad.state == "RETRY"
        failed = bad.info
        assert isinstance(failed, PostbackFailed)
        assert (failed.outcome, failed.status, failed.attempts) == ("status", 500, 1)
        assert failed.next_at == rig.record(bad.id).to_public_dict()["next_at"]
        for _ in range(5):
            rig.advance(301)
            rig.tick()
            rig.deliver()
        assert bad.state == "FAILURE"
        with pytest.raises(PostbackDead, match="after 6 attempts"):
            bad.get(timeout=1)


def test_revoke_cancels_what_waits_what_is_parked_and_what_is_still_in_celerys_queue(rig):
    """None of them is ever sent again, and each says REVOKED."""
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        parked = send_postback.delay("acme", MO)
        rig.tick()
        rig.deliver()
        waiting = send_postback.delay("acme", MO)
        rig.tick()
        queued = send_postback.delay("acme", MO)
        for result in (parked, waiting, queued):
            result.revoke()
            assert result.state == "REVOKED"
        rig.tick()
        rig.advance(301)
        rig.tick()
        assert rig.deliver() == 0
        assert len(receiver.received) == 1
        with pytest.raises(TaskRevokedError):
            waiting.get(timeout=1)


def test_the_same_id_sent_again_is_one_postback(rig):
    """task_id is the idempotency key, also long after it was delivered."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        for _ in range(3):
            send_postback.apply_async(("acme", MO), task_id="order-17")
        rig.tick()
        rig.deliver()
        send_postback.apply_async(("acme", MO), task_id="order-17")
        rig.tick()
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == ["order-17"]


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
