"""Account store on Django's models: POSTBACKS_ACCOUNTS=shop.accounts:DjangoAccounts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import django
from django.apps import apps
from django.db import close_old_connections, connection

from postbacks.accounts import Account, Secret, build_account
from postbacks.errors import InvalidAccount

if TYPE_CHECKING:
    from shop.models import Customer

log = logging.getLogger(__name__)


class DjangoAccounts:
    """Accounts of the customers' table; made once a process."""

    def __init__(self) -> None:
        # A worker of postbacks knows nothing of Django; a Django process has done this already.
        if not apps.ready:
            django.setup()

    def get_many(self, names: Iterable[str]) -> dict[str, Account]:
        """Return the accounts of these names; leave out those that do not exist."""
        from shop.models import Customer  # noqa: PLC0415 - models can be imported once Django is set up

        # Outside a request nobody else drops a connection that the database has closed, or that is too old. A test's own
        # transaction would be closed as well.
        if not connection.in_atomic_block:
            close_old_connections()
        return {row.account: _account_of(row) for row in Customer.objects.filter(account__in=list(names))}


def _account_of(row: Customer) -> Account:
    """Build an account from a row; a bad row stops its own postbacks alone."""
    try:
        return build_account(
            row.account,
            url=row.postback_url or None,
            mo_url=row.mo_url or None,
            off=frozenset(row.origins_off),
            secrets=(Secret(value=row.signing_secret),) if row.signing_secret else (),
            rate=row.rate or None,
        )
    except InvalidAccount as error:
        log.warning("the row of customer %s is no account: %s", row.account, error)
        return Account(name=row.account, unreadable=True)
