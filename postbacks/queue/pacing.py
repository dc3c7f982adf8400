"""What accounts have of their own in turns, rate and open POSTs, written where the scripts read it.

An account's settings live in its store, which may be an application's own. Whoever looks an account up, the tick
that takes its events in and the loop that sends them, compares and writes what has changed; ``postbacks account``
does so at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks import keys
from postbacks.broker.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postbacks.accounts import Account
    from postbacks.queue.scripts import Scripts


def pacing_of(account: Account | None) -> str:
    """An account's weight, us between two POSTs and POSTs open at most; empty where it has nothing of its own."""
    if account is None or (account.weight, account.rate, account.max_transfers) == (1, None, None):
        return ""
    return f"{account.weight:g} {account.rate_interval_us} {account.max_transfers or 0}"


def refresh(scripts: Scripts, names: Iterable[str], found: Mapping[str, Account]) -> None:
    """Write the pacing of accounts that were just looked up, where it is another now.

    Args:
        scripts: the scripts of the broker.
        names: the accounts that were looked up.
        found: those that exist.

    Raises:
        BrokerError: the broker cannot be used.
    """
    # One whose row cannot be read keeps what it had: nothing is sent for it anyway.
    wanted = [name for name in names if not (name in found and found[name].unreadable)]
    if not wanted:
        return
    with broker_errors():
        known: list[bytes | None] = scripts.client.hmget(keys.PACING, wanted)  # type: ignore[assignment]
    now = {name: pacing_of(found.get(name)) for name in wanted}
    changed = {
        name: now[name]
        for name, text in zip(wanted, known, strict=True)
        if (text or b"").decode("utf-8", "replace") != now[name]
    }
    if changed:
        scripts.pace(changed)
