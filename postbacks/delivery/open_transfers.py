"""Open transfers of a loop, counted by lane, and the half of them that suspects share.

Suspects are lanes in trouble (slow or failing) and new ones. Nobody knows of a new lane whether its receiver hangs until
its POST has been open for a second; then the lane is in trouble. So some of the half is always left for the next new
lane: lanes in trouble begin nothing above three quarters of the half, and new ones nothing above three quarters of what
those leave. New lanes that have waited for more than a second have half of it at most, and less, the more of the half is
in trouble; but one of them may begin while more than an eighth is left, as the latest of them may have come just too late.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.delivery.claims import ClaimedPostback
    from postbacks.transport.transfer import Transfer

#: Lanes that a loop remembers as in trouble, or as new. Past it only those that have a transfer open are; any other
#: is marked again when one of it is claimed or ends.
MARKED_MAX: Final = 10_000


class SuspectCapacity(NamedTuple):
    """Transfers that suspects may begin yet.

    Attributes:
        suspects: all suspects together.
        troubled: lanes in trouble.
        new: new lanes.
        waited: new lanes that have waited for more than a second.
    """

    suspects: int
    troubled: int
    new: int
    waited: int


def divide_half(transfers_max: int, troubled: int, new: int) -> SuspectCapacity:
    """Divide the suspects' half by the transfers that lanes in trouble and new lanes have open."""
    half = transfers_max // 2
    left = max(0, half - troubled)
    return SuspectCapacity(
        suspects=max(0, left - new),
        troubled=max(0, max(1, 3 * half // 4) - troubled - new),
        new=max(0, -(-3 * left // 4) - new),
        waited=max(0, max(8 * left > half, left * left // max(1, 2 * half)) - new),
    )


class OpenTransfers:
    """The transfers that one loop has open.

    Args:
        transfers_max: transfers that the loop may have open.
        slow_after_s: seconds after which a transfer that is still open makes its lane one in trouble.
    """

    def __init__(self, transfers_max: int, slow_after_s: float) -> None:
        self._transfers_max = transfers_max
        self._slow_after_s = slow_after_s
        self._open: dict[int, tuple[Transfer, ClaimedPostback]] = {}  # oldest first; transfers_max
        self._by_lane: Counter[str] = Counter()  # lanes with open ones
        self._troubled: set[str] = set()  # MARKED_MAX
        self._new: set[str] = set()  # MARKED_MAX
        self._reported_slow: set[str] = set()  # lanes with open ones

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, transfer: Transfer, postback: ClaimedPostback) -> None:
        """Record that a transfer of this postback's lane has started."""
        self._open[id(transfer)] = (transfer, postback)
        self._by_lane[postback.lane] += 1

    def end(self, transfer: Transfer, postback: ClaimedPostback) -> None:
        """Record that a transfer of this postback's lane has ended."""
        lane = postback.lane
        del self._open[id(transfer)]
        self._by_lane[lane] -= 1
        if not self._by_lane[lane]:
            del self._by_lane[lane]
            self._reported_slow.discard(lane)
            self._new.discard(lane)

    def of_lane(self, lane: str) -> int:
        """Return how many transfers of a lane are open."""
        return self._by_lane[lane]

    def mark(self, lane: str, *, troubled: bool, new: bool = False) -> None:
        """Mark a lane as in trouble or not, and as new or not."""
        (self._troubled.add if troubled else self._troubled.discard)(lane)
        (self._new.add if new else self._new.discard)(lane)
        if len(self._troubled) > MARKED_MAX:
            self._troubled = {lane for lane in self._troubled if self._by_lane[lane]}
        if len(self._new) > MARKED_MAX:
            self._new = {lane for lane in self._new if self._by_lane[lane]}

    def is_troubled(self, lane: str) -> bool:
        """True if a lane is slow or failing."""
        return lane in self._troubled

    def suspect_capacity(self, claimed: Iterable[ClaimedPostback] = ()) -> SuspectCapacity:
        """Return what suspects may begin yet; ``claimed`` is about to begin and counts as open."""
        troubled = sum(self._by_lane[lane] for lane in self._troubled)
        new = sum(self._by_lane[lane] for lane in self._new)
        for postback in claimed:
            troubled += postback.lane in self._troubled
            new += postback.lane in self._new
        return divide_half(self._transfers_max, troubled, new)

    def mark_slow(self, now_s: float) -> list[str]:
        """Mark lanes whose oldest transfer has become slow since the last call, and return them."""
        slow: list[str] = []
        for transfer, postback in self._open.values():
            if now_s - transfer.started_s < self._slow_after_s:
                break
            if postback.lane not in self._reported_slow:
                self._reported_slow.add(postback.lane)
                self.mark(postback.lane, troubled=True)
                slow.append(postback.lane)
        return slow
