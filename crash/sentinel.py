"""``python -m crash.sentinel``: kill the primary under load, let the sentinels elect another, count every postback.

Two columns: accepted by the primary alone, where what it had not yet passed on may be lost with it, and accepted
by one replica besides (``POSTBACKS_WAIT_REPLICAS=1``), where nothing may be. Exit code 0 only if that holds.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import redis

from crash.command import make_parser, run_columns
from crash.notes import read_notes
from crash.sentinel_group import SentinelGroup, Server
from crash.world import START_WITHIN_S, FaultDone, Load, World

#: Seconds that a frozen primary stays frozen: longer than the sentinels' patience and an election.
FROZEN_S: Final = 5.0
#: Seconds after a fault in which a client may still have been talking to the old primary.
OLD_PRIMARY_S: Final = 15
FAULTS: Final = ("primary killed", "primary frozen", "primary and a sentinel killed")


class SentinelWorld(World):
    """Workers and beats beside a primary, its replicas and sentinels; no process of ours is touched.

    Args:
        wait_replicas: replicas that must have a postback for it to be accepted.
        faults: kinds of fault, in their order.
        pairs: workers, and beats.
        replicas: of the primary.
        countdown_s: from a failure to its resend.
    """

    unsynced_label = "  not yet at a replica when it died"

    def __init__(
        self,
        load: Load,
        folder: Path,
        stack: ExitStack,
        *,
        wait_replicas: int,
        faults: Sequence[str],
        pairs: int,
        replicas: int,
        countdown_s: float,
    ) -> None:
        self.may_lose = wait_replicas == 0
        self._faults, self._chance = faults, random.Random(load.seed)
        self._group = stack.enter_context(SentinelGroup(folder, replicas=replicas))
        print(self._group.programs, flush=True)
        env = {
            "POSTBACKS_BROKER_URL": self._group.url,
            "POSTBACKS_WAIT_REPLICAS": str(wait_replicas),
            "POSTBACKS_RETRY_COUNTDOWN_S": str(countdown_s),
        }
        super().__init__(load, folder, stack, env, pairs=pairs)

    def client(self, timeout_s: float) -> redis.Redis:
        """Make a client of the primary that the sentinels name now."""
        return self._group.primary().client(timeout_s)

    def unsynced_deaths(self) -> list[float]:
        """Return every second of the spans in which clients may have talked to the old primary.

        Until it is a replica or its clients have left it, what they tell it goes with it.
        """
        return [fault.at_s + second for fault in self.done for second in range(OLD_PRIMARY_S)]

    def do_faults(self) -> None:
        """Do one fault after the other, each once the group is whole again."""
        self._wait(lambda: len(read_notes(self.folder / "posts")) > 0, START_WITHIN_S, "the first POST")
        for kind in self._faults:
            quiet_until_s = time.time() + self._chance.uniform(0.5, 2.0)
            self._wait(lambda until_s=quiet_until_s: time.time() > until_s, 10, "the pause's end")
            self._do(kind)

    def _do(self, kind: str) -> None:
        """Fail the primary, wait for another one, and start again what died."""
        self._wait(self._group.is_whole, 60, "a whole group")
        old, began_s = self._group.primary(), time.time()
        down: list[Server] = [] if kind == "primary frozen" else [old]
        if kind == "primary and a sentinel killed":
            down.append(self._chance.choice(self._group.sentinels))
        for server in down:
            server.kill(group=True)
        if not down:
            old.pause()
        self._wait(lambda: self._group.elected(old) is not None, 40, "a new primary")
        self.done.append(FaultDone(kind, began_s, time.time() - began_s))
        if not down:
            self._wait(lambda: time.time() > began_s + FROZEN_S, 60, "the pause's end")
            old.resume()
        for server in down:
            server.start()

    def _wait(self, done: Callable[[], bool], limit_s: float, name: str) -> None:
        if not self.turn_until(done, time.time() + limit_s):
            raise TimeoutError(f"{name} did not come within {limit_s:g} s")


def main() -> int:
    """Run the columns, print the table."""
    parser = make_parser("python -m crash.sentinel", __doc__, Load(0, 40, 6000, 60))
    parser.add_argument("--wait", choices=("0", "1", "both"), default="both")
    parser.add_argument("--replicas", type=int, default=2, help="of the primary (default: 2)")
    parser.add_argument("--faults", type=int, default=len(FAULTS), help=f"how many of: {', '.join(FAULTS)}")
    parser.add_argument("--pairs", type=int, default=2, help="workers, and beats (default: 2)")
    parser.add_argument("--countdown", type=float, default=2, help="seconds to a resend (default: 2)")
    args = parser.parse_args()
    make = partial(
        SentinelWorld, faults=FAULTS[: args.faults], pairs=args.pairs, replicas=args.replicas,
        countdown_s=args.countdown,
    )  # fmt: skip
    waits = (0, 1) if args.wait == "both" else (int(args.wait),)
    return run_columns(
        args, {f"POSTBACKS_WAIT_REPLICAS={wait}": partial(make, wait_replicas=wait) for wait in waits}
    )


if __name__ == "__main__":
    sys.exit(main())
