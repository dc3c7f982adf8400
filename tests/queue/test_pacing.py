"""Turns, rates and limits on open POSTs: exact over all workers, and a burden to nobody else."""

from __future__ import annotations

import time

import pytest
import redis
from click.testing import CliRunner
from events import EVENT, MO, MT
from helpers import ended, eventually, running, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Received, Receiver
from postbacks.ledger.ledger import Ledger

ENDPOINT_MAX = 6
ENV = {"POSTBACKS_ENDPOINT_MAX_TRANSFERS": str(ENDPOINT_MAX), "POSTBACKS_CLAIM_LEASE_S": "3"}


def pace(name: str, *options: str) -> None:
    """``postbacks account set``."""
    result = CliRunner().invoke(main, ["account", "set", name, *options])
    assert result.exit_code == 0, result.output


def most_open(posts: list[Received], delay_s: float) -> int:
    """Count the requests that a receiver had open at a time, which answers each after a while."""
    moments = [(post.monotonic_s, 1) for post in posts] + [(post.monotonic_s + delay_s, -1) for post in posts]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


@pytest.fixture(scope="module")
def stack(suites_broker, tmp_path_factory):
    """Two workers and a beat, for all tests of this module."""
    with suites_broker.client() as client:
        client.flushdb()
    with running(suites_broker, tmp_path_factory.mktemp("pacing"), workers=2, env=ENV) as stack:
        yield stack


def senders(client: redis.Redis, ids: set[str], seen: dict[str, list[float]]) -> None:
    """Note since when and until when each delivering loop that lives was seen to take up any of these."""
    for token in client.zrange(keys.CLAIMERS, 0, -1):
        fresh = {one.decode() for one in client.hkeys(keys.claims(token.decode()))} & ids
        ids -= fresh
        if fresh:
            seen.setdefault(token.decode(), [time.monotonic()]).append(time.monotonic())


def test_a_rate_is_smooth_and_exact_over_all_workers_and_mo_goes_first(stack, suites_broker):
    """50/s: by the broker's clock no window has more than its share, and MO does not wait behind MT."""
    client = suites_broker.client()
    seen: dict[str, list[float]] = {}
    with (
        Receiver(lambda _: Answer(delay_s=0.05)) as receiver,
        Receiver(lambda _: Answer(delay_s=0.2)) as busy,
    ):
        for number in range(25):  # so that both workers are awake
            set_account(f"busy{number}", url=busy.url())
            send_postbacks(f"busy{number}", [MT] * 5)
        eventually(lambda: client.zcard(keys.CLAIMERS) >= 2, what="the second worker's loop")
        pace("paced", "--url", receiver.url(), "--rate", "50/s")
        ids = send_postbacks("paced", [MT] * 100)
        unseen = set(ids)
        eventually(lambda: senders(client, unseen, seen) or len(receiver.received) >= 20, what="twenty POSTs")
        urgent = send_postbacks("paced", [MO] * 10)
        eventually(lambda: senders(client, unseen, seen) or len(receiver.received) >= 110, what="all POSTs")
        for one in ids + urgent:
            ended(client, one)
    assert len(seen) >= 2, "one loop alone had sent them"
    # A worker claims in one loop at a time, so loops that take them up in turn are two workers'.
    (_, first_ends_s), (second_begins_s, _) = sorted((times[0], times[-1]) for times in seen.values())[:2]
    assert second_begins_s < first_ends_s, "one worker alone had sent them"
    client_ledger = Ledger(client)
    begun = {one: client_ledger.get(one).attempts for one in ids + urgent}
    assert {len(attempts) for attempts in begun.values()} == {1}, "waiting for a rate cost an attempt"
    at_ms = sorted(attempts[0].at_ms for attempts in begun.values())
    for first in range(len(at_ms)):
        for last in range(first, len(at_ms)):
            window_ms = at_ms[last] - at_ms[first] + 1  # whole ms, cut off
            assert last - first + 1 <= (window_ms + 50) / 20 + 1, "more than 50/s and a look's worth"
    assert at_ms[-1] - at_ms[0] < 10 * 110 * 20, "far below its rate"
    urgent_ms = [begun[one][0].at_ms for one in urgent]
    between = [one for one in ids if min(urgent_ms) < begun[one][0].at_ms < max(urgent_ms)]
    assert len(between) <= 12, "MT went before MO that waited"


def test_limits_on_open_posts_hold_through_the_death_of_a_worker(stack, suites_broker):
    """An account's own and its endpoint's, as the receiver sees them; a dead worker's share comes back."""
    client = suites_broker.client()
    delay_s = 0.15
    with Receiver(lambda _: Answer(delay_s=delay_s)) as receiver:
        pace("two", "--url", f"{receiver.url()}two", "--max-transfers", "2")
        for number in range(6):
            set_account(f"shares{number}", url=f"{receiver.url()}other")
        ids = [one for event in (MT, MO, EVENT) for one in send_postbacks("two", [event] * 12)]
        for number in range(6):
            ids += send_postbacks(f"shares{number}", [MT] * 12)
        receiver.wait_for(30, 90)
        for worker in stack.workers:  # whichever has them
            worker.kill(group=True)
        assert len(receiver.received) < len(ids), "nothing was in flight any more"
        for worker in stack.workers:
            worker.start()
        records = [ended(client, one, 60) for one in ids]
        posts = list(receiver.received)
    assert {record.state for record in records} == {"delivered"}
    assert any(attempt.outcome == "unknown" for record in records for attempt in record.attempts)
    assert 1 <= most_open([post for post in posts if post.path == "/two"], delay_s) <= 2
    assert 2 < most_open(posts, delay_s) <= ENDPOINT_MAX
    eventually(lambda: not client.exists(keys.ENDPOINTS), what="the end of the endpoint's count")


def test_thousands_that_wait_for_their_rate_delay_nobody_and_obey_a_new_rate_at_once(stack, suites_broker):
    """A neighbour's postbacks leave within the tick; what waits holds no transfer."""
    client = suites_broker.client()
    with Receiver() as receiver, Receiver() as healthy:
        pace("slow", "--url", receiver.url(), "--rate", "30/min")
        set_account("neighbour", url=healthy.url())
        began_s = time.monotonic()
        send_postbacks("slow", [MT] * 3_000)
        receiver.wait_for(1, 90)
        eventually(lambda: client.llen(keys.lane("slow/mt")) >= 2_900, what="all of them waiting")
        sent_s: dict[str, float] = {}
        for _ in range(20):
            sent_s[send_postback.delay("neighbour", MT).id] = time.time()
            time.sleep(0.1)
        healthy.wait_for(20, 90)
        late_s = sorted(post.at - sent_s[post.postback_id] for post in healthy.received)
        claimed = int(client.hget(f"{keys.LANE_STATE}slow/mt", "claimed"))
        before, took_s = len(receiver.received), time.monotonic() - began_s
        pace("slow", "--rate", "500/s")
        receiver.wait_for(before + 300, 90)
        client.delete(keys.lane("slow/mt"))
    assert late_s[-1] < 30, late_s  # the last of those that wait leaves after 100 minutes
    assert claimed <= 1
    assert before <= 2 + took_s / 2, "faster than a POST in two seconds"
