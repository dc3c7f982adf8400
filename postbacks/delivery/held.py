"""Who shares a connect time-out: one connection was tried for all that were held for its endpoint.

Whichever loop tried it: where an endpoint starts slowly, one POST stands for what all loops hold for it, so that a
resend is late by a few time-outs and not by one for each loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Final

from postbacks.delivery.claims import Claimed, Held
from postbacks.delivery.profiles import Profiles
from postbacks.delivery.results import ResultBatch
from postbacks.errors import PostbacksError
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

#: Postbacks that are asked for at once of all those that wait for one endpoint.
ASKED_FOR_MAX: Final = 64
#: Lanes whose limit is remembered though nothing of them is held any more.
LIMITS_MAX: Final = 10_000
#: Endpoints that a loop remembers; one that is told again after it was forgotten is shared by what is held since.
TOLD_MAX: Final = 10_000


class HeldQueue:
    """The held postbacks of a loop, by lane in their order, and by endpoint.

    A lane whose first one had no room *sleeps* at its endpoint: of all that sleep at one only a few are asked for
    again, so that thousands cost what a few do.

    All of it grows with what is held, ``loop.HELD_MAX`` at most; limits stand for ``LIMITS_MAX`` lanes more.
    """

    def __init__(self) -> None:
        self._all: dict[str, Held] = {}
        self._lanes: dict[str, deque[str]] = {}
        self._endpoints: dict[str, dict[str, None]] = {}
        self._limits: dict[str, int] = {}
        self._awake: dict[str, None] = {}
        self._asleep: dict[str, dict[str, None]] = {}  # endpoint -> lanes, the next one first
        self._sleeps_at: dict[str, str] = {}
        self._asked_for: dict[str, int] = {}  # endpoint -> how many of its sleepers are asked for next

    def __len__(self) -> int:
        return len(self._all)

    def add(self, held: Held) -> None:
        """Hold one, behind the others of its lane."""
        self._lane(held).append(held.id)
        self._limits.setdefault(held.lane, 1)

    def limit(self, lane: str) -> int:
        """How many of a lane may be open: one, as long as it fails."""
        return self._limits.get(lane, 1)

    def follow(self, lane: str, mood: str, most: int) -> None:
        """A POST of a lane has ended in this mood: after a failure it has one, else one more, ``most`` at most."""
        if lane in self._limits:
            self._limits[lane] = 1 if mood == "failed" else min(most, self._limits[lane] + 1)

    def forget_limits(self) -> None:
        """Once nothing is held, the broker's limits are all there is."""
        if not self._all:
            self._limits.clear()
        elif len(self._limits) > len(self._all) + LIMITS_MAX:
            self._limits = {lane: count for lane, count in self._limits.items() if lane in self._lanes}

    def sleeps_any(self, endpoint: str) -> bool:
        """Whether any lane sleeps at this endpoint."""
        return endpoint in self._asleep

    def choose(self, allowed: Callable[[str], int], at_most: int) -> list[Held]:
        """Take those whose turn it is, until ``settle`` says what came of it.

        Args:
            allowed: how many of a lane may begin now.
            at_most: how many to take in all.
        """
        chosen: list[Held] = []
        for lane in list(self._awake):
            if len(chosen) >= at_most:
                break
            taken = self.take(lane, min(allowed(lane), at_most - len(chosen)))
            if taken and lane in self._awake:
                self._awake[lane] = self._awake.pop(lane)  # behind the others: they take turns
            chosen += taken
        for endpoint, lanes in list(self._asleep.items()):
            some = min(self._asked_for[endpoint], at_most - len(chosen))
            for lane in list(islice(lanes, max(0, some))):
                chosen += self.take(lane, min(allowed(lane), 1))
        return chosen

    def settle(self, chosen: Sequence[Held], later: Collection[str], full: Collection[str]) -> None:
        """Hold again what could not begin; its lane sleeps where its endpoint is among the full ones.

        Where all sleepers that were asked for had room, twice as many are asked for the next time, else half.
        """
        for endpoint in {held.endpoint for held in chosen} & self._asked_for.keys():
            count = self._asked_for[endpoint]
            self._asked_for[endpoint] = (
                max(1, count // 2) if endpoint in full else min(2 * count, ASKED_FOR_MAX)
            )
        for held in chosen:
            self._wake(held.lane)
        self.put_back([held for held in chosen if held.id in later])
        for held in chosen:
            if held.id in later and held.endpoint in full and held.lane in self._awake:
                del self._awake[held.lane]
                self._sleeps_at[held.lane] = held.endpoint
                self._asleep.setdefault(held.endpoint, {})[held.lane] = None  # behind the others there
                self._asked_for.setdefault(held.endpoint, 1)

    def take(self, lane: str, count: int) -> list[Held]:
        """Take the first of a lane."""
        queue = self._lanes.get(lane)
        taken: list[Held] = []
        while queue and len(taken) < count:
            held = self._all.pop(queue.popleft(), None)
            if held is not None:  # else it shared a time-out meanwhile
                self._forget_endpoint(held)
                taken.append(held)
        if queue is not None and not queue:
            self._wake(lane)
            del self._lanes[lane], self._awake[lane]
        return taken

    def take_lane(self, lane: str) -> list[Held]:
        """Take all of a lane, in its order."""
        return self.take(lane, len(self._lanes.get(lane, ())))

    def put_back(self, taken: Sequence[Held]) -> None:
        """Hold again what was taken and not begun, in front of the others of its lane."""
        for held in reversed(taken):
            self._lane(held).appendleft(held.id)

    def accounts_of(self, endpoint: str) -> set[str]:
        """The accounts that hold anything for an endpoint."""
        return {self._all[postback_id].account for postback_id in self._endpoints.get(endpoint, ())}

    def take_endpoint(self, endpoint: str, tried_ms: int, accounts: set[str]) -> list[Held]:
        """Take what these accounts held for an endpoint when its connection began to be tried."""
        ids = [
            postback_id
            for postback_id in self._endpoints.get(endpoint, ())
            if self._all[postback_id].claimed_ms <= tried_ms and self._all[postback_id].account in accounts
        ]
        taken = [self._all.pop(postback_id) for postback_id in ids]
        for held in taken:
            self._forget_endpoint(held)
        for lane in list(self._asleep.get(endpoint, ())):  # some of them have nothing more, or something else
            self._wake(lane)
        return taken

    def take_lanes(self, at_least: int) -> list[Held]:
        """Take whole lanes, each in its order, until they are so many together."""
        taken: list[Held] = []
        while self._lanes and len(taken) < at_least:
            taken += self.take_lane(
                next(iter(self._lanes))
            )  # some of it may have shared a time-out meanwhile
        return taken

    def _lane(self, held: Held) -> deque[str]:
        """Its lane's queue, where it is to stand."""
        self._all[held.id] = held
        self._endpoints.setdefault(held.endpoint, {})[held.id] = None
        if held.lane not in self._lanes:
            self._lanes[held.lane] = deque()
            self._awake[held.lane] = None
        return self._lanes[held.lane]

    def _wake(self, lane: str) -> None:
        endpoint = self._sleeps_at.pop(lane, None)
        if endpoint is None:
            return
        self._awake[lane] = None
        lanes = self._asleep[endpoint]
        del lanes[lane]
        if not lanes:
            del self._asleep[endpoint], self._asked_for[endpoint]

    def _forget_endpoint(self, held: Held) -> None:
        of_endpoint = self._endpoints[held.endpoint]
        del of_endpoint[held.id]
        if not of_endpoint:
            del self._endpoints[held.endpoint]


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
