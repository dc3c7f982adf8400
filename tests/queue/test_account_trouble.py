"""An account that cannot be read, or a store that fails, holds up nobody else and invents nothing."""

from __future__ import annotations

import json
import re
import sys
import threading
import types
from contextlib import closing

import pytest
from click.testing import CliRunner
from events import EVENT, examples
from helpers import Rig, environment, remove_account, set_account

from postbacks import accounts, keys, resend, send_postback, send_postbacks
from postbacks.accounts import Account, RedisAccounts, secrets
from postbacks.cli import main
from postbacks.cli.ledger import reason_words
from postbacks.delivery.claims import BROKER_AWAY_MS, POSTPONED_MS
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.queue.shares import Shares

MO = examples()["SMS_MO", "N211"]


@pytest.mark.parametrize(
    "row", ["no JSON", "[]", '{"name": "bad", "url": 7}', '{"name": "bad", "url": "ftp://x/"}']
)
def test_an_account_whose_row_cannot_be_read_holds_up_nobody(rig, row):
    """The account's postbacks wait until its row can be read; the neighbour's go out, and it can be set anew."""
    with Receiver() as receiver:
        set_account("good", url=receiver.url())
        rig.client.hset(keys.ACCOUNTS, "bad", row)
        bad, good = send_postback.delay("bad", EVENT), send_postback.delay("good", EVENT)
        rig.tick()
        rig.deliver()
        assert rig.record(good.id).state == "delivered"
        assert rig.record(bad.id).state == "waiting"
        assert {one.name for one in accounts.redis_accounts().all()} == {"bad", "good"}
        set_account("bad", url=receiver.url())
        again = send_postback.delay("bad", EVENT)
        rig.tick()
        rig.deliver()
        assert [rig.record(one.id).state for one in (bad, again)] == ["delivered", "delivered"]


def test_a_stored_url_that_is_refused_today_dies_with_its_reason_and_skips_nothing(rig):
    """A version before took it: the account is read, its other URLs serve, and it is mended by setting the URL."""
    with Receiver() as receiver:
        row = (
            f'{{"name": "acme", "url": "http://user:hunter2@a..example/", "mo_url": "{receiver.url("/mo")}"}}'
        )
        rig.client.hset(keys.ACCOUNTS, "acme", row)
        general, mo = send_postback.delay("acme", EVENT).id, send_postback.delay("acme", MO).id
        for _ in range(6):
            rig.tick()
            rig.deliver()
            rig.advance(301)
        assert rig.record(mo).state == "delivered"
        record = rig.record(general)
        assert (record.state, len(record.attempts), record.attempts[-1].outcome) == ("dead", 6, "bad_url")
        assert "a part of it between dots is empty" in record.attempts[-1].detail
        for args in (("account", "set", "acme", "--rate", "5/s"), ("ping", "acme")):
            shown = CliRunner().invoke(main, args)
            assert (shown.exit_code, "between dots is empty" in shown.output) == (2, True), shown.output
        assert rig.client.hget(keys.ACCOUNTS, "acme").decode() == row
        shown = CliRunner().invoke(main, ["account", "show", "acme"])
        assert (shown.exit_code, "http://a..example/" in shown.output) == (0, True)
        assert CliRunner().invoke(main, ["account", "set", "acme", "--url", receiver.url()]).exit_code == 0
        after = send_postback.delay("acme", EVENT).id
        rig.tick()
        rig.deliver()
        assert rig.record(after).state == "delivered"
        assert "hunter2" not in f"{shown.output}{record.attempts}"


def test_a_field_of_a_newer_version_does_no_harm(rig):
    """During an upgrade both versions read the same rows."""
    with Receiver() as receiver:
        row = f'{{"name": "acme", "url": "{receiver.url()}", "of_a_newer_version": 1}}'
        rig.client.hset(keys.ACCOUNTS, "acme", row)
        result = send_postback.delay("acme", EVENT)
        rig.tick()
        rig.deliver()
        assert rig.record(result.id).state == "delivered"


@pytest.mark.parametrize(
    "args",
    [
        ("account", "set", "acme", "--url", "http://127.0.0.1:9999/"),
        ("account", "set", "acme", "--rate", "5/s", "--header", "X-A: b", "--drop", "pins"),
        ("account", "secret", "rotate", "acme"),
        ("account", "secret", "reseal"),
        ("account", "secret", "remove", "acme"),
    ],
)
def test_a_command_keeps_the_fields_of_a_newer_version(broker, args):
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()), closing(broker.client()) as client:
        row = {"name": "acme", "url": "http://127.0.0.1:9999/old", "colour": {"a": [1, None]}, "size": 0}
        row["secrets"] = [{"value": secrets.encrypt(secrets.new_secret(), "acme", "secret")}]
        client.hset(keys.ACCOUNTS, "acme", json.dumps(row))
        assert CliRunner().invoke(main, args).exit_code == 0
        now = json.loads(client.hget(keys.ACCOUNTS, "acme"))
    assert now != row
    assert (now["colour"], now["size"]) == ({"a": [1, None]}, 0)


def test_an_account_that_needs_what_this_version_does_not_know_stands_still(rig, caplog):
    """Nothing is sent for it, the log and every command say why; it goes on once nothing unknown is needed."""
    with Receiver() as receiver, environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        set_account("acme", url=receiver.url())
        set_account("good", url=receiver.url())
        first = send_postback.delay("acme", EVENT)
        rig.tick()
        row = {"name": "acme", "url": receiver.url(), "proof": "x", "needs": ["proof", "url"]}
        rig.client.hset(keys.ACCOUNTS, "acme", json.dumps(row))
        others = send_postback.delay("acme", EVENT), send_postback.delay("good", EVENT)
        rig.tick()
        rig.deliver()
        assert [rig.record(one.id).state for one in (first, *others)] == ["waiting", "waiting", "delivered"]
        assert rig.client.hget(keys.ROUTES, "acme").split(b"\n")[1] == b"unreadable"
        assert "account.unreadable account=acme" in caplog.text
        assert "a newer version of postbacks is needed, for proof" in caplog.text
        for args in (
            ("account", "set", "acme", "--url", receiver.url()), ("account", "set", "acme", "--rate", "5/s"),
            ("account", "secret", "rotate", "acme"), ("account", "show", "acme"), ("ping", "acme"),
        ):  # fmt: skip
            shown = CliRunner().invoke(main, args)
            assert (shown.exit_code, shown.stdout) == (2, "")
            assert shown.stderr.startswith(
                "Error: Account acme needs proof, which this version of postbacks "
            )
        shown = CliRunner().invoke(main, ["account", "secret", "reseal"])
        assert (shown.exit_code, "cannot read their rows: acme. Keep the keys" in shown.stderr) == (1, True)
        assert "cannot be read (postbacks account show says why): acme" in CliRunner().invoke(main, ["account", "list"]).stderr  # fmt: skip
        assert json.loads(rig.client.hget(keys.ACCOUNTS, "acme")) == row
        rig.client.hset(keys.ACCOUNTS, "acme", json.dumps(row | {"needs": ["url"]}))
        rig.advance(31)
        for _ in range(2):  # it is looked up; then its lane takes turns again
            rig.deliver()
        assert [rig.record(one.id).state for one in (first, *others)] == 3 * ["delivered"]


def test_a_row_that_cannot_be_read_is_set_anew_as_a_whole_by_the_command(rig):
    """Without a URL it says so; with one it says that nothing else is kept, and what waits goes out."""
    with Receiver() as receiver:
        rig.client.hset(
            keys.ACCOUNTS, "acme", '{"name": "acme", "url": 7, "secrets": [{"value": "whsec_AAAA"}]}'
        )
        result = send_postback.delay("acme", EVENT)
        rig.tick()
        shown = CliRunner().invoke(main, ["account", "set", "acme", "--rate", "5/s"])
        assert (shown.exit_code, "set the account anew first (--url)" in shown.stderr) == (2, True)
        shown = CliRunner().invoke(main, ["account", "set", "acme", "--url", receiver.url()])
        assert (shown.exit_code, "secrets, headers and all else" in shown.stderr) == (0, True), shown.output
        rig.deliver()
        assert rig.record(result.id).state == "delivered"


class _Moody:
    """An application's store that fails when it is told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fails = False

    def get_many(self, names):
        if self.fails:
            raise OSError("the database is away")
        return {name: Account(name=name, url=self.url) for name in names}


def test_a_store_that_fails_stops_neither_the_tick_nor_what_is_claimed(broker, monkeypatch):
    """Nothing new is taken in, what is parked is released, what cannot be sent is put off with no attempt counted."""
    with Receiver(lambda post: Answer(500 if post.attempt == 1 else 200)) as receiver:
        store = _Moody(receiver.url())
        module = types.ModuleType("moody_accounts")
        module.store = store
        monkeypatch.setitem(sys.modules, "moody_accounts", module)
        with environment(POSTBACKS_ACCOUNTS="moody_accounts:store", POSTBACKS_PROFILE_CACHE_S="0"):
            rig = Rig(broker)
            first = send_postback.delay("acme", EVENT)
            rig.tick()
            rig.deliver()
            later = send_postback.delay("acme", EVENT)
            store.fails = True
            rig.advance(301)
            assert rig.tick().released == 1
            assert rig.deliver() == 0
            record = rig.record(first.id)
            assert (record.state, record.reason, len(record.attempts)) == ("parked", "account_unusable", 1)
            assert reason_words(record).startswith("its account cannot be used just now")
            assert later.state == "PENDING"
            store.fails = False
            rig.advance(POSTPONED_MS / 1000 + 11)
            rig.tick()
            rig.deliver()
            assert [attempt.number for attempt in rig.record(first.id).attempts] == [1, 2]
            assert rig.record(first.id).state == "delivered"
            rig.advance(301)
            rig.tick()
            rig.deliver()
            assert rig.record(later.id).state == "delivered"
            rig.close()


def test_a_parked_postback_says_why_it_is_parked_now(broker, monkeypatch):
    """The account could not be used, and later its receiver failed: `show` and `send --wait` say the last of the
    two.
    """
    with Receiver(lambda post: Answer(500)) as receiver:
        module = types.ModuleType("sulky_accounts")
        module.store = store = _Moody(receiver.url())
        monkeypatch.setitem(sys.modules, "sulky_accounts", module)
        with environment(POSTBACKS_ACCOUNTS="sulky_accounts:store", POSTBACKS_PROFILE_CACHE_S="0"):
            rig = Rig(broker)
            one = send_postback.delay("acme", EVENT)
            rig.tick()
            store.fails = True
            rig.deliver()
            assert reason_words(rig.record(one.id)).startswith("its account cannot be used just now")
            shown = CliRunner().invoke(main, ["show", one.id]).stdout
            assert re.search(
                r"why +put off without an attempt until .* UTC \(in \d+ s\): "
                r"its account cannot be used just now \(the workers' logs say why\)\n",
                shown,
            )
            store.fails = False
            rig.advance(POSTPONED_MS / 1000 + 11)
            rig.tick()
            rig.deliver()
            record = rig.record(one.id)
            assert (record.state, record.reason) == ("parked", "")
            assert reason_words(record).startswith("answered 500")
            assert "parked\n" in CliRunner().invoke(main, ["show", one.id]).stdout
            rig.close()


def test_a_url_of_an_applications_store_that_cannot_be_sent_to_stops_nobody(broker, monkeypatch):
    """The account is made, so that the store can answer; its own postbacks fail with the reason."""
    with Receiver() as receiver:
        urls = {"bad": "http://a|b.example/", "good": receiver.url()}
        module = types.ModuleType("odd_accounts")
        module.store = types.SimpleNamespace(
            get_many=lambda names: {name: Account(name=name, url=urls[name]) for name in names}
        )
        monkeypatch.setitem(sys.modules, "odd_accounts", module)
        with environment(POSTBACKS_ACCOUNTS="odd_accounts:store"):
            rig = Rig(broker)
            bad, good = send_postback.delay("bad", EVENT), send_postback.delay("good", EVENT)
            rig.tick()
            rig.deliver()
            assert rig.record(good.id).state == "delivered"
            (attempt,) = rig.record(bad.id).attempts
            assert (rig.record(bad.id).state, attempt.outcome) == ("parked", "bad_url")
            assert "U+007C VERTICAL LINE" in attempt.detail
            rig.close()


def test_what_was_claimed_as_the_broker_died_is_sent_within_seconds_of_its_return(own_broker, monkeypatch):
    """Killed between the claim and the look-up of the account. It waited half a minute, as if the account were to blame."""
    look_up = RedisAccounts.get_many

    def look_up_without_broker(self, names):
        monkeypatch.undo()
        own_broker.kill()
        try:
            return look_up(self, names)
        finally:
            own_broker.start()

    with (
        Receiver() as receiver,
        environment(POSTBACKS_BROKER_URL=own_broker.url),
        closing(Rig(own_broker)) as rig,
    ):
        set_account("acme", url=receiver.url())
        result = send_postback.delay("acme", EVENT)
        rig.tick()
        monkeypatch.setattr(RedisAccounts, "get_many", look_up_without_broker)
        rig.deliver()
        rig.advance(BROKER_AWAY_MS / 1000)
        rig.deliver()
        record = rig.record(result.id)
        assert (record.state, [attempt.number for attempt in record.attempts]) == ("delivered", [1])


def test_revoking_what_is_only_held_stops_it(rig):
    """A postback that was claimed behind a probe and never POSTed never is."""
    with Receiver(lambda _: Answer(500, delay_s=0.3)) as receiver:
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [EVENT] * 4)
        rig.tick()
        rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
        loop = threading.Thread(target=rig.deliver)
        loop.start()
        receiver.wait_for(1, 90)
        send_postback.AsyncResult(ids[2]).revoke()
        loop.join(60)
        assert rig.record(ids[2]).state == "cancelled"
        assert rig.record(ids[2]).attempts == ()
        assert {post.postback_id for post in receiver.received} == set(ids) - {ids[2]}


def test_a_dead_loops_postbacks_return_in_their_order(rig):
    """The postback in flight is suspected; those that were held stand in front of the lane as they stood before."""
    set_account("acme", url="http://127.0.0.1:9999/")
    ids = send_postbacks("acme", [EVENT] * 40)
    rig.tick()
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
    rig.scripts.claim(
        "dies", 1000, at_most=10, suspects_max=10, free=100, held_max=100, held_per_lane=100, slow_lanes=()
    )
    rig.advance(5)
    rig.settings = rig.settings.model_copy(update={"release_batch": 10})
    assert rig.tick().reaped == 40
    assert [one.decode() for one in rig.client.lrange(keys.lane("acme/general"), 0, -1)] == ids[1:]
    assert rig.client.zrange(keys.QUARANTINE, 0, -1) == [ids[0].encode()]


def test_a_store_that_is_away_for_minutes_sets_no_message_aside(rig, monkeypatch):
    """A tick that raises lives: nothing is suspected, and afterwards all are taken in."""
    set_account("acme", url="http://127.0.0.1:9999/")
    ids = send_postbacks("acme", [EVENT] * 3)

    class Away:
        def get_many(self, names):
            raise OSError("connection refused")

    monkeypatch.setattr(accounts, "store", Away)
    for _ in range(12):
        assert rig.tick().taken_in == 0
        rig.advance(11)  # the intake's lease would have ended
    monkeypatch.undo()
    assert rig.tick().taken_in == 3
    assert {rig.record(one).state for one in ids} == {"waiting"}
    assert rig.client.hlen("postbacks:intake-lease") == 0


def test_events_of_unknown_accounts_are_dead_kept_apart_and_logged_once_a_minute(rig, caplog):
    """They can be sent again, have a retention and a share of the memory of their own, and are counted."""
    with Receiver() as receiver:
        with caplog.at_level("WARNING"):
            ids = send_postbacks("nobody", [EVENT] * 3)
            rig.tick()
            ids += send_postbacks("nobody", [EVENT] * 2)
            rig.tick()
        assert caplog.text.count("intake.unrouted account=nobody") == 1
        assert {(rig.record(one).state, rig.record(one).reason) for one in ids} == {
            ("dead", "unknown_account")
        }
        assert rig.client.hget(keys.TOTALS, "unrouted") == b"5"
        assert not rig.client.hexists(keys.TOTALS, "unrouted_of_left")
        set_account("nobody", url=receiver.url())
        assert resend(ids[0]) == "waiting"
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == [ids[0]]
    assert set(rig.client.zrange(keys.UNROUTED, 0, -1)) == {one.encode() for one in ids[1:]}
    each = int(rig.client.get(keys.UNROUTED_BYTES)) // 4
    may_take = Shares(10**12, 2 * each, 10**12, 10**12, 1, 0)
    rig.scripts.retain(10**9, 10**9, 10**9, may_take, 100)
    assert rig.client.hget(keys.TOTALS, "unrouted_dropped") == b"2"
    assert rig.client.zcard(keys.DEAD) == 2
    rig.advance(86_400)
    rig.tick()
    assert not rig.client.exists(keys.DEAD, keys.UNROUTED)
    assert rig.client.get(keys.UNROUTED_BYTES) == b"0"


def test_events_of_an_account_that_was_removed_within_a_week_are_counted_apart(rig):
    """Most likely somebody removed the wrong one."""
    set_account("acme", url="http://127.0.0.1:9999/")
    remove_account("acme")
    send_postback.delay("acme", EVENT)
    rig.tick()
    assert rig.client.hget(keys.TOTALS, "unrouted_of_left") == b"1"
    set_account("acme", url="http://127.0.0.1:9999/")
    assert not rig.client.zcard(keys.LEFT)
