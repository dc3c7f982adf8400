"""Each damage that a system can take, done by hand."""

from __future__ import annotations

import json

from ward import LANE, message, turn_feed_on

from postbacks import keys
from postbacks.doctor import audit
from postbacks.history.feed import Feed


def lose_waiting(ward):
    ward.client.lrem(keys.lane(LANE), 1, ward.waiting[0])


def lose_parked(ward):
    ward.client.zrem(keys.PARKED, ward.parked)


def lose_done(ward):
    ward.client.zrem(keys.DONE, ward.done)


def lose_claim(ward):
    ward.client.hdel(keys.claims("loop"), ward.sending)


def double_in_lane(ward):
    ward.client.rpush(keys.lane(LANE), ward.waiting[0])


def double_parked(ward):
    ward.client.zadd(keys.PARKED, {ward.waiting[0]: 1 << 42})


def double_sending(ward):
    ward.client.rpush(keys.lane(LANE), ward.sending)


def double_quarantined(ward):
    ward.client.zadd(keys.QUARANTINE, {ward.waiting[0]: 0})


def die(ward):
    ward.client.zadd(keys.CLAIMERS, {"loop": 0})
    ward.rig.tick()


def die_long_ago(ward):
    die(ward)
    now_ms = int(ward.client.time()[0]) * 1000
    ward.client.hset(keys.record(ward.sending), "sent_ms", now_ms - 1_000_000)


def misplace(ward):
    ward.client.zrem(keys.PARKED, ward.parked)
    ward.client.rpush(keys.lane(LANE), ward.parked)


def misplace_lane(ward):
    ward.client.lrem(keys.lane(LANE), 1, ward.waiting[0])
    ward.client.rpush(keys.lane("other/mt"), ward.waiting[0])


def delete_record(ward):
    ward.client.delete(keys.record(ward.waiting[0]))


def delete_claimed_record(ward):
    ward.client.delete(keys.record(ward.sending))


def strange_state(ward):
    ward.client.hset(keys.record(ward.done), "state", "levitating")


def half_a_record(ward):
    ward.client.hdel(keys.record(ward.waiting[0]), "state")


def disown(ward):
    ward.client.zrem(keys.CLAIMERS, "loop")


def miscount(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "claimed", 9)


def miscount_below(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "claimed", -3)


def miscount_held(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "held", 5)


def count_endpoint(ward):
    ward.client.hset(keys.ENDPOINTS, "http://gone:80", 3)


def stick(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "limit", 10)
    ward.client.delete(keys.READY_TRUSTED, keys.READY_SUSPECT)


def empty_lane(ward):
    ward.client.zadd(keys.READY_SUSPECT, {"nobody/mt": 0})


def twice_in_turn(ward):
    ward.client.zadd(keys.READY_SUSPECT, {LANE: 0})
    ward.client.zadd(keys.READY_TRUSTED, {LANE: 0})


def backlog_up(ward):
    ward.client.hincrby(keys.BACKLOG, "acme", 7)


def backlog_gone(ward):
    ward.client.delete(keys.BACKLOG)


def far_lease(ward):
    ward.client.zadd(keys.CLAIMERS, {"loop": 1 << 42})


def far_intake(ward):
    ward.client.hset(keys.INTAKE_LEASE, mapping={"token": "tick", "expires_ms": 1 << 42})


def intake_left(ward):
    ward.client.rpush(keys.INTAKE, "message")


def overdue_lease(ward):
    ward.client.zadd(keys.CLAIMERS, {"loop": ward.client.time()[0] * 1000 - 60_000})


def overdue_parked(ward):
    ward.client.zadd(keys.PARKED, {ward.parked: ward.client.time()[0] * 1000 - 60_000})


def beat_gone(ward):
    ward.client.set(keys.LAST_TICK, ward.client.time()[0] * 1000 - 7_200_000)


def tick_late(ward):
    ward.client.set(keys.LAST_TICK, ward.client.time()[0] * 1000 - 20_000)


def clock_back(ward):
    ward.client.zadd(keys.DONE, {ward.done: ward.client.time()[0] * 1000 + 3_600_000})


def nobody_claims(ward):
    ward.client.zadd(keys.READY_SUSPECT, {LANE: 0})
    ward.client.delete(keys.CLAIMERS, keys.claims("loop"))
    ward.client.hset(keys.LANE_STATE + LANE, "claimed", 0)
    ward.client.hset(keys.record(ward.sending), "state", "waiting")
    ward.client.rpush(keys.lane(LANE), ward.sending)


def foreign(ward):
    ward.client.lpush(keys.WORK_QUEUE, message("shop.tasks.pay"))


def ours_in_celerys(ward):
    ward.client.lpush("celery", message("postbacks.send_postback"))


def pile(ward):
    ward.client.lpush(keys.WORK_QUEUE, *[message("postbacks.deliver")] * 101)


def keep_unacked(ward):
    ward.client.hset("unacked", "tag-1", json.dumps([json.loads(message("postbacks.deliver")), "", ""]))


def no_recorder(ward):
    hours_ago_ms = (ward.client.time()[0] - 7_200) * 1000
    turn_feed_on(ward, on_ms=hours_ago_ms, seen_ms=hours_ago_ms)


def recorder_waits(ward):
    turn_feed_on(ward)
    feed = Feed(ward.client)
    feed.acquire("here:1", 600_000)
    feed.note("here:1", json.dumps({"waits": "The database does not answer.", "waits_since_ms": 1}))


def recorder_lags(ward):
    turn_feed_on(ward)
    Feed(ward.client).acquire("here:1", 600_000)
    ward.client.delete(keys.CHANGES)  # a stream takes no entry older than its newest
    ward.client.xadd(keys.CHANGES, {"ids": ward.waiting[0]}, id="1-1")


def feed_has_gap(ward):
    turn_feed_on(ward, resync="gap", gaps=1, gap_entries=5, gap_ms=1795478400000)


def feed_unheard(ward):
    turn_feed_on(ward)
    ward.client.zadd(keys.CLAIMERS, {"a-loop-of-0.1.0": (ward.client.time()[0] + 30) * 1000})


#: Damage, the check that finds it, words that must be said.
DAMAGE = [
    (lose_waiting, audit.NO_PLACE, "its record says waiting in acme/mt, it stands nowhere"),
    (lose_parked, audit.NO_PLACE, "its record says parked, it stands nowhere"),
    (lose_done, audit.NO_PLACE, "its record says delivered, it stands nowhere"),
    (lose_claim, audit.NO_PLACE, "its record says sending, it stands nowhere"),
    (double_in_lane, audit.TWO_PLACES, "lane acme/mt and lane acme/mt"),
    (double_parked, audit.TWO_PLACES, "lane acme/mt and parked"),
    (double_sending, audit.TWO_PLACES, "lane acme/mt and claims loop"),
    (double_quarantined, audit.TWO_PLACES, "lane acme/mt and quarantine"),
    (die, "quarantine", "1 in quarantine"),
    (die_long_ago, "quarantine-old", "one was last sent 16 min"),
    (misplace, audit.WRONG_PLACE, "its record says parked, it stands in lane acme/mt"),
    (misplace_lane, audit.WRONG_PLACE, "it stands in lane other/mt"),
    (delete_record, audit.NO_RECORD, "no record, it stands in lane acme/mt"),
    (delete_claimed_record, audit.NO_RECORD, "no record, it stands in claims loop"),
    (strange_state, audit.UNKNOWN_STATE, "levitating"),
    (half_a_record, audit.UNKNOWN_STATE, "it stands in lane acme/mt"),
    (disown, "claims-ownerless", "loop: 1 postback"),
    (miscount, audit.PACE, "acme/mt: says 9, 1 in claims"),
    (miscount_below, audit.PACE, "acme/mt: says -3, 1 in claims"),
    (miscount_held, audit.PACE, "acme/mt: says 5 held, 0 are"),
    (count_endpoint, audit.ENDPOINTS, "http://gone:80: says 3, 0 in claims"),
    (stick, audit.LANES_STUCK, "acme/mt: 2 waiting"),
    (empty_lane, audit.LANES_EMPTY, "nobody/mt"),
    (twice_in_turn, audit.LANES_TWICE, "acme/mt"),
    (backlog_up, audit.BACKLOG, "acme: says 11, 4 counted"),
    (backlog_gone, audit.BACKLOG, "acme: says 0, 4 counted"),
    (far_lease, "leases-ahead", "claims loop for"),
    (far_intake, "leases-ahead", "the intake for"),
    (intake_left, "intake", "1 message"),
    (overdue_lease, "leases-overdue", "loop since 6"),
    (overdue_parked, "parked-overdue", "1 postback, the first was due 6"),
    (beat_gone, "beat", "the last tick finished 2 h 0 min ago; postbacks.work is empty, so nobody sends any"),
    (tick_late, "ticks-late", "the last tick finished 2"),
    (clock_back, "clock-jump", "59 min from now"),
    (nobody_claims, "workers", "acme/mt is ready, no delivering loop runs"),
    (foreign, "foreign-messages", "1 of shop.tasks.pay in postbacks.work"),
    (ours_in_celerys, "foreign-messages", "1 of postbacks.send_postback in celery"),
    (pile, "work-queue", "101 in postbacks.work"),
    (keep_unacked, "unacked", "postbacks.deliver (tag-1)"),
    (no_recorder, "history-recorder", "none has been heard of for 2 h"),
    (recorder_waits, "history-behind", "it waits: The database does not answer."),
    (recorder_lags, "history-behind", "behind"),
    (feed_has_gap, "history-gap", "5 entries, the last at 2026-11-24T00:00:00"),
    (feed_unheard, "history-older", "0.1.0"),
]
