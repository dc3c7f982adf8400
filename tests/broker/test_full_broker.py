"""A broker at its limit: what was accepted goes on, what has ended makes room, and `.delay()` works again by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import pytest
import redis
from events import EVENT, LONG
from helpers import Rig, check_places, claim, ended, environment, eventually, running, set_account

from postbacks import keys, send_postback, send_postbacks, settings
from postbacks.broker import memory
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver
from postbacks.errors import BrokerUnfit
from postbacks.queue import shares
from postbacks.queue.shares import Shares


@pytest.fixture
def own_rig(own_broker: EmbeddedBroker) -> Iterator[Rig]:
    """A rig on a broker of its own, whose limit the test may set."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url):
        rig = Rig(own_broker)
        yield rig
        rig.close()


def fill(client: redis.Redis, *, share: float = 1.05) -> None:
    """Set the limit so that a share of it is used: from 1 on the broker refuses what is new."""
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] / share))
    memory._of_period.cache_clear()
    if share > 1:
        with pytest.raises(redis.OutOfMemoryError):
            client.lpush("postbacks:test", "x")


def test_a_full_broker_drops_what_is_past_its_share(own_rig):
    """The first command of a script that a full broker refuses would refuse the whole script."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [EVENT] * 3)
        own_rig.tick()
        own_rig.deliver()
    assert own_rig.client.zcard(keys.DONE) == 3
    fill(own_rig.client)
    assert own_rig.scripts.retain(1e9, 1e9, 1e9, Shares(0, 10**12, 10**12, 10**12, 1, 0), 100).dropped == 3
    assert own_rig.client.zcard(keys.DONE) == 0
    assert own_rig.client.get(keys.LEDGER_BYTES) == b"0"


def test_on_a_full_broker_what_was_accepted_is_taken_in_sent_noted_and_sent_again(own_rig, receiver):
    """Only what is new is refused: every move on the way runs, so that the broker empties."""
    set_account("acme", url=receiver.url())
    set_account("failing", url=receiver.url("/bad"))
    delivered = send_postback.delay("acme", EVENT).id
    fails = send_postback.delay("failing", EVENT).id
    unrouted = send_postback.delay("nobody", EVENT).id
    fill(own_rig.client)
    with pytest.raises(BrokerUnfit, match="is full"):
        send_postback.delay("acme", EVENT)
    own_rig.tick()
    assert own_rig.deliver() == 2
    assert [own_rig.record(one).state for one in (delivered, fails, unrouted)] == [
        "delivered",
        "parked",
        "dead",
    ]
    own_rig.advance(301)
    own_rig.tick()
    begun = claim(own_rig, "dies")[1]
    assert [row[0].decode() for row in begun] == [fails]
    own_rig.advance(31)
    assert own_rig.tick().reaped == 1
    assert own_rig.examine() == 1
    assert [attempt.outcome for attempt in own_rig.record(fails).attempts] == ["status", "unknown", "status"]
    check_places(own_rig.client)


def test_on_a_full_broker_a_message_that_ticks_died_of_is_taken_in_alone(own_rig, receiver):
    """The mark that it is alone is a move as well; refused, it would end every tick."""
    set_account("acme", url=receiver.url())
    suspected = send_postback.delay("acme", EVENT).id
    for number in range(2):
        own_rig.scripts.take_in(f"dies-{number}", 10_000, 500)
        own_rig.advance(11)
    fill(own_rig.client)
    assert own_rig.tick().taken_in == 1
    assert own_rig.record(suspected).state == "waiting"


def test_a_message_whose_record_would_pass_the_limit_by_a_tenth_waits_in_the_queue(own_rig, receiver):
    """The message takes a third more as a record; it is taken in once there is room."""
    set_account("acme", url=receiver.url())
    send_postbacks("acme", [EVENT] * 3)
    fill(own_rig.client, share=1.2)
    assert own_rig.tick().taken_in == 0
    fill(own_rig.client)
    assert own_rig.tick().taken_in == 3


def test_what_has_ended_makes_room_before_the_broker_is_full_the_dead_last(own_rig, receiver, caplog):
    """Done ones go first, the oldest first; then dead ones, which is logged and counted; what waits stays."""
    set_account("acme", url=receiver.url())
    text = "x" * 40_000
    rows = [("done", f"done-{n}", "delivered", keys.DONE) for n in range(40)]
    rows += [("dead", f"dead-{n}", "dead", keys.DEAD) for n in range(40)]
    for at_ms, (_, one, state, index) in enumerate(rows, start=int(time.time() * 1000) - 1000):
        own_rig.client.hset(
            keys.record(one),
            mapping={
                "schema": 1,
                "state": state,
                "account": "acme",
                "bytes": 41_000,
                "xml": text,
                "ended_ms": at_ms,
            },
        )
        own_rig.client.zadd(index, {one: at_ms})
    own_rig.client.set(keys.LEDGER_BYTES, 80 * 41_000)
    waits = send_postback.delay("acme", EVENT).id
    own_rig.tick()
    fill(own_rig.client, share=0.99)
    with environment(POSTBACKS_LEDGER_MEMORY_SHARE="1"):
        own_rig.settings = settings.load()
        own_rig.tick()
        assert memory.read(own_rig.client).share < shares.DEAD_GO_PAST
        left = [one.decode() for one in own_rig.client.zrange(keys.DONE, 0, -1)]
        assert 0 < len(left) < 40
        assert left == [f"done-{n}" for n in range(40 - len(left), 40)]
        assert own_rig.client.zcard(keys.DEAD) == 40
        fill(own_rig.client, share=2)
        own_rig.tick()
    assert own_rig.client.zcard(keys.DONE) == 0
    dead = [one.decode() for one in own_rig.client.zrange(keys.DEAD, 0, -1)]
    assert dead == [f"dead-{n}" for n in range(40 - len(dead), 40)]
    assert 0 < len(dead) < 40
    assert own_rig.record(waits).state == "waiting"
    totals = own_rig.client.hgetall(keys.TOTALS)
    assert (totals[b"early_done"], totals[b"early_dead"]) == (b"40", str(40 - len(dead)).encode())
    (line,) = [record.message for record in caplog.records if "ledger.dead_dropped" in record.message]
    assert f"account=acme postbacks={40 - len(dead)}" in line


def test_where_others_fill_the_broker_nothing_is_dropped(own_rig, receiver):
    """To drop what is little would make no room."""
    set_account("acme", url=receiver.url())
    send_postbacks("acme", [EVENT] * 3)
    own_rig.tick()
    own_rig.deliver()
    fill(own_rig.client)
    assert own_rig.tick().dropped == 0
    assert own_rig.client.zcard(keys.DONE) == 3


def sent_until_full(client: redis.Redis) -> list[str]:
    """Send for a hundred accounts in turn until the broker refuses a call; the ids of what it has accepted."""
    numbers = count()
    ids = list(iter(lambda: try_to_send(f"acme{next(numbers) % 100}"), None))
    assert client.llen(keys.QUEUE) == len(ids)
    return [one for one in ids if one is not None]


def try_to_send(account: str = "acme0") -> str | None:
    """Call `.delay()` once; the id, or None where the broker is full."""
    try:
        return send_postback.delay(account, LONG).id
    except BrokerUnfit as error:
        assert "is full (maxmemory reached)" in str(error)  # noqa: PT017 - it is full nearly always
        return None


def test_a_broker_that_is_filled_to_its_limit_recovers_without_a_hand(own_broker, receiver, tmp_path):
    """The queue alone fills it, as if workers had been away; neither a tick nor a wake-up gets into it from then on.

    All that was accepted is delivered, and `.delay()` works again.
    """
    with environment(POSTBACKS_BROKER_URL=own_broker.url), own_broker.client() as client:
        for number in range(100):
            set_account(f"acme{number}", url=receiver.url())
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 3_000_000)
        accepted = sent_until_full(client)
        assert len(accepted) > 100
        with running(own_broker, tmp_path) as stack:
            newest = eventually(try_to_send, what="an accepted call")
            assert ended(client, newest, 60).state == "delivered"
            eventually(lambda: set(receiver.by_id()) >= {*accepted, newest}, what="every postback")
            stack.workers[0].wait_for_log(" broker.full ", 90)
            stack.workers[0].wait_for_log(" broker.has_room ", 90)
            assert "Frequent restarts" not in stack.workers[0].log(), (
                "its consumer does not wait between two tries"
            )


def test_delivered_records_that_fill_the_broker_under_running_workers_give_way(
    own_broker, receiver, tmp_path
):
    """The broker is full from one moment to the next; ended postbacks go, no process needs a hand (prefork's
    children neither).
    """
    with environment(POSTBACKS_BROKER_URL=own_broker.url), own_broker.client() as client:
        set_account("acme0", url=receiver.url())
        with running(own_broker, tmp_path, pool="prefork", env={"POSTBACKS_LEDGER_MEMORY_SHARE": "1"}):
            first = send_postbacks("acme0", [LONG] * 200)
            eventually(lambda: client.zcard(keys.DONE) == 200, what="two hundred delivered")
            fill(client)
            accepted: set[str] = set()

            def have_given_way() -> bool:
                # what the broker frees by itself a moment later is filled as well
                accepted.update({try_to_send() or ""} - {""})
                return bool(accepted) and 0 < client.zcard(keys.DONE) < 200

            eventually(have_given_way, what="fewer records than before")
            eventually(lambda: set(receiver.by_id()) == {*first, *accepted}, what="every POST")
