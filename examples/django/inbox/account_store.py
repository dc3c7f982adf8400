"""Accounts of postbacks out of the customers' table.

Its workers load it: ``POSTBACKS_ACCOUNTS=inbox.account_store:CustomerAccounts``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import django
from django.apps import apps
from django.db import close_old_connections, connection

from postbacks import InvalidAccount
from postbacks.accounts import Account, Secret, build_account

if TYPE_CHECKING:
    from inbox.models import Customer

log = logging.getLogger(__name__)


class CustomerAccounts:
    """Account store on Django's ORM, made once a process."""

    def __init__(self) -> None:
        # A worker of postbacks knows nothing of Django; a process of Django's own has done this already.
        if not apps.ready:
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "textline.settings")
            django.setup()

    def get_many(self, names: Iterable[str]) -> dict[str, Account]:
        """Return the accounts of these names; leave out those that do not exist."""
        from inbox.models import Customer  # noqa: PLC0415 - models can be imported once Django is set up

        # In a worker nobody else drops a connection that the database has closed, or that is too old. A test's own
        # transaction would be closed as well.
        if not connection.in_atomic_block:
            close_old_connections()
        return {
            customer.name: _account_of(customer) for customer in Customer.objects.filter(name__in=list(names))
        }


def _account_of(customer: Customer) -> Account:
    """Build an account from a customer; a bad row stops its own postbacks alone."""
    secrets = (Secret(value=customer.signing_secret),) if customer.signing_secret else ()
    try:
        return build_account(customer.name, url=customer.postback_url, secrets=secrets)
    except InvalidAccount as error:
        log.warning("the row of customer %s is no account: %s", customer.name, error)
        return Account(name=customer.name, unreadable=True)
