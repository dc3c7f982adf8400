"""Health of accounts: their state, and when what waits will have gone."""

from __future__ import annotations

import sys
import time
from types import ModuleType

import pytest
from events import MT
from helpers import remove_account

from postbacks import send_postback
from postbacks.accounts import make_account, redis_accounts
from postbacks.errors import UnknownAccount
from postbacks.history.days import DayByAccount
from postbacks.operate import pause_account
from postbacks.operate.account_health import all_accounts, first_try_rate, named_accounts, read_account
from postbacks.settings import load


def test_states_go_from_the_worst(world):
    world.dead("failing", 1)
    world.dead("paused", 1)
    world.account("well")
    redis_accounts().set(make_account("off"))
    pause_account("paused", by="ann")
    rows = {row.name: row for row in all_accounts()}
    assert {row.name: row for row in named_accounts(list(rows))} == rows
    assert named_accounts([]) == []
    counted = DayByAccount().read(time.time_ns() // 1_000_000)
    states = {"failing": "failing", "off": "off", "paused": "paused", "well": "well"}
    assert {name: row.state for name, row in rows.items()} == states
    assert {name: read_account(name).state for name in states} == states
    assert rows["failing"].since_ms == read_account("failing").failing["mt"]
    assert first_try_rate(counted["failing"]) == 0
    assert "well" not in counted


def test_a_backlog_ends_at_the_present_pace_and_has_no_end_where_nothing_is_delivered(world):
    world.account("acme")
    for number in range(30):
        send_postback.delay("acme", MT | {"TRACKINGID": str(number)})
    world.rig.tick()
    while world.rig.deliver():
        pass
    for number in range(4):
        send_postback.delay("acme", MT | {"TRACKINGID": f"later {number}"})
    world.rig.tick()
    world.record()
    health = read_account("acme")
    assert health.per_s == pytest.approx(30 / 600)
    assert health.ends_ms - health.now_ms == pytest.approx(4 / (30 / 600) * 1000, abs=2)
    assert pause_account("acme").waiting == 4
    assert read_account("acme").ends_ms is None
    world.dead("beta", 1)
    assert read_account("beta").per_s == 0


def test_an_account_that_nobody_knows(world):
    with pytest.raises(UnknownAccount, match="There is no account 'nine'"):
        read_account("nine")
    world.dead("gone", 1)
    remove_account("gone")
    assert read_account("gone").account is None


def test_an_applications_own_store_lists_those_that_had_postbacks(world, monkeypatch):
    world.dead("acme", 1)
    acme = redis_accounts().get("acme")

    class Store:
        def get_many(self, names):
            return {name: acme for name in names if name == "acme"}

    module = ModuleType("accounts_kept_elsewhere")
    module.store = Store()
    monkeypatch.setitem(sys.modules, "accounts_kept_elsewhere", module)
    monkeypatch.setenv("POSTBACKS_ACCOUNTS", "accounts_kept_elsewhere:store")
    load.cache_clear()
    assert [(row.name, row.state) for row in all_accounts()] == [("acme", "failing")]
