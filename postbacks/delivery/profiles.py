"""Profiles of accounts, kept for a while, and whether broker and account agree on where a POST goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from postbacks.accounts import Account, AccountStore, find_accounts
from postbacks.delivery.claims import Claimed
from postbacks.errors import AccountsUnavailable, BrokerError, PostbacksError
from postbacks.logs import EventLog
from postbacks.queue import routes
from postbacks.queue.scripts import Scripts
from postbacks.settings import Settings
from postbacks.transport.profile import Profile

log = EventLog(__name__)

#: Seconds between two lines of the log about one account that two readings do not agree on.
CHANGING_EVERY_S: Final = 60
#: Profiles kept by one loop at most; the one that was read longest ago goes first.
PROFILES_MAX: Final = 10_000


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
