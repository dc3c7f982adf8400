"""Forgetting what is still to be delivered: it is delivered first, or cancelled."""

from __future__ import annotations

import json

from forget_world import MINE, NUMBER, SPELLINGS, call
from helpers import claim, eventually, set_account
from traces import found_in, texts_of

from postbacks import keys
from postbacks.history import copies_of
from postbacks.ledger.record import Attempt, iso
from postbacks.operate import pauses
from postbacks.operate.forget import forget
from postbacks.operate.forget.request import Requests
from postbacks.queue.rows import AttemptRow
from postbacks.settings import load


def test_what_is_still_to_be_delivered_is_delivered_first_and_of_paused_accounts_cancelled(world):
    """Postbacks in the queue and in a lane arrive; then all of them are erased."""
    set_account("still", url=world.receiver.url("/good"))
    pauses.pause("still")
    paused, lane = world.send("still", MINE), world.send("acme", MINE)
    world.rig.tick()
    counted = call("forget", "--number", NUMBER, "--dry-run").stderr
    assert "2 records of the broker, of which 2 are still to be delivered, 1 of a paused account" in counted
    queued = world.send("acme", MINE)
    request = forget(number=NUMBER)
    eventually(lambda: world.turn() or world.state(paused) == "cancelled", what="the end of the paused one")
    assert Requests(world.client).read(request)[5:6] == ("ledger",)
    assert Requests(world.client).read(request).waiting == 2
    assert world.client.llen(keys.QUEUE) == 1
    world.rig.tick()
    world.rig.deliver()
    receipt = world.end(request)
    assert [world.state(postback_id) for postback_id in (lane, queued)] == ["delivered", "delivered"]
    assert len(world.receiver.received) == 2
    assert (receipt.records, receipt.cancelled, receipt.messages, receipt.later) == (3, 1, 0, 0)
    assert found_in(texts_of(world.client)) == []


def test_after_a_day_or_when_it_is_asked_for_the_rest_is_cancelled(world):
    """By the request's own end, or by a second command with --now, which is the same request."""
    for end_it in (
        lambda request: world.client.hset(keys.FORGET + request, "until_ms", 1),
        lambda request: forget(number=SPELLINGS[1], now=True) == request,
    ):
        postback_id = world.send("acme", MINE, countdown=3600)
        world.rig.tick()
        request = forget(number=NUMBER)
        for _ in range(3):
            world.turn()
        assert world.state(postback_id) == "parked"
        end_it(request)
        receipt = world.end(request)
        assert (receipt.records, receipt.cancelled) == (1, 1)
        assert world.rig.record(postback_id).xml == b""


def test_what_is_sent_just_now_is_erased_when_its_post_has_ended(world):
    """A loop has it: it is revoked, and its document is needed until the end."""
    postback_id = world.send("acme", MINE)
    world.rig.tick()
    claim(world.rig, "loop")
    request = forget(number=NUMBER, now=True)
    for _ in range(5):
        world.turn()
    assert world.rig.record(postback_id).xml
    row = AttemptRow(
        postback_id, "acme/mt", "parked", 1, Attempt(1, 5, "status", 500, 3, "d").to_json(), 9, "ok", "status"
    )
    world.rig.scripts.commit("loop", 30_000, 10, 60, [row])
    assert world.end(request).cancelled == 1
    assert world.rig.record(postback_id).attempts == (Attempt(1, 5, "status", 500, 3),)


def test_what_a_tick_or_a_worker_holds_is_waited_for(world):
    """Neither the intake of a living tick nor what kombu has given a worker is touched."""
    in_intake = world.send("acme", MINE)
    tick = world.rig.scripts
    assert tick.take_in("tick", int(load().intake_lease_s * 1000), 10).messages
    world.send("acme", MINE)
    raw = world.client.lpop(keys.QUEUE)
    world.client.hset("unacked", "tag", json.dumps([json.loads(raw), "", "postbacks"]))
    request = forget(number=NUMBER, now=True)
    for _ in range(5):
        world.turn()
    assert Requests(world.client).read(request).waiting == 2
    assert world.client.llen(keys.INTAKE) == 1
    tick.end_intake("tick")
    world.client.delete("unacked")
    receipt = world.end(request)
    assert (receipt.messages, world.client.llen(keys.INTAKE)) == (1, 0)
    assert world.client.hget(keys.record(in_intake), "state") == b"cancelled"


def test_what_is_accepted_after_the_request_is_another_matter(world):
    """Record and row stay whole, and the receipt counts them."""
    before = world.send("acme", MINE)
    world.deliver()
    request = forget(number=NUMBER)
    after = world.send("acme", MINE)
    world.client.hset(keys.FORGET + request, "listed", 1)  # as if it had come a moment later
    world.deliver()
    receipt = world.end(request)
    assert (receipt.records, receipt.rows, receipt.later) == (1, 1, 1)
    assert f"1 postback accepted after {iso(receipt.requested_ms)}" in receipt.not_reached
    assert world.rig.record(before).forgotten_ms
    assert world.rig.record(after).forgotten_ms is None
    (copy,) = copies_of(after, engine=world.recorder.engine).copies
    assert NUMBER.encode() in copy.record.xml
