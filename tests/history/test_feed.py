"""The feed of the history: lease, entries, resyncs; its share of the memory, its end, and what retention spares for it."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis
from events import MT
from helpers import Rig, environment, eventually

from postbacks import keys, send_postbacks, settings
from postbacks.broker import memory
from postbacks.history.feed import GAP, REGISTERED, Feed, FeedState
from postbacks.queue import shares
from postbacks.queue.shares import Shares, shares_of
from postbacks.queue.tick import FEED_OFF_REASON, FEED_SILENT_MAX_MS, Tick

LEASE_MS = 10_000
DAY_S = 86_400
PLENTY = 1 << 50


@pytest.fixture
def feed(rig: Rig) -> Feed:
    """The feed of the suite's broker, off."""
    return Feed(rig.client)


def later(rig: Rig, seconds: float) -> Feed:
    """The feed after a while."""
    rig.advance(seconds)
    return Feed(rig.client, clock_offset_ms=rig.scripts.clock_offset_ms)


def publish(rig: Rig, *sizes: int) -> list[str]:
    """Write entries with so many ids each, as the moves do; return the entries' ids."""
    pipe = rig.client.pipeline(transaction=False)
    for size in sizes:
        pipe.xadd(keys.CHANGES, {"ids": " ".join(f"{number:036}" for number in range(size))}, nomkstream=True)
    return [entry_id.decode() for entry_id in pipe.execute()]


def dead(rig: Rig, count: int) -> list[str]:
    """Let postbacks of an account that nobody knows end at once."""
    ids = send_postbacks("nobody", [MT] * count)
    rig.tick()
    return ids


def retain(
    rig: Rig, age_s: float, *, ledger_bytes: int = PLENTY, unrouted_bytes: int = PLENTY
) -> tuple[int, int]:
    """Drop what is as old, or takes more; return how many were dropped, and how many of them were not recorded."""
    may_take = Shares(ledger_bytes, unrouted_bytes, PLENTY, PLENTY, 1, PLENTY)
    retained = rig.scripts.retain(age_s, age_s, age_s, may_take, 100)
    return retained.dropped, retained.unrecorded


def unrecorded_dropped(rig: Rig) -> int:
    return int(rig.client.hget(keys.TOTALS, "unrecorded_dropped") or 0)


# -- who records ------------------------------------------------------------------------------------


def test_one_recorder_at_a_time_holds_the_lease(rig, feed):
    """The holder renews it, gives it back, or loses it with the time; its signs of life are noted, not the others'."""
    assert feed.acquire("one", LEASE_MS)
    assert feed.acquire("one", LEASE_MS)
    seen_ms = feed.state().seen_ms
    assert not later(rig, 9).acquire("two", LEASE_MS)
    state = feed.state()
    assert (state.holder, state.seen_ms, state.lease_ends_ms) == ("one", seen_ms, seen_ms + LEASE_MS)
    feed.release("two")
    assert later(rig, 2).acquire("two", LEASE_MS)
    feed.release("two")
    assert (feed.state().holder, feed.state().lease_ends_ms) == ("", None)
    assert feed.acquire("one", LEASE_MS)


def test_a_lease_from_before_the_clock_was_put_back_holds_nobody_up(rig, feed):
    """Such a lease ends later than any can."""
    assert later(rig, 3600).acquire("one", LEASE_MS)
    assert feed.acquire("two", LEASE_MS)


# -- on, off and resyncs ----------------------------------------------------------------------------


def test_the_feed_is_on_from_its_registration_on_and_wants_a_resync(rig, feed):
    """No entry names what the broker has had before."""
    state = feed.state()
    assert state == FeedState(
        on_ms=None, off_ms=None, off_reason="", length=0, bytes=0, first_id="", last_id="", seen_ms=None, holder="",
        lease_ends_ms=None, gaps=0, gap_entries=0, gap_ms=None, resync="", resynced_ms=None, now_ms=state.now_ms,
    )  # fmt: skip
    assert feed.last_id() == "0-0"
    dead(rig, 1)
    assert feed.read(100)[0] == []
    assert feed.register()
    assert not feed.register()
    state = feed.state()
    assert (state.on_ms is not None, state.length, state.resync) == (True, 0, REGISTERED)
    ids = dead(rig, 2)
    assert [entry.ids for entry in feed.read(100)[0]] == [tuple(ids)]


def test_a_feed_that_is_turned_off_says_since_when_and_why(rig, feed):
    """Entries are gone, no resync is wanted; turned on again it begins anew."""
    feed.register()
    publish(rig, 3)
    assert feed.turn_off("asked for")
    assert not feed.turn_off("again")
    state = feed.state()
    assert (state.on_ms, state.off_reason, state.length, state.resync) == (None, "asked for", 0, "")
    assert state.off_ms is not None
    feed.want_resync("older workers")
    assert feed.state().resync == ""
    assert feed.register()
    assert (feed.state().off_ms, feed.state().off_reason, feed.state().resync) == (None, "", REGISTERED)


def test_a_feed_whose_stream_was_deleted_is_off(rig, feed):
    """The stream's key decides, and not what was noted beside it."""
    feed.register()
    rig.client.delete(keys.CHANGES)
    assert feed.state().on_ms is None
    assert feed.register()


@pytest.mark.parametrize(
    ("wanted_meanwhile", "gaps", "left"),
    [("", 0, ""), ("older workers", 0, "older workers"), (REGISTERED, 0, REGISTERED), (GAP, 1, GAP)],
)
def test_a_resync_answers_the_reason_that_it_began_for(rig, feed, wanted_meanwhile, gaps, left):
    """A reason that came up meanwhile wants another resync, the same one, too."""
    feed.register()
    assert feed.begin_resync() == (REGISTERED, 0)
    if wanted_meanwhile:
        feed.want_resync(wanted_meanwhile)
        rig.client.hset(keys.HISTORY, "gaps", gaps)
    feed.note_resynced(REGISTERED, 0)
    assert feed.state().resync == left
    assert feed.state().resynced_ms is not None
    feed.note_resynced(*feed.begin_resync())
    assert feed.state().resync == ""


# -- entries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_most", [1, 7, 10, 100, 10_000])
def test_entries_are_read_whole_from_the_front_and_all_of_them(rig, feed, at_most):
    """So many ids at most, but one entry at least; each reading goes on behind the last one."""
    feed.register()
    written = publish(rig, *(1 + number % 9 for number in range(200)))
    seen, after = [], ""
    while entries := feed.read(at_most, after)[0]:
        assert sum(len(entry.ids) for entry in entries) <= at_most or len(entries) == 1
        seen += entries
        after = entries[-1].id
    assert [entry.id for entry in seen] == written
    assert [len(entry.ids) for entry in seen] == [1 + number % 9 for number in range(200)]
    assert feed.last_id() == after


def test_what_is_trimmed_is_what_was_read(rig, feed):
    """Nothing behind it; the last id stays known."""
    feed.register()
    written = publish(rig, 1, 2, 3)
    feed.trim(written[1])
    state = feed.state()
    assert (state.length, state.first_id, state.last_id) == (1, written[2], written[2])
    feed.trim(written[2])
    assert (feed.state().length, feed.state().first_id, feed.last_id()) == (0, "", written[2])
    assert feed.state().on_ms is not None


# -- its share of the memory ------------------------------------------------------------------------


def test_past_its_share_of_the_memory_the_oldest_entries_go_and_the_gap_is_told(rig, feed, caplog):
    """By the tick: counted, logged once a minute, and a resync is wanted. A tenth of the share goes at once."""
    feed.register()
    feed.note_resynced(REGISTERED, 0)
    written = publish(rig, *[50] * 1000)
    before = feed.state()
    share = before.bytes / shares_of(memory.recent(rig.client).limit, settings.load()).feed_bytes * 0.05
    with environment(POSTBACKS_HISTORY_FEED_SHARE=str(share * 1.05)):
        rig.settings = settings.load()
        rig.tick()
        assert feed.state().gaps == 0
    with environment(POSTBACKS_HISTORY_FEED_SHARE=str(share / 2)):
        rig.settings = settings.load()
        rig.tick()
        rig.tick()
        state = feed.state()
        assert (state.gaps, state.resync, state.gap_entries) == (1, GAP, 1000 - state.length)
        assert 0.4 < state.bytes / before.bytes < 0.5
        assert state.last_id == written[-1]
        publish(rig, *[50] * 1000)
        rig.tick()
    assert feed.state().gaps == 2
    lines = [record.message for record in caplog.records if "feed.gap" in record.message]
    assert [f"entries={state.gap_entries}" in line for line in lines] == [True]


def test_a_feed_with_its_recorder_stays(rig, feed):
    """The last sign counts, and the registration."""
    feed.register()
    for _ in range(3):
        later(rig, 6 * DAY_S).acquire("recorder", LEASE_MS)
        rig.tick()
    assert feed.state().on_ms is not None


def test_after_seven_days_without_a_recorder_the_feed_ends_and_says_so(rig, feed, caplog):
    """Memory is free again."""
    feed.acquire("recorder", LEASE_MS)
    feed.register()
    publish(rig, 10)
    rig.advance(FEED_SILENT_MAX_MS / 1000 - 60)
    rig.tick()
    assert feed.state().length == 1
    rig.advance(120)
    rig.tick()
    state = feed.state()
    assert (state.on_ms, state.off_reason, state.length, state.bytes) == (None, FEED_OFF_REASON, 0, 0)
    rig.tick()
    assert [record.levelname for record in caplog.records if "feed.off" in record.message] == ["WARNING"]


def test_a_feed_whose_notes_were_deleted_counts_from_now_on_and_wants_a_resync(rig, feed):
    """Nobody knows what was in them."""
    feed.register()
    rig.client.delete(keys.HISTORY)
    rig.advance(30 * DAY_S)
    rig.tick()
    state = feed.state()
    assert (state.on_ms is not None, state.resync) == (True, REGISTERED)
    rig.advance(6 * DAY_S)
    rig.tick()
    assert feed.state().on_ms is not None
    rig.advance(2 * DAY_S)
    rig.tick()
    assert feed.state().on_ms is None


# -- retention --------------------------------------------------------------------------------------


def test_what_is_past_its_retention_and_not_recorded_stays_until_it_is(rig, feed):
    """Recorded is what ended before the oldest entry; what is recorded goes."""
    feed.register()
    feed.note_resynced(REGISTERED, 0)
    recorded = dead(rig, 2)
    (entry,) = feed.read(10)[0]
    feed.trim(entry.id)
    eventually(lambda: feed.read(1)[1] > int(entry.id.partition("-")[0]) + 1100, what="a second")
    ids = dead(rig, 3)
    rig.advance(100)
    assert retain(rig, 60) == (2, 0)
    assert not any(rig.client.exists(keys.record(postback_id)) for postback_id in recorded)
    assert all(rig.client.exists(keys.record(postback_id)) for postback_id in ids)
    feed.trim(feed.last_id())
    assert retain(rig, 60) == (3, 0)
    assert unrecorded_dropped(rig) == 0


@pytest.mark.parametrize("reason", ["a gap", "a registration"])
def test_while_a_resync_is_wanted_nothing_that_it_could_find_is_past_its_retention(rig, feed, reason):
    """The feed names it no more, or never did: the record alone has it."""
    if reason == "a gap":
        feed.register()
        feed.note_resynced(REGISTERED, 0)
        dead(rig, 3)
        rig.scripts.limit_changes(1, FEED_SILENT_MAX_MS, "")
        assert (feed.state().gaps, feed.state().length) == (1, 0)
    else:
        dead(rig, 3)
        feed.register()
    rig.advance(100)
    assert retain(rig, 60) == (0, 0)
    feed.note_resynced(feed.state().resync, feed.state().gaps)
    assert retain(rig, 60) == (3, 0)


def test_what_ends_after_the_clock_was_put_back_counts_as_not_recorded(rig, feed):
    """The entries have times of before, later than its own."""
    feed.register()
    feed.note_resynced(REGISTERED, 0)
    rig.advance(-3600)
    dead(rig, 3)
    assert retain(rig, 10**6, unrouted_bytes=1) == (3, 3)


def test_where_the_feed_is_off_or_its_stream_was_deleted_retention_is_as_ever(rig, feed):
    """Also where a resync was wanted."""
    dead(rig, 3)
    rig.advance(100)
    assert retain(rig, 200) == (0, 0)
    feed.register()
    rig.client.delete(keys.CHANGES)
    assert retain(rig, 60) == (3, 0)


@pytest.mark.parametrize("share", ["ledger", "unrouted"])
def test_a_share_of_the_memory_takes_what_is_not_recorded_and_that_is_counted_and_logged(
    rig, feed, share, caplog
):
    """The memory comes first."""
    feed.register()
    if share == "ledger":
        ids = send_postbacks("nobody", [MT] * 3, url="http://127.0.0.1:9999/")
        rig.tick()
        for postback_id in ids:
            rig.scripts.cancel(postback_id, 60)
        rig.scripts.client.set(keys.LEDGER_BYTES, 10_000)
    else:
        dead(rig, 3)
    assert retain(rig, 60, **{f"{share}_bytes": 0}) == (3, 3)
    assert unrecorded_dropped(rig) == 3
    Tick(rig.scripts, None, rig.settings)._log_unrecorded(3)
    Tick(rig.scripts, None, rig.settings)._log_unrecorded(3)
    assert len([record for record in caplog.records if "feed.unrecorded_dropped" in record.message]) == 1


# -- a full broker ----------------------------------------------------------------------------------


def test_on_a_full_broker_a_recorder_works(own_broker):
    """So the feed gets shorter there."""
    with own_broker.client() as client:
        feed = Feed(client)
        feed.register()
        client.xadd(keys.CHANGES, {"ids": "a b"})
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.OutOfMemoryError):
            client.xadd(keys.CHANGES, {"ids": "c"})
        assert feed.acquire("recorder", LEASE_MS)
        (entry,) = feed.read(10)[0]
        feed.trim(entry.id)
        feed.want_resync("asked for")
        feed.note_resynced(*feed.begin_resync())
        feed.release("recorder")
        assert (feed.state().length, feed.state().resync) == (0, "")
        assert feed.turn_off("asked for")
        assert feed.register()


def records(rig: Rig, count: int, *, first: int, ended_ms: int) -> None:
    """Write done records of 2,000 bytes each."""
    for number in range(first, first + count):
        fields = {"schema": 1, "state": "delivered", "account": "acme", "bytes": 2000, "xml": "x" * 1000}
        rig.client.hset(keys.record(f"done-{number}"), mapping=fields)
        rig.client.zadd(keys.DONE, {f"done-{number}": ended_ms + number})
    rig.client.incrby(keys.LEDGER_BYTES, 2000 * count)


@pytest.mark.parametrize(
    ("to_free", "done_left", "feed_shrinks", "unrecorded"),
    [(20_000, 20, False, 0), (40_000, 20, True, 0), (10_000_000, 10, True, 10)],
)
def test_a_nearly_full_broker_drops_the_recorded_then_entries_of_the_feed_then_the_others(
    rig, feed, to_free, done_left, feed_shrinks, unrecorded
):
    """Recorded are those that ended before the oldest entry. The feed keeps a part, and what waits is not touched."""
    feed.register()
    feed.note_resynced(REGISTERED, 0)
    publish(rig, *[50] * 100)
    before = feed.state()
    oldest_ms = int(before.first_id.partition("-")[0])
    records(rig, 10, first=0, ended_ms=oldest_ms - 60_000)
    records(rig, 20, first=10, ended_ms=oldest_ms)
    made = rig.scripts.make_room(to_free, 0, 0, 20, before.bytes // 10)
    state = feed.state()
    assert rig.client.zcard(keys.DONE) == done_left
    assert (made.done, made.unrecorded, made.entries > 0) == (30 - done_left, unrecorded, feed_shrinks)
    assert (state.gaps, state.resync) == ((1, GAP) if feed_shrinks else (0, ""))
    if feed_shrinks:
        assert (
            0.8 * before.bytes // 10
            < state.bytes
            < before.bytes - 0.8 * min(to_free - 20_000, before.bytes // 2)
        )
    assert unrecorded_dropped(rig) == unrecorded


def test_where_others_fill_the_broker_the_feed_keeps_a_part_of_its_share(own_broker):
    """To drop all of it each second would make a gap each second, and no room."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url), closing(Rig(own_broker)) as rig:
        feed = Feed(rig.client)
        feed.register()
        publish(rig, *[50] * 1000)
        rig.client.set("others", "x" * 10_000_000)
        rig.client.config_set("maxmemory", rig.client.info("memory")["used_memory"] // 2)
        memory._of_period.cache_clear()
        kept_max = shares_of(memory.read(rig.client).limit, rig.settings).feed_bytes * shares.FEED_KEEPS
        rig.tick()
        state = feed.state()
        assert 0.5 * kept_max < state.bytes <= kept_max
        rig.tick()
        assert feed.state().gaps == state.gaps >= 1
