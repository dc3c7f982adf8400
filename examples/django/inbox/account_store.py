"""Accounts of postbacks out of the customers' table.

The workers load it: ``POSTBACKS_ACCOUNTS=inbox.account_store:CustomerAccounts``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import django
from django.apps import apps
from django.db import close_old_connections

from postbacks.accounts.account import Account, Secret

if not apps.ready:  # a worker of postbacks, which no manage.py has set up
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "textline.settings")
    django.setup()

from inbox.models import Customer


class CustomerAccounts:
    """Account store on Django's ORM: one query a call, so that each change counts within the second."""

    def get_many(self, names: Iterable[str]) -> dict[str, Account]:
        """Return the accounts of these names; leave out those that do not exist."""
        close_old_connections()  # as Django does around a request: the database may have been restarted
        try:
            return {
                customer.name: _account(customer)
                for customer in Customer.objects.filter(name__in=list(names))
            }
        finally:
            close_old_connections()


def _account(customer: Customer) -> Account:
    secrets = (Secret(value=customer.signing_secret),) if customer.signing_secret else ()
    return Account(name=customer.name, url=customer.postback_url, secrets=secrets)
