"""How an account's POSTs are made: its limits, TLS, extra headers and signatures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from standardwebhooks import Webhook

from postbacks.accounts import Account, AccountStore
from postbacks.settings import Settings
from postbacks.vault import unseal


@dataclass(frozen=True, slots=True)
class Tls:
    """What a connection's TLS is made with instead of the defaults. PEM texts."""

    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    pinned_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The delivery settings of one account.

    Attributes:
        connect_timeout_s: name look-up, TCP, TLS and proxy together.
        answer_timeout_s: from the connection to the whole header of the answer.
        headers: extra ``Name: value`` lines.
        signers: one a secret that signs now, the current one first.
        tls: None for the defaults.
    """

    connect_timeout_s: float
    answer_timeout_s: float
    headers: tuple[str, ...] = ()
    signers: tuple[Webhook, ...] = ()
    tls: Tls | None = None

    @classmethod
    def default(cls, settings: Settings) -> Profile:
        """The profile of an account that sets nothing, or that is not known."""
        return cls(settings.connect_timeout_s, settings.answer_timeout_s)

    @classmethod
    def of(cls, account: Account, settings: Settings, now_ms: int) -> Profile:
        """The profile of an account, its secrets opened; those that have expired by now do not sign.

        Raises:
            BadSetting: a secret cannot be opened with the present key.
        """
        signing = [s for s in account.secrets if s.expires_ms is None or s.expires_ms > now_ms]
        tls = None
        if account.ca_bundle or account.client_cert or account.pinned_keys:
            key = unseal(account.client_key) if account.client_key else None
            tls = Tls(account.ca_bundle, account.client_cert, key, account.pinned_keys)
        return cls(
            account.connect_timeout_s or settings.connect_timeout_s,
            account.answer_timeout_s or settings.answer_timeout_s,
            tuple(f"{name}: {text}" for name, text in account.headers.items()),
            tuple(Webhook(unseal(secret.value)) for secret in signing),
            tls,
        )


class Profiles:
    """Profiles of accounts, kept for ``profile_cache_s``; not for more than one thread."""

    def __init__(self, accounts: AccountStore, settings: Settings) -> None:
        self._accounts = accounts
        self._settings = settings
        self._default = Profile.default(settings)
        self._known: dict[str, tuple[float, Profile]] = {}

    def look_up(self, names: Iterable[str], now_ms: int) -> dict[str, Profile]:
        """The profiles of these accounts at the broker's time; one look-up for all that are not fresh."""
        now_s = time.monotonic()
        wanted = set(names)
        stale = [name for name in wanted if self._known.get(name, (0.0, None))[0] <= now_s]
        if stale:
            found = self._accounts.get_many(stale)
            until_s = now_s + self._settings.profile_cache_s
            for name in stale:
                account = found.get(name)
                profile = self._default if account is None else Profile.of(account, self._settings, now_ms)
                self._known[name] = (until_s, profile)
        return {name: self._known[name][1] for name in wanted}
