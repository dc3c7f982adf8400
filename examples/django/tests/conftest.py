"""A database that the tests and the worker of ``postbacks_stack`` share."""

from __future__ import annotations

import pytest
from django.db import connection


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' database in a file: one in memory is of this process alone."""
    connection.settings_dict["TEST"]["NAME"] = tmp_path_factory.mktemp("database") / "test.sqlite3"


@pytest.fixture(scope="session")
def postbacks_stack_environment(django_db_setup: None) -> dict[str, str]:
    """Let the worker read accounts from the customers' table."""
    return {
        "POSTBACKS_ACCOUNTS": "inbox.account_store:CustomerAccounts",
        "DATABASE_PATH": str(connection.settings_dict["NAME"]),
    }
