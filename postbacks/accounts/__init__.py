"""Accounts: where their postbacks go, and with which headers, secrets, limits and pace."""

from postbacks.accounts.account import (
    NO_URL,
    ORIGIN_OFF,
    UNKNOWN_ACCOUNT,
    UNREADABLE,
    Account,
    Secret,
    build_account,
    make_account,
)
from postbacks.accounts.stores import (
    AccountStore,
    RedisAccounts,
    find_account,
    find_accounts,
    known_account,
    redis_accounts,
    store,
)

__all__ = [
    "NO_URL",
    "ORIGIN_OFF",
    "UNKNOWN_ACCOUNT",
    "UNREADABLE",
    "Account",
    "AccountStore",
    "RedisAccounts",
    "Secret",
    "build_account",
    "find_account",
    "find_accounts",
    "known_account",
    "make_account",
    "redis_accounts",
    "store",
]
