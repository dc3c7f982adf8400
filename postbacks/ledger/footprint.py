"""Footprint of a record: the bytes that it takes in the broker, by the layout that the broker gives it.

With the settings of ``broker/fitness.py`` the broker keeps a record as a listpack, else as a hash table, which takes more
than twice as much beside its texts. Limits of accounts and the ledger's share of the memory go by these estimates, and
an estimate that is too small would let them overfill it. So the broker's records are asked which they are.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.broker.memory import ASK_EVERY_S

if TYPE_CHECKING:
    import redis

#: Bytes that a record as a listpack and its entry in an index take beside its XML, URL and raw message: of a delivered
#: one 650 on Valkey 9.1 without jemalloc, 730 on Redis 7.0 with it (tests/ledger/test_footprint.py compares).
OVERHEAD_BYTES: Final = 700
#: The same of a record as a hash table: 1,300 and 1,800.
HASH_TABLE_OVERHEAD_BYTES: Final = 1500
#: Bytes that a stub takes, all in all; it is a listpack on every broker.
STUB_BYTES: Final = 600
#: Bytes of a value up to which every broker keeps its hash as a listpack, whatever its settings.
SMALL_VALUE_BYTES: Final = 64


def overhead_of_records(client: redis.Redis) -> int:
    """Return the overhead of the records that the broker makes now, by the latest that is at rest.

    Where there is none yet it is that of a hash table: too large an estimate leaves room, too small a one takes it.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    try:
        return _of_period(client, int(time.monotonic() // ASK_EVERY_S))
    except LookupError:
        return HASH_TABLE_OVERHEAD_BYTES


@lru_cache(maxsize=8)
def _of_period(client: Any, _period: int) -> int:
    """Look at the latest record that is done, parked or dead. LookupError: there is none that tells."""
    with broker_errors():
        for index in (keys.DONE, keys.PARKED, keys.DEAD):
            for postback_id in client.zrange(index, -1, -1):
                # HSCAN gives a listpack whole, however few fields are asked for. OBJECT ENCODING would need a right more.
                cursor, fields = client.hscan(keys.record(text(postback_id)), 0, count=1)
                if cursor:
                    return HASH_TABLE_OVERHEAD_BYTES
                if len(fields.get(b"xml", b"")) > SMALL_VALUE_BYTES:
                    return OVERHEAD_BYTES
    raise LookupError
