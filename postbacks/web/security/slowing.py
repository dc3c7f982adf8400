"""Wrong logins are slowed: by name and by address, in bounded memory, each web process for itself.

The first ``FREE`` tries are free. From then on the next one must wait, twice as long each time, up to ``WAIT_MAX_S``. A try
counts before it is checked, so that a hundred at once are a hundred; a right one clears its name and its address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

#: Tries that need not wait.
FREE: Final = 5
#: Seconds that a try waits at most: who knows the password gets in within this time, whoever else tries.
WAIT_MAX_S: Final = 60.0
#: Seconds of quiet after which wrong tries are forgotten.
FORGET_S: Final = 900.0
#: Names and addresses that are remembered, the latest.
REMEMBERED_MAX: Final = 10_000


class Slowing:
    """Memory of wrong logins.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def attempt(self, name: str, address: str) -> float:
        """Count a try.

        Returns:
            Seconds that it must wait for; 0 where it may be checked now.
        """
        now_s, keys = self._clock(), self._keys(name, address)
        wait_s = max(self._wait_s(key, now_s) for key in keys)
        if wait_s > 0:
            return wait_s
        for key in keys:
            tries = self._tries(key, now_s)
            self._wrong[key] = (tries + 1, now_s)
            self._wrong.move_to_end(key)
        while len(self._wrong) > REMEMBERED_MAX:
            self._wrong.popitem(last=False)
        return 0.0

    def succeed(self, name: str, address: str) -> None:
        """Forget the tries before a right one."""
        for key in self._keys(name, address):
            self._wrong.pop(key, None)

    def _wait_s(self, key: tuple[str, str], now_s: float) -> float:
        tries = self._tries(key, now_s)
        if tries < FREE:
            return 0.0
        return self._wrong[key][1] + min(WAIT_MAX_S, 2.0 ** (tries - FREE)) - now_s

    def _tries(self, key: tuple[str, str], now_s: float) -> int:
        tries, last_s = self._wrong.get(key, (0, 0.0))
        return tries if now_s - last_s < FORGET_S else 0

    @staticmethod
    def _keys(name: str, address: str) -> tuple[tuple[str, str], ...]:
        return ("name", name[:100]), ("address", _network(address))


def _network(address: str) -> str:
    """Return an address as it is counted: of IPv6 its network, as one person has a whole one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
