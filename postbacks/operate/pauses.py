"""Pauses of accounts: let an account stand still, and go on. Its postbacks wait in order meanwhile, and none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.accounts import find_account, find_accounts, store
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import PostbacksError, UnknownAccount
from postbacks.ledger.record import iso
from postbacks.names import check_name
from postbacks.operate import journal
from postbacks.operate.identity import current_user
from postbacks.operate.older import refuse_older
from postbacks.privacy import mask_why
from postbacks.queue import pauses, routes
from postbacks.queue.pauses import Pause, PausedBacklog, nearly_full
from postbacks.queue.scripts import Scripts
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

__all__ = ["Pause", "PausedBacklog", "nearly_full", "pause", "paused", "resume"]

#: Characters of a reason.
REASON_MAX = 500


def pause(account: str, *, until_ms: int | None = None, reason: str = "", by: str | None = None) -> Pause:
    """Let an account stand still: no POST of it begins, and what is open is finished. Again: change end and reason.

    Args:
        account: the account's name.
        until_ms: when the pause ends by itself, by the broker's clock; None for when somebody ends it.
        reason: why, for whoever sees it; persons in it are masked.
        by: who does it; None for the user.

    Raises:
        UnknownAccount: the store does not have the account.
        AccountsUnavailable: the store failed.
        InvalidAccount: a worker of an older version would send all the same.
        PostbacksError: the end has passed, or the reason is too long.
        BrokerError: the broker cannot be used.
    """
    if len(reason) > REASON_MAX:
        raise PostbacksError(f"The reason has {len(reason):,} characters; {REASON_MAX} are the most.")
    broker = client()
    reason = mask_why(reason, broker)
    refuse_older("does not know pauses: it would send what waits all the same")
    name = check_name(account)
    _check_known(name)
    with broker_errors():
        present_ms = now_ms(broker)
    if until_ms is not None and until_ms <= present_ms:
        raise PostbacksError(
            f"The pause would end at {iso(until_ms)}, which has passed: by the broker's clock it is {iso(present_ms)}."
        )
    user = by or current_user()
    since_ms = Scripts(broker).pause(name, until_ms, pauses.details(reason, user))
    if since_ms is None:
        raise PostbacksError(
            f"Account {name} was removed meanwhile, or the end of its pause has passed; try again."
        )
    journal.write("account.pause", name, why=reason, details={"until": iso(until_ms)}, by=user, broker=broker)
    return pauses.read(broker, [name]).get(name) or Pause(name, since_ms, until_ms, reason, user)


def resume(account: str, *, why: str = "", by: str | None = None) -> Pause | None:
    """Let an account go on that is paused: what waits is sent in its order.

    Args:
        account: the account's name.
        why: for the journal.
        by: who does it; None for the user.

    Returns:
        The pause that has ended; None where the account was not paused.

    Raises:
        UnknownAccount: it is not paused, and the store does not have it.
        AccountsUnavailable: the store failed.
        BrokerError: the broker cannot be used.
    """
    broker = client()
    name = check_name(account)
    ended = pauses.read(broker, [name]).get(name)
    if not Scripts(broker).resume(name) or ended is None:
        if find_account(name) is None:
            raise _unknown(name)
        return None
    journal.write("account.resume", name, why=why, details={"waiting": ended.waiting}, by=by, broker=broker)
    return ended


def paused(broker: redis.Redis | None = None, *, names: Sequence[str] | None = None) -> dict[str, Pause]:
    """Read the pauses in force by the names of their accounts, and what waits meanwhile.

    Args:
        broker: client of the broker; None for that of the settings.
        names: of these accounts alone; None for all.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    return pauses.read(client() if broker is None else broker, names)


def _check_known(name: str) -> None:
    """Check that the store has an account, and write where its postbacks go: a pause stands in that row."""
    accounts, scripts = store(), Scripts(client())
    known = find_accounts(accounts, [name])
    if name not in known:
        raise _unknown(name)
    keep_ms = int(load().account_removed_keep_s * 1000)
    routes.publish(scripts, [name], known, keep_ms=keep_ms, store=accounts)


def _unknown(name: str) -> UnknownAccount:
    kept_by = load().accounts
    where = (
        f"{kept_by} (POSTBACKS_ACCOUNTS) does not have it" if kept_by else "postbacks account list shows all"
    )
    return UnknownAccount(f"There is no account {name!r}; {where}.")
