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
from postbacks.accounts.account import Account, check_name
from postbacks.broker.client import broker_errors, client
from postbacks.errors import AccountsUnavailable, BadSetting, InvalidAccount, PostbacksError
from postbacks.logs import EventLog
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import redis

log = EventLog(__name__)


@runtime_checkable
class AccountStore(Protocol):
    """What postbacks asks of a place that keeps accounts.

    Called at every tick and every few seconds by a delivering worker: it should be quick or cache. It may
    raise anything: then nothing is taken in, what is to be sent is put off for half a minute, and it is
    asked again.

    An account that has not changed reads the same each time, in all that its POSTs are made with: one whose headers hold
    the time of day, or whose secrets are sealed anew at each reading, is another account each time, and its postbacks are
    put back (`account.changing` in the log).
    """

    def get_many(self, names: Iterable[str]) -> Mapping[str, Account]:
        """The accounts of these names; those that do not exist are left out."""
        ...


class RedisAccounts:
    """Accounts in the broker's database: one hash, a JSON object each."""

    def __init__(self, connection: redis.Redis) -> None:
        self._client = connection

    def get_many(self, names: Iterable[str]) -> dict[str, Account]:
        """The accounts of these names; those that do not exist are left out."""
        wanted = list(names)
        if not wanted:
            return {}
        with broker_errors():
            found: list[bytes | None] = self._client.hmget(keys.ACCOUNTS, wanted)  # type: ignore[assignment]
        return {name: _read(name, text) for name, text in zip(wanted, found, strict=True) if text is not None}

    def get(self, name: str) -> Account | None:
        """The account of this name, or None."""
        return self.get_many([name]).get(name)

    def set(self, account: Account) -> None:
        """Store an account, replacing one of the same name; what its row has of a newer version stays in it.

        Raises:
            InvalidAccount: the row needs what this version does not know.
        """

        def replace(stored: Account | None, _now_ms: int) -> Account:
            kept = {} if stored is None else stored.unknown
            return account.model_copy(update={"unknown": {**kept, **account.unknown}})

        self.change(account.name, replace)

    def change(self, name: str, edit: Callable[[Account | None, int], Account]) -> Account:
        """Store what ``edit`` makes of an account; a change that another makes meanwhile is not lost.

        Args:
            name: the account's name.
            edit: gets the account (None where there is none) and the broker's time in ms; called again when
                the accounts changed between its read and its write. What it raises leaves all as it was.

        Raises:
            InvalidAccount: the row needs what this version does not know, and would lose.
        """
        with broker_errors(), self._client.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(keys.ACCOUNTS)  # type: ignore[no-untyped-call]
                    text: Any = pipe.hget(keys.ACCOUNTS, name)
                    clock: Any = pipe.time()
                    now_ms = clock[0] * 1000 + clock[1] // 1000
                    before = None if text is None else _read(name, text)
                    if before is not None:
                        before.check_known()
                    after = edit(before, now_ms)
                    pipe.multi()
                    pipe.hset(keys.ACCOUNTS, name, after.row())
                    pipe.execute()
                except WatchError:  # somebody else succeeded, so this ends
                    continue
                return after

    def remove(self, name: str) -> bool:
        """Remove an account; False if there was none."""
        with broker_errors():
            return bool(self._client.hdel(keys.ACCOUNTS, name))

    def all(self) -> list[Account]:
        """Every account, by name."""
        with broker_errors():
            found: dict[bytes, bytes] = self._client.hgetall(keys.ACCOUNTS)  # type: ignore[assignment]
        return sorted((_read(name.decode(), text) for name, text in found.items()), key=lambda a: a.name)


def _read(name: str, text: bytes) -> Account:
    """Read one stored account; what cannot be read, or needs what this version does not know, says so.

    One account's bad row must not stop the others' postbacks, nor keep the row from being set anew.
    """
    try:
        account = _parsed(name, text)
    except (ValueError, TypeError, AttributeError, RecursionError, PostbacksError) as error:
        account = Account.model_construct(name=name, unreadable=True, unknown_needs=_unknown_parts(error))
        if not account.unknown_needs:
            log.error("account.unreadable", f"set it anew: {str(error)[:300]}", account=name)  # noqa: TRY400
    if account.unknown_needs:
        needs = ", ".join(account.unknown_needs)[:300]
        log.error("account.unreadable", f"a newer version of postbacks is needed, for {needs}", account=name)
    return account


def _unknown_parts(error: Exception) -> tuple[str, ...]:
    """Return the parts of known fields that are not known (``secrets.0.algorithm``), where nothing else is wrong."""
    faults = error.errors() if isinstance(error, ValidationError) else []
    if any(fault["type"] != "extra_forbidden" for fault in faults):
        return ()
    return tuple(".".join(map(str, fault["loc"])) for fault in faults)


@lru_cache(maxsize=10_000)
def _parsed(name: str, text: bytes) -> Account:
    """Parse the row of an account; the same row, which is read every second, is the same account."""
    data = json.loads(text)
    if not isinstance(data, dict) or check_name(data.get("name")) != name:
        raise InvalidAccount("the row is not this account's")  # another's seals would open in it
    known = {field for field, info in Account.model_fields.items() if not info.exclude}
    unknown_needs = tuple(str(field) for field in data.pop("needs", ()) if field not in known)
    if unknown_needs:
        return Account.model_construct(name=name, unreadable=True, unknown_needs=unknown_needs)
    unknown = {field: data.pop(field) for field in data.keys() - known}
    return Account(**data, unknown=unknown)


def find_accounts(store: AccountStore, names: Iterable[str]) -> Mapping[str, Account]:
    """Ask a store, which may be an application's own and raise anything.

    Raises:
        AccountsUnavailable: says what it raised.
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
    except (ImportError, AttributeError, ValueError) as error:
        raise BadSetting(
            f"POSTBACKS_ACCOUNTS={path!r} cannot be loaded ({error}); write module:attribute of an AccountStore."
        ) from None
    if isinstance(store, type):
        store = store()
    if not isinstance(store, AccountStore):
        raise BadSetting(f"POSTBACKS_ACCOUNTS={path!r} has no get_many(names) method.")
    return store


def store() -> AccountStore:
    """The account store of this process's settings."""
    path = load().accounts
    return _named_store(path) if path else redis_accounts()


def redis_accounts() -> RedisAccounts:
    """Our own store; what the command line edits.

    Raises:
        PostbacksError: accounts are kept by the application itself.
    """
    if load().accounts:
        raise PostbacksError(
            f"Accounts are kept by {load().accounts} (POSTBACKS_ACCOUNTS); change them there."
        )
    return RedisAccounts(client())
