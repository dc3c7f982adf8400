"""Each cause why a postback has not been sent: what makes it happen, and the sentence that is said of it."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable

import pytest
from cause_world import ENDPOINT, WORKER, World, die
from events import EVENT as SUB
from events import MO, MT
from helpers import claim, environment, remove_account, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.broker.clock import now_ms
from postbacks.broker.sign_of_life import SignOfLife
from postbacks.devtools.receiver import dead_port
from postbacks.operate import pause_account
from postbacks.queue.actions import cancel

#: A time of day, and how far away it is.
PAST = r"\d\d:\d\d:\d\d UTC \([^()]+ ago\)"
FUTURE = r"\d\d:\d\d:\d\d UTC \(in [^()]+\)"

#: Cause -> what makes it happen: returns the postback, the sentence as a pattern, and figures that it has.
MAKERS: dict[str, Callable[[World], tuple[str, str, dict[str, object]]]] = {}


def makes(maker: Callable[[World], tuple[str, str, dict[str, object]]]) -> None:
    """Enter a maker under the name of its cause."""
    MAKERS[maker.__name__] = maker


# -- what moves every postback ----------------------------------------------------------------------


@makes
def broker_refuses(world: World):
    (postback_id,) = world.waiting(SUB)
    world.configure(**{"min-replicas-to-write": "1"})
    return postback_id, r"the broker takes no writes: .* replicas .*", {}


@makes
def no_tick(world: World):
    (postback_id,) = world.waiting(SUB)
    world.rig.advance(74)
    return postback_id, rf"no tick has finished since {PAST}", {}


@makes
def no_worker(world: World):
    sign = SignOfLife(keys.WORKERS, "worker1@host")
    sign.give()
    (postback_id,) = world.waiting(SUB)
    world.rig.advance(20)
    assert "no_worker" not in world.causes(postback_id), "its sign is 20 s old, and it counts for 30"
    sign.withdraw()
    start = re.escape("start one (celery -A postbacks worker)")
    return postback_id, rf"no worker has been heard of since \d+-\d+-\d+ \d+:\d+:\d+ UTC: {start}", {}


@makes
def no_beat(world: World):
    postback_id = send_postback.delay("acme", SUB).id
    return postback_id, r"no beat has been heard of: start one \(celery -A postbacks beat\)", {"since": None}


# -- not taken in yet -------------------------------------------------------------------------------


@makes
def in_queue(world: World):
    *_, last = send_postbacks("acme", [SUB] * 3)
    urgent = send_postback.apply_async(("acme", SUB), priority=0).id
    assert world.causes(urgent)["in_queue"].figures["ahead"] == 3
    return last, r"it waits in Celery's queue for a tick, 2 messages before it", {"ahead": 2}


@makes
def in_intake(world: World):
    _, second = send_postbacks("acme", [SUB] * 2)
    world.rig.scripts.take_in("a tick", 10_000, 100)
    world.rig.advance(11)
    assert "the next one accepts it, as its lease ended at" in world.causes(second)["in_intake"].sentence
    world.rig.advance(-11)
    words = r"a tick has taken it from Celery's queue, 1 message before it; its lease ends at"
    return second, rf"{words} {FUTURE}", {"ahead": 1}


@makes
def queue_not_emptied(world: World):
    world.rig.tick()  # finds nothing
    postback_id = send_postback.delay("acme", SUB).id
    module = types.ModuleType("failing_accounts")
    module.store = types.SimpleNamespace(get=_fail, get_many=_fail)
    patched = world.enter_context(pytest.MonkeyPatch.context())
    patched.setitem(sys.modules, "failing_accounts", module)
    world.enter_context(environment(POSTBACKS_ACCOUNTS="failing_accounts:store"))
    world.rig.advance(42)
    world.rig.tick()
    words = "ticks finish and have not emptied the queue since"
    return postback_id, rf"{words} {PAST}: .*tick\.accounts_unavailable\)", {}


def _fail(*_: object) -> None:
    raise ConnectionError("the account store is down")


@makes
def memory_full(world: World):
    postback_id = send_postback.delay("acme", SUB).id
    used = world.rig.client.info("memory")["used_memory"]
    world.configure(maxmemory=str(int(used / 1.5)))
    assert "broker_refuses" not in world.causes(postback_id), "a full one takes the moves of what it has"
    words = "from 110% on nothing is taken in until something has ended"
    return postback_id, rf"the broker's memory is full to 1[45]\d%: {words}", {}


# -- in its lane ------------------------------------------------------------------------------------


@makes
def behind(world: World):
    *_, last = world.waiting(*[MT] * 5)
    return last, r"behind 4 of its account's postbacks in group mt", {"ahead": 4, "group": "mt"}


@makes
def account_still(world: World):
    (postback_id,) = world.waiting(SUB)
    remove_account("acme")
    assert world.causes(postback_id)["account_still"].sentence == "its account stands still: it was removed"
    world.rig.deliver_lanes()
    words = "its account stands still: it was removed; looked at again at"
    return postback_id, rf"{words} {FUTURE}", {"account_state": "gone"}


@makes
def account_paused(world: World):
    (postback_id,) = world.waiting(SUB)
    pause_account("acme", reason="they move", by="ann")
    command = r"`postbacks account resume acme` \(paused by ann, 'they move'\)"
    sentence = world.causes(postback_id)["account_paused"].sentence
    assert re.fullmatch(rf"its account is paused since {PAST}, until {command}", sentence)
    pause_account("acme", until_ms=now_ms(world.rig.client) + 60_000, reason="they move", by="ann")
    words = rf"its account is paused since {PAST}, until {FUTURE} or {command}"
    return postback_id, words, {"reason": "they move", "by": "ann"}


@makes
def rate(world: World):
    _, second = world.waiting(SUB, MO, rate="2/min")
    claim(world.rig, WORKER)
    return second, rf"its account's rate of 2/min lets the next POST begin at {FUTURE}", {"rate": "2/min"}


@makes
def account_limit(world: World):
    _, second = world.waiting(SUB, MO, max_transfers=1)
    claim(world.rig, WORKER)
    return second, r"its account has 1 POST open of at most 1", {"open": 1, "limit": 1}


@makes
def endpoint_limit(world: World):
    world.waiting(SUB, account="other")
    world.waiting(SUB)
    claim(world.rig, WORKER, endpoint_max=1)
    (lane,) = world.rig.client.zrange(keys.WAITING_FOR_ROOM + ENDPOINT, 0, -1)
    (waiting,) = world.rig.client.lrange(keys.lane(lane.decode()), 0, -1)
    words = r"and no room for more \(POSTBACKS_ENDPOINT_MAX_TRANSFERS\)"
    return waiting.decode(), rf"{ENDPOINT} has 1 POST open, {words}", {"open": 1}


@makes
def slow_start(world: World):
    port = world.enter_context(dead_port())
    set_account("acme", url=f"http://127.0.0.1:{port}/")
    (postback_id,) = send_postbacks("acme", [SUB])
    world.rig.tick()
    world.rig.deliver()
    assert "slow_start" not in world.causes(postback_id)
    world.rig.advance(301)
    world.rig.tick()
    words = rf"http://127\.0\.0\.1:{port} has taken no connection since {PAST}: it starts slowly"
    return postback_id, rf"{words}, with 1 POST at a time, 0 open", {"limit": 1, "open": 0}


@makes
def probe(world: World):
    ids = world.failed()
    assert world.causes(ids[0])["probe"].figures["open"] == 0
    claim(world.rig, WORKER, held_per_lane=2)
    (last,) = (postback_id for postback_id in ids if world.rig.record(postback_id).state == "waiting")
    words = rf"its receiver has failed since {PAST}: one POST at a time, 1 open, 1 held"
    return last, words, {"open": 1, "held": 1}


@makes
def lane_limit(world: World):
    _, second = world.waiting(SUB, SUB)
    claim(world.rig, WORKER)
    return second, r"its lane has 1 POST open of at most 1 just now", {"limit": 1}


@makes
def priority(world: World):
    *_, receipt = world.waiting(MO, MO, SUB, MT)
    words = r"3 postbacks of its account's general and mo go first"
    return receipt, words, {"count": 3}


@makes
def turn(world: World):
    world.waiting(SUB, account="later")
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER, at_most=0)  # a loop that has no room
    words = "among those that are new, slow or failing, 1 delivering loop at work"
    return postback_id, rf"its lane is ready: [01] lanes? before it {words}", {"ring": "suspect", "loops": 1}


@makes
def no_turn(world: World):
    (postback_id,) = world.waiting(SUB)
    world.rig.client.zrem(keys.READY_SUSPECT, "acme/general")
    return (
        postback_id,
        r"its lane has no turn, so no loop comes to it: postbacks doctor --fix gives it one",
        {},
    )


@makes
def misplaced(world: World):
    (postback_id,) = world.waiting(SUB)
    world.rig.client.lrem(keys.lane("acme/general"), 1, postback_id)
    words = "its record says waiting, and it stands nowhere: postbacks doctor --fix puts it where it belongs"
    return postback_id, words, {"state": "waiting"}


# -- in the quarantine ------------------------------------------------------------------------------


@makes
def quarantine(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    die(world)
    tried = "it was in flight when its process died, so an examiner tries it"
    assert (
        world.causes(postback_id)["quarantine"].sentence
        == f"{tried} with a few others; 1 postback in quarantine"
    )
    world.rig.scripts.examine("an examiner", 30_000)
    die(world)
    words = rf"{tried} alone, and last looked at {PAST}; 1 postback in quarantine"
    return postback_id, words, {"alone": True, "count": 1}


# -- parked -----------------------------------------------------------------------------------------


@makes
def countdown(world: World):
    set_account("acme", url=f"{ENDPOINT}/")
    postback_id = send_postback.apply_async(("acme", SUB), countdown=3600).id
    world.rig.tick()
    return postback_id, rf"its caller wants it sent at {FUTURE}", {}


@makes
def resend(world: World):
    postback_id, *_ = world.failed()
    world.rig.deliver()
    words = rf"attempt 2 failed \(answered \d+\); attempt 3 of 6 is due at {FUTURE}"
    return (
        postback_id,
        words,
        {"failed": 2, "failure": "answered 500", "attempt": 3, "of": 6, "outcome": "status"},
    )


@makes
def put_off(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    world.rig.scripts.postpone(WORKER, 30_000, "account_changed", [postback_id])
    words = "its account has changed meanwhile, or cannot be used just now"
    return postback_id, rf"put off without an attempt until {FUTURE}: {words}", {"reason": "account_changed"}


@makes
def pause(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    die(world)
    for _ in range(2):
        world.rig.scripts.examine("an examiner", 30_000)
        die(world)
    words = "its process died while it was sent alone; it is tried alone again at"
    return postback_id, rf"{words} {FUTURE}", {}


@makes
def overdue(world: World):
    set_account("acme", url=f"{ENDPOINT}/")
    postback_id = send_postback.apply_async(("acme", SUB), countdown=1).id
    world.rig.tick()
    world.rig.advance(74)
    assert world.causes(postback_id).keys() == {"countdown", "overdue", "no_tick", "no_worker", "no_beat"}
    return postback_id, rf"it was due at {PAST}, and no tick or loop has released it", {}


# -- at a loop --------------------------------------------------------------------------------------


@makes
def held(world: World):
    ids = world.failed()
    claim(world.rig, WORKER)
    postback_id = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "held")
    assert world.causes(postback_id).keys() == {"held", "probe"}
    return postback_id, r"held by worker worker1@host: no POST of it has begun", {"worker": "worker1@host"}


@makes
def open(world: World):  # noqa: A001 - the name of the cause
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    words = rf"attempt 1 is under way since {PAST}, by worker worker1@host"
    return postback_id, words, {"attempt": 1, "loop": "0123456789abcdef"}


@makes
def lease_over(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    world.rig.client.zadd(keys.CLAIMERS, {WORKER: 0})  # as its worker does that sees the process die
    assert world.causes(postback_id)["lease_over"].sentence == "its process has died; a tick takes it over"
    world.rig.client.zadd(keys.CLAIMERS, {WORKER: 1})
    return postback_id, r"the lease of its loop has ended; a tick takes it over", {}


@makes
def revoked(world: World):
    ids = world.failed()
    claim(world.rig, WORKER)
    for postback_id in ids:
        cancel(postback_id)
    postback_id = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "held")
    assert world.causes(postback_id)["revoked"].sentence == "it was revoked: it ends instead of being sent"
    other = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "sending")
    return other, r"it was revoked: should its POST fail, it is not sent again", {}
