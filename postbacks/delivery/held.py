"""Who shares a connect time-out: one connection was tried for all that were held for its endpoint.

Whichever loop tried it: where an endpoint starts slowly, one POST stands for what all loops hold for it, so that a
resend is late by a few time-outs and not by one for each loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from postbacks.delivery.claims import Claimed, Held, HeldQueue
from postbacks.delivery.profiles import Profiles
from postbacks.delivery.results import ResultBatch
from postbacks.errors import PostbacksError
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

#: Endpoints that a loop remembers; one that is told again after it was forgotten is shared by what is held since.
TOLD_MAX: Final = 10_000


class SharedTimeouts:
    """Notes the time-outs that one loop's held postbacks share.

    Args:
        held: what the loop holds.
        profiles: the accounts' limits and TLS.
        notes: where they are noted.

    Attributes:
        told_ms: when the latest POST began, on the broker's clock, that they are known to share.
    """

    def __init__(self, held: HeldQueue, profiles: Profiles, notes: ResultBatch) -> None:
        self._held = held
        self._profiles = profiles
        self._notes = notes
        # When the last POST began at an endpoint that had no connection in time: TOLD_MAX.
        self._told: dict[str, int] = {}
        self.told_ms = 0

    def own(self, transfer: Transfer, claimed: Claimed, outcome: Outcome) -> None:
        """A POST of this loop had no connection in time."""
        self.told_ms = max(self.told_ms, claimed.at_ms)
        if len(self._held):
            self._share(claimed.endpoint, claimed.at_ms, transfer.profile, outcome.elapsed_s)

    def others(self, tried: Iterable[tuple[bytes, int, bytes]]) -> None:
        """POSTs of any loop had none: their endpoints, when they began on the broker's clock, and their accounts."""
        for raw_endpoint, tried_ms, raw_account in tried:
            endpoint, account = raw_endpoint.decode(), raw_account.decode()
            if self._told.get(endpoint, 0) >= tried_ms:
                continue
            self._told.pop(endpoint, None)
            self._told[endpoint] = tried_ms
            if len(self._told) > TOLD_MAX:
                del self._told[next(iter(self._told))]
            self.told_ms = max(self.told_ms, tried_ms)
            try:
                profile = self._profiles.look_up([account], tried_ms).get(account)
            except PostbacksError:
                continue
            if profile is not None:
                self._share(endpoint, tried_ms, profile, profile.connect_timeout_s)

    def _share(self, endpoint: str, tried_ms: int, tried: Profile, elapsed_s: float) -> None:
        detail = f"no connection within {tried.connect_timeout_s:g} s (tried for another one)"
        outcome = Outcome("connect_timeout", None, elapsed_s, detail, shared=True)
        for held in self._sharers(endpoint, tried_ms, tried):
            self._notes.add(held, outcome, held.attempts + 1, tried_ms)

    def _sharers(self, endpoint: str, tried_ms: int, tried: Profile) -> list[Held]:
        """Not those of an account that would wait longer for its connection, or make it with another TLS."""
        try:
            known = self._profiles.look_up(self._held.accounts_of(endpoint), tried_ms)
        except PostbacksError:
            return []
        sharing = {
            name
            for name, profile in known.items()
            if profile.connect_timeout_s <= tried.connect_timeout_s and profile.tls == tried.tls
        }
        return self._held.take_endpoint(endpoint, tried_ms, sharing)
