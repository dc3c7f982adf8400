"""An account changes in the moment in which a postback of its is held, noted, tried with care, or read."""

from __future__ import annotations

import pytest
from events import EVENT
from helpers import Rig, claim, remove_account, set_account

from postbacks import accounts, keys, send_postback, send_postbacks
from postbacks.accounts import RedisAccounts
from postbacks.devtools.receiver import Receiver
from postbacks.ledger.record import Attempt
from postbacks.queue import routes
from postbacks.queue.actions import cancel
from postbacks.queue.rows import AttemptRow
from postbacks.queue.scripts import FEW

LEASE_MS = 30_000
HOUR_S = 3600
OLD, SAME_HOST, NEW = "http://127.0.0.1:2001/old", "http://127.0.0.1:2001/new", "http://127.0.0.1:2002/"


@pytest.fixture
def new() -> Receiver:
    with Receiver() as receiver:
        yield receiver


def held(rig: Rig, count: int = 2) -> list[str]:
    """Postbacks of acme, which sends to the old URL: the first is tried, the others are held behind it."""
    set_account("acme", url=OLD)
    ids = send_postbacks("acme", [EVENT] * count)
    rig.tick()
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
    claim(rig, "one", held_max=100, held_per_lane=100)
    return ids


def in_quarantine(rig: Rig, url: str) -> str:
    """A postback of acme whose worker died with it."""
    set_account("acme", url=url)
    result = send_postback.delay("acme", EVENT)
    rig.tick()
    claim(rig, "dies")
    rig.advance(31)
    rig.scripts.reap(1000, 300_000)
    assert rig.client.zcard(keys.QUARANTINE) == 1
    return result.id


def version() -> str:
    return accounts.redis_accounts().get("acme").version


def test_what_is_held_goes_to_the_new_path_of_the_same_host(rig):
    """The row's version is that of the new URL, so the old one must not go with it."""
    _, waits = held(rig)
    set_account("acme", url=SAME_HOST)
    (row,) = rig.scripts.begin("one", [waits]).rows
    assert (row.url.decode(), row.version.decode()) == (SAME_HOST, version())
    assert rig.record(waits).url == SAME_HOST


@pytest.mark.parametrize("changed", [SAME_HOST, NEW])
def test_an_attempt_whose_begin_was_not_heard_never_takes_the_new_credentials_to_the_old_host(rig, changed):
    """Begun before the change and asked for again after it: the new path of the host, or no version that agrees."""
    _, waits = held(rig)
    rig.scripts.begin("one", [waits])  # its answer was lost
    set_account("acme", url=changed)
    (row,) = rig.scripts.begin("one", [waits]).rows
    url, of_version = row.url.decode(), row.version.decode()
    assert (url, of_version == version()) == ((SAME_HOST, True) if changed == SAME_HOST else (OLD, False))
    assert rig.record(waits).url == url


def test_a_cancelled_one_that_shares_a_time_out_after_its_account_has_moved_is_never_sent(rig):
    """The postback went back to its lane as if nobody had asked for its end."""
    _, waits = held(rig)
    assert cancel(waits) == "sending"
    set_account("acme", url=NEW)
    attempt = Attempt(1, 1, "connect_timeout", shared=True).to_json()
    row = AttemptRow(waits, "acme/general", "parked", 1, attempt, 2000, "shared", "connect_timeout")
    assert rig.scripts.commit("one", LEASE_MS, 10, 60, [row])[0][0] == b"cancelled"
    assert rig.client.llen(keys.lane("acme/general")) == 0


def test_a_postback_in_quarantine_keeps_no_examiner_while_its_account_stands_still(rig, new):
    """The postback is parked, and its account is looked up, whoever else waits; then it is tried."""
    postback_id = in_quarantine(rig, new.url())
    row = rig.client.hget(keys.ACCOUNTS, "acme")
    remove_account("acme")
    rig.advance(31)
    _, rows, later, still, _ = rig.scripts.run("examine", ("careful", LEASE_MS, FEW, 0, HOUR_S * 1000))
    assert (rows, later, still) == ([], 0, [b"acme"])
    assert rig.record(postback_id).state == "parked"
    rig.client.hset(keys.ACCOUNTS, "acme", row)  # as an application's own store: nobody says so to the broker
    rig.advance(31)
    rig.tick()
    assert rig.deliver() == 0, "the account is looked up"
    rig.advance(31)
    rig.tick()
    assert rig.deliver() == 1
    assert rig.record(postback_id).state == "delivered"


def test_a_postback_in_quarantine_ends_with_its_account(rig, new, caplog):
    """No lane has it: it came back to its account's removal every hour."""
    postback_id = in_quarantine(rig, new.url())
    remove_account("acme")
    rig.tick()
    rig.examine()
    rig.advance(HOUR_S + 1)
    rig.tick()
    assert rig.client.hexists(keys.ROUTES, "acme"), "something of it is left"
    rig.examine()
    assert (rig.record(postback_id).state, rig.record(postback_id).reason) == ("dead", "account_removed")
    assert f"postback.dead account=acme id={postback_id} reason=account_removed" in caplog.text
    rig.advance(31)
    rig.tick()
    assert not rig.client.exists(keys.ROUTES, keys.GONE, keys.BACKLOG)


def test_a_url_of_its_own_in_quarantine_outlives_a_name_that_was_never_known(rig, new):
    """Something of the name had kept it, so that both waited for each other."""
    result = send_postback.apply_async(("acme", EVENT), {"url": new.url("/own")})
    rig.tick()
    claim(rig, "dies")
    rig.advance(31)
    rig.scripts.reap(1000, 300_000)
    routes.stop(rig.scripts, ["acme"], keep_ms=HOUR_S * 1000)
    rig.advance(31)
    rig.tick()
    assert rig.examine() == 0
    rig.advance(HOUR_S)
    rig.tick()
    assert rig.examine() == 1
    assert rig.record(result.id).state == "delivered"


def test_urls_of_their_own_do_not_keep_a_removed_account_for_ever(rig):
    """More of them than one tick looks at, of a name that was not known when they came."""
    for _ in range(3):
        send_postback.apply_async(("acme", EVENT), {"url": OLD})
    rig.tick()
    routes.stop(rig.scripts, ["acme"], keep_ms=0)
    rig.advance(1)
    for _ in range(4):
        assert rig.scripts.retire(2) == (0, [])
    assert not rig.client.exists(keys.ROUTES, keys.GONE)
    assert rig.client.llen(keys.lane("acme/general")) == 3


def test_who_has_read_an_account_before_it_changed_puts_no_older_row_over_the_new_one(rig, monkeypatch):
    """A tick reads, `postbacks account set` writes account and row, and then the tick writes what it has read."""
    set_account("acme", url=OLD)
    before = accounts.redis_accounts().get("acme")
    set_account("acme", url=NEW)
    routes.publish(rig.scripts, ["acme"], {"acme": before}, keep_ms=1000, store=RedisAccounts(rig.client))
    assert rig.client.hget(keys.ROUTES, "acme").decode().split("\n")[4] == NEW
    remove_account("acme")
    routes.publish(rig.scripts, ["acme"], {"acme": before}, keep_ms=1000, store=RedisAccounts(rig.client))
    assert rig.client.hget(keys.ROUTES, "acme").decode().split("\n")[1] == routes.GONE


def test_what_turns_out_to_be_the_same_postback_leaves_no_share_of_the_unrouted(rig):
    """The postback came twice for an account that nobody knows, the first time to version 0.1.0."""
    send_postback.apply_async(("acme", EVENT), task_id="order-18")
    rig.tick()
    rig.client.hdel(keys.record("order-18"), "digest")
    share = int(rig.client.get(keys.UNROUTED_BYTES))
    send_postback.apply_async(("acme", EVENT), task_id="order-18")
    rig.tick()
    assert rig.client.zrange(keys.UNROUTED, 0, -1) == rig.client.zrange(keys.DEAD, 0, -1) == [b"order-18"]
    assert int(rig.client.get(keys.UNROUTED_BYTES)) == share
