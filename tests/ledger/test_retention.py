"""Remains of a name in the broker when nothing more comes of it: none, after a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from events import MO
from helpers import claim, set_account

from postbacks import keys, send_postbacks
from postbacks.accounts import Account
from postbacks.queue.tick import IDLE_MS, Tick


@pytest.mark.parametrize("way", ["postponed", "left with its process"])
def test_the_pace_of_a_lane_ends_though_its_last_postback_was_never_sent(rig, way):
    """Claimed, given up by its loop, cancelled: no note says that the lane is idle."""
    set_account("acme", url="http://127.0.0.1/")
    (postback_id,) = send_postbacks("acme", [MO])
    rig.tick()
    _, begun, *_ = claim(rig, "loop")
    assert [row[0].decode() for row in begun] == [postback_id]
    assert rig.client.ttl(f"{keys.LANE_STATE}acme/mo") == -1, "what counts claims stays while there are any"
    if way == "postponed":
        rig.scripts.postpone("loop", 30_000, "account_unusable", [postback_id])
    else:
        rig.advance(31)
        rig.tick()
    assert rig.scripts.cancel(postback_id, 60) == "cancelled"
    assert 0 < rig.client.ttl(f"{keys.LANE_STATE}acme/mo") <= 86_400


def test_what_the_broker_keeps_of_an_account_goes_when_an_applications_store_has_dropped_it(rig):
    """Nothing of it waits and no event of it comes, so nobody asks for it but the tick."""
    account = Account(name="acme", url="http://127.0.0.1/", rate="5/s")
    kept = {"acme": account}
    store = SimpleNamespace(get_many=lambda names: {name: kept[name] for name in names if name in kept})
    (postback_id,) = send_postbacks("acme", [MO])
    Tick(rig.scripts, store, rig.settings).run()
    rig.scripts.cancel(postback_id, 60)
    rows = (keys.ROUTES, keys.PACING)
    assert all(rig.client.hexists(row, "acme") for row in rows)
    rig.advance(IDLE_MS / 1000 + 2)
    Tick(rig.scripts, store, rig.settings).run()
    assert all(rig.client.hexists(row, "acme") for row in rows), "the store has it"
    kept.clear()
    Tick(rig.scripts, store, rig.settings).run()
    rig.advance(rig.settings.account_removed_keep_s + 1)
    Tick(rig.scripts, store, rig.settings).run()
    assert not any(rig.client.hexists(row, "acme") for row in rows)
    assert rig.client.zscore(keys.GONE, "acme") is None
