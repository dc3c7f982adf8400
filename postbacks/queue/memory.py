"""Shares of the broker's memory: what the ledger, and one account's part of it, may take."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.broker import broker_errors

if TYPE_CHECKING:
    import redis

    from postbacks.settings import Settings

#: Seconds for which the broker's memory is taken to be the same: to ask costs it more than a tick does.
MEMORY_EVERY_S: Final = 10
#: Bytes of a record that count as one postback against an account's limit; ``accept.lua`` has the same number.
UNIT_BYTES: Final = 2048
#: Share of the ledger's memory that dead postbacks of unknown accounts and without a URL may take.
UNROUTED_SHARE: Final = 0.05
#: Share of what an account's dead may take up to which what comes beyond its limit keeps its document. The rest is for
#: stubs, and for postbacks that are given up meanwhile.
DOCUMENTS_SHARE: Final = 0.8
#: Bytes that an account's dead may take at least, however little memory the broker has: 10,000 of them, each with six
#: attempts and the begin of each answer.
DEAD_BYTES_MIN: Final = 10_000 * 4096
#: Bytes of a broker that does not say how much it may take: no limit.
_UNLIMITED: Final = 1 << 53  # Lua's numbers are exact up to here


class Shares(NamedTuple):
    """What may be taken of the broker's memory.

    Attributes:
        ledger_bytes: all records, before delivered ones are dropped early.
        unrouted_bytes: the dead of accounts that are not known, and those without a URL.
        dead_bytes: the dead of one account.
        documents_bytes: the dead of one account, before what comes beyond its limit is kept as a stub.
        units: what each group of an account may have open, in units of ``UNIT_BYTES``.
    """

    ledger_bytes: int
    unrouted_bytes: int
    dead_bytes: int
    documents_bytes: int
    units: int


def shares(client: redis.Redis, settings: Settings) -> Shares:
    """Work out the shares for a broker. Raises BrokerError."""
    memory_bytes = _memory_bytes(client, int(time.monotonic() // MEMORY_EVERY_S)) or _UNLIMITED
    ledger_bytes = int(memory_bytes * settings.ledger_memory_share)
    dead_bytes = max(DEAD_BYTES_MIN, int(ledger_bytes * settings.account_dead_share))
    return Shares(
        ledger_bytes,
        int(ledger_bytes * UNROUTED_SHARE),
        dead_bytes,
        int(dead_bytes * DOCUMENTS_SHARE),
        max(1, min(settings.max_waiting_per_account, int(memory_bytes * settings.account_open_share / UNIT_BYTES))),
    )  # fmt: skip


@lru_cache(maxsize=8)
def _memory_bytes(client: redis.Redis, _period: int) -> int:
    """Read what the broker may take, or has; 0 where it does not say. The answer is the same for a period."""
    with broker_errors():
        memory = client.info("memory")
    return int(memory.get("maxmemory") or 0) or int(memory.get("total_system_memory") or 0)
