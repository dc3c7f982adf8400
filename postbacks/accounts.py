"""Accounts: where each one's postbacks go.

An application that keeps its accounts elsewhere implements ``AccountStore`` on its own database and
names it in ``POSTBACKS_ACCOUNTS`` (``module:attribute``).
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from postbacks import keys
from postbacks.broker import broker_errors, client
from postbacks.catalogue import ORIGINS
from postbacks.errors import BadSetting, InvalidAccount, InvalidUrl, PostbacksError
from postbacks.settings import load
from postbacks.urls import check_url, redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import redis

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}\Z")

#: Why a postback of an account is skipped, not sent (catalogue: Groups).
UNKNOWN_ACCOUNT: Final = "unknown_account"
ORIGIN_OFF: Final = "origin_off"
NO_URL: Final = "no_url"


def check_name(account: object) -> str:
    """Check an account's name; an int is taken as its digits.

    Raises:
        InvalidAccount: says what a name may be.
    """
    name = str(account) if isinstance(account, int) and not isinstance(account, bool) else account
    if not isinstance(name, str) or not _NAME.match(name):
        shown = repr(name)[:60]
        raise InvalidAccount(
            f"{shown} is no account name: 1 to 128 letters, digits and . _ @ : + -, the first a letter or digit."
        )
    return name


class Account(BaseModel):
    """Where the postbacks of one account go.

    Attributes:
        name: the account's name.
        url: the Postback URL.
        mo_url: the MO Postback URL; where none is set, the Postback URL serves.
        pass_url: the Pass Postback URL; where none is set, the Postback URL serves.
        off: origins that are switched off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    url: str | None = None
    mo_url: str | None = None
    pass_url: str | None = None
    off: frozenset[str] = frozenset()

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value)

    @field_validator("url", "mo_url", "pass_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value)

    @field_validator("off")
    @classmethod
    def _origins(cls, value: frozenset[str]) -> frozenset[str]:
        unknown = sorted(value - set(ORIGINS))
        if unknown:
            raise InvalidAccount(
                f"{', '.join(unknown)}: no such origin to switch off; the origins are {', '.join(ORIGINS)}."
            )
        return value

    def route(self, origin: str, group: str) -> tuple[str | None, str]:
        """The URL for an event, or None and the reason why it is skipped (catalogue: Groups)."""
        if origin in self.off:
            return None, ORIGIN_OFF
        own = {"mo": self.mo_url, "pass": self.pass_url}.get(group)
        url = own or self.url
        return (url, "") if url else (None, NO_URL)

    def shown(self) -> dict[str, Any]:
        """The account as a listing shows it: no passwords."""
        urls = {"url": self.url, "mo_url": self.mo_url, "pass_url": self.pass_url}
        shown_urls = {tag: url and redacted(url) for tag, url in urls.items()}
        return {"name": self.name, **shown_urls, "off": sorted(self.off)}


@runtime_checkable
class AccountStore(Protocol):
    """What postbacks asks of a place that keeps accounts. Called often: it should be quick or cache."""

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
        return {
            name: Account.model_validate_json(text)
            for name, text in zip(wanted, found, strict=True)
            if text is not None
        }

    def get(self, name: str) -> Account | None:
        """The account of this name, or None."""
        return self.get_many([name]).get(name)

    def set(self, account: Account) -> None:
        """Store an account, replacing one of the same name."""
        with broker_errors():
            self._client.hset(keys.ACCOUNTS, account.name, account.model_dump_json())

    def remove(self, name: str) -> bool:
        """Remove an account; False if there was none."""
        with broker_errors():
            return bool(self._client.hdel(keys.ACCOUNTS, name))

    def all(self) -> list[Account]:
        """Every account, by name."""
        with broker_errors():
            found: dict[bytes, bytes] = self._client.hgetall(keys.ACCOUNTS)  # type: ignore[assignment]
        return sorted((Account.model_validate_json(text) for text in found.values()), key=lambda a: a.name)


def make_account(name: str, **settings: Any) -> Account:
    """Build an account from what a user wrote.

    Raises:
        InvalidAccount: one sentence a fault.
    """
    try:
        return Account(name=name, **settings)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise InvalidAccount("; ".join(reasons)) from None
    except InvalidUrl as error:
        raise InvalidAccount(str(error)) from None


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
