"""A postback follows its account: where it goes, and with which credentials, is what the account says now."""

from __future__ import annotations

import sys
import threading
import types
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from events import EVENT, MO
from helpers import Rig, black_hole, check_places, claim, environment, eventually, remove_account, set_account

from postbacks import (
    PostbackDead,
    PostbackSkipped,
    accounts,
    keys,
    resend,
    send_postback,
    send_postbacks,
    settings,
)
from postbacks.accounts import Account
from postbacks.cli import main
from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.profiles import Profiles
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.doctor import Doctor
from postbacks.monitor import snapshot
from postbacks.operate.accounts import publish
from postbacks.queue import routes
from postbacks.queue.tick import Tick

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
HOUR_S = 3600


@pytest.fixture
def old() -> Receiver:
    """The receiver that the account leaves; it fails every postback."""
    with Receiver(lambda _: Answer(500)) as receiver:
        yield receiver


@pytest.fixture
def new() -> Receiver:
    with Receiver() as receiver:
        yield receiver


def failed_once(rig: Rig, event: dict[str, str] = EVENT, **options: str) -> str:
    """A postback of acme that is parked after its first attempt."""
    result = send_postback.apply_async(("acme", event), options)
    rig.tick()
    rig.deliver_lanes()
    assert rig.record(result.id).state == "parked"
    return result.id


def resends(rig: Rig) -> None:
    """Five minutes later."""
    rig.advance(301)
    rig.tick()
    rig.deliver_lanes()


def test_a_resend_goes_to_the_accounts_new_url_and_its_new_key_goes_nowhere_else(rig, old, new):
    set_account("acme", url=old.url("/old"), headers={"X-Api-Key": "first"})
    postback_id = failed_once(rig)
    set_account("acme", url=new.url("/new"), headers={"X-Api-Key": "second"})
    resends(rig)
    assert [post.headers["x-api-key"] for post in old.received] == ["first"]
    (post,) = new.received
    assert (post.path, post.attempt, post.headers["x-api-key"]) == ("/new", 2, "second")
    record = rig.record(postback_id)
    assert (record.state, record.url) == ("delivered", new.url("/new"))


def test_a_groups_own_url_is_followed_as_well(rig, old, new):
    set_account("acme", url=old.url())
    failed_once(rig, MO)
    set_account("acme", url=old.url(), mo_url=new.url("/mo"))
    resends(rig)
    assert [post.path for post in new.received] == ["/mo"]


def test_an_origin_that_is_switched_off_ends_what_waits_as_skipped(rig, old):
    set_account("acme", url=old.url())
    parked = failed_once(rig)
    set_account("acme", url=old.url(), off=frozenset({"SUB"}))
    resends(rig)
    record = rig.record(parked)
    assert (record.state, record.reason, len(old.received)) == ("skipped", "origin_off", 1)
    result = send_postback.AsyncResult(parked)
    with pytest.raises(PostbackSkipped) as told:
        result.get(timeout=60)
    assert told.value.outcome == "origin_off"
    shown = CliRunner().invoke(main, ["show", parked]).output
    assert "switched off" in shown.splitlines()[1], shown
    assert not rig.client.hexists(keys.BACKLOG, "acme")


def test_what_was_skipped_can_be_sent_again(rig, new):
    set_account("acme", url=new.url(), off=frozenset({"SUB"}))
    result = send_postback.delay("acme", EVENT)
    rig.tick()
    assert rig.record(result.id).state == "skipped"
    set_account("acme", url=new.url())
    assert resend(result.id) == "waiting"
    rig.deliver_lanes()
    assert [post.postback_id for post in new.received] == [result.id]


def test_what_has_no_url_any_more_is_dead_and_goes_out_when_it_is_sent_again(rig, old, new):
    set_account("acme", url=old.url())
    parked = failed_once(rig)
    set_account("acme", mo_url=old.url())
    resends(rig)
    record = rig.record(parked)
    assert (record.state, record.reason) == ("dead", "no_url")
    with pytest.raises(PostbackDead, match="is dead: no_url"):
        send_postback.AsyncResult(parked).get(timeout=60)
    set_account("acme", url=new.url())
    assert resend(parked) == "waiting"
    rig.deliver_lanes()
    assert [post.attempt for post in new.received] == [2]


def test_a_resend_by_hand_goes_to_the_url_that_works(rig, old, new):
    with environment(POSTBACKS_MAX_RESENDS="0"):
        rig.settings = settings.load()
        set_account("acme", url=old.url())
        result = send_postback.delay("acme", EVENT)
        rig.tick()
        rig.deliver_lanes()
        assert rig.record(result.id).state == "dead"
        set_account("acme", url=new.url())
        assert resend(result.id) == "waiting"
        rig.deliver_lanes()
    assert [post.attempt for post in new.received] == [2]


# -- a call's own URL -----------------------------------------------------------------------------


@pytest.mark.parametrize("same_host", [True, False])
def test_a_calls_own_url_stays_and_gets_credentials_only_on_the_accounts_own_host(rig, old, new, same_host):
    set_account("acme", url=(old if same_host else new).url("/all"), headers={"X-Api-Key": "key"},
                secrets=({"value": SECRET},))  # fmt: skip
    failed_once(rig, url=old.url("/own"))
    set_account("acme", url=(old if same_host else new).url("/changed"), headers={"X-Api-Key": "key"},
                secrets=({"value": SECRET},))  # fmt: skip
    resends(rig)
    assert [post.path for post in old.received] == ["/own", "/own"]
    assert {post.headers.get("x-api-key") for post in old.received} == {"key" if same_host else None}
    assert all("webhook-signature" in post.headers for post in old.received)


def test_a_calls_own_url_needs_no_account(rig, new):
    send_postback.apply_async(("nobody", EVENT), {"url": new.url("/own")})
    rig.tick()
    rig.deliver_lanes()
    assert [post.path for post in new.received] == ["/own"]
    assert not rig.client.hexists(keys.ROUTES, "nobody")


def test_a_calls_own_url_waits_while_its_account_is_away(rig, old):
    set_account("acme", url="http://127.0.0.1:9999/", secrets=({"value": SECRET},))
    failed_once(rig, url=old.url("/own"))
    remove_account("acme")
    resends(rig)
    assert len(old.received) == 1
    set_account("acme", url="http://127.0.0.1:9999/", secrets=({"value": SECRET},))
    rig.deliver_lanes()
    assert ["webhook-signature" in post.headers for post in old.received] == [True, True]


# -- an account that stands still -----------------------------------------------------------------


def test_nothing_of_a_removed_account_goes_out_until_it_is_set_again(rig, old, new):
    set_account("acme", url=old.url(), secrets=({"value": SECRET},))
    parked = failed_once(rig)
    remove_account("acme")
    waiting = send_postback.delay("acme", EVENT)
    resends(rig)
    assert len(old.received) == 1
    assert rig.record(parked).state == "waiting"
    record = rig.record(waiting.id)
    assert (record.state, record.reason) == ("dead", "unknown_account")
    set_account("acme", url=new.url(), secrets=({"value": SECRET},))
    rig.deliver_lanes()
    (post,) = new.received
    assert (post.attempt, "webhook-signature" in post.headers) == (2, True)


def test_what_waits_for_an_account_that_is_gone_for_an_hour_is_dead_and_can_be_sent_again(rig, old, new):
    set_account("acme", url=old.url())
    ids = send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    remove_account("acme")
    rig.advance(HOUR_S - 10)
    rig.tick()
    assert {rig.record(postback_id).state for postback_id in ids} == {"waiting"}
    rig.advance(11)
    rig.tick()
    ends = {(rig.record(postback_id).state, rig.record(postback_id).reason) for postback_id in ids}
    assert ends == {("dead", "account_removed")}
    assert not rig.client.hexists(keys.BACKLOG, "acme")
    assert not rig.client.exists(keys.ROUTES, keys.GONE)
    set_account("acme", url=new.url())
    assert resend(ids[0]) == "waiting"
    rig.deliver_lanes()
    assert [post.postback_id for post in new.received] == [ids[0]]


def test_an_account_that_stands_still_costs_a_look_a_lane_and_no_move_a_postback(rig, new):
    set_account("acme", url=new.url())
    send_postbacks("acme", [EVENT] * 500)
    rig.tick()
    rig.client.hset(keys.ACCOUNTS, "acme", "no JSON")
    publish("acme", accounts.redis_accounts().get("acme"))
    for _ in range(3):
        rig.client.config_resetstat()
        rig.deliver_lanes()
        rig.tick()
        stats = rig.client.info("commandstats")
        assert sum(stat["calls"] for name, stat in stats.items() if name != "cmdstat_info") < 300
        assert rig.client.llen(keys.lane("acme/general")) == 500
        rig.advance(31)
    assert new.received == []
    set_account("acme", url=new.url())
    rig.deliver_lanes()
    assert len(new.received) == 500


def test_events_of_an_account_that_cannot_be_read_wait_until_it_can(rig, new):
    rig.client.hset(keys.ACCOUNTS, "acme", '{"name": "acme", "url": 7}')
    result = send_postback.delay("acme", EVENT)
    rig.tick()
    rig.deliver_lanes()
    assert rig.record(result.id).state == "waiting"
    set_account("acme", url=new.url())
    rig.deliver_lanes()
    assert rig.record(result.id).state == "delivered"


def test_secrets_that_do_not_open_let_the_account_stand_still_and_the_right_key_lets_it_go_on(broker, new):
    one, other = (
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=",
    )
    from postbacks.accounts.secrets import encrypt

    with environment(POSTBACKS_SECRET_KEY=one, POSTBACKS_PROFILE_CACHE_S="0"):
        set_account("acme", url=new.url(), secrets=({"value": encrypt(SECRET, "acme", "secret")},))
    with environment(POSTBACKS_SECRET_KEY=other, POSTBACKS_PROFILE_CACHE_S="0"):
        rig = Rig(broker)
        ids = send_postbacks("acme", [EVENT] * 20)
        rig.tick()
        rig.deliver_lanes()
        assert rig.client.hget(keys.ROUTES, "acme").split(b"\n")[1].decode() == routes.UNUSABLE
        rig.tick()  # takes nothing of it up again
        rig.advance(31)
        rig.deliver_lanes()
        assert {(rig.record(postback_id).state, rig.record(postback_id).attempts) for postback_id in ids} <= {
            ("waiting", ()), ("parked", ())
        }  # fmt: skip
        offset_ms = rig.scripts.clock_offset_ms
        rig.close()
    with environment(POSTBACKS_SECRET_KEY=one, POSTBACKS_PROFILE_CACHE_S="0"):
        rig = Rig(broker)
        rig.scripts.clock_offset_ms = offset_ms + 31_000
        for _ in range(2):  # it looks the account up; then its lane takes turns again
            rig.deliver_lanes()
        rig.close()
    assert {post.postback_id for post in new.received} == set(ids)
    assert all("webhook-signature" in post.headers for post in new.received)


# -- one reading ----------------------------------------------------------------------------------


class _Store:
    """An application's own store."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def get_many(self, names):
        return {name: self.account for name in names if name == self.account.name}


def test_url_and_credentials_of_a_post_are_from_one_reading_of_an_applications_store(
    broker, monkeypatch, old, new
):
    """The store changed after the tick had written its row, and before the loop read it."""
    store = _Store(Account(name="acme", url=old.url(), headers={"X-Api-Key": "old"}))
    module = types.ModuleType("changing_accounts")
    module.store = store
    monkeypatch.setitem(sys.modules, "changing_accounts", module)
    with environment(POSTBACKS_ACCOUNTS="changing_accounts:store"):
        rig = Rig(broker)
        result = send_postback.delay("acme", EVENT)
        rig.tick()
        store.account = Account(name="acme", url=new.url(), headers={"X-Api-Key": "new"})
        rig.deliver_lanes()
        assert old.received == []
        assert [post.headers["x-api-key"] for post in new.received] == ["new"]
        assert [attempt.number for attempt in rig.record(result.id).attempts] == [1]
        rig.close()


class _Overtaken:
    """Our own store, where `postbacks account remove` overtakes whoever has read the account and not yet written its row."""

    def __init__(self) -> None:
        self.is_removed = False

    def get_many(self, names):
        read = accounts.redis_accounts().get_many(names)
        if not self.is_removed:
            self.is_removed = True
            remove_account("acme")
        return read


@pytest.mark.parametrize("who", ["a tick", "a loop"])
def test_whoever_reads_an_account_that_is_removed_meanwhile_does_not_bring_it_back(rig, old, who):
    set_account("acme", url=old.url())
    send_postback.delay("acme", EVENT)
    if who == "a tick":
        Tick(rig.scripts, _Overtaken(), rig.settings).run()
    else:
        rig.tick()
        profiles = Profiles(_Overtaken(), rig.settings, rig.scripts)
        profiles.look_up(["acme"], 0)
        profiles.publish()
    assert rig.client.hget(keys.ROUTES, "acme").split(b"\n")[1].decode() == routes.GONE


def test_a_look_up_of_a_loop_writes_nothing_before_it_is_published(rig, old, new):
    """Of an application's own store, in which the account has changed."""
    set_account("acme", url=old.url())
    before = rig.client.hget(keys.ROUTES, "acme")
    store = SimpleNamespace(
        get_many=lambda names: {name: Account(name=name, url=new.url()) for name in names}
    )
    profiles = Profiles(store, rig.settings, rig.scripts)
    profiles.look_up(["acme"], 0)
    assert rig.client.hget(keys.ROUTES, "acme") == before
    profiles.publish()
    assert new.url() in rig.client.hget(keys.ROUTES, "acme").decode()
    assert old.url() not in rig.client.hget(keys.ROUTES, "acme").decode()


class _Unstable:
    """A store that never says the same twice."""

    def __init__(self, url: str) -> None:
        self.url, self.readings = url, 0

    def get_many(self, names):
        self.readings += 1
        return {name: Account(name=name, url=self.url, headers={"X-N": str(self.readings)}) for name in names}


def test_an_account_that_never_reads_the_same_twice_is_named_in_the_log_once_a_minute(rig, new, caplog):
    send_postbacks("acme", [EVENT] * 3)
    store = _Unstable(new.url())
    with environment(POSTBACKS_PROFILE_CACHE_S="0"):
        rig.settings = settings.load()
        Tick(rig.scripts, store, rig.settings).run()
        profiles = Profiles(store, rig.settings, rig.scripts)
        _, rows, *_ = claim(rig, "one")
        claimed = [ClaimedPostback.from_begun_row(row.lane.decode(), row, 0) for row in rows]
        assert claimed
        assert [profiles.agree_on(claimed) for _ in range(2)] == [{}, {}]
    assert caplog.text.count("account.changing account=acme") == 1


def test_what_is_held_for_an_endpoint_that_its_account_has_left_goes_back_and_shares_nothing(rig, new):
    """The probe has no connection in time; what was held behind it goes to the new URL, no attempt counted."""
    with black_hole() as port, environment(POSTBACKS_CONNECT_TIMEOUT_S="1.5"):
        rig.settings = settings.load()
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        ids = send_postbacks("acme", [EVENT] * 20)
        rig.tick()
        rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
        loop = threading.Thread(target=rig.deliver_lanes)
        loop.start()
        try:
            eventually(lambda: rig.adapter._open, what="the probe")
            set_account("acme", url=new.url())
        finally:
            loop.join(60)
        moved = [rig.record(postback_id) for postback_id in ids[1:]]
    assert {record.state for record in moved} <= {"delivered", "waiting"}
    assert not any(attempt.shared for record in moved for attempt in record.attempts)
    rig.deliver_lanes()
    assert [post.attempt for post in new.received] == [1] * 19
    assert {post.postback_id for post in new.received} == set(ids[1:])


# -- a record of the version before ---------------------------------------------------------------


@pytest.mark.parametrize("own_url", [True, False])
def test_a_record_of_the_version_before_follows_its_account_unless_it_has_another_endpoint(
    rig, old, new, own_url
):
    set_account("acme", url=old.url("/all"))
    postback_id = failed_once(rig, **({"url": f"http://localhost:{old.port}/own"} if own_url else {}))
    rig.client.hdel(keys.record(postback_id), "own")
    set_account("acme", url=old.url("/changed"))
    resends(rig)
    paths = ["/own", "/own"] if own_url else ["/all", "/changed"]
    assert [post.path for post in old.received] == paths


def test_a_claim_reads_an_accounts_row_once(rig, new):
    set_account("acme", url=new.url())
    send_postbacks("acme", [EVENT] * 50)
    rig.tick()
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"limit": 10, "suspect": 0})
    rig.client.config_resetstat()
    rig.scripts.claim(
        "one", 30_000, slow_lanes=(), at_most=50, suspects_max=50, free=2000, held_max=0, held_per_lane=1
    )
    rows = rig.client.info("commandstats")["cmdstat_hget"]["calls"]
    assert rows <= 3


# -- who looks ------------------------------------------------------------------------------------


def test_what_waits_for_an_account_that_stands_still_is_no_sign_of_missing_workers(rig):
    """A postback of such an account is counted apart: the system is well, and nobody is called at night."""
    set_account("acme", url="http://127.0.0.1:9999/")
    send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    remove_account("acme")
    rig.advance(600)
    rig.tick()
    rig.deliver_lanes()
    seen = snapshot.read(rig.client, rig.settings, clock_offset_ms=rig.scripts.clock_offset_ms)
    assert (seen.still_waiting, sum(part.count for part in seen.waiting)) == (3, 0)
    assert max(part.oldest_s for part in seen.waiting) == 0


def test_doctor_names_accounts_that_stand_still_and_those_that_nobody_knows(rig):
    set_account("acme", url="http://127.0.0.1:9999/")
    send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    remove_account("acme")
    rig.deliver_lanes()
    rig.advance(60)
    send_postbacks("acme", [EVENT] * 2)
    send_postback.delay("typo", EVENT)
    rig.tick()
    doctor = Doctor(rig.scripts, rig.settings, pause_s=0)
    report = doctor.examine()
    (words,) = report.findings("standing-still").values()
    assert words.startswith("acme: gone, for ")
    words = report.findings("unrouted")
    assert words["acme"].startswith("acme: 2 (unknown_account), though it was there until ")
    assert words["typo"] == "typo: 1 (unknown_account)"
    set_account("acme", url="http://127.0.0.1:9999/")
    assert doctor.examine().findings("standing-still") == {}


# -- what is seldom met -----------------------------------------------------------------------------


def test_what_is_held_follows_its_account_to_another_path_of_the_same_server(rig, old):
    set_account("acme", url=old.url("/old"), headers={"X-Api-Key": "first"})
    send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
    _, (first,), held, _ = claim(rig, "one")
    set_account("acme", url=old.url("/new"), headers={"X-Api-Key": "second"})
    ids = [row.id.decode() for row in held]
    begun = rig.scripts.begin("one", ids)
    assert {row.url.decode() for row in begun.rows} == {old.url("/new")}
    assert {rig.record(postback_id).url for postback_id in ids} == {old.url("/new")}
    assert first[10].decode() == old.url("/old")


@pytest.mark.parametrize("changed", ["/changed", None])
def test_an_attempt_whose_beginning_was_not_heard_mixes_no_two_readings_of_its_account(
    rig, old, new, changed
):
    """The answer was lost, the account was changed, the loop asks again: URL and version are of one row, or of none."""
    set_account("acme", url=old.url("/old"))
    send_postbacks("acme", [EVENT] * 2)
    rig.tick()
    rig.client.hset(keys.LANE_STATE + "acme/general", mapping={"failing": 1, "limit": 1})
    _, _, held, _ = claim(rig, "one")
    ids = [row.id.decode() for row in held]
    rig.scripts.begin("one", ids)
    set_account("acme", url=old.url(changed) if changed else new.url("/new"))
    version = accounts.redis_accounts().get("acme").version
    (row,) = rig.scripts.begin("one", ids).rows
    assert (row.url.decode(), row.version.decode() == version) == (
        (old.url(changed), True) if changed else (old.url("/old"), False)
    )


@pytest.mark.parametrize("reason", ["unknown_account", "no_url", "account_unreadable", "expired"])
def test_what_the_version_before_skipped_goes_where_its_account_says_when_it_is_sent_again(rig, new, reason):
    result = send_postback.delay("acme", EVENT)
    rig.tick()
    name = keys.record(result.id)
    rig.client.hdel(name, "own", "digest")
    rig.client.hset(name, mapping={"state": "skipped", "reason": reason, "url": "", "endpoint": ""})
    rig.client.zrem(keys.DEAD, result.id)
    rig.client.zrem(keys.UNROUTED, result.id)
    rig.client.zadd(keys.DONE, {result.id: 1})
    set_account("acme", url=new.url())
    assert resend(result.id) == "waiting"
    rig.deliver_lanes()
    assert rig.record(result.id).state == "delivered"


def test_a_record_of_the_version_before_does_not_go_out_once_its_account_is_removed(rig, old):
    """No row says where the account goes: the version before wrote none."""
    set_account("acme", url=old.url(), headers={"X-Api-Key": "key"}, secrets=({"value": SECRET},))
    postback_id = failed_once(rig)
    rig.client.hdel(keys.record(postback_id), "own", "digest")
    rig.client.delete(keys.ROUTES)
    remove_account("acme")
    resends(rig)
    assert len(old.received) == 1
    rig.advance(HOUR_S + 40)
    rig.tick()
    record = rig.record(postback_id)
    assert (record.state, record.reason) == ("dead", "account_removed")


def test_many_calls_urls_of_an_account_that_is_gone_do_not_keep_it_standing_still(rig, old, new):
    """A postback accepted after its account's removal needs no account; more of these than a tick looks at end
    nothing.
    """
    set_account("acme", url=old.url())
    before = send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    remove_account("acme")
    for _ in range(6):
        send_postback.apply_async(("acme", EVENT), {"url": new.url("/own")})
    rig.tick()
    rig.advance(HOUR_S + 1)
    for _ in range(8):
        rig.scripts.retire(2)
    assert {rig.record(postback_id).reason for postback_id in before} == {"account_removed"}
    assert not rig.client.exists(keys.ROUTES, keys.GONE)
    rig.deliver_lanes()
    assert [post.path for post in new.received] == ["/own"] * 6
    check_places(rig.client)


def test_what_is_in_quarantine_for_an_account_that_is_gone_for_an_hour_is_dead(rig, old, new):
    set_account("acme", url=old.url())
    set_account("globex", url=new.url())
    ids = [send_postback.delay(account, EVENT).id for account in ("acme", "globex")]
    rig.tick()
    claim(rig, "died")
    rig.advance(31)
    rig.tick()
    assert rig.client.zcard(keys.QUARANTINE) == 2
    remove_account("acme")
    rig.examine()
    rig.advance(HOUR_S + 1)
    rig.tick()
    rig.examine()
    rig.advance(31)  # a removed account is looked at so often until nothing of it is open
    rig.tick()
    records = [rig.record(postback_id) for postback_id in ids]
    assert [(record.state, record.reason) for record in records] == [
        ("dead", "account_removed"),
        ("delivered", ""),
    ]
    assert not rig.client.exists(keys.QUARANTINE, keys.BACKLOG, keys.GONE)
    check_places(rig.client)
