"""What a delivering loop has claimed: postbacks to send now, and postbacks held behind a probe."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Claimed(NamedTuple):
    """A postback whose POST is to begin now: the row of ``claim.lua`` or ``begin.lua``.

    Attributes:
        number: of this attempt, 1 for the first POST.
        failures: attempts before this one that count against the resends.
        at_ms: when the attempt began, on the broker's clock.
    """

    id: str
    lane: str
    number: int
    failures: int
    account: str
    origin: str
    code: str
    created_ms: int
    sequence: int
    url: str
    xml: bytes
    at_ms: int

    @classmethod
    def from_row(cls, lane: str, row: Sequence[Any], at_ms: int) -> Claimed:
        """Build one from ``id, number, failures, account, origin, code, created_ms, sequence, url, xml``."""
        postback_id, number, failures, account, origin, code, created_ms, sequence, url, xml = row
        return cls(
            postback_id.decode(), lane, int(number), int(failures), account.decode(), origin.decode(),
            code.decode(), int(created_ms), int(sequence), url.decode(), xml, at_ms,
        )  # fmt: skip

    @property
    def endpoint(self) -> str:
        """Scheme, host and port that the POST goes to."""
        return endpoint_of(self.url)


class Held(NamedTuple):
    """A postback of a failing lane that waits in this loop for what the probe finds."""

    id: str
    lane: str
    endpoint: str
    attempts: int
    failures: int
    account: str
    origin: str
    code: str
    claimed_s: float

    @classmethod
    def from_row(cls, row: Sequence[Any], claimed_s: float) -> Held:
        """Build one from a held row of ``claim.lua``."""
        postback_id, lane, endpoint, attempts, failures, account, origin, code = row
        return cls(
            postback_id.decode(), lane.decode(), endpoint.decode(), int(attempts), int(failures),
            account.decode(), origin.decode(), code.decode(), claimed_s,
        )  # fmt: skip


class HeldPostbacks:
    """The held postbacks of a loop, by lane in their order, and by endpoint."""

    def __init__(self) -> None:
        self._all: dict[str, Held] = {}
        self._lanes: dict[str, deque[str]] = {}
        self._endpoints: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, held: Held) -> None:
        """Hold one, behind the others of its lane."""
        self._all[held.id] = held
        self._lanes.setdefault(held.lane, deque()).append(held.id)
        self._endpoints.setdefault(held.endpoint, {})[held.id] = None

    def lanes(self) -> list[str]:
        """Lanes of which anything is held."""
        return list(self._lanes)

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
            del self._lanes[lane]
        return taken

    def put_back(self, taken: Sequence[Held]) -> None:
        """Hold again what was taken and not begun, in front of the others of its lane."""
        for held in reversed(taken):
            self._all[held.id] = held
            self._lanes.setdefault(held.lane, deque()).appendleft(held.id)
            self._endpoints.setdefault(held.endpoint, {})[held.id] = None

    def accounts_of(self, endpoint: str) -> set[str]:
        """The accounts that hold anything for an endpoint."""
        return {self._all[postback_id].account for postback_id in self._endpoints.get(endpoint, ())}

    def take_endpoint(self, endpoint: str, claimed_before_s: float, accounts: set[str]) -> list[Held]:
        """Take what these accounts held for an endpoint when its connection began to be tried."""
        ids = [
            postback_id
            for postback_id in self._endpoints.get(endpoint, ())
            if self._all[postback_id].claimed_s <= claimed_before_s
            and self._all[postback_id].account in accounts
        ]
        taken = [self._all.pop(postback_id) for postback_id in ids]
        for held in taken:
            self._forget_endpoint(held)
        return taken

    def take_all(self) -> Iterator[list[Held]]:
        """Take everything, lane by lane, each in its order."""
        for lane in self.lanes():
            yield self.take(lane, len(self._all))

    def _forget_endpoint(self, held: Held) -> None:
        of_endpoint = self._endpoints[held.endpoint]
        del of_endpoint[held.id]
        if not of_endpoint:
            del self._endpoints[held.endpoint]
