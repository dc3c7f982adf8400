"""Accounts: where each one's postbacks go, and how."""

from postbacks.accounts.account import (
    NO_URL,
    ORIGIN_OFF,
    UNKNOWN_ACCOUNT,
    UNREADABLE,
    Account,
    AccountStore,
    RedisAccounts,
    Secret,
    build_account,
    find_accounts,
    make_account,
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
    "find_accounts",
    "make_account",
    "redis_accounts",
    "store",
]
