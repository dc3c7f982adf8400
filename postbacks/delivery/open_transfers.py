"""The transfers that a loop has open, counted by lane, and which lanes are suspects: together they have half.

Lanes in trouble (slow or failing) and new ones share that half. Nobody knows of a new one whether its receiver hangs
until its POST has been open for a second; then it is in trouble. So some room is always left for the next new one: lanes
in trouble begin nothing above three quarters of the half, and new ones nothing above three quarters of what those leave.
New ones that have waited for more than a second have half of it at most, and less, the more of the half is in trouble;
but one of them may begin while more than an eighth is left, as the latest of them may have come just too late.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.delivery.claims import Claimed
    from postbacks.transport.transfer import Transfer

#: Lanes of which a loop remembers that they are in trouble, or new; past it only those that have a transfer open, and any other
#: is judged when one of it is claimed or ends.
TROUBLED_MAX: Final = 10_000


class Room(NamedTuple):
    """Transfers that suspects may begin yet.

    Attributes:
        suspects: all of them together.
        troubled: lanes in trouble.
        new: new lanes.
        waited: new lanes that have waited for more than a second.
    """

    suspects: int
    troubled: int
    new: int
    waited: int


def room_for(at_most: int, troubled: int, new: int) -> Room:
    """Divide what suspects may begin yet, by what lanes in trouble and new ones have open."""
    half = at_most // 2
    left = max(0, half - troubled)
    return Room(
        suspects=max(0, left - new),
        troubled=max(0, max(1, 3 * half // 4) - troubled - new),
        new=max(0, -(-3 * left // 4) - new),
        waited=max(0, max(8 * left > half, left * left // max(1, 2 * half)) - new),
    )


class OpenTransfers:
    """What one loop has open.

    Args:
        at_most: how many it may have open.
        slow_after_s: seconds after which a transfer that is still open makes its lane one in trouble.
    """

    def __init__(self, at_most: int, slow_after_s: float) -> None:
        self._at_most = at_most
        self._slow_after_s = slow_after_s
        self._open: dict[int, tuple[Transfer, Claimed]] = {}  # oldest first; at_most
        self._of_lane: Counter[str] = Counter()  # lanes with open ones
        self._troubled: set[str] = set()  # TROUBLED_MAX
        self._new: set[str] = set()  # TROUBLED_MAX
        self._reported_slow: set[str] = set()  # lanes with open ones

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, transfer: Transfer, claimed: Claimed) -> None:
        """One has begun."""
        self._open[id(transfer)] = (transfer, claimed)
        self._of_lane[claimed.lane] += 1

    def end(self, transfer: Transfer, claimed: Claimed) -> None:
        """One has ended."""
        lane = claimed.lane
        del self._open[id(transfer)]
        self._of_lane[lane] -= 1
        if not self._of_lane[lane]:
            del self._of_lane[lane]
            self._reported_slow.discard(lane)
            self._new.discard(lane)

    def of_lane(self, lane: str) -> int:
        """How many of a lane are open."""
        return self._of_lane[lane]

    def judge(self, lane: str, *, in_trouble: bool, is_new: bool = False) -> None:
        """Note whether a lane is slow or failing, or new."""
        (self._troubled.add if in_trouble else self._troubled.discard)(lane)
        (self._new.add if is_new else self._new.discard)(lane)
        if len(self._troubled) > TROUBLED_MAX:
            self._troubled = {troubled for troubled in self._troubled if self._of_lane[troubled]}
        if len(self._new) > TROUBLED_MAX:
            self._new = {new for new in self._new if self._of_lane[new]}

    def is_in_trouble(self, lane: str) -> bool:
        """Whether a lane is slow or failing."""
        return lane in self._troubled

    def room(self, claimed: Iterable[Claimed] = ()) -> Room:
        """Count what suspects may begin yet; ``claimed`` is about to begin and counts as open."""
        troubled = sum(self._of_lane[lane] for lane in self._troubled)
        new = sum(self._of_lane[lane] for lane in self._new)
        for postback in claimed:
            troubled += postback.lane in self._troubled
            new += postback.lane in self._new
        return room_for(self._at_most, troubled, new)

    def newly_slow(self, now_s: float) -> list[str]:
        """Lanes whose oldest transfer has become slow since the last call; they are in trouble now."""
        slow: list[str] = []
        for transfer, claimed in self._open.values():
            if now_s - transfer.started_s < self._slow_after_s:
                break
            if claimed.lane not in self._reported_slow:
                self._reported_slow.add(claimed.lane)
                self.judge(claimed.lane, in_trouble=True)
                slow.append(claimed.lane)
        return slow
