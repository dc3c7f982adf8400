"""Limits of one customer, who cannot fill the broker: of what waits, stubs beyond them, and a share of the memory
for the dead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery.result import AsyncResult
from click.testing import CliRunner
from events import EVENT, MO, MT
from helpers import Rig, check_places, environment, set_account

from postbacks import keys, send_postback, send_postbacks, settings
from postbacks.broker import memory
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.doctor import Doctor
from postbacks.errors import IdTaken
from postbacks.ledger.footprint import STUB_BYTES
from postbacks.queue import shares, tick
from postbacks.queue.scripts import assemble

NOBODY_ANSWERS = "http://127.0.0.1:9999/"
MIB = 1 << 20


@contextmanager
def limits(rig: Rig, *, maxmemory: int = 0, documents: float = 0.8, **values: str) -> Iterator[None]:
    """Give the broker so much memory, documents this part of an account's dead, and the rig these settings."""
    rig.client.config_set("maxmemory", maxmemory)
    try:
        with (
            pytest.MonkeyPatch.context() as patched,
            environment(**{f"POSTBACKS_{name.upper()}": value for name, value in values.items()}),
        ):
            patched.setattr(shares, "DEAD_BYTES_MIN", 0)
            patched.setattr(shares, "DOCUMENTS_SHARE", documents)
            rig.settings = settings.load()
            yield
    finally:
        rig.client.config_set("maxmemory", 0)


def states(rig: Rig, ids: list[str]) -> list[str]:
    return [rig.record(postback_id).state for postback_id in ids]


def test_each_group_of_an_account_has_a_limit_of_its_own(rig, caplog):
    """MT that fills its limit leaves MO, general and every other account all of theirs; what is beyond is dead and told."""
    with limits(rig, max_waiting_per_account="3"), caplog.at_level("ERROR"):
        for name in ("acme", "other"):
            set_account(name, url=NOBODY_ANSWERS)
        mt = send_postbacks("acme", [MT] * 5)
        mo, general = send_postbacks("acme", [MO] * 4), send_postbacks("acme", [EVENT] * 3)
        other = send_postbacks("other", [MT] * 2)
        rig.tick()
        assert states(rig, mt) == ["waiting"] * 3 + ["dead"] * 2
        assert states(rig, mo) == ["waiting"] * 3 + ["dead"]
        assert states(rig, general + other) == ["waiting"] * 5
        assert {rig.record(postback_id).reason for postback_id in (*mt[3:], mo[3])} == {"backlog_full"}
        assert "intake.backlog_full" in caplog.text
        assert "account=acme" in caplog.text
        assert "postbacks=3" in caplog.text
        assert rig.client.hget(keys.TOTALS, "refused:backlog_full") == b"3"
        check_places(rig.client)


def test_what_was_beyond_the_limit_can_be_sent_again(rig):
    """By hand, and a resend is never refused for the limit."""
    with Receiver() as receiver, limits(rig, max_waiting_per_account="1"):
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [MT] * 3)
        rig.tick()
        done = CliRunner().invoke(main, ["resend", "--all-dead", "--yes"])
        assert (done.exit_code, states(rig, ids)) == (0, ["waiting"] * 3), done.output
        assert rig.client.hgetall(keys.OPEN) == {b"acme/mt": b"3"}
        rig.deliver()
        assert states(rig, ids) == ["delivered"] * 3
        assert not rig.client.exists(keys.OPEN, keys.BACKLOG, keys.DEAD_BYTES, keys.DEAD_OF + "acme")


def test_a_large_postback_counts_once_for_each_2_kb_of_its_record(rig):
    """So the limit bounds the memory, whatever is sent."""
    large = MO | {"TEXT": "x" * 3000}
    with limits(rig, max_waiting_per_account="4"):
        set_account("acme", url=NOBODY_ANSWERS)
        ids = send_postbacks("acme", [large, large, MO, MO])
        rig.tick()
        assert states(rig, ids) == ["waiting", "dead", "waiting", "dead"]
        assert rig.client.hgetall(keys.OPEN) == {b"acme/mo": b"4"}


def test_a_parked_postback_counts_by_what_its_record_takes_by_now(rig):
    """Failed attempts make a record larger; what it counts goes with it at its end, and comes back with a resend
    by hand.
    """
    with Receiver(lambda _: Answer(500, body=b"x" * 128)) as receiver:
        set_account("acme", url=receiver.url())
        (postback_id,) = send_postbacks("acme", [MT])
        rig.tick()
        units = []
        while rig.record(postback_id).state != "dead":
            units.append(int(rig.client.hget(keys.OPEN, "acme/mt")))
            rig.deliver()
            rig.advance(301)
            rig.tick()
        record_bytes = int(rig.client.hget(keys.record(postback_id), "bytes"))
        assert (units[0], units[-1]) == (1, 2)
        assert shares.UNIT_BYTES < record_bytes < 2 * shares.UNIT_BYTES
        assert not rig.client.exists(keys.OPEN, keys.BACKLOG)
        CliRunner().invoke(main, ["resend", postback_id])
        assert rig.client.hgetall(keys.OPEN) == {b"acme/mt": b"2"}


def test_the_limit_follows_the_brokers_memory(rig):
    """A tenth of it for each group of an account, unless the number is smaller."""
    with limits(rig, maxmemory=100 * MIB):
        may_take = shares.shares_of(memory.read(rig.client).limit, rig.settings)
        assert may_take.units * shares.UNIT_BYTES == pytest.approx(10 * MIB, rel=0.01)
        assert (may_take.ledger_bytes, may_take.dead_bytes) == (30 * MIB, 15 * MIB)
        assert may_take.documents_bytes == 12 * MIB


def test_however_small_the_broker_is_ten_thousand_dead_of_an_account_stay(rig):
    """With six attempts and the begin of each answer."""
    rig.client.config_set("maxmemory", 64 * MIB)
    try:
        assert shares.shares_of(memory.read(rig.client).limit, rig.settings).dead_bytes == 10_000 * 4096
    finally:
        rig.client.config_set("maxmemory", 0)


def test_a_customer_that_is_down_and_never_stops_takes_a_bounded_part_of_the_memory(rig, caplog):
    """Beyond the limit documents are kept up to a share; then the id, account, code, time and digest alone."""
    with limits(
        rig, maxmemory=100 * MIB, documents=0.3, max_waiting_per_account="100", account_dead_share="0.05"
    ):
        may_take = shares.shares_of(memory.read(rig.client).limit, rig.settings)
        set_account("acme", url=NOBODY_ANSWERS)
        with caplog.at_level("ERROR"):
            ids = send_postbacks("acme", [MT | {"TRACKINGID": str(number)} for number in range(2000)])
            while rig.tick().more:
                pass
        records = [rig.record(postback_id) for postback_id in ids]
        stubs = [record for record in records if record.is_stub]
        documents = [record for record in records if record.state == "dead" and not record.is_stub]
        assert [record.state for record in records] == ["waiting"] * 100 + ["dead"] * 1900
        assert len(documents) > 100
        assert (
            sum(int(rig.client.hget(keys.record(one.id), "bytes")) for one in documents)
            <= may_take.documents_bytes
        )
        assert len(stubs) > 1000
        assert {(stub.account, stub.code, stub.reason, stub.xml, stub.url) for stub in stubs} == {
            ("acme", "N201", "backlog_full", b"", "")
        }
        assert all(stub.digest and stub.created_ms for stub in stubs)
        told = re.findall(r"intake\.stubs .*account=acme .*postbacks=(\d+)", caplog.text)
        assert sum(map(int, told)) == len(stubs)
        check_places(rig.client)
        assert "acme" in Doctor(rig.scripts, rig.settings, pause_s=0).examine().findings("many-dead")


def stub_of(rig: Rig, **options: object) -> str:
    """Let an account have so many waiting and dead that its last postback is kept as a stub."""
    send_postback.apply_async(("acme", MT))
    postback_id = send_postback.apply_async(("acme", MT | {"TRACKINGID": "2"}), **options).id
    rig.tick()
    assert rig.record(postback_id).is_stub
    return postback_id


def test_a_stub_says_that_the_application_must_send_it_again_which_it_can_under_its_id(rig):
    """Neither resend sends it; the same postback under its id takes its place, once there is room."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        with limits(rig, maxmemory=100 * MIB, documents=0, max_waiting_per_account="1"):
            postback_id = stub_of(rig, task_id="order-18")
            assert AsyncResult(postback_id, app=send_postback.app).state == "FAILURE"
            one = CliRunner().invoke(main, ["resend", postback_id])
            assert one.exit_code == 1
            assert "must send it again" in one.output
            many = CliRunner().invoke(main, ["resend", "--all-dead", "--yes"])
            assert "1 stay dead as their documents were not kept" in many.output
            assert (
                CliRunner()
                .invoke(main, ["show", postback_id, "--xml", "--reveal", "--why", "a test"])
                .exit_code
                == 1
            )
            assert "must send it again" in CliRunner().invoke(main, ["show", postback_id]).output
            assert rig.record(postback_id).state == "dead"
            rig.deliver()
            send_postback.apply_async(("acme", MT | {"TRACKINGID": "2"}), task_id=postback_id)
            rig.tick()
            rig.deliver()
        assert rig.record(postback_id).state == "delivered"
        assert b"<TRACKINGID>2</TRACKINGID>" in receiver.received[-1].body
        assert not rig.client.exists(keys.DEAD_BYTES, keys.STUBS_OF + "acme", keys.DEAD)
        check_places(rig.client)


def test_another_postback_under_a_stubs_id_is_kept_apart(rig):
    """A stub protects its id as every record does: the caller is told at once, what comes all the same is dead."""
    set_account("acme", url=NOBODY_ANSWERS)
    with limits(rig, maxmemory=100 * MIB, documents=0, max_waiting_per_account="1"):
        postback_id = stub_of(rig, task_id="order-18")
        for account, event in (("acme", MT | {"TRACKINGID": "3"}), ("globex", MT | {"TRACKINGID": "2"})):
            with pytest.raises(IdTaken, match="postback of account acme"):
                send_postback.apply_async((account, event), task_id=postback_id)
        rig.client.lpush(keys.QUEUE, _message_of(rig, MT | {"TRACKINGID": "3"}, postback_id))
        rig.tick()
        assert rig.client.hget(keys.TOTALS, "id_taken") == b"1"
        assert rig.record(postback_id).is_stub


def _message_of(rig: Rig, event: dict[str, str], postback_id: str) -> bytes:
    """Celery's message of a call, with another id in the place of its own: a program of another language may send it."""
    sent = send_postback.delay("acme", event).id
    return rig.client.lpop(keys.QUEUE).replace(sent.encode(), postback_id.encode())


def test_an_accounts_dead_give_way_the_oldest_first_and_that_is_told_before(rig, caplog):
    """Stubs before those that have their document; others' dead stay."""
    with limits(rig, maxmemory=100 * MIB, max_waiting_per_account="1", account_dead_share="0.0006"):
        may_take = shares.shares_of(memory.read(rig.client).limit, rig.settings)
        for name in ("acme", "other"):
            set_account(name, url=NOBODY_ANSWERS)
        other = send_postbacks("other", [MT] * 3)
        ids = send_postbacks("acme", [MT | {"TRACKINGID": str(number)} for number in range(30)])
        with caplog.at_level("WARNING"):
            rig.tick()
            assert "retain.many_dead" in caplog.text
            while rig.client.zscore(keys.DEAD_BYTES, "acme") > may_take.dead_bytes:
                assert rig.tick().dropped
            dropped = [one for one in ids if not rig.client.exists(keys.record(one))]
        assert "retain.dead_dropped" in caplog.text
        assert rig.client.hget(keys.TOTALS, "dead_dropped") == str(len(dropped)).encode()
        documents = [one for one in ids if one not in dropped and not rig.record(one).is_stub][1:]
        assert documents == ids[1 : 1 + len(documents)]  # stubs went first
        assert states(rig, other) == ["waiting", "dead", "dead"]
        check_places(rig.client)


def test_a_tick_that_has_no_time_left_drops_as_many_as_it_took_in(rig, monkeypatch):
    """Else an account that sends without an end has more dead with each tick, whatever their share."""
    monkeypatch.setattr(tick, "TICK_BUDGET_S", 0)
    monkeypatch.setattr(tick, "RETAIN_BATCH", 10)
    with limits(rig, maxmemory=100 * MIB, max_waiting_per_account="1", account_dead_share="0.0001"):
        set_account("acme", url=NOBODY_ANSWERS)
        send_postbacks("acme", [MT] * 50)
        done = rig.tick()
        assert done.taken_in == 50
        assert done.dropped > 40
        check_places(rig.client)


def test_dead_that_the_version_before_has_dropped_leave_their_account_as_its_share_is_looked_at(rig):
    """0.1.0 knows no indexes of an account; what stands there alone would make the others go too early."""
    with limits(rig, maxmemory=100 * MIB, max_waiting_per_account="1", account_dead_share="0.00075"):
        may_take = shares.shares_of(memory.read(rig.client).limit, rig.settings)
        set_account("acme", url=NOBODY_ANSWERS)
        ids = send_postbacks("acme", [MT | {"TRACKINGID": str(number)} for number in range(11)])
        rig.tick()
        for dropped in ids[1:6]:
            rig.client.zrem(keys.DEAD, dropped)
            rig.client.delete(keys.record(dropped))
            rig.client.zadd(keys.DEAD_OF + "acme", {dropped: 1})
        rig.client.zincrby(keys.DEAD_BYTES, may_take.dead_bytes / 2, "acme")
        rig.tick()
        assert rig.client.zscore(keys.DEAD_BYTES, "acme") <= may_take.dead_bytes
        assert states(rig, ids[6:]) == ["dead"] * 5
        check_places(rig.client)


def test_room_is_made_of_the_dead_of_whoever_has_most_though_some_of_them_are_gone(rig):
    """Nobody's dead give way to those of one that has more."""
    for name in ("acme", "other"):
        set_account(name, url=NOBODY_ANSWERS)
    with limits(rig, max_waiting_per_account="1"):
        other = send_postbacks("other", [MT] * 2)
        ids = send_postbacks("acme", [MT | {"TRACKINGID": str(number)} for number in range(10)])
        rig.tick()
        rig.client.zadd(keys.DEAD_OF + "acme", {one: number for number, one in enumerate(ids)}, xx=True)
        rig.client.zrem(keys.DEAD, ids[1])
        rig.client.delete(keys.record(ids[1]))
        assert rig.scripts.make_room(0, 4000, 0, 100, 0)[:3] == (0, 3, {"acme"})
        assert states(rig, [*other, *ids[5:]]) == ["waiting", *["dead"] * 6]
        check_places(rig.client)


def test_the_estimate_of_a_stubs_memory_is_near_the_fact(rig):
    """STUB_BYTES against MEMORY USAGE of its record and its places in two indexes."""
    set_account("acme", url=NOBODY_ANSWERS)
    with limits(rig, maxmemory=100 * MIB, documents=0, max_waiting_per_account="1"):
        ids = send_postbacks("acme", [MT | {"TRACKINGID": str(number)} for number in range(400)])
        rig.tick()
        stub = next(one for one in reversed(ids) if rig.record(one).is_stub)
        sample = rig.client.memory_usage(keys.record(stub), samples=0)
        for index in (keys.DEAD, keys.STUBS_OF + "acme"):
            sample += rig.client.memory_usage(index, samples=0) / rig.client.zcard(index)
        assert 0.75 * sample < STUB_BYTES < 1.25 * sample


def test_the_script_and_the_shares_have_the_same_unit():
    """Bytes of a record that count as one postback."""
    (unit_bytes,) = re.findall(r"local UNIT_BYTES = (\d+)", assemble("accept").text)
    assert int(unit_bytes) == shares.UNIT_BYTES
