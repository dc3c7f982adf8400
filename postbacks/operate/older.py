"""Refusals of changes with which a worker of an older version, still at work, would do harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.broker.client import client
from postbacks.broker.versions import SEALS_SINCE, is_before, read_versions
from postbacks.errors import InvalidAccount
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from postbacks.accounts import Account


def refuse_older(harm: str) -> None:
    """Refuse a change while a worker is at work of a version that would do harm with it.

    Args:
        harm: what such a worker would do, after the words "is at work and …".

    Raises:
        InvalidAccount: a worker of an older version is at work.
        BrokerError: the broker cannot be used.
    """
    older = [
        f"{version} {' and '.join(sorted(work))}"
        for version, work in sorted(read_versions(client()).items())
        if is_before(version, SEALS_SINCE)
    ]
    if older:
        raise InvalidAccount(
            f"A worker of an older version is at work ({', '.join(older)}) and {harm}. "
            "Replace it first; a minute after its last tick this can be done (docs/upgrading.md)."
        )


def refuse_move_beside_older(before: Account, after: Account) -> None:
    """Refuse that an account with credentials leaves a host: an older worker would send them to the old URL."""
    if _endpoints(before) - _endpoints(after) and (_has_credentials(before) or _has_credentials(after)):
        refuse_older(
            "would send what waits to the old URL, with the credentials that the account has by then"
        )


def refuse_removal_beside_older(account: Account) -> None:
    """Refuse that an account with credentials is removed: an older worker would send what waits without them."""
    if _has_credentials(account):
        refuse_older("would send what waits all the same, unsigned and without its headers")


def _endpoints(account: Account) -> set[str]:
    return {endpoint_of(url) for url in account.urls()}


def _has_credentials(account: Account) -> bool:
    return bool(account.headers or account.authorization or account.secrets or account.client_cert)
