"""The transfers that a loop has open, counted by lane, and which lanes are in trouble: together they have half."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from postbacks.delivery.claims import Claimed
    from postbacks.delivery.transfer import Transfer

#: Lanes of which a loop remembers that they are in trouble; past it only those that have a transfer open, and any other
#: is judged when one of it is claimed or ends.
TROUBLED_MAX: Final = 10_000


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

    def of_lane(self, lane: str) -> int:
        """How many of a lane are open."""
        return self._of_lane[lane]

    def judge(self, lane: str, *, in_trouble: bool) -> None:
        """Whether a lane is new, slow or failing."""
        (self._troubled.add if in_trouble else self._troubled.discard)(lane)
        if len(self._troubled) > TROUBLED_MAX:
            self._troubled = {troubled for troubled in self._troubled if self._of_lane[troubled]}

    def trouble_room(self) -> int:
        """Transfers that lanes in trouble may begin yet: together they have half of them."""
        return max(0, self._at_most // 2 - sum(self._of_lane[lane] for lane in self._troubled))

    def shuts_out(self) -> Callable[[str], bool]:
        """Tells of a lane, as things stand now, whether its trouble keeps it from beginning one."""
        full = 2 * len(self._open) >= self._at_most and not self.trouble_room()
        return lambda lane: full and lane in self._troubled

    def newly_slow(self, now_s: float) -> list[str]:
        """Lanes whose oldest transfer has become slow since the last call; they are in trouble now."""
        slow: list[str] = []
        for transfer, claimed in self._open.values():
            if now_s - transfer.started_s < self._slow_after_s:
                break
            if claimed.lane not in self._reported_slow:
                self._reported_slow.add(claimed.lane)
                self._troubled.add(claimed.lane)
                slow.append(claimed.lane)
        return slow
