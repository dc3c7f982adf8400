"""Plan of what a file of accounts changes: made and checked whole before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.accounts import redis_accounts
from postbacks.accounts.account import Account
from postbacks.accounts.difference import CHANGED, SET, difference
from postbacks.accounts.edit import ALL_ORIGINS, DROPPABLE, AccountChange
from postbacks.accounts.secrets import decrypt, encrypt
from postbacks.catalogue import ORIGINS
from postbacks.errors import BadInput, InvalidAccount
from postbacks.operate import accounts as operate
from postbacks.operate.account_file.reading import (
    HEADERS,
    KEPT,
    URLS,
    Fault,
    Reader,
    WrittenAccount,
)
from postbacks.operate.overlap import OVERLAP_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postbacks.accounts.secrets import SealedField

#: Fields that are given as they stand in the file.
_GIVEN: Final = (
    "connect_timeout_s",
    "answer_timeout_s",
    "weight",
    "max_transfers",
    "rate",
    "pinned_keys",
    "ca_bundle",
)
_NOTHING_TO_KEEP: Final = "there is nothing to keep, as none is stored: write {env: NAME} or {file: PATH}"


class PlannedAccount(NamedTuple):
    """Account of a file, and what becomes of it.

    Attributes:
        name: the account's name.
        is_new: True where the store has none of that name.
        changed: each field that changes, with its old and its new value as they may be shown.
        change: what is set; None where nothing but the secret changes.
        secret: the new signing secret; None where it stays.
        removes_secrets: True where its postbacks are not signed any more.
    """

    name: str
    is_new: bool
    changed: dict[str, tuple[Any, Any]]
    change: AccountChange | None
    secret: str | None
    removes_secrets: bool


@dataclass
class Plan:
    """Changes that a file makes.

    Attributes:
        accounts: accounts of the file, in its order.
        left: names of the store that the file does not have; they stay as they are.
        faults: what is wrong with the file, in the order of its lines; where there is any, nothing is applied.
        warnings: sentences about the broker and about URLs.
    """

    accounts: list[PlannedAccount] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def to_do(self) -> list[PlannedAccount]:
        """The accounts that change."""
        return [account for account in self.accounts if account.changed]


def plan(data: bytes, directory: Path) -> Plan:
    """Read a file of accounts, compare it with the store, and check all that it changes.

    Args:
        data: the file.
        directory: where the paths in it begin.

    Raises:
        PostbacksError: an application keeps the accounts itself.
        BadSetting: there is no key to open or to encrypt a secret with.
        BrokerError: the broker cannot be used.
    """
    reader = Reader(directory)
    reader.read(data)
    stored = {account.name: account for account in redis_accounts().all()}
    made = Plan(left=[name for name in stored if name not in reader.accounts])
    for written in reader.accounts.values():
        draft = _Draft(written, stored.get(written.name))
        if not written.is_faulty:
            made.accounts += draft.planned()
            made.warnings += draft.warnings
        made.faults += draft.faults
    made.warnings = list(dict.fromkeys(made.warnings))
    made.faults = sorted([*reader.faults, *made.faults])
    return made


def apply(plan: Plan, *, by: str | None = None, why: str = "") -> Iterator[str]:
    """Do what a plan says, an account after the other; yield the name of each that is done.

    Args:
        plan: a plan without faults.
        by: who does it, for the journal; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        BadInput: the file has faults; nothing is done.
        PostbacksError: an account could not be set; those before it are.
    """
    if plan.faults:
        raise BadInput(f"The file has {len(plan.faults):,} faults: nothing is changed.")
    for account in plan.to_do:
        if account.change is not None:
            operate.set_account(account.change, by=by, why=why)
        if account.secret is not None:
            operate.rotate_secret(account.name, OVERLAP_S, secret=account.secret, by=by, why=why)
        elif account.removes_secrets:
            operate.remove_secrets(account.name, by=by, why=why)
        yield account.name


class _Draft:
    """Change of one account, as it is made of what the file says and what is stored."""

    def __init__(self, written: WrittenAccount, stored: Account | None) -> None:
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self._written = written
        self._stored = stored
        #: What there is to keep; nothing where the stored row cannot be read.
        self._kept = Account(name=written.name) if stored is None or stored.unreadable else stored

    def planned(self) -> list[PlannedAccount]:
        """Return what becomes of the account; nothing where there is a fault."""
        self._check_what_is_kept()
        if self.faults:
            return []
        written, stored = self._written, self._stored
        change = self._change()
        try:
            before, after, self.warnings = operate.preview(change, stored)
            secret = self._new_secret()
            if secret is not None:
                encrypt(secret, written.name, "secret")  # with a key, or none can be set
        except InvalidAccount as error:
            self._fault("", f"{error}".rstrip("."))
            return []
        changed = difference(before, after)
        sets = bool(changed) or stored is None or stored.unreadable
        removes_secrets = "secret" not in written.values and bool(self._kept.secrets)
        if secret is not None:
            changed["secret"] = (SET, CHANGED) if self._kept.secrets else (None, SET)
        elif removes_secrets:
            changed["secret"] = (SET, None)
        return [
            PlannedAccount(
                written.name, stored is None, changed, change if sets else None, secret, removes_secrets
            )
        ]

    def _fault(self, name: str, words: str) -> None:
        at = f"{self._written.name}.{name}" if name else self._written.name
        self.faults.append(Fault(self._written.lines.get(name, self._written.line), at, words))

    def _check_what_is_kept(self) -> None:
        """Check that what the file keeps is there, and that what belongs together comes together."""
        values, kept = self._written.values, self._kept
        headers = {name.lower() for name in kept.headers}
        if kept.authorization:
            headers.add("authorization")
        for name, value in values.items():
            if value is KEPT and not getattr(kept, {"secret": "secrets"}.get(name, name)):
                self._fault(name, _NOTHING_TO_KEEP)
        for name, value in values.get(HEADERS, {}).items():
            if value is KEPT and name.lower() not in headers:
                self._fault(f"{HEADERS}.{name}", _NOTHING_TO_KEEP)
        if ("client_cert" in values) != ("client_key" in values):
            there = "client_cert" if "client_cert" in values else "client_key"
            self._fault(there, "a client certificate and its key belong together: give both")
        elif values.get("client_key") is KEPT and values.get("client_cert") not in (KEPT, kept.client_cert):
            self._fault("client_key", "another certificate comes with its key: write {file: PATH}")
        if not any(name in values for name in URLS):
            if kept.urls():
                self._fault("", "it has no URL, and the stored account has one: write url: {keep: true}")
            elif values.get("off") != frozenset(ORIGINS):
                self._fault("", "an account needs a URL (url, mo_url or pass_url), or off: ALL")

    def _change(self) -> AccountChange:
        """Return the change that makes the stored account what the file says."""
        values, kept = self._written.values, self._kept
        urls: dict[str, Any] = {
            name: getattr(kept, name) if values.get(name) is KEPT else values.get(name) for name in URLS
        }
        given = {name: values[name] for name in _GIVEN if values.get(name, KEPT) is not KEPT}
        given |= self._certificate()
        drop = {
            name
            for name in DROPPABLE
            if name not in values and name != HEADERS and getattr(kept, name) != getattr(_DEFAULTS, name)
        }
        off = values.get("off", frozenset())
        if not any(urls.values()):
            off = frozenset({ALL_ORIGINS})
        return AccountChange(
            self._written.name, **urls, off=off, headers=self._headers(), drop=frozenset(drop), **given
        )

    def _certificate(self) -> dict[str, Any]:
        """Return client certificate and key where one of them is another one than the stored one."""
        values, kept = self._written.values, self._kept
        key = values.get("client_key", KEPT)
        if key is KEPT:
            return {}
        certificate = kept.client_cert if values["client_cert"] is KEPT else values["client_cert"]
        is_stored = certificate == kept.client_cert and _opens_as(
            kept.client_key, self._written.name, "client_key", key
        )
        return {} if is_stored else {"client_cert": certificate, "client_key": key}

    def _headers(self) -> dict[str, str]:
        """Return the headers to set, and those to take off, with an empty value."""
        headers: dict[str, Any] = self._written.values.get(HEADERS, {})
        named = {name.lower() for name in headers}
        gone = {name: "" for name in self._kept.headers if name.lower() not in named}
        if self._kept.authorization and "authorization" not in named:
            gone["Authorization"] = ""
        given = {name: value for name, value in headers.items() if value is not KEPT}
        stored = self._kept.authorization
        for name in [name for name in given if name.lower() == "authorization"]:
            if _opens_as(stored, self._written.name, "authorization", given[name]):
                del given[name]
        return gone | given

    def _new_secret(self) -> str | None:
        """Return the signing secret where it is another one than the stored one that signs."""
        secret = self._written.values.get("secret", KEPT)
        if secret is KEPT:
            return None
        current = next((of_it.value for of_it in self._kept.secrets if of_it.expires_ms is None), None)
        if _opens_as(current, self._written.name, "secret", secret):
            return None
        return str(secret)


_DEFAULTS: Final = Account(name="defaults")


def _opens_as(sealed: str | None, account: str, name: SealedField, text: str) -> bool:
    """Tell whether this text is what is stored, encrypted, for a field of an account."""
    return sealed is not None and decrypt(sealed, account, name) == text
