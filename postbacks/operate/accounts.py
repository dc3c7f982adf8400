"""Changes of accounts, each refused where it would do harm, stored, and in force at once for what waits as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from postbacks.accounts import redis_accounts
from postbacks.accounts.difference import difference
from postbacks.accounts.edit import apply, check_change
from postbacks.accounts.secrets import check_secret, encrypt, new_secret
from postbacks.accounts.url_policy import check_urls, worker_policies
from postbacks.broker.client import client
from postbacks.broker.fitness import check
from postbacks.errors import BadSetting, InvalidAccount, PostbacksError, UnknownAccount
from postbacks.names import check_name
from postbacks.operate import journal
from postbacks.operate.links import withdraw_links
from postbacks.operate.older import refuse_move_beside_older, refuse_older, refuse_removal_beside_older
from postbacks.queue import routes
from postbacks.queue.scripts import Scripts
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postbacks.accounts import Account
    from postbacks.accounts.edit import AccountChange
    from postbacks.settings import Settings


class SavedAccount(NamedTuple):
    """An account before and after a change.

    Attributes:
        before: the account as it was; None where the change has made it.
        after: the account as it is stored now.
        warnings: sentences about the broker, and about URLs that only some of the workers send to.
    """

    before: Account | None
    after: Account
    warnings: list[str]


class Resealed(NamedTuple):
    """Counts of what was encrypted anew, and names of the accounts that could not be read."""

    secrets: int
    client_keys: int
    authorizations: int
    unreadable: list[str]


def set_account(
    change: AccountChange, *, is_new: bool = False, by: str | None = None, why: str = ""
) -> SavedAccount:
    """Change or make an account.

    Args:
        change: what is to be another.
        is_new: refuse where there is one of that name.
        by: who does it, for the journal; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        InvalidAccount: the change cannot be, no worker would send to one of its URLs, a worker of an older version
            would do harm with it, or there is an account that should not be.
        BadSetting: there is no key to encrypt a secret with.
        BrokerError: the broker cannot be used.
    """
    broker_warnings = _check(change)
    policies = worker_policies()
    before: Account | None = None
    url_warnings: list[str] = []

    def edit(stored: Account | None, _now_ms: int) -> Account:
        nonlocal before, url_warnings
        before = stored
        if is_new and stored is not None:
            raise InvalidAccount(f"There is an account {stored.name} already: change that one.")
        after, url_warnings = _changed(stored, change, policies)
        return after

    after = redis_accounts().change(check_name(change.account), edit)
    publish(after.name, after)
    changed = {name: list(values) for name, values in difference(before, after).items()}
    made = {"new": True} if before is None else {"unreadable before": True} if before.unreadable else {}
    journal.write("account.set", after.name, why=why, details={**made, "changed": changed}, by=by)
    return SavedAccount(before, after, [*broker_warnings, *url_warnings])


def preview(change: AccountChange, stored: Account | None) -> SavedAccount:
    """Return what ``set_account`` would make of a stored account, and store nothing.

    Raises:
        InvalidAccount, BadSetting, BrokerError: as ``set_account``.
    """
    broker_warnings = _check(change)
    if stored is not None:
        stored.check_known()
    after, url_warnings = _changed(stored, change, worker_policies())
    return SavedAccount(stored, after, [*broker_warnings, *url_warnings])


def _check(change: AccountChange) -> list[str]:
    """Check a change by itself, and against the workers; return warnings about the broker."""
    check_change(change)
    if change.authorization:
        refuse_older("would send without the header Authorization")
    if change.client_key is not None:
        refuse_older("would not open the client key: the account's postbacks would wait")
    return check()


def _changed(
    stored: Account | None, change: AccountChange, policies: Sequence[Settings]
) -> tuple[Account, list[str]]:
    """Return the account that a change makes of another, and warnings about its URLs."""
    after = apply(stored, change)
    if stored is not None and not stored.unreadable:
        refuse_move_beside_older(stored, after)
    return after, check_urls(after.urls(), policies)


def rotate_secret(
    name: str, overlap_s: float, *, secret: str = "", by: str | None = None, why: str = ""
) -> tuple[Account, str]:
    """Give an account a new signing secret; return the account, and the secret in clear text.

    Args:
        name: the account's name.
        overlap_s: seconds for which the secrets before it go on signing.
        secret: the secret; empty for a new one.
        by: who does it, for the journal; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        UnknownAccount: there is no such account.
        InvalidAccount: it cannot be read, too many secrets would sign, or an older worker would not open the secret.
        BadSetting: there is no key to encrypt the secret with.
        BrokerError: the broker cannot be used.
    """
    secret = check_secret(secret) if secret else new_secret()
    sealed = encrypt(secret, name, "secret")
    refuse_older("would not open the secret: the account's postbacks would wait")

    def edit(stored: Account | None, now_ms: int) -> Account:
        account = _known(name, stored)
        account.check_readable()
        return account.rotated(sealed, now_ms, int(overlap_s * 1000))

    account = _change(name, edit)
    journal.write("secret.rotate", name, why=why, details={"overlap_s": overlap_s}, by=by)
    return account, secret


def remove_secrets(name: str, *, by: str | None = None, why: str = "") -> Account:
    """Take an account's signing secrets away: its postbacks are not signed any more.

    Args:
        name: the account's name.
        by: who does it, for the journal; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        UnknownAccount: there is no such account.
        PostbacksError: it has none.
        BrokerError: the broker cannot be used.
    """

    def edit(stored: Account | None, _now_ms: int) -> Account:
        account = _known(name, stored)
        if not account.secrets:
            raise PostbacksError(f"Account {account.name} has no secret.")
        return account.model_copy(update={"secrets": ()})

    account = _change(name, edit)
    journal.write("secret.remove", name, why=why, by=by)
    return account


def reseal_secrets(*, by: str | None = None, why: str = "") -> Resealed:
    """Encrypt the secrets of all accounts anew, with the first key, each for its account and field alone.

    Args:
        by: who does it, for the journal; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        InvalidAccount: a worker of an older version would not open them.
        BadSetting: a key is missing; names the account.
        BrokerError: the broker cannot be used.
    """
    refuse_older("would not open what is sealed anew: all that it sends for these accounts would wait")
    accounts = redis_accounts()
    unreadable: list[str] = []
    resealed: list[Account] = []
    for account in accounts.all():
        if account.unreadable:
            unreadable.append(account.name)
            continue
        if not account.secrets and account.client_key is None and account.authorization is None:
            continue
        try:
            resealed.append(accounts.change(account.name, _reseal))
        except BadSetting as error:
            raise BadSetting(f"Account {account.name}: {error}") from None
        except UnknownAccount:  # removed since it was listed
            continue
    counts = Resealed(
        sum(len(account.secrets) for account in resealed),
        sum(account.client_key is not None for account in resealed),
        sum(account.authorization is not None for account in resealed),
        unreadable,
    )
    journal.write("secret.reseal", why=why, details={"accounts": len(resealed)}, by=by)
    return counts


def check_removal(name: str) -> None:
    """Check that an account can be removed.

    Raises:
        UnknownAccount: there is no such account.
        InvalidAccount: a worker of an older version would send on without its credentials.
        BrokerError: the broker cannot be used.
    """
    account = redis_accounts().get(name)
    if account is None:
        raise _unknown(name)
    refuse_removal_beside_older(account)


def remove_account(name: str, *, by: str | None = None, why: str = "") -> None:
    """Remove an account; what waits for it stands still, and its customers' links end.

    Args:
        name: the account's name.
        by: who does it, for the journal; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        UnknownAccount: there is no such account.
        InvalidAccount: a worker of an older version would send on without its credentials.
        BrokerError: the broker cannot be used.
    """
    accounts = redis_accounts()
    account = accounts.get(name)
    if account is not None:
        refuse_removal_beside_older(account)
    if not accounts.remove(name):  # asked in any case: a broker that cannot be written to says so
        raise _unknown(name)
    publish(name, None)
    changed = {field: list(values) for field, values in difference(account, None).items()}
    journal.write("account.remove", name, why=why, details={"changed": changed}, by=by)
    withdraw_links(name, by=by, why="the account was removed")


def publish(name: str, account: Account | None) -> None:
    """Let an account's change be in force at once: its pacing, and where its postbacks go.

    Args:
        name: the account's name.
        account: the account as it is stored; None for one that was removed.

    Raises:
        BrokerError: the broker cannot be used.
    """
    scripts, keep_ms = Scripts(client()), int(load().account_removed_keep_s * 1000)
    routes.publish(scripts, [name], {} if account is None else {name: account}, keep_ms=keep_ms)
    if account is None:
        # Its row may be missing: what version 0.1.0 has accepted waits without one.
        routes.stop(scripts, [name], keep_ms=keep_ms)


def _change(name: str, edit: Callable[[Account | None, int], Account]) -> Account:
    account = redis_accounts().change(name, edit)
    publish(account.name, account)
    return account


def _reseal(stored: Account | None, _now_ms: int) -> Account:
    return _known("", stored).resealed()


def _known(name: str, stored: Account | None) -> Account:
    if stored is None:
        raise _unknown(name)
    return stored


def _unknown(name: str) -> UnknownAccount:
    return UnknownAccount(f"There is no account {name!r}; postbacks account list shows all.")
