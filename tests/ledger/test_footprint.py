"""Compare what records are counted with and what they take, on brokers with our settings and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers import Rig, environment, set_account

from postbacks import keys, send_postbacks
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.ledger import footprint
from postbacks.ledger.footprint import HASH_TABLE_OVERHEAD_BYTES, OVERHEAD_BYTES

MT = {"ORIGIN": "SMS_MT", "CODE": "N202", "STATUS": "Message Sent/Delivered", "FROM": "86717",
      "TO": "15552312102", "TRACKINGID": "MT_0123456789", "SPID": "0007",
      "TIMESTAMP": "2013-11-05T05:41:08-05:00"}  # fmt: skip
COUNT = 300
#: What a broker has where nobody has set anything.
DEFAULTS = {"hash-max-listpack-value": "64", "hash-max-listpack-entries": "512"}


@contextmanager
def rig_on(**config: str) -> Iterator[Rig]:
    """A rig on a broker of its own, with these settings."""
    with EmbeddedBroker(config=config) as broker, environment(POSTBACKS_BROKER_URL=broker.url):
        rig = Rig(broker)
        try:
            yield rig
        finally:
            rig.close()


def overhead(rig: Rig) -> int:
    """Ask the broker anew, as a tick of ten seconds later does."""
    footprint._of_period.cache_clear()
    return footprint.overhead_of_records(rig.client)


@pytest.mark.parametrize(
    ("config", "expected"), [({}, OVERHEAD_BYTES), (DEFAULTS, HASH_TABLE_OVERHEAD_BYTES)]
)
def test_the_estimate_of_a_records_memory_is_near_the_fact_in_either_layout(config, expected):
    """Estimates against MEMORY USAGE of delivered records and their place in the index: within a quarter."""
    with rig_on(**config) as rig, Receiver(keep=False) as receiver:
        set_account("acme", url=receiver.url())
        assert overhead(rig) == HASH_TABLE_OVERHEAD_BYTES, (
            "nothing says which layout it is, so the larger counts"
        )
        for _ in range(2):
            ids = send_postbacks("acme", [MT] * COUNT)
            rig.tick()
            rig.deliver()
            assert overhead(rig) == expected
        fact = sum(rig.client.memory_usage(keys.record(one), samples=0) for one in ids) / COUNT
        fact += rig.client.memory_usage(keys.DONE, samples=0) / rig.client.zcard(keys.DONE)
        estimate = int(rig.client.hget(keys.record(ids[-1]), "bytes"))
        assert 0.75 * fact < estimate < 1.25 * fact


def test_what_is_parked_says_which_layout_records_have_and_a_stub_does_not():
    """A stub has no long value: it is a listpack on every broker."""
    with rig_on(**DEFAULTS) as rig, Receiver(lambda _: Answer(500)) as receiver:
        rig.client.hset(keys.record("stub"), mapping={"state": "dead", "stub": 1})
        rig.client.zadd(keys.DEAD, {"stub": 1})
        assert overhead(rig) == HASH_TABLE_OVERHEAD_BYTES
        rig.client.config_set("hash-max-listpack-value", 4096)
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [MT])
        rig.tick()
        rig.deliver()
        assert rig.client.zcard(keys.PARKED) == 1
        assert overhead(rig) == OVERHEAD_BYTES
