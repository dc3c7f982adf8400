"""An account: where its postbacks go, with which headers, secrets, limits and pace."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from postbacks.accounts.headers import check_authorization, check_headers, check_no_user
from postbacks.accounts.rates import interval_us
from postbacks.accounts.secrets import SealedField, decrypt, encrypt, is_sealed
from postbacks.accounts.url_policy import check_urls
from postbacks.catalogue import ORIGINS
from postbacks.errors import InvalidAccount, InvalidUrl
from postbacks.names import check_name
from postbacks.urls import check_stored_url, check_url, redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails


_PIN = re.compile(r"sha256//[A-Za-z0-9+/]{43}=\Z")
#: Secrets that may sign at a time; each signature takes 47 characters of a header.
MAX_SECRETS: Final = 5

#: Stored fields without which a POST is the same.
_PACE: Final = frozenset({"weight", "rate", "max_transfers"})
#: Stored fields that a sender of an older version may leave unread: it still sends the right bytes to the right URL.
_NOT_NEEDED: Final = _PACE | {"name", "connect_timeout_s", "answer_timeout_s"}

#: Reasons for which an event of an account is not sent (catalogue: Groups); ``accounts/routing.py`` has their words.
UNKNOWN_ACCOUNT: Final = "unknown_account"
UNREADABLE: Final = "account_unreadable"
ORIGIN_OFF: Final = "origin_off"
NO_URL: Final = "no_url"


class Secret(BaseModel):
    """A signing secret of an account.

    Attributes:
        value: ``whsec_…``, encrypted in our own store (``accounts/secrets.py``).
        expires_ms: time from which it no longer signs, ms since the epoch; None while it is the current secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    value: str = Field(repr=False)
    expires_ms: int | None = None


class Account(BaseModel):
    """An account of a customer.

    Attributes:
        name: the account's name.
        url: the Postback URL.
        mo_url: the MO Postback URL; where none is set, the Postback URL serves.
        pass_url: the Pass Postback URL; where none is set, the Postback URL serves.
        off: origins that are switched off.
        connect_timeout_s: instead of ``POSTBACKS_CONNECT_TIMEOUT_S``.
        answer_timeout_s: instead of ``POSTBACKS_ANSWER_TIMEOUT_S``.
        headers: fixed extra headers of its POSTs.
        authorization: value of their Authorization header, encrypted in our own store.
        secrets: secrets that sign its POSTs, the current one first.
        ca_bundle: PEM certificates of the authorities to trust instead of the system's.
        client_cert: PEM client certificate (chain) for mutual TLS.
        client_key: PEM private key of the certificate, encrypted in our own store.
        pinned_keys: ``sha256//…`` of the public keys that its servers may have.
        weight: turns it gets where other accounts get one, while both wait.
        rate: POSTs that may begin in a time, over all its groups and all workers: ``50/s``, ``30/min``.
        max_transfers: POSTs open at a time, over all its groups and all workers.
        unreadable: True if its stored row cannot be read; nothing is sent for it until it is set anew.
        unknown: fields of its stored row that this version does not know and need not know; they stay in the row.
        unknown_needs: fields of its stored row that a sender must know and this version does not: it is unreadable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    url: str | None = Field(default=None, repr=False)
    mo_url: str | None = Field(default=None, repr=False)
    pass_url: str | None = Field(default=None, repr=False)
    off: frozenset[str] = frozenset()
    connect_timeout_s: float | None = Field(default=None, gt=0, le=60)
    answer_timeout_s: float | None = Field(default=None, gt=0, le=60)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    authorization: str | None = Field(default=None, repr=False)
    secrets: tuple[Secret, ...] = ()
    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = Field(default=None, repr=False)
    pinned_keys: tuple[str, ...] = ()
    weight: float = Field(default=1, ge=0.1, le=100)
    rate: str | None = None
    max_transfers: int | None = Field(default=None, ge=1, le=1_000_000)
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
        """Digest of everything that a POST is made with; equal for two readings of an account that has not changed."""
        fields = {name: value for name, value in self._stored().items() if name not in _PACE}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _stored(self) -> dict[str, Any]:
        """Return the fields that are set, unknown ones included, so that a version that knows them gets the same."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        if self.off:
            fields["off"] = sorted(self.off)  # the order of a set differs between processes
        return {**self.unknown, **fields}

    def row(self) -> str:
        """Return the account's row in our own store: its fields, and in ``needs`` the names that a sender must know."""
        fields = self._stored()
        needs = sorted(fields.keys() - self.unknown.keys() - _NOT_NEEDED)
        return json.dumps({**fields, "needs": needs} if needs else fields)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Account:
        """Copy the account; the version of the copy is computed anew."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("version", None)
        return copied

    @property
    def rate_interval_us(self) -> int:
        """Microseconds between two POSTs of the account; 0 where it has no rate."""
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
        """Return the URL for an event, or None and the reason why it is not sent (catalogue: Groups)."""
        if self.unreadable:
            return None, UNREADABLE
        if origin in self.off:
            return None, ORIGIN_OFF
        group_url = {"mo": self.mo_url, "pass": self.pass_url}.get(group)
        url = group_url or self.url
        return (url, "") if url else (None, NO_URL)

    def urls(self) -> list[str]:
        """Return the URLs that are set."""
        return [url for url in (self.url, self.mo_url, self.pass_url) if url]

    def rotated(self, sealed: str, now_ms: int, overlap_ms: int) -> Account:
        """Return the account with a new current secret; those before it sign for at most the overlap from now.

        Args:
            sealed: the new secret, encrypted.
            now_ms: the broker's time.
            overlap_ms: how long the secrets before it go on signing.

        Raises:
            InvalidAccount: too many secrets would sign at a time.
        """
        until_ms = now_ms + overlap_ms
        ends_ms = [
            until_ms if secret.expires_ms is None else min(secret.expires_ms, until_ms)
            for secret in self.secrets
        ]
        before = [
            Secret(value=secret.value, expires_ms=end_ms)
            for secret, end_ms in zip(self.secrets, ends_ms, strict=True)
            if end_ms > now_ms
        ]
        if len(before) >= MAX_SECRETS:
            raise InvalidAccount(
                f"Account {self.name} has {len(before)} secrets that still sign; one more at a time is too much. "
                "Rotate with a shorter --overlap (0 ends them at once), or later."
            )
        return self.model_copy(update={"secrets": (Secret(value=sealed), *before)})

    def resealed(self) -> Account:
        """Return the account with its secrets, client key and Authorization header encrypted anew by the first key.

        Raises:
            BadSetting: the key is missing, or does not open one of them.
        """

        def reseal(sealed: str, field: SealedField) -> str:
            return encrypt(decrypt(sealed, self.name, field), self.name, field)

        secrets = tuple(
            Secret(value=reseal(secret.value, "secret"), expires_ms=secret.expires_ms)
            for secret in self.secrets
        )
        key = self.client_key and reseal(self.client_key, "client_key")
        authorization = self.authorization and reseal(self.authorization, "authorization")
        return self.model_copy(update={"secrets": secrets, "client_key": key, "authorization": authorization})

    def check_known(self) -> None:
        """Check that this version knows every field of the account that a sender must know.

        Raises:
            InvalidAccount: names the fields that it does not know, and what to do.
        """
        if self.unknown_needs:
            raise InvalidAccount(
                f"Account {self.name} needs {', '.join(self.unknown_needs)}, which this version of postbacks does not "
                "know: its postbacks wait for workers of the newer version, whose commands can change it."
            )

    def check_readable(self) -> None:
        """Check that the account could be read from its store.

        Raises:
            InvalidAccount: says why it could not, and what to do.
        """
        self.check_known()
        if self.unreadable:
            raise InvalidAccount(
                f"The stored row of account {self.name} cannot be read; set the account anew first (--url)."
            )

    def to_public_dict(self) -> dict[str, Any]:
        """Return the account as a listing shows it: no passwords, no secrets, no values of headers."""
        urls = {"url": self.url, "mo_url": self.mo_url, "pass_url": self.pass_url}
        redacted_urls = {name: url and redacted(url) for name, url in urls.items()}
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
            "name": self.name, **redacted_urls, "off": sorted(self.off), **limits, **extra, **tls, **pacing, **trouble
        }  # fmt: skip


def make_account(name: str, **settings: Any) -> Account:
    """Build an account from what a user wrote; judge its URLs by this process's settings.

    Raises:
        InvalidAccount: names each field at fault, and what it may be.
    """
    account = build_account(name, **settings)
    check_urls(account.urls(), ())
    return account


def build_account(name: str, **settings: Any) -> Account:
    """Build an account from what a user wrote; judge its URLs by their form alone.

    Raises:
        InvalidAccount: names each field at fault, and what it may be.
    """
    try:
        account = Account(name=name, **settings)
        for url in account.urls():
            check_url(url)
    except ValidationError as error:
        raise InvalidAccount("; ".join(_words(detail) for detail in error.errors())) from None
    except InvalidUrl as error:
        raise InvalidAccount(str(error)) from None
    if account.authorization is not None:
        if not is_sealed(account.authorization):
            check_authorization(account.authorization)
        check_no_user(*account.urls())
    return account


def _words(detail: ErrorDetails) -> str:
    """Name a field and what it may be, without its value, which may be a secret."""
    words = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{'.'.join(map(str, detail['loc']))}: {words}"
