"""A broker at its limit: what was accepted goes on, what has ended makes room, and `.delay()` works again by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from helpers import Rig, environment, set_account

from postbacks import keys, send_postbacks
from postbacks.local import EmbeddedBroker
from postbacks.receiver import Receiver

EVENT = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}


@pytest.fixture
def own_rig(own_broker: EmbeddedBroker) -> Iterator[Rig]:
    """A rig on a broker of its own, whose limit the test may set."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url):
        rig = Rig(own_broker)
        yield rig
        rig.close()


def fill(client: redis.Redis) -> None:
    """Set the limit below what is used: from here on the broker is full."""
    client.config_set("maxmemory", 1)
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
    assert own_rig.scripts.retain(10**12, 10**12, 0, 100, 10**12, 0) == 3
    assert own_rig.client.zcard(keys.DONE) == 0
    assert own_rig.client.get(keys.LEDGER_BYTES) == b"0"
