"""Time is the broker's. What happens when its clock jumps, and when a worker's or beat's is wrong."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery.schedules import schedule
from events import EVENT
from helpers import BASE_ENV, check_places, ended, environment, eventually, set_account
from messages import message
from standardwebhooks import Webhook

import postbacks.celeryext.beat
from postbacks import accounts, keys, send_postback, send_postbacks
from postbacks.accounts import secrets
from postbacks.app import app
from postbacks.client.producer import RedisProducer
from postbacks.devtools.receiver import Answer, Receiver, fail_first
from postbacks.devtools.stack import CeleryProcess
from postbacks.doctor import Doctor

pytestmark = pytest.mark.usefixtures("forked")

DAY_S, HOUR_S = 86_400.0, 3_600.0
SKEWED = str(Path(__file__).parent / "skewed")


def attempts_of(rig, ids) -> Counter[tuple[str, ...]]:
    """Count postbacks by their outcomes."""
    return Counter(tuple(attempt.outcome for attempt in rig.record(one).attempts) for one in ids)


def test_a_broker_whose_clock_jumps_an_hour_shifts_resends_by_as_much_and_loses_and_adds_none(rig):
    """Forward: what was parked leaves an hour early. Back: an hour late, and the doctor says so."""
    with Receiver(fail_first(1)) as receiver:
        set_account("acme", url=receiver.url())
        first = send_postbacks("acme", [EVENT] * 20)
        rig.tick()
        rig.deliver()
        due_ms = {one: rig.record(one).next_ms for one in first}
        rig.advance(HOUR_S)
        assert rig.tick().released == 20
        rig.deliver()
        assert attempts_of(rig, first) == {("status", "delivered"): 20}

        second = send_postbacks("acme", [EVENT] * 20)
        rig.tick()
        rig.deliver()
        due_ms = {one: rig.record(one).next_ms for one in second}
        rig.advance(-HOUR_S)
        assert rig.tick().released == 0
        jump = Doctor(rig.scripts, rig.settings, pause_s=0).examine().findings("clock-jump")
        assert "the broker has noted things" in jump[""]
        rig.advance(HOUR_S)  # the time that it was when they were parked
        assert rig.tick().released == 0
        assert {one: rig.record(one).next_ms for one in second} == due_ms
        rig.advance(300)
        assert rig.tick().released == 20
        rig.deliver()
        assert attempts_of(rig, second) == {("status", "delivered"): 20}
        assert {len(posts) for posts in receiver.by_id().values()} == {2}
    assert check_places(rig.client) == {"done": 40}


def claim(rig, token: str, lease_ms: int = 30_000) -> list[str]:
    """Claim as a delivering loop does; returns the ids whose POST has begun."""
    _, begun, *_ = rig.scripts.claim(
        token, lease_ms, at_most=400, suspects_max=400, free=2000, held_max=0, held_per_lane=1, slow_lanes=()
    )
    return [row[0].decode() for row in begun]


def test_leases_survive_a_jump_of_the_brokers_clock_where_their_loop_does(rig):
    """Forward: who looks for work keeps its claims. Back: the lease is a whole one again at its first sign of life."""
    set_account("acme", url="http://127.0.0.1:8080/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()
    assert claim(rig, "living") == [one]
    rig.advance(HOUR_S)
    claim(rig, "living")  # 20 times a second
    assert rig.tick().reaped == 0
    rig.advance(-HOUR_S)
    assert rig.scripts.renew("living", 30_000)
    seconds, _ = rig.client.time()
    assert rig.client.zscore(keys.CLAIMERS, "living") <= seconds * 1000 + 32_000
    rig.advance(31)
    assert rig.tick().reaped == 1, "it died at last"
    assert [attempt.outcome for attempt in rig.record(one).attempts] == ["unknown"]


def test_a_tick_that_died_as_the_clock_was_put_back_holds_the_intake_no_hour_longer(rig):
    """A lease of before the clock's jump ends later than any can, so nobody waits for it."""
    set_account("acme", url="http://127.0.0.1:8080/")
    send_postbacks("acme", [EVENT])
    rig.scripts.take_in("dead", int(rig.settings.intake_lease_s * 1000), 100)
    assert rig.tick().taken_in == 0
    rig.advance(-HOUR_S)
    assert rig.tick().taken_in == 1


def test_a_worker_and_a_beat_whose_clocks_are_wrong_by_a_day_change_nothing(broker, tmp_path):
    """A worker a day ahead and a beat a day behind: postbacks leave within the second, resends and signatures in
    time.
    """
    key = secrets.new_key()
    beat = CeleryProcess(
        "beat", args=["--loglevel=INFO"], log_path=tmp_path / "beat.log",
        env={**BASE_ENV, "POSTBACKS_BROKER_URL": broker.url, "PYTHONPATH": SKEWED, "SKEW_S": str(-DAY_S)},
    )  # fmt: skip
    worker = CeleryProcess(
        "worker", args=["--without-mingle", "--without-gossip", "--loglevel=INFO"], log_path=tmp_path / "worker.log",
        env={**BASE_ENV, "POSTBACKS_BROKER_URL": broker.url, "PYTHONPATH": SKEWED, "SKEW_S": str(DAY_S),
             "POSTBACKS_RETRY_COUNTDOWN_S": "2", "POSTBACKS_SECRET_KEY": key},
    )  # fmt: skip
    secret = secrets.new_secret()
    with Receiver(fail_first(1)) as receiver, environment(POSTBACKS_SECRET_KEY=key), beat, worker:
        account = accounts.make_account("acme", url=receiver.url())
        accounts.redis_accounts().set(account.rotated(secrets.encrypt(secret, "acme", "secret"), 0, 0))
        (one,) = send_postbacks("acme", [EVENT])
        asked_ms = int(time.time() * 1000)  # whole, as the record's times are
        later = send_postback.apply_async(args=("acme", EVENT), countdown=4).id
        foreign = {"late": timedelta(hours=-1), "soon": timedelta(hours=1)}
        for name, delta in foreign.items():
            broker.client().lpush(
                keys.QUEUE, message(id=name, expires=(datetime.now(UTC) + delta).isoformat(), lang="js")
            )
        try:
            records = {name: ended(broker.client(), name, 60) for name in (one, later, *foreign)}
        except BaseException:
            print(worker.log()[-4000:], beat.log()[-2000:])
            raise
        posts = receiver.received
        today = datetime.now(UTC)
        for process, days in ((worker, 1), (beat, -1)):
            date = (today + timedelta(days=days)).strftime("[%Y-%m-%d")
            assert date in process.log(), "its clock is right"
    assert {name: record.state for name, record in records.items()} == {
        one: "delivered", later: "delivered", "late": "dead", "soon": "delivered",
    }  # fmt: skip
    for post in posts:
        Webhook(secret).verify(
            post.body, post.headers, json_parse=False
        )  # refuses a timestamp that is 5 minutes off
        assert abs(datetime.fromisoformat(post.created).timestamp() - post.at) < 60
    first, second = records[one].attempts
    assert 2_000 <= second.at_ms - first.at_ms < 30_000
    assert abs(first.at_ms / 1000 - time.time()) < 120
    assert 4_000 <= records[later].attempts[0].at_ms - asked_ms < 60_000


@pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S])
def test_beat_ticks_on_when_its_clock_jumps(monkeypatch, jump_s):
    """Celery's own scheduler is silent for an hour after a clock that was put back by one."""
    clock = {"ahead_s": 0.0}
    real = time.time
    monkeypatch.setattr(postbacks.celeryext.beat.time, "time", lambda: real() + clock["ahead_s"])
    moved = lambda: datetime.now(UTC) + timedelta(seconds=clock["ahead_s"])  # noqa: E731
    sent: list[str] = []
    monkeypatch.setattr(
        postbacks.celeryext.beat.SteadyScheduler,
        "apply_async",
        lambda _, entry, **__: sent.append(entry.name),
    )
    scheduler = postbacks.celeryext.beat.SteadyScheduler(app, schedule={}, lazy=True)
    scheduler.add(name="tick", task="t", schedule=schedule(1.0, nowfun=moved, app=app))
    scheduler.add(name="hourly", task="t", schedule=schedule(3600.0, nowfun=moved, app=app))

    def ticks(count: int) -> None:
        before = sent.count("tick")
        eventually(lambda: scheduler.tick() is None or sent.count("tick") >= before + count, what="ticks")

    ticks(1)
    clock["ahead_s"] = jump_s
    ticks(2)
    assert sent.count("hourly") == (1 if jump_s > 0 else 0)


def test_what_is_overdue_by_a_day_leaves_at_once_but_ten_at_a_time_after_one(rig):
    """A receiver that was down for a day gets one POST first, and never more than POSTBACKS_LANE_MAX_TRANSFERS."""
    count, open_s = 1_000, 0.01
    answers = {"down": True}
    with Receiver(lambda _: Answer(503) if answers["down"] else Answer(delay_s=open_s)) as receiver:
        set_account("acme", url=receiver.url())
        with RedisProducer() as producer:
            for _ in range(count):
                send_postback.apply_async(args=("acme", EVENT), countdown=300, producer=producer)
        failed = send_postbacks("acme", [EVENT])
        while rig.tick().more:
            pass
        rig.deliver()
        assert rig.client.zcard(keys.PARKED) == count + 1
        answers["down"] = False
        rig.advance(DAY_S)
        while rig.tick().more:
            pass
        rig.deliver()
        came_s = [post.monotonic_s for post in receiver.received[len(failed) :]]
    assert check_places(rig.client) == {"done": count + 1}
    assert len(came_s) == count + 1
    assert came_s[1] >= came_s[0] + open_s, "the second did not wait for the first one's answer"
    most, oldest = 0, 0
    for at, now_s in enumerate(came_s):
        while came_s[oldest] + open_s <= now_s:
            oldest += 1
        most = max(most, at - oldest + 1)
    assert 2 <= most <= rig.settings.lane_max_transfers == 10
