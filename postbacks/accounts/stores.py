"""Account stores: our own in the broker, and an application's on its own database.

An application that keeps its accounts elsewhere implements ``AccountStore`` and names it in ``POSTBACKS_ACCOUNTS``
(``module:attribute``).
"""

from __future__ import annotations

import importlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import ValidationError
from redis.exceptions import WatchError

from postbacks import keys
from postbacks.accounts.account import Account
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import AccountsUnavailable, BadSetting, BrokerError, InvalidAccount, PostbacksError
from postbacks.logs import EventLog
from postbacks.names import check_name
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import redis

log = EventLog(__name__)


@runtime_checkable
class AccountStore(Protocol):
    """Protocol of a store of accounts, for an application's own.

    It is called at every tick, and every few seconds by each worker that delivers, so it should be quick, or cache. It
    may raise anything: then nothing is taken in, what is to be sent is put off for half a minute, and it is called again.

    An account that has not changed must read the same each time, in everything that its POSTs are made with. An account
    whose headers hold the time of day, or whose secrets are encrypted anew at each reading, is another one each time, and
    its postbacks are put back (`account.changing` in the log).

    Two complete ones stand in ``examples/account_stores``; docs/sending.md says what they have to look after.
    """

    def get_many(self, names: Iterable[str]) -> Mapping[str, Account]:
        """Return the accounts of these names; leave out those that do not exist."""
        ...


class RedisAccounts:
    """Our own store: accounts in one hash of the broker's database, a JSON object each."""

    def __init__(self, connection: redis.Redis) -> None:
        self._client = connection

    def get_many(self, names: Iterable[str]) -> dict[str, Account]:
        """Return the accounts of these names; leave out those that do not exist."""
        names = list(names)
        if not names:
            return {}
        with broker_errors():
            rows: list[bytes | None] = self._client.hmget(keys.ACCOUNTS, names)  # type: ignore[assignment]
        return {name: _read(name, row) for name, row in zip(names, rows, strict=True) if row is not None}

    def get(self, name: str) -> Account | None:
        """Return the account of this name, or None."""
        return self.get_many([name]).get(name)

    def set(self, account: Account) -> None:
        """Store an account in place of one of the same name; fields of a newer version stay in its row.

        Raises:
            InvalidAccount: the row needs fields that this version does not know.
        """

        def replace(stored: Account | None, _now_ms: int) -> Account:
            unknown = {} if stored is None else stored.unknown
            return account.model_copy(update={"unknown": {**unknown, **account.unknown}})

        self.change(account.name, replace)

    def change(self, name: str, edit: Callable[[Account | None, int], Account]) -> Account:
        """Store the account that ``edit`` makes of another; a change made elsewhere meanwhile is not lost.

        Args:
            name: the account's name.
            edit: gets the account (None where there is none) and the broker's time in ms; called again if the
                accounts changed between the read and the write. Nothing is stored if it raises.

        Raises:
            InvalidAccount: the row needs fields that this version does not know, and would lose.
        """
        with broker_errors(), self._client.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(keys.ACCOUNTS)  # type: ignore[no-untyped-call]
                    row: Any = pipe.hget(keys.ACCOUNTS, name)
                    broker_now_ms = now_ms(pipe)
                    before = None if row is None else _read(name, row)
                    if before is not None:
                        before.check_known()
                    after = edit(before, broker_now_ms)
                    pipe.multi()
                    pipe.hset(keys.ACCOUNTS, name, after.row())
                    pipe.execute()
                except WatchError:  # each time another writer has succeeded, so the loop ends
                    continue
                return after

    def remove(self, name: str) -> bool:
        """Remove an account; return False if there was none."""
        with broker_errors():
            return bool(self._client.hdel(keys.ACCOUNTS, name))

    def all(self) -> list[Account]:
        """Return every account, sorted by name."""
        with broker_errors():
            rows: dict[bytes, bytes] = self._client.hgetall(keys.ACCOUNTS)  # type: ignore[assignment]
        accounts = [_read(name.decode(), row) for name, row in rows.items()]
        return sorted(accounts, key=lambda account: account.name)


def _read(name: str, row: bytes) -> Account:
    """Read a stored account; mark it unreadable, and log why, where its row is bad or of a newer version.

    A bad row of one account must not stop the postbacks of others, nor keep itself from being set anew.
    """
    try:
        account = _parse(name, row)
    except (ValueError, TypeError, AttributeError, RecursionError, PostbacksError) as error:
        account = Account.model_construct(name=name, unreadable=True, unknown_needs=_unknown_parts(error))
        if not account.unknown_needs:
            log.error("account.unreadable", f"set it anew: {str(error)[:300]}", account=name)  # noqa: TRY400
    if account.unknown_needs:
        needs = ", ".join(account.unknown_needs)[:300]
        log.error("account.unreadable", f"a newer version of postbacks is needed, for {needs}", account=name)
    return account


def _unknown_parts(error: Exception) -> tuple[str, ...]:
    """Return the unknown parts of known fields (``secrets.0.algorithm``), if nothing else is wrong with a row."""
    details = error.errors() if isinstance(error, ValidationError) else []
    if any(detail["type"] != "extra_forbidden" for detail in details):
        return ()
    return tuple(".".join(map(str, detail["loc"])) for detail in details)


@lru_cache(maxsize=10_000)
def _parse(name: str, row: bytes) -> Account:
    """Parse the row of an account. It is read every second, and the same row is the same account."""
    data = json.loads(row)
    if not isinstance(data, dict) or check_name(data.get("name")) != name:
        raise InvalidAccount("the row is not this account's")  # the other account's secrets would open in it
    fields = {field for field, info in Account.model_fields.items() if not info.exclude}
    unknown_needs = tuple(str(field) for field in data.pop("needs", ()) if field not in fields)
    if unknown_needs:
        return Account.model_construct(name=name, unreadable=True, unknown_needs=unknown_needs)
    unknown = {field: data.pop(field) for field in data.keys() - fields}
    return Account(**data, unknown=unknown)


def find_accounts(store: AccountStore, names: Iterable[str]) -> Mapping[str, Account]:
    """Look accounts up in a store, which may be an application's own and raise anything.

    Raises:
        AccountsUnavailable: the store failed; quotes its error.
        BrokerError: our own store cannot reach the broker.
    """
    try:
        return store.get_many(names)
    except PostbacksError:
        raise
    except Exception as error:
        raise AccountsUnavailable(f"The account store failed: {error!r}.") from error


@lru_cache(maxsize=4)
def _named_store(path: str) -> AccountStore:
    module_name, _, attribute = path.partition(":")
    try:
        store = getattr(importlib.import_module(module_name), attribute)
        if isinstance(store, type):
            store = store()
    except Exception as error:  # noqa: BLE001 - an application's module may raise anything (Django's: no settings)
        raise BadSetting(
            f"POSTBACKS_ACCOUNTS={path!r} cannot be loaded ({error}); write module:attribute of an AccountStore."
        ) from None
    if not isinstance(store, AccountStore):
        raise BadSetting(f"POSTBACKS_ACCOUNTS={path!r} has no get_many(names) method.")
    return store


def store() -> AccountStore:
    """Return the account store of this process's settings."""
    path = load().accounts
    return _named_store(path) if path else redis_accounts()


def find_account(name: str) -> Account | None:
    """Look an account up in the store of this process's settings; None where there is none of that name.

    Raises:
        AccountsUnavailable, BrokerError: as ``find_accounts``.
    """
    return find_accounts(store(), [name]).get(name)


def known_account(name: str) -> Account | None:
    """Look an account up for what can be said without it as well; None also where the store cannot be asked."""
    try:
        return find_account(name)
    except (AccountsUnavailable, BrokerError):
        return None


def redis_accounts() -> RedisAccounts:
    """Return our own store, which ``postbacks account`` changes.

    Raises:
        PostbacksError: an application keeps the accounts itself.
    """
    if load().accounts:
        raise PostbacksError(
            f"Accounts are kept by {load().accounts} (POSTBACKS_ACCOUNTS); change them there."
        )
    return RedisAccounts(client())
