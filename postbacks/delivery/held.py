"""Held postbacks of a loop, and the connect time-outs that they share.

Where an endpoint gives no connection in time, one POST stands for all that every loop holds for that endpoint,
whichever loop made it. So a resend is late by a few time-outs, and not by one for each loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Final

from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.profiles import Profiles
from postbacks.delivery.results import ResultBatch
from postbacks.errors import PostbacksError
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

#: Lanes blocked on one endpoint that are retried in one round at most.
RETRIED_MAX: Final = 64
#: Lanes whose limit is remembered though nothing of them is held any more.
LIMITS_MAX: Final = 10_000
#: Endpoints whose latest time-out a loop remembers. A time-out that is reported again after it was forgotten is shared
#: by what has been held since.
TIMEOUTS_MAX: Final = 10_000


class HeldQueue:
    """The held postbacks of a loop, by lane in their order, and by endpoint.

    When the head of a lane cannot start because its endpoint is full, the lane is *blocked* on that endpoint. Each
    round retries only a few blocked lanes per endpoint, so the cost does not grow with their number.

    All of it grows with what is held, ``loop.HELD_MAX`` at most; limits are kept for ``LIMITS_MAX`` lanes more.
    """

    def __init__(self) -> None:
        self._postbacks: dict[str, ClaimedPostback] = {}
        self._lanes: dict[str, deque[str]] = {}
        self._by_endpoint: dict[str, dict[str, None]] = {}
        self._limits: dict[str, int] = {}
        self._runnable: dict[str, None] = {}
        self._blocked: dict[str, dict[str, None]] = {}  # endpoint -> lanes, the next one first
        self._blocked_on: dict[str, str] = {}  # lane -> endpoint
        self._retried: dict[str, int] = {}  # endpoint -> how many of its blocked lanes the next round retries

    def __len__(self) -> int:
        return len(self._postbacks)

    def add(self, postback: ClaimedPostback) -> None:
        """Hold a postback behind the others of its lane."""
        self._register(postback).append(postback.id)
        self._limits.setdefault(postback.lane, 1)

    def limit(self, lane: str) -> int:
        """Maximum open POSTs of a lane; 1 while its last POST failed."""
        return self._limits.get(lane, 1)

    def record_mood(self, lane: str, mood: str, limit_max: int) -> None:
        """Set a lane's limit by how a POST of it has ended: 1 after a failure, else one more, up to ``limit_max``."""
        if lane in self._limits:
            self._limits[lane] = 1 if mood == "failed" else min(limit_max, self._limits[lane] + 1)

    def forget_limits(self) -> None:
        """Forget limits of lanes of which nothing is held: then the broker's limits are all there is."""
        if not self._postbacks:
            self._limits.clear()
        elif len(self._limits) > len(self._postbacks) + LIMITS_MAX:
            self._limits = {lane: limit for lane, limit in self._limits.items() if lane in self._lanes}

    def has_blocked(self, endpoint: str) -> bool:
        """True if any lane is blocked on this endpoint."""
        return endpoint in self._blocked

    def pick(self, allowed: Callable[[str], int], at_most: int) -> list[ClaimedPostback]:
        """Take the postbacks whose turn it is, until ``resolve`` says what became of them.

        Args:
            allowed: returns how many of a lane may begin now.
            at_most: how many to take in all.
        """
        picked: list[ClaimedPostback] = []
        for lane in list(self._runnable):
            if len(picked) >= at_most:
                break
            taken = self.take(lane, min(allowed(lane), at_most - len(picked)))
            if taken and lane in self._runnable:
                self._runnable[lane] = self._runnable.pop(lane)  # behind the others: they take turns
            picked += taken
        for endpoint, lanes in list(self._blocked.items()):
            count = min(self._retried[endpoint], at_most - len(picked))
            for lane in list(islice(lanes, max(0, count))):
                picked += self.take(lane, min(allowed(lane), 1))
        return picked

    def resolve(
        self, picked: Sequence[ClaimedPostback], later: Collection[str], full: Collection[str]
    ) -> None:
        """Hold again what could not begin; block its lane where its endpoint is full.

        Where every blocked lane that was retried had room, the next round retries twice as many, else half.

        Args:
            picked: what ``pick`` returned.
            later: ids that could not begin.
            full: endpoints that had no room.
        """
        for endpoint in {postback.endpoint for postback in picked} & self._retried.keys():
            count = self._retried[endpoint]
            self._retried[endpoint] = max(1, count // 2) if endpoint in full else min(2 * count, RETRIED_MAX)
        for postback in picked:
            self._unblock(postback.lane)
        self.put_back([postback for postback in picked if postback.id in later])
        for postback in picked:
            if postback.id in later and postback.endpoint in full and postback.lane in self._runnable:
                del self._runnable[postback.lane]
                self._blocked_on[postback.lane] = postback.endpoint
                # behind the others there
                self._blocked.setdefault(postback.endpoint, {})[postback.lane] = None
                self._retried.setdefault(postback.endpoint, 1)

    def take(self, lane: str, count: int) -> list[ClaimedPostback]:
        """Take the first postbacks of a lane."""
        queue = self._lanes.get(lane)
        taken: list[ClaimedPostback] = []
        while queue and len(taken) < count:
            postback = self._postbacks.pop(queue.popleft(), None)
            if postback is not None:  # else it has shared a time-out meanwhile
                self._forget_endpoint(postback)
                taken.append(postback)
        if queue is not None and not queue:
            self._unblock(lane)
            del self._lanes[lane], self._runnable[lane]
        return taken

    def lanes_of(self, accounts: Collection[str]) -> list[str]:
        """Return the lanes of these accounts of which something is held."""
        return [lane for lane in self._lanes if lane.rpartition("/")[0] in accounts]

    def take_lane(self, lane: str) -> list[ClaimedPostback]:
        """Take all postbacks of a lane, in its order."""
        return self.take(lane, len(self._lanes.get(lane, ())))

    def take_lanes(self, at_least: int) -> list[ClaimedPostback]:
        """Take whole lanes, each in its order, until they hold so many postbacks together."""
        taken: list[ClaimedPostback] = []
        while self._lanes and len(taken) < at_least:
            # fewer than the lane's queue has, where some of it have shared a time-out meanwhile
            taken += self.take_lane(next(iter(self._lanes)))
        return taken

    def put_back(self, postbacks: Sequence[ClaimedPostback]) -> None:
        """Hold again what was taken and has not begun, in front of the others of its lane."""
        for postback in reversed(postbacks):
            self._register(postback).appendleft(postback.id)

    def accounts_of(self, endpoint: str) -> set[str]:
        """Return the accounts of the postbacks that are held for an endpoint."""
        return {self._postbacks[postback_id].account for postback_id in self._by_endpoint.get(endpoint, ())}

    def take_endpoint(self, endpoint: str, tried_ms: int, accounts: set[str]) -> list[ClaimedPostback]:
        """Take what these accounts already held for an endpoint when its connection began to be tried."""
        postbacks = (self._postbacks[postback_id] for postback_id in self._by_endpoint.get(endpoint, ()))
        taken = [
            postback for postback in postbacks if postback.at_ms <= tried_ms and postback.account in accounts
        ]
        for postback in taken:
            del self._postbacks[postback.id]
            self._forget_endpoint(postback)
        # Some of the lanes have nothing more, or something else at their head.
        for lane in list(self._blocked.get(endpoint, ())):
            self._unblock(lane)
        return taken

    def _register(self, postback: ClaimedPostback) -> deque[str]:
        """Register a held postback and return its lane's queue."""
        self._postbacks[postback.id] = postback
        self._by_endpoint.setdefault(postback.endpoint, {})[postback.id] = None
        if postback.lane not in self._lanes:
            self._lanes[postback.lane] = deque()
            self._runnable[postback.lane] = None
        return self._lanes[postback.lane]

    def _unblock(self, lane: str) -> None:
        endpoint = self._blocked_on.pop(lane, None)
        if endpoint is None:
            return
        self._runnable[lane] = None
        lanes = self._blocked[endpoint]
        del lanes[lane]
        if not lanes:
            del self._blocked[endpoint], self._retried[endpoint]

    def _forget_endpoint(self, postback: ClaimedPostback) -> None:
        ids = self._by_endpoint[postback.endpoint]
        del ids[postback.id]
        if not ids:
            del self._by_endpoint[postback.endpoint]


class SharedTimeouts:
    """Ends held postbacks with the connect time-out of a POST that went to their endpoint.

    Args:
        held: the loop's held postbacks.
        profiles: the accounts' limits and TLS.
        results: takes the results of the postbacks that share a time-out.

    Attributes:
        latest_known_ms: begin of the latest POST whose time-out the loop knows of, on the broker's clock.
    """

    def __init__(self, held: HeldQueue, profiles: Profiles, results: ResultBatch) -> None:
        self._held = held
        self._profiles = profiles
        self._results = results
        # Endpoint -> begin of the latest POST that had no connection in time: TIMEOUTS_MAX.
        self._timeouts: dict[str, int] = {}
        self.latest_known_ms = 0

    def on_own_timeout(self, transfer: Transfer, postback: ClaimedPostback, outcome: Outcome) -> None:
        """Share the time-out of a POST of this loop."""
        self.latest_known_ms = max(self.latest_known_ms, postback.at_ms)
        if len(self._held):
            self._share(postback.endpoint, postback.at_ms, transfer.profile, outcome.elapsed_s)

    def on_reported(self, timeouts: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Share time-outs of any loop's POSTs, each given by endpoint, begin on the broker's clock and account."""
        for raw_endpoint, tried_ms, raw_account in timeouts:
            endpoint, account = raw_endpoint.decode(), raw_account.decode()
            if self._timeouts.get(endpoint, 0) >= tried_ms:
                continue
            self._timeouts.pop(endpoint, None)
            self._timeouts[endpoint] = tried_ms
            if len(self._timeouts) > TIMEOUTS_MAX:
                del self._timeouts[next(iter(self._timeouts))]
            self.latest_known_ms = max(self.latest_known_ms, tried_ms)
            try:
                profile = self._profiles.look_up([account], tried_ms).get(account)
            except PostbacksError:
                continue
            if profile is not None:
                self._share(endpoint, tried_ms, profile, profile.connect_timeout_s)

    def _share(self, endpoint: str, tried_ms: int, tried: Profile, elapsed_s: float) -> None:
        detail = f"no connection within {tried.connect_timeout_s:g} s (tried for another one)"
        outcome = Outcome("connect_timeout", None, elapsed_s, detail, shared=True)
        for postback in self._take_sharing(endpoint, tried_ms, tried):
            self._results.add(postback, outcome, tried_ms)

    def _take_sharing(self, endpoint: str, tried_ms: int, tried: Profile) -> list[ClaimedPostback]:
        """Take what shares a time-out: not what would wait longer for its connection, or make it with another TLS."""
        try:
            profiles = self._profiles.look_up(self._held.accounts_of(endpoint), tried_ms)
        except PostbacksError:
            return []
        accounts = {
            name
            for name, profile in profiles.items()
            if profile.connect_timeout_s <= tried.connect_timeout_s and profile.tls == tried.tls
        }
        return self._held.take_endpoint(endpoint, tried_ms, accounts)
