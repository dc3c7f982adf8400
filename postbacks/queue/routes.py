"""Routes of accounts, written where the scripts read them: one row an account says where its postbacks go.

A row is lines of text: since when it stands (ms, by the broker's clock), its state, the account's version, the origins
that are switched off, and URL and endpoint of the general group, of MO and of passes. The first line also says of a pause
``paused`` and when it ends (``-``: when somebody ends it), or ``resumed`` and when it ended (``pauses.py``). States:

==============  =====================================================================================
``on``          its postbacks are sent
``gone``        the store does not have the account any more
``unreadable``  its stored row cannot be read
``unusable``    it cannot be sent for: a secret cannot be opened, or all have expired
==============  =====================================================================================

In every state but ``on`` the account stands still: its lanes are delayed, and looked at every 30 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.accounts import find_accounts
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.queue import pacing
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postbacks.accounts import Account, AccountStore
    from postbacks.queue.scripts import Scripts

#: Looks at the store at most, to write one row: there are stores that never say the same twice.
LOOKS_MAX: Final = 3

ON: Final = "on"
GONE: Final = "gone"
UNREADABLE: Final = "unreadable"
UNUSABLE: Final = "unusable"


#: Words for each state in which an account stands still, after "it".
STILL_WORDS: Final = {
    GONE: "was removed",
    UNREADABLE: "cannot be read until it is set anew",
    UNUSABLE: "cannot be used (the workers' logs say why)",
}


def since_and_state(row: bytes | None) -> tuple[int, str]:
    """Read since when a row stands (ms) and its state; 0 and ``on`` where there is none."""
    if row is None:
        return 0, ON
    first, state, *_ = text(row).split("\n", 2)
    return int(first.partition(" ")[0]), state


def endpoint_in(row: bytes | None, group: str) -> str:
    """Read where the postbacks of a group go by their account's row; empty where that is nowhere, or not known."""
    if row is None:
        return ""
    _, _, _, _, _, general, _, mo, _, in_pass, *_ = text(row).split("\n")
    return {"mo": mo, "pass": in_pass}.get(group) or general


def row_of(account: Account | None, state: str = ON) -> str:
    """Return an account's row without its first line.

    Args:
        account: the account; None for one that the store does not have.
        state: of one that can be read.
    """
    if account is None:
        return f"{GONE}\n\n" + 7 * "\n"
    if account.unreadable:
        return f"{UNREADABLE}\n\n" + 7 * "\n"
    urls = (account.url, account.mo_url, account.pass_url)
    targets = [part for url in urls for part in ((url, endpoint_of(url)) if url else ("", ""))]
    off = f",{','.join(sorted(account.off))}," if account.off else ""
    return "\n".join((state, account.version, off, *targets, ""))


def publish(
    scripts: Scripts,
    names: Iterable[str],
    accounts: Mapping[str, Account],
    *,
    keep_ms: int,
    usable: Mapping[str, bool] | None = None,
    store: AccountStore | None = None,
) -> None:
    """Write the pacing and the rows of accounts that were just looked up, where they have changed.

    An account that the store does not have gets a row only where it had one, so that wrong names leave nothing behind;
    ``stop`` gives it one.

    Args:
        scripts: the scripts of the broker.
        names: the accounts that were looked up.
        accounts: those that the store has.
        keep_ms: time for which what waits for an account that is gone is kept.
        usable: of those whose secrets were tried, whether they opened; an account that is not in it stays as it is.
        store: where they were looked up. What was written is compared with it once more: an account may have changed, and
            its new row been written, between the look-up and this.

    Raises:
        BrokerError: the broker cannot be used.
        AccountsUnavailable: the store failed, in the second look.
    """
    looked_up = list(names)
    if not looked_up:
        return
    pacing.refresh(scripts, looked_up, accounts)
    with broker_errors():
        stored: list[bytes | None] = scripts.client.hmget(keys.ROUTES, looked_up)  # type: ignore[assignment]
    changed: dict[str, str] = {}
    for name, reply in zip(looked_up, stored, strict=True):
        account = accounts.get(name)
        if account is None and reply is None:
            continue
        before = text(reply or b"").partition("\n")[2]
        state = ON if usable is None or usable.get(name, True) else UNUSABLE
        row = row_of(account, state)
        if row == before:
            continue
        if usable is None and before == row_of(account, UNUSABLE):
            continue  # nobody has tried its secrets again
        changed[name] = row
    for _ in range(LOOKS_MAX):
        if not changed:
            return
        scripts.set_routes(keep_ms, changed)
        if store is None:
            return
        latest = find_accounts(store, changed)
        # Of an unusable account the row says so; who has read this version has tried its secrets.
        changed = {
            name: row_of(latest.get(name))
            for name, row in changed.items()
            if row not in {row_of(latest.get(name)), row_of(latest.get(name), UNUSABLE)}
        }


def stop(scripts: Scripts, names: Iterable[str], *, keep_ms: int) -> None:
    """Let accounts stand still that the store does not have, though postbacks of theirs wait.

    Raises:
        BrokerError: the broker cannot be used.
    """
    scripts.set_routes(keep_ms, dict.fromkeys(names, row_of(None)))
