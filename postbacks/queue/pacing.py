"""Pacing of accounts: weight, rate and open POSTs of their own, written where the scripts read them (``_pacing.lua``).

An account's settings live in its store, which may be an application's own. Whoever looks an account up, the tick
that takes its events in and the loop that sends them, compares and writes what has changed; ``postbacks account``
does so at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postbacks.accounts import Account
    from postbacks.queue.scripts import Scripts

_PACKED: Final = re.compile(r"\S+ (\d+) (\d+)")


class Pacing(NamedTuple):
    """Rate and limit of an account as ``_pacing.lua`` reads them; 0 for none."""

    interval_us: int = 0
    max_transfers: int = 0

    @classmethod
    def parse(cls, packed: bytes | None) -> Self:
        """Read an entry of ``postbacks:pacing`` as ``packed_pacing`` writes it."""
        match = _PACKED.match(text(packed or b""))
        return cls(int(match[1]), int(match[2])) if match else cls()


def packed_pacing(account: Account | None) -> str:
    """Pack an account's weight, us between two POSTs and POSTs open at most; empty where it has nothing of its own."""
    if account is None or (account.weight, account.rate, account.max_transfers) == (1, None, None):
        return ""
    return f"{account.weight:g} {account.rate_interval_us} {account.max_transfers or 0}"


def refresh(scripts: Scripts, names: Iterable[str], accounts: Mapping[str, Account]) -> None:
    """Write the pacing of accounts that were just looked up, where it has changed.

    Args:
        scripts: the scripts of the broker.
        names: the accounts that were looked up.
        accounts: those that exist.

    Raises:
        BrokerError: the broker cannot be used.
    """
    # One whose row cannot be read keeps what it had: nothing is sent for it anyway.
    readable = [name for name in names if not (name in accounts and accounts[name].unreadable)]
    if not readable:
        return
    with broker_errors():
        stored: list[bytes | None] = scripts.client.hmget(keys.PACING, readable)  # type: ignore[assignment]
    pacing = {name: packed_pacing(accounts.get(name)) for name in readable}
    changed = {
        name: pacing[name]
        for name, before in zip(readable, stored, strict=True)
        if text(before or b"") != pacing[name]
    }
    if changed:
        scripts.set_pacing(changed)
