"""Accounts: where each one's postbacks go.

An application that keeps its accounts elsewhere implements ``AccountStore`` on its own database and
names it in ``POSTBACKS_ACCOUNTS`` (``module:attribute``).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from postbacks.accounts import secrets as vault
from postbacks.accounts.headers import check_authorization, check_headers, check_no_user
from postbacks.accounts.rates import interval_us
from postbacks.accounts.url_policy import check_urls
from postbacks.catalogue import ORIGINS
from postbacks.catalogue.problems import quoted
from postbacks.errors import InvalidAccount, InvalidUrl
from postbacks.logs import EventLog
from postbacks.urls import check_stored_url, check_url, redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

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
