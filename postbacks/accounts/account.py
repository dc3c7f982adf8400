"""Accounts: where each one's postbacks go.

An application that keeps its accounts elsewhere implements ``AccountStore`` on its own database and
names it in ``POSTBACKS_ACCOUNTS`` (``module:attribute``).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import uuid
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from redis.exceptions import WatchError

from postbacks import keys
from postbacks.accounts import secrets as vault
from postbacks.accounts.headers import check_authorization, check_headers, check_no_user
from postbacks.accounts.rates import interval_us
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue import ORIGINS
from postbacks.catalogue.problems import quoted
from postbacks.errors import AccountsUnavailable, BadSetting, InvalidAccount, InvalidUrl, PostbacksError
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.url_policy import check_urls
from postbacks.urls import check_stored_url, check_url, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import redis
    from pydantic_core import ErrorDetails

log = EventLog(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}\Z")

_PIN = re.compile(r"sha256//[A-Za-z0-9+/]{43}=\Z")
#: Secrets that may sign at a time: a signature takes 47 characters of a header.
MAX_SECRETS: Final = 5

#: Stored fields that a reader need not know to send the right thing to the right place: those of pace and patience.
_NOT_NEEDED: Final = frozenset(
    {"name", "connect_timeout_s", "answer_timeout_s", "weight", "rate", "max_transfers"}
)
#: Stored fields that no POST is made with.
_PACE: Final = frozenset({"weight", "rate", "max_transfers"})

#: Why a postback of an account is skipped, not sent (catalogue: Groups); ``accounts/routing.py`` has their words.
UNKNOWN_ACCOUNT: Final = "unknown_account"
UNREADABLE: Final = "account_unreadable"
ORIGIN_OFF: Final = "origin_off"
NO_URL: Final = "no_url"


def check_name(account: object) -> str:
    """Check an account's name; an int and a UUID are taken as their text.

    Raises:
        InvalidAccount: says what a name may be.
    """
    has_text = not isinstance(account, str | bool) and isinstance(account, int | uuid.UUID)
    name = str(account) if has_text else account
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidAccount(
            f"{quoted(name)} is no account name: 1 to 128 letters, digits and . _ @ : + -, the first a letter or digit."
        )
    return name


class Secret(BaseModel):
    """A signing secret of an account.

    Attributes:
        value: ``whsec_…``, sealed by ``vault.seal`` in our own store.
        expires_ms: when it no longer signs, ms since the epoch; None while it is the current one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    value: str = Field(repr=False)
    expires_ms: int | None = None


class Account(BaseModel):
    """Where the postbacks of one account go, and how.

    Attributes:
        name: the account's name.
        url: the Postback URL.
        mo_url: the MO Postback URL; where none is set, the Postback URL serves.
        pass_url: the Pass Postback URL; where none is set, the Postback URL serves.
        off: origins that are switched off.
        connect_timeout_s: instead of ``POSTBACKS_CONNECT_TIMEOUT_S``.
        answer_timeout_s: instead of ``POSTBACKS_ANSWER_TIMEOUT_S``.
        headers: fixed extra headers of its POSTs.
        authorization: value of their Authorization header, sealed by ``vault.seal`` in our own store.
        secrets: what signs its POSTs, the current one first.
        ca_bundle: PEM certificates that its servers' are trusted by, instead of the system's.
        client_cert: PEM client certificate (chain) for mutual TLS.
        client_key: PEM private key of it, sealed by ``vault.seal`` in our own store.
        pinned_keys: ``sha256//…`` of the public keys that its servers may have.
        weight: turns it gets where others get one, while both wait.
        rate: POSTs that may begin in a time, over all its groups and all workers: ``50/s``, ``30/min``.
        max_transfers: POSTs open at a time, over all its groups and all workers.
        unreadable: its stored row cannot be read; nothing is sent for it until it is set anew.
        unknown: fields of its stored row that this version does not know, and need not; they stay in the row.
        unknown_needs: fields that whoever sends for it must know, and this version does not; so it is unreadable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    url: str | None = Field(None, repr=False)
    mo_url: str | None = Field(None, repr=False)
    pass_url: str | None = Field(None, repr=False)
    off: frozenset[str] = frozenset()
    connect_timeout_s: float | None = Field(None, gt=0, le=60)
    answer_timeout_s: float | None = Field(None, gt=0, le=60)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    authorization: str | None = Field(None, repr=False)
    secrets: tuple[Secret, ...] = ()
    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = Field(None, repr=False)
    pinned_keys: tuple[str, ...] = ()
    weight: float = Field(1, ge=0.1, le=100)
    rate: str | None = None
    max_transfers: int | None = Field(None, ge=1, le=1_000_000)
    unreadable: bool = Field(default=False, exclude=True)
    unknown: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    unknown_needs: tuple[str, ...] = Field(default=(), exclude=True)

    @field_validator("name", mode="before")
    @classmethod
    def _name(cls, value: object) -> str:
        return check_name(value)

    @field_validator("url", "mo_url", "pass_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else check_stored_url(value)

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        check_headers(value)
        return value

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        if value is not None:
            interval_us(value)
        return value

    @cached_property
    def version(self) -> str:
        """Digest of all that its POSTs are made with: two readings of the account with the same one are the same."""
        fields = {name: value for name, value in self._stored().items() if name not in _PACE}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _stored(self) -> dict[str, Any]:
        """Return the fields that are set, known or not: a version that knows more of them gets the same."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        if self.off:
            fields["off"] = sorted(self.off)  # a set has another order in every process
        return {**self.unknown, **fields}

    def row(self) -> str:
        """Return the row of our own store: the fields, and in ``needs`` the names of those that a sender must know."""
        fields = self._stored()
        needs = sorted(fields.keys() - self.unknown.keys() - _NOT_NEEDED)
        return json.dumps({**fields, "needs": needs} if needs else fields)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Account:
        """Copy the account; the copy has a version of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("version", None)
        return copied

    @property
    def rate_interval_us(self) -> int:
        """Microseconds between two of its POSTs; 0 where it has no rate."""
        return 0 if self.rate is None else interval_us(self.rate)

    @field_validator("pinned_keys")
    @classmethod
    def _pins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pin in value:
            if not _PIN.match(pin):
                raise InvalidAccount(f"{pin[:60]!r} is no pinned key: sha256// and 44 characters of base64.")
        return value

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
        if self.unreadable:
            return None, UNREADABLE
        if origin in self.off:
            return None, ORIGIN_OFF
        own = {"mo": self.mo_url, "pass": self.pass_url}.get(group)
        url = own or self.url
        return (url, "") if url else (None, NO_URL)

    def urls(self) -> list[str]:
        """Return the URLs that are set."""
        return [url for url in (self.url, self.mo_url, self.pass_url) if url]

    def rotated(self, sealed: str, now_ms: int, overlap_ms: int) -> Account:
        """The account with a new current secret; those before it sign for at most the overlap from now.

        Raises:
            InvalidAccount: too many would sign at a time.
        """
        until_ms = now_ms + overlap_ms
        ends = [until_ms if s.expires_ms is None else min(s.expires_ms, until_ms) for s in self.secrets]
        before = [
            Secret(value=secret.value, expires_ms=end_ms)
            for secret, end_ms in zip(self.secrets, ends, strict=True)
            if end_ms > now_ms
        ]
        if len(before) >= MAX_SECRETS:
            raise InvalidAccount(
                f"Account {self.name} has {len(before)} secrets that still sign; one more at a time is too much. "
                "Rotate with a shorter --overlap (0 ends them at once), or later."
            )
        return self.model_copy(update={"secrets": (Secret(value=sealed), *before)})

    def resealed(self) -> Account:
        """The account with its secrets, client key and Authorization header sealed by the first key, and for it alone.

        Raises:
            BadSetting: the key is missing, or does not open one of them.
        """

        def again(sealed: str, field: vault.SealedField) -> str:
            return vault.encrypt(vault.decrypt(sealed, self.name, field), self.name, field)

        secrets = tuple(
            Secret(value=again(secret.value, "secret"), expires_ms=secret.expires_ms)
            for secret in self.secrets
        )
        key = self.client_key and again(self.client_key, "client_key")
        authorization = self.authorization and again(self.authorization, "authorization")
        return self.model_copy(update={"secrets": secrets, "client_key": key, "authorization": authorization})

    def check_known(self) -> None:
        """Check that this version knows all that whoever sends for the account, or changes it, must know.

        Raises:
            InvalidAccount: says what it does not know, and what to do.
        """
        if self.unknown_needs:
            raise InvalidAccount(
                f"Account {self.name} needs {', '.join(self.unknown_needs)}, which this version of postbacks does not "
                "know: its postbacks wait for workers of the newer version, whose commands can change it."
            )

    def check_readable(self) -> None:
        """Check that the account could be read from its store.

        Raises:
            InvalidAccount: says why not, and what to do.
        """
        self.check_known()
        if self.unreadable:
            raise InvalidAccount(
                f"The stored row of account {self.name} cannot be read; set the account anew first (--url)."
            )

    def to_public_dict(self) -> dict[str, Any]:
        """The account as a listing shows it: no passwords, no secrets, no values of headers."""
        urls = {"url": self.url, "mo_url": self.mo_url, "pass_url": self.pass_url}
        shown_urls = {tag: url and redacted(url) for tag, url in urls.items()}
        limits = {"connect_timeout_s": self.connect_timeout_s, "answer_timeout_s": self.answer_timeout_s}
        tls = {
            "ca_bundle": self.ca_bundle is not None,
            "client_cert": self.client_cert is not None,
            "pinned_keys": list(self.pinned_keys),
        }
        secrets = [{"expires_ms": secret.expires_ms} for secret in self.secrets]
        extra = {
            "headers": sorted(self.headers),
            "authorization": bool(self.authorization),
            "secrets": secrets,
        }
        pacing = {"weight": self.weight, "rate": self.rate, "max_transfers": self.max_transfers}
        trouble = {"unreadable": True} if self.unreadable else {}
        return {
            "name": self.name, **shown_urls, "off": sorted(self.off), **limits, **extra, **tls, **pacing, **trouble
        }  # fmt: skip


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
                    broker_now_ms = now_ms(pipe)
                    before = None if text is None else _read(name, text)
                    if before is not None:
                        before.check_known()
                    after = edit(before, broker_now_ms)
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


def make_account(name: str, **settings: Any) -> Account:
    """Build an account from what a user wrote, its URLs judged by this process's settings.

    Raises:
        InvalidAccount: one sentence a fault.
    """
    account = build_account(name, **settings)
    check_urls(account.urls(), ())
    return account


def build_account(name: str, **settings: Any) -> Account:
    """Build an account from what a user wrote; of its URLs the form alone is judged.

    Raises:
        InvalidAccount: one sentence a fault.
    """
    try:
        account = Account(name=name, **settings)
        for url in account.urls():
            check_url(url)
    except ValidationError as error:
        raise InvalidAccount("; ".join(_fault_words(fault) for fault in error.errors())) from None
    except InvalidUrl as error:
        raise InvalidAccount(str(error)) from None
    if account.authorization is not None:
        if not vault.is_sealed(account.authorization):
            check_authorization(account.authorization)
        check_no_user(*account.urls())
    return account


def _fault_words(fault: ErrorDetails) -> str:
    """Name a field and what it may be; its value may be a secret."""
    words = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{'.'.join(map(str, fault['loc']))}: {words}"


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
