"""Numbers of postbacks (`Postback-Sequence`): they rise in an account, whatever becomes of the broker's data."""

from __future__ import annotations

import shutil

from events import MO
from helpers import Rig, environment, set_account

from postbacks import keys, send_postbacks
from postbacks.queue.tick import IDLE_MS
from postbacks.version import SILENT


def accept(rig: Rig, count: int, account: str = "acme") -> list[tuple[int, int]]:
    """Number and time of acceptance (ms) of so many new postbacks, in the order in which they were sent."""
    ids = send_postbacks(account, [MO] * count)
    rig.tick()
    return [
        (int(number), int(created_ms))
        for number, created_ms in (
            rig.client.hmget(keys.record(id_), "sequence", "created_ms") for id_ in ids
        )
    ]


def test_a_restored_backup_gives_no_number_again(own_broker):
    """Postbacks accepted after the backup are lost, and what comes then is newer than all that was ever accepted."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url):
        rig = Rig(own_broker)
        set_account("acme", url="http://127.0.0.1/")
        numbered = accept(rig, 20)
        data, backup = own_broker.data_dir / "appendonlydir", own_broker.data_dir / "backup"
        shutil.copytree(data, backup)
        numbered += accept(rig, 20)
        own_broker.kill()
        shutil.rmtree(data)
        backup.rename(data)
        own_broker.restart()
        restored = Rig(own_broker)
        assert int(restored.client.hget(keys.SEQUENCE, "acme")) < numbered[-1][0]
        numbered += accept(restored, 20)
        rig.close()
        restored.close()
    numbers = [number for number, _ in numbered]
    assert numbers == sorted(set(numbers))


def test_a_number_is_the_time_of_acceptance_or_the_next_one_where_that_is_taken(rig):
    """Several of one ms are told apart; a clock that is put back takes no number back; accounts do not share theirs."""
    set_account("acme", url="http://127.0.0.1/")
    together = accept(rig, 5)
    first = together[0][1]
    assert together == [(first + place, first) for place in range(5)]
    rig.advance(-3600)
    assert [number for number, _ in accept(rig, 2)] == [first + 5, first + 6]
    ((other, created_ms),) = accept(rig, 1, "globex")
    assert other == created_ms < first


def test_the_number_of_an_account_that_was_idle_for_a_day_is_forgotten_and_the_next_one_is_above_it(rig):
    """Also where the clock was put back for an hour meanwhile."""
    set_account("acme", url="http://127.0.0.1/")
    ((before, _),) = accept(rig, 1)
    rig.advance(IDLE_MS / 1000 - 60)
    rig.tick()
    assert rig.client.hexists(keys.SEQUENCE, "acme")
    rig.advance(120)
    rig.tick()
    assert not rig.client.hexists(keys.SEQUENCE, "acme")
    rig.advance(-3600)
    ((after, created_ms),) = accept(rig, 1)
    assert after == created_ms > before


def test_numbers_of_idle_accounts_are_forgotten_a_bounded_part_a_tick(rig):
    """Names that came once do not stay, those that are in use do; a call looks at some hundreds."""
    accept(rig, 1, "in-use")
    rig.client.hset(keys.SEQUENCE, mapping={f"name{number}": 1204 for number in range(3_000)})
    dropped = [rig.scripts.forget(IDLE_MS)[0] for _ in range(20)]
    assert max(dropped) <= 520
    assert rig.client.hlen(keys.SEQUENCE) == 1
    assert rig.client.hexists(keys.SEQUENCE, "in-use")


def test_nothing_is_forgotten_while_ticks_of_the_version_before_count_on_from_it(rig):
    """Such a tick knows the entry alone: without it it would begin at 1 again."""
    accept(rig, 1)
    rig.client.hset(keys.SEQUENCE, "globex", 1204)
    rig.client.set(
        keys.LAST_TICK, int(rig.client.get(keys.LAST_TICK)) + 1
    )  # of a tick that does not say its version
    rig.tick()
    assert rig.client.hexists(keys.TICKS, SILENT)
    assert rig.client.hget(keys.SEQUENCE, "globex") == b"1204"
    rig.advance(IDLE_MS / 1000 + 1)
    rig.tick()
    assert not rig.client.hexists(keys.SEQUENCE, "globex")
