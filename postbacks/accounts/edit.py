"""Changes of an account: what a change leaves as it is, what it replaces, and why it is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postbacks.accounts.account import Account, build_account
from postbacks.accounts.pem import check_certificates, check_private_key
from postbacks.accounts.secrets import encrypt
from postbacks.catalogue import ORIGINS
from postbacks.errors import InvalidAccount

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Stands in ``AccountChange.off`` for all origins.
ALL_ORIGINS: Final = "ALL"

_URLS: Final = ("url", "mo_url", "pass_url")
#: Fields that a change replaces one by one: one that it does not give stays as it is.
_SINGLE: Final = (
    "connect_timeout_s",
    "answer_timeout_s",
    "ca_bundle",
    "client_cert",
    "pinned_keys",
    "weight",
    "rate",
    "max_transfers",
)
#: Each field that can go back to its default, and the fields that go with it.
DROPPABLE: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (name,) for name in _SINGLE},
    "headers": ("headers", "authorization"),
    "client_cert": ("client_cert", "client_key"),
}


@dataclass(frozen=True, slots=True)
class AccountChange:
    """A change of one account, as a person asks for it. A field that is None, or an empty collection, is not given.

    Attributes:
        account: the account's name.
        url: the Postback URL. URLs and ``off`` are replaced as a whole: where one of them is given, those that are not
            given are emptied.
        mo_url: the MO Postback URL.
        pass_url: the Pass Postback URL.
        keep: names of URLs that stay as they are where the others are replaced.
        off: origins to switch off, or ``ALL_ORIGINS``, which given without a URL leaves the URLs.
        headers: headers to add or to replace, by name; an empty value takes the header off. ``Authorization`` is one of
            them, and is encrypted for the store.
        connect_timeout_s: instead of ``POSTBACKS_CONNECT_TIMEOUT_S``.
        answer_timeout_s: instead of ``POSTBACKS_ANSWER_TIMEOUT_S``.
        ca_bundle: PEM certificates to trust instead of the system's.
        client_cert: PEM client certificate; it comes with its key.
        client_key: PEM private key, which is encrypted for the store.
        pinned_keys: ``sha256//…`` of the public keys that the servers may have.
        weight: turns beside other accounts'.
        rate: POSTs in a time (``50/s``).
        max_transfers: POSTs open at a time.
        drop: names of ``DROPPABLE`` that go back to their defaults, before what is given is set.
    """

    account: str
    url: str | None = field(default=None, repr=False)
    mo_url: str | None = field(default=None, repr=False)
    pass_url: str | None = field(default=None, repr=False)
    keep: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout_s: float | None = None
    answer_timeout_s: float | None = None
    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = field(default=None, repr=False)
    pinned_keys: tuple[str, ...] = ()
    weight: float | None = None
    rate: str | None = None
    max_transfers: int | None = None
    drop: frozenset[str] = frozenset()

    @property
    def has_url(self) -> bool:
        """True if one of the URLs is given."""
        return any(getattr(self, name) is not None for name in _URLS)

    @property
    def replaces_routing(self) -> bool:
        """True if URLs and switched-off origins are replaced: it is then a change that can make an account."""
        return self.has_url or bool(self.off or self.keep)

    @property
    def authorization(self) -> str | None:
        """Value of the Authorization header: empty to take it off, None if it is not given.

        Raises:
            InvalidAccount: it is given twice, in two ways of writing its name.
        """
        values = [value for name, value in self.headers.items() if name.lower() == "authorization"]
        if len(values) > 1:
            raise InvalidAccount("The header 'authorization' stands twice.")
        return values[0] if values else None

    @property
    def other_headers(self) -> dict[str, str]:
        """Headers beside Authorization."""
        return {name: value for name, value in self.headers.items() if name.lower() != "authorization"}


def check_change(change: AccountChange) -> Account:
    """Check a change by itself: the form of each value, what has to come together, and that there is a change.

    Returns:
        An account of what the change gives alone, its Authorization header and key as they were given.

    Raises:
        InvalidAccount: says what cannot be.
    """
    if (change.client_cert is None) != (change.client_key is None):
        raise InvalidAccount(
            "A client certificate and its key belong together: give both (--client-cert, --client-key)."
        )
    for name in ("ca_bundle", "client_cert"):
        if (text := getattr(change, name)) is not None:
            check_certificates(text, name)
    if change.client_cert is not None and change.client_key is not None:
        check_private_key(change.client_key, change.client_cert, "client_key")
    if unknown := change.drop - DROPPABLE.keys():
        raise InvalidAccount(f"{', '.join(sorted(unknown))} cannot be dropped; {', '.join(DROPPABLE)} can.")
    singles = _given(change, _SINGLE)
    is_empty = not (change.replaces_routing or singles or change.headers or change.drop)
    if unknown := change.keep - set(_URLS):
        raise InvalidAccount(f"{', '.join(sorted(unknown))}: no such URL; the URLs are {', '.join(_URLS)}.")
    if is_empty or (change.off and not (change.has_url or change.keep) and ALL_ORIGINS not in change.off):
        raise _needs_url()
    return build_account(
        change.account,
        **singles,
        **_given(change, (*_URLS, "client_key")),
        off=frozenset(ORIGINS) if ALL_ORIGINS in change.off else change.off,
        headers={name: value for name, value in change.other_headers.items() if value},
        authorization=change.authorization or None,
    )


def apply(account: Account | None, change: AccountChange) -> Account:
    """Return the account that a change makes of another, or makes anew.

    Args:
        account: the account as it is stored; None where there is none of that name.
        change: what is to be another.

    Raises:
        InvalidAccount: a value cannot be, the account would have no URL, or cannot be read and is not made anew.
        BadSetting: there is no key to encrypt a secret with.
    """
    draft = check_change(change)
    if account is not None and account.unreadable:
        if not change.replaces_routing:
            account.check_readable()
        account = None
    if account is None:
        if not (change.has_url or change.off):
            raise _needs_url()
        account = Account(name=draft.name)
    update: dict[str, Any] = {
        name: Account.model_fields[name].get_default(call_default_factory=True)
        for dropped in change.drop
        for name in DROPPABLE[dropped]
    }
    update |= _given(change, _SINGLE)
    replaced = set() if not change.replaces_routing else {"off"}
    if change.has_url or change.keep:
        replaced |= {*_URLS} - change.keep
    update |= {name: getattr(draft, name) for name in replaced}
    if change.authorization is not None:
        update["authorization"] = draft.authorization and encrypt(
            draft.authorization, draft.name, "authorization"
        )
    if change.client_key is not None:
        update["client_key"] = encrypt(change.client_key, draft.name, "client_key")
    named = {name.lower() for name in change.other_headers}
    kept = {} if "headers" in change.drop else account.headers
    update["headers"] = {name: value for name, value in kept.items() if name.lower() not in named}
    update["headers"] |= draft.headers
    changed = account.model_copy(update=update)
    if change.keep and not changed.urls() and not changed.off >= set(ORIGINS):
        raise _needs_url()
    # Checked as a whole: each of its headers may be right, and all of them too many.
    return build_account(**{name: getattr(changed, name) for name in Account.model_fields})


def _given(change: AccountChange, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the named fields that a change gives."""
    return {name: value for name in names if (value := getattr(change, name)) not in {None, ()}}


def _needs_url() -> InvalidAccount:
    return InvalidAccount("An account needs a URL: give --url (or --mo-url, --pass-url).")
