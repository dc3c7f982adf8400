"""World of ``python -m crash``: one broker behind a proxy, and faults of every kind by a seeded plan."""

from __future__ import annotations

import heapq
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import redis

from crash.customers import changes
from crash.plan import KINDS, Fault, Kinds, make_plan
from crash.processes import PythonProcess
from crash.proxy import Proxy
from crash.world import LEASE_S, FaultDone, Load, World
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import StackProcess

Fsync = Literal["always", "everysec"]

#: Seconds after which a fault that could not be done is tried again, and for how long after the load's end.
TRY_AGAIN_S: Final = 0.2
TRY_UNTIL_S: Final = 10.0
#: Seconds after the load's end within which the last fault has to be over.
FAULTS_OVER_S: Final = 60.0
#: Seconds of data that a power cut takes with ``everysec``.
POWER_CUT_S: Final = 1.0


class PlannedWorld(World):
    """Two workers and two beats beside a broker of one ``appendfsync``, with customers whose accounts change.

    Args:
        fsync: of the broker.
        load: of the run.
        folder: where all files are.
        stack: gets what is to be undone.
        kinds: of faults.
        only: beginnings of the names of those that are done.
        pairs: workers, and beats.
    """

    unsynced_label = "  in the broker's unwritten tail"

    def __init__(
        self,
        fsync: Fsync,
        load: Load,
        folder: Path,
        stack: ExitStack,
        *,
        kinds: Kinds = KINDS,
        only: tuple[str, ...] = ("",),
        pairs: int = 2,
    ) -> None:
        self._kinds = {kind: numbers for kind, numbers in kinds.items() if kind.startswith(only)}
        self._fsync = fsync
        self.may_lose = fsync == "everysec"
        self.exact = not self.may_lose
        self.changes = changes(load.seconds)
        self.broker = EmbeddedBroker(folder / "broker", config={"appendfsync": fsync})
        self.broker.start()
        stack.callback(self.broker.stop)
        assert self.broker.port is not None
        self.proxy = Proxy(self.broker.port, load.seed)
        self.proxy.start()
        stack.callback(self.proxy.stop)
        super().__init__(load, folder, stack, {"POSTBACKS_BROKER_URL": self.proxy.url}, pairs=pairs)
        customers = self._start_module("customers", load.seconds, self.began_s)
        self.senders.append(customers)
        self.supervised.append(customers)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._paused: set[int] = set()
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=200)
        self._broker_up = True
        self._broker_deaths: list[float] = []

    def client(self, timeout_s: float) -> redis.Redis:
        """Make a client that goes past the proxy."""
        return self.broker.client(timeout_s=timeout_s)

    def unsynced_deaths(self) -> list[float]:
        """Return the broker's deaths where it may have had unwritten data."""
        return self._broker_deaths if self.may_lose else []

    def mend(self) -> None:
        """Cut the connections that are still half-open."""
        self.proxy.cut_half_open()

    # -- time -------------------------------------------------------------------------------

    def do_faults(self) -> None:
        """Do the faults of the plan."""
        for fault in make_plan(self.load.seed, self.load.seconds, LEASE_S, self._kinds):
            self._later(self.began_s + fault.at_s, partial(self._do, fault))
        self.turn_until(lambda: time.time() > self.end_s and not self._due, self.end_s + FAULTS_OVER_S)

    def turn(self) -> None:
        """Do what is due, supervise, and write down the length of the append-only file."""
        while self._due and self._due[0][0] <= time.time():
            heapq.heappop(self._due)[2]()
        super().turn()
        if (last := self._append_only_file()) is not None:
            with suppress(FileNotFoundError):
                self._sizes.append((time.time(), last, last.stat().st_size))

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (at_s, self._count, act))

    # -- faults -----------------------------------------------------------------------------

    def _do(self, fault: Fault) -> None:
        """Do a fault and plan its end. A process that is down cannot be killed: that is tried again later."""
        kind, now_s = fault.kind, time.time()
        if self._acts(fault)[kind]():
            self.done.append(FaultDone(kind, now_s))
        elif now_s < self.end_s + TRY_UNTIL_S and not (
            kind == "producer killed" and self.senders[0].finished
        ):
            self._later(now_s + TRY_AGAIN_S, partial(self._do, fault))

    def _acts(self, fault: Fault) -> dict[str, Callable[[], bool]]:
        """Return what does a fault, by its kind; each returns False where it cannot be done now."""
        return {
            "worker killed": lambda: self._kill(self.workers[fault.target % len(self.workers)], fault),
            "beat killed": lambda: self._kill(self.beats[fault.target % len(self.beats)], fault),
            "producer killed": lambda: self._kill(self.senders[fault.target], fault),
            "broker killed": lambda: self._kill_broker(fault, cut_tail=False),
            "power cut": lambda: self._kill_broker(fault, cut_tail=self.may_lose),
            "all killed": lambda: self._kill_all(fault),
            "worker paused": lambda: self._pause(self.workers[fault.target % len(self.workers)], fault),
            "broker restarted": self._restart_broker,
            "connections cut": lambda: self.proxy.cut(fault.share),
            "connections delayed": lambda: self._delay(fault),
            "connections half-open": lambda: self.proxy.leave_half_open(fault.share),
        }

    def _kill(self, process: StackProcess | PythonProcess, fault: Fault) -> bool:
        if not process.alive:
            return False
        number = self.supervised.index(process)
        self._paused.discard(number)
        self.restart_at[number] = time.time() + fault.hold_s
        process.kill(group=True)
        return True

    def _kill_broker(self, fault: Fault, *, cut_tail: bool) -> bool:
        if not self._broker_up:
            return False
        now_s = time.time()
        self.broker.kill(group=True)
        self._broker_up = False
        self._broker_deaths.append(now_s)
        if cut_tail:
            self._cut_tail(now_s)
        self._later(now_s + fault.hold_s, self._start_broker)
        return True

    def _start_broker(self) -> None:
        self.broker.start()
        self._broker_up = True

    def _restart_broker(self) -> bool:
        if self._broker_up:
            self.broker.restart()
        return self._broker_up

    def _kill_all(self, fault: Fault) -> bool:
        killed = [self._kill(process, fault) for process in self.supervised]
        return self._kill_broker(fault, cut_tail=self.may_lose) and any(killed)

    def _pause(self, process: StackProcess | PythonProcess, fault: Fault) -> bool:
        number = self.supervised.index(process)
        if number in self._paused or not process.alive:
            return False
        self._paused.add(number)
        pid = process.pid
        process.pause()

        def resume() -> None:
            if number in self._paused and process.alive and process.pid == pid:
                process.resume()
            self._paused.discard(number)

        self._later(time.time() + fault.hold_s, resume)
        return True

    def _delay(self, fault: Fault) -> bool:
        self.proxy.set_delay(fault.share * 0.3)
        self._later(time.time() + fault.hold_s, lambda: self.proxy.set_delay(0.0))
        return True

    # -- what a power cut takes -------------------------------------------------------------

    def _append_only_file(self) -> Path | None:
        """Return the file that the broker appends to now."""
        return max(
            (self.folder / "broker" / "appendonlydir").glob("*.incr.aof"),
            key=lambda path: int(path.name.split(".")[-3]),
            default=None,
        )

    def _cut_tail(self, now_s: float) -> None:
        """Take the last second's writes off the file: they were in the kernel's hands only.

        SIGKILL leaves the kernel its pages, so ``everysec`` would lose nothing by it; a machine that
        loses its power does.
        """
        current = self._append_only_file()
        old = [size for at_s, path, size in self._sizes if path == current and at_s <= now_s - POWER_CUT_S]
        if current is not None and old:
            os.truncate(current, old[-1])
