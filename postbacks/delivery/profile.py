"""How an account's POSTs are made: its limits, TLS, extra headers and signatures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from postbacks.accounts import UNREADABLE, Account, AccountStore, find_accounts
from postbacks.delivery.claims import Claimed
from postbacks.errors import AccountsUnavailable, BrokerError, InvalidAccount, PostbacksError
from postbacks.extra_headers import check_authorization
from postbacks.logs import EventLog
from postbacks.queue import routes
from postbacks.queue.scripts import Scripts
from postbacks.routing import reason_words
from postbacks.settings import Settings
from postbacks.urls import endpoint_of
from postbacks.vault import unseal

log = EventLog(__name__)

#: Seconds between two lines of the log about one account that two readings do not agree on.
CHANGING_EVERY_S: Final = 60
#: Profiles kept by one loop at most; the one that was read longest ago goes first.
PROFILES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Tls:
    """What a connection's TLS is made with instead of the defaults. PEM texts."""

    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = field(default=None, repr=False)
    pinned_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The delivery settings of one account.

    Attributes:
        connect_timeout_s: name look-up, TCP, TLS and proxy together.
        answer_timeout_s: from the connection to the whole header of the answer.
        headers: extra ``Name: value`` lines.
        authorization: the line of the Authorization header, for URLs that have no user; empty for none.
        signers: one a secret that signs now, the current one first.
        tls: None for the defaults.
        until_ms: when the first of the signers expires, on the broker's clock; None while none does.
        version: of the account; empty where the store does not have it.
        endpoints: of the account's URLs.
    """

    connect_timeout_s: float
    answer_timeout_s: float
    headers: tuple[str, ...] = ()
    authorization: tuple[str, ...] = field(default=(), repr=False)
    signers: tuple[Webhook, ...] = ()
    tls: Tls | None = None
    until_ms: int | None = None
    version: str = ""
    endpoints: frozenset[str] = frozenset()

    @classmethod
    def default(cls, settings: Settings) -> Profile:
        """The profile of an account that sets nothing, or that is not known."""
        return cls(settings.connect_timeout_s, settings.answer_timeout_s)

    @classmethod
    def of(cls, account: Account, settings: Settings, now_ms: int) -> Profile:
        """The profile of an account, its secrets opened; those that have expired by now do not sign.

        Raises:
            BadSetting: a secret cannot be opened with the present key.
            InvalidAccount: its row cannot be read, a secret is none, or all have expired: nothing goes out unsigned
                by mistake; or a header cannot be.
        """
        if account.unreadable:
            raise InvalidAccount(f"{reason_words(UNREADABLE, '', f'Account {account.name}')}.")
        signing = [s for s in account.secrets if s.expires_ms is None or s.expires_ms > now_ms]
        if account.secrets and not signing:
            raise InvalidAccount(f"Every secret of account {account.name} has expired; give it a new one.")
        tls = None
        if account.ca_bundle or account.client_cert or account.pinned_keys:
            key = unseal(account.client_key, account.name, "client_key") if account.client_key else None
            tls = Tls(account.ca_bundle, account.client_cert, key, account.pinned_keys)
        return cls(
            account.connect_timeout_s or settings.connect_timeout_s,
            account.answer_timeout_s or settings.answer_timeout_s,
            tuple(f"{name}: {text}" for name, text in account.headers.items()),
            _authorization(account),
            tuple(_signer(account.name, unseal(secret.value, account.name, "secret")) for secret in signing),
            tls,
            min((s.expires_ms for s in signing if s.expires_ms is not None), default=None),
            account.version,
            frozenset(endpoint_of(url) for url in (account.url, account.mo_url, account.pass_url) if url),
        )

    def for_url(self, url: str) -> Profile:
        """Return the profile of a POST to a call's own URL: what authenticates to the account's servers goes to no other.

        Extra headers, client certificate, authorities and pins go with it only where its scheme, host and port are those
        of one of the account's URLs. It is signed, and has the account's limits, in any case.
        """
        return (
            self
            if endpoint_of(url) in self.endpoints
            else replace(self, headers=(), authorization=(), tls=None)
        )


def _authorization(account: Account) -> tuple[str, ...]:
    if account.authorization is None:
        return ()
    text = unseal(account.authorization, account.name, "authorization")
    check_authorization(text)
    return (f"Authorization: {text}",)


def _signer(name: str, secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        raise InvalidAccount(f"A secret of account {name} is none: whsec_ and base64.") from None


class Profiles:
    """Profiles of accounts, kept for ``profile_cache_s``, ``PROFILES_MAX`` of them; not for more than one thread.

    Args:
        accounts: where they are looked up.
        settings: the process's settings.
        scripts: where the pacing of what was looked up is written; None for nowhere.
    """

    def __init__(self, accounts: AccountStore, settings: Settings, scripts: Scripts | None = None) -> None:
        self._accounts = accounts
        self._scripts = scripts
        self._settings = settings
        self._default = Profile.default(settings)
        # Until when a profile holds: PROFILES_MAX.
        self._known: dict[str, tuple[float, Profile | None]] = {}
        # Accounts of the last minute of which a line was logged.
        self._logged_s: dict[str, float] = {}

    def look_up(self, names: Iterable[str], now_ms: int, *, anew: bool = False) -> dict[str, Profile]:
        """The profiles of these accounts at the broker's time; one look-up for all that are not fresh, or ``anew``.

        An account whose profile cannot be made (a secret that the key does not open) is left out, with a
        sentence in the log: its postbacks must not go out unsigned, and no other account shares its trouble.
        """
        now_s = time.monotonic()
        wanted = set(names)
        stale = [name for name in wanted if anew or self._known.get(name, (0.0, None))[0] <= now_s]
        if stale:
            accounts = find_accounts(self._accounts, stale)
            for name in stale:
                self._known.pop(name, None)  # the latest stands last
                self._known[name] = self._fresh(name, accounts.get(name), now_s, now_ms)
            self._tell_broker(stale, accounts)
        profiles = {name: self._known[name][1] for name in wanted}
        for oldest in list(islice(self._known, max(0, len(self._known) - PROFILES_MAX))):
            del self._known[oldest]
        return {name: profile for name, profile in profiles.items() if profile is not None}

    def _tell_broker(self, names: list[str], accounts: Mapping[str, Account]) -> None:
        """Write what the scripts read of accounts: their pacing, and where their postbacks go."""
        if self._scripts is None:
            return
        keep_ms = int(self._settings.account_removed_keep_s * 1000)
        usable = {name: self._known[name][1] is not None for name in accounts}
        try:
            routes.publish(
                self._scripts, names, accounts, keep_ms=keep_ms, usable=usable, store=self._accounts
            )
        except (AccountsUnavailable, BrokerError) as error:  # what was claimed can be sent all the same
            log.warning("account.not_paced", str(error), accounts=len(names))

    def agree_on(self, claimed: Sequence[Claimed]) -> dict[str, Profile]:
        """Return the profile of each postback's POST, by its id.

        URL, headers, TLS and secrets of a POST come from one reading of the account. The URL is the broker's: where it
        was written from another version of the account than the one known here, the account is read anew. A postback for
        which they do not agree even then, and one that cannot be sent for, is left out.

        Raises:
            PostbacksError: the account store, or the broker, failed.
        """
        at_ms = claimed[0].at_ms
        known = self.look_up({postback.account for postback in claimed}, at_ms)
        stale = {
            postback.account
            for postback in claimed
            if postback.account in known and known[postback.account].version != postback.version
        }
        if stale:
            for account in stale:
                known.pop(account)
            known |= self.look_up(stale, at_ms, anew=True)
        agreed: dict[str, Profile] = {}
        changing: Counter[str] = Counter()
        gone: set[str] = set()
        for postback in claimed:
            profile = known.get(postback.account)
            if profile is None:
                continue
            if profile.version != postback.version:
                changing[postback.account] += 1
                continue
            if not profile.version and (postback.own in {"0", "1"} or not postback.url):
                gone.add(postback.account)  # it was known when this was accepted: nothing goes out unsigned
                continue
            agreed[postback.id] = profile if postback.own == "0" else profile.for_url(postback.url)
        if gone and self._scripts is not None:
            routes.stop(self._scripts, gone, keep_ms=int(self._settings.account_removed_keep_s * 1000))
        self._log_changing(changing)
        return agreed

    def _log_changing(self, changing: Mapping[str, int]) -> None:
        """Log accounts that two readings did not agree on, each once a minute: a store may never say the same twice."""
        now_s = time.monotonic()
        self._logged_s = {
            name: at_s for name, at_s in self._logged_s.items() if at_s + CHANGING_EVERY_S > now_s
        }
        for name, count in changing.items():
            if name in self._logged_s:
                continue
            self._logged_s[name] = now_s
            log.warning(
                "account.changing",
                "it was read twice and was another one each time; what was to be sent is claimed again in a second",
                account=name,
                postbacks=count,
            )

    def _fresh(
        self, name: str, account: Account | None, now_s: float, now_ms: int
    ) -> tuple[float, Profile | None]:
        """A profile, None where it cannot be made, and until when it holds: no longer than any of its secrets."""
        until_s = now_s + self._settings.profile_cache_s
        if account is None:
            return until_s, self._default
        if account.unreadable:
            return until_s, None
        try:
            profile = Profile.of(account, self._settings, now_ms)
        except PostbacksError as error:
            log.error("account.unusable", f"its postbacks are kept: {error}", account=name)  # noqa: TRY400
            return until_s, None
        if profile.until_ms is not None:
            until_s = min(until_s, now_s + (profile.until_ms - now_ms) / 1000)
        return until_s, profile
