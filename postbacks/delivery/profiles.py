"""Cache of accounts' profiles, and the agreement of broker and account store on where a POST goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from postbacks.accounts import Account, AccountStore, find_accounts
from postbacks.delivery.claims import ClaimedPostback
from postbacks.errors import AccountsUnavailable, BrokerError, PostbacksError
from postbacks.logs import EventLog
from postbacks.queue import routes
from postbacks.queue.scripts import Scripts
from postbacks.settings import Settings
from postbacks.transport.profile import Profile

log = EventLog(__name__)

#: Seconds between two log lines about one account that never reads the same twice.
CHANGING_EVERY_S: Final = 60
#: Profiles that one loop keeps at most; the one that was read longest ago goes first.
PROFILES_MAX: Final = 10_000


class Profiles:
    """Profiles of accounts, kept for ``profile_cache_s``, ``PROFILES_MAX`` of them; not for more than one thread.

    Args:
        accounts: the store that accounts are read from.
        settings: the process's settings.
        scripts: the scripts of the broker, for ``publish``; None to publish nothing.
    """

    def __init__(self, accounts: AccountStore, settings: Settings, scripts: Scripts | None = None) -> None:
        self._accounts = accounts
        self._scripts = scripts
        self._settings = settings
        self._keep_ms = int(settings.account_removed_keep_s * 1000)
        self._default = Profile.default(settings)
        # Name -> time until which the profile is fresh, and the profile: PROFILES_MAX.
        self._cache: dict[str, tuple[float, Profile | None]] = {}
        # Accounts that were read since the last `publish`: those of what one loop claims and holds.
        self._unpublished: dict[str, Account | None] = {}
        self._unusable: set[str] = set()  # of them those that no profile can be made of
        self._removed: set[str] = (
            set()
        )  # accounts that the store does not have though postbacks of theirs wait
        # Accounts of the last minute of which a line was logged.
        self._logged_s: dict[str, float] = {}

    def look_up(self, names: Iterable[str], now_ms: int, *, anew: bool = False) -> dict[str, Profile]:
        """Return the profiles of these accounts at the broker's time; one read of the store for all that are not fresh.

        An account whose profile cannot be made (a secret that the key does not open) is left out, with a
        sentence in the log: its postbacks must not go out unsigned, and no other account shares its trouble.

        Args:
            names: the accounts.
            now_ms: the broker's time.
            anew: True to read them even if they are fresh.
        """
        now_s = time.monotonic()
        wanted = set(names)
        stale = [name for name in wanted if anew or self._cache.get(name, (0.0, None))[0] <= now_s]
        if stale:
            accounts = find_accounts(self._accounts, stale)
            for name in stale:
                self._cache.pop(name, None)  # the latest stands last
                self._cache[name] = self._make(name, accounts.get(name), now_s, now_ms)
                self._unpublished[name] = accounts.get(name)
                usable = self._cache[name][1] is not None
                (self._unusable.discard if usable else self._unusable.add)(name)
        profiles = {name: self._cache[name][1] for name in wanted}
        for oldest in list(islice(self._cache, max(0, len(self._cache) - PROFILES_MAX))):
            del self._cache[oldest]
        return {name: profile for name, profile in profiles.items() if profile is not None}

    def publish(self) -> None:
        """Write what the scripts read of the accounts that were read since the last call: their pacing, and their routes.

        An account that is gone stands still from then on.

        Raises:
            BrokerError: the broker cannot be used, while an account is gone.
        """
        unpublished, self._unpublished = self._unpublished, {}
        unusable, self._unusable = self._unusable, set()
        removed, self._removed = self._removed, set()
        if self._scripts is None:
            return
        accounts = {name: account for name, account in unpublished.items() if account is not None}
        usable = {name: name not in unusable for name in accounts}
        try:
            routes.publish(
                self._scripts,
                unpublished,
                accounts,
                keep_ms=self._keep_ms,
                usable=usable,
                store=self._accounts,
            )
        except (AccountsUnavailable, BrokerError) as error:  # what was claimed can be sent all the same
            log.warning("account.not_paced", str(error), accounts=len(unpublished))
        if removed:
            routes.stop(self._scripts, removed, keep_ms=self._keep_ms)

    def agree_on(self, claimed: Sequence[ClaimedPostback]) -> dict[str, Profile]:
        """Return the profile of each postback's POST, by the postback's id.

        URL, headers, TLS and secrets of a POST come from one reading of the account. The URL is the broker's: where it
        was written from another version of the account than the one known here, the account is read anew. A postback for
        which they do not agree even then, and one that cannot be sent for, is left out.

        Raises:
            PostbacksError: the account store failed.
        """
        at_ms = claimed[0].at_ms
        profiles = self.look_up({postback.account for postback in claimed}, at_ms)
        outdated = {
            postback.account
            for postback in claimed
            if postback.account in profiles and profiles[postback.account].version != postback.version
        }
        if outdated:
            for account in outdated:
                profiles.pop(account)
            profiles |= self.look_up(outdated, at_ms, anew=True)
        agreed: dict[str, Profile] = {}
        changing: Counter[str] = Counter()
        for postback in claimed:
            profile = profiles.get(postback.account)
            if profile is None:
                continue
            if profile.version != postback.version:
                changing[postback.account] += 1
                continue
            if not profile.version and (postback.url_source in {"0", "1"} or not postback.url):
                # It was known when this was accepted: nothing goes out unsigned.
                self._removed.add(postback.account)
                continue
            agreed[postback.id] = profile if postback.url_source == "0" else profile.for_url(postback.url)
        self._log_changing(changing)
        return agreed

    def _log_changing(self, changing: Mapping[str, int]) -> None:
        """Log accounts that two readings did not agree on, each once a minute: some stores never say the same twice."""
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

    def _make(
        self, name: str, account: Account | None, now_s: float, now_ms: int
    ) -> tuple[float, Profile | None]:
        """Return the time until which a profile is fresh, no longer than any of its secrets, and the profile.

        None where it cannot be made.
        """
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
