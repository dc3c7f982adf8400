"""Difference of two accounts in words that anybody may read: no password, secret, value of a header or key."""

from __future__ import annotations

from typing import Any, Final

from postbacks.accounts.account import Account
from postbacks.urls import redacted

#: Stands for a value that is not shown, and for another one in its place.
SET: Final = "set"
CHANGED: Final = "another one"

_URLS: Final = ("url", "mo_url", "pass_url")
_PLAIN: Final = ("connect_timeout_s", "answer_timeout_s", "weight", "rate", "max_transfers")
_HIDDEN: Final = ("authorization", "ca_bundle", "client_cert", "client_key", "secrets")


def difference(before: Account | None, after: Account | None) -> dict[str, tuple[Any, Any]]:
    """Return each field that differs, with its old and its new value as they may be shown; None where it is not set.

    Args:
        before: an account; None for one that was not there.
        after: the account after the change; None for one that is removed.
    """
    old, new = _fields(before), _fields(after)
    changes: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*old, *new]):
        (old_value, old_shown), (new_value, new_shown) = (
            old.get(name, (None, None)),
            new.get(name, (None, None)),
        )
        if old_value != new_value:
            changes[name] = (old_shown, CHANGED if old_shown == new_shown else new_shown)
    return changes


def _fields(account: Account | None) -> dict[str, tuple[Any, Any]]:
    """Return each field that is set: its value, and how it is shown."""
    if account is None or account.unreadable:
        return {}
    fields: dict[str, tuple[Any, Any]] = {}
    for name in _URLS:
        url = getattr(account, name)
        fields[name] = (url, url and redacted(url))
    fields["off"] = (account.off, sorted(account.off))
    for name in _PLAIN:
        value = getattr(account, name)
        fields[name] = (value, value)
    if account.weight == Account.model_fields["weight"].default:
        del fields["weight"]
    fields |= {f"headers.{name}": (value, SET) for name, value in sorted(account.headers.items())}
    for name in _HIDDEN:
        value = getattr(account, name)
        fields[name] = (value, SET)
    fields["pinned_keys"] = (account.pinned_keys, list(account.pinned_keys))
    return {name: pair for name, pair in fields.items() if pair[0]}
