"""Shares of the broker's memory: what the ledger, and one account's part of it, may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from postbacks.settings import Settings

#: Bytes of a record that count as one postback against an account's limit; ``_shared.lua`` has the same number.
UNIT_BYTES: Final = 2048
#: Share of the ledger's memory that dead postbacks of unknown accounts and without a URL may take.
UNROUTED_SHARE: Final = 0.05
#: Part of an account's share for its dead up to which what comes beyond its limit keeps its document. The rest is for stubs,
#: and for postbacks that are given up meanwhile.
DOCUMENTS_SHARE: Final = 0.8
#: Bytes that an account's dead may take at least, however little memory the broker has: 10,000 of them, each with six
#: attempts and the begin of each answer.
DEAD_BYTES_MIN: Final = 10_000 * 4096
#: Share of the memory past which done postbacks are dropped before their time, the oldest first.
DONE_GO_PAST: Final = 0.90
#: Share of the memory past which dead ones are dropped as well, if the done ones are not enough.
DEAD_GO_PAST: Final = 0.95
#: Share of the memory that the ledger keeps all the same: where it takes no more, others fill the broker.
LEDGER_KEEPS: Final = 0.1
#: Part of its share that the history's feed keeps all the same, for the same reason.
FEED_KEEPS: Final = 0.1
#: Share of the memory from which on nothing is taken in: a message takes a third more memory as a record that is a hash
#: table.
NOTHING_IN_FROM: Final = 1.1
#: Bytes for a broker that does not say its limit: none.
_UNLIMITED: Final = 1 << 53  # Lua's numbers are exact up to here


class Shares(NamedTuple):
    """Shares of one broker's memory, in bytes and units.

    Attributes:
        ledger_bytes: all records, before delivered ones are dropped early.
        unrouted_bytes: the dead of accounts that are not known, and those without a URL.
        dead_bytes: the dead of one account.
        documents_bytes: the dead of one account, before what comes beyond its limit is kept as a stub.
        units: what each group of an account may have open, in units of ``UNIT_BYTES``.
        feed_bytes: entries of the history's feed.
    """

    ledger_bytes: int
    unrouted_bytes: int
    dead_bytes: int
    documents_bytes: int
    units: int
    feed_bytes: int


def shares_of(memory_bytes: int, settings: Settings) -> Shares:
    """Compute the shares of a broker with this much memory; 0 where it does not say."""
    memory_bytes = memory_bytes or _UNLIMITED
    ledger_bytes = int(memory_bytes * settings.ledger_memory_share)
    dead_bytes = max(DEAD_BYTES_MIN, int(ledger_bytes * settings.account_dead_share))
    return Shares(
        ledger_bytes,
        int(ledger_bytes * UNROUTED_SHARE),
        dead_bytes,
        int(dead_bytes * DOCUMENTS_SHARE),
        max(1, min(settings.max_waiting_per_account, int(memory_bytes * settings.account_open_share / UNIT_BYTES))),
        int(memory_bytes * settings.history_feed_share),
    )  # fmt: skip
