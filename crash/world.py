"""World of a run: workers, beats, a producer and a receiver around a broker, and the faults done to them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import redis

from crash import broker
from crash.customers import Change
from crash.history_comparison import HistoryComparison
from crash.processes import PythonProcess, workers_and_beats
from postbacks.devtools.process import drain
from postbacks.devtools.stack import StackProcess

#: Seconds that a silent worker keeps its claims here; 30 in earnest.
LEASE_S: Final = 3.0
#: Settings that differ from the defaults: the promise's minutes would make it a run of hours.
SETTINGS: Final = {
    "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8",
    "POSTBACKS_CLAIM_LEASE_S": str(LEASE_S),
    "POSTBACKS_INTAKE_LEASE_S": "2",
    "POSTBACKS_RETRY_COUNTDOWN_S": "2",
    "POSTBACKS_DELIVER_SLICE_S": "10",
    "POSTBACKS_ACCOUNT_REMOVED_KEEP_S": "3",
}
#: Seconds until a dead process is started again, as a service manager does.
RESTART_S: Final = 0.3
#: Seconds that a process may take to start.
START_WITHIN_S: Final = 60.0
#: Seconds that processes may take to stop.
STOP_WITHIN_S: Final = 30.0
#: Seconds until the producer has started.
PRODUCER_START_S: Final = 2.0


class Load(NamedTuple):
    """Load of a run: so many postbacks in so many seconds, chosen by the seed; then at most so long to drain."""

    seed: int
    seconds: float
    postbacks: int
    drain_s: float


class FaultDone(NamedTuple):
    """A fault that was done: when it began, and how long there was no primary, where one had to be elected."""

    kind: str
    at_s: float
    elected_s: float | None = None


class World(ABC):
    """Processes of ours around a broker, supervised until the run is over.

    A subclass starts its broker first, then these.

    Attributes:
        unsynced_label: the table's row of what the broker had not kept when it died.
        may_lose: the broker may lose what it had accepted last.
        exact: the broker forgets no change of an account, so that the time of each POST is judged.
        changes: of accounts, as they were planned; None where nothing is done.
    """

    unsynced_label: ClassVar[str]
    may_lose: bool
    exact = True
    changes: Sequence[Change | None] = ()

    def __init__(
        self, load: Load, folder: Path, stack: ExitStack, env: Mapping[str, str], *, pairs: int
    ) -> None:
        self.load, self.folder = load, folder
        self._stack, self._env = stack, {**SETTINGS, **env}
        self.workers, self.beats = workers_and_beats(pairs, self._env, folder)
        receiver = PythonProcess(
            "crash.receive", [str(folder / "posts")], env={}, log_path=folder / "receiver.log"
        )
        self.recorders = self._make_recorders()
        for process in (receiver, *self.workers, *self.beats, *self.recorders):
            self._start(process)
        self._urls = receiver.wait_for_line(START_WITHIN_S)
        for worker in self.workers:  # on a slow machine the first faults would hit nothing
            worker.wait_for_log(" ready.", START_WITHIN_S)
        for recorder in self.recorders:
            recorder.wait_for_log("history.", START_WITHIN_S)
        self._prepare()
        self.began_s = time.time() + PRODUCER_START_S
        self.end_s = self.began_s + load.seconds
        self.senders = [self._start_module("producer", load.seed, load.postbacks, load.seconds, self.began_s)]
        self.supervised: list[StackProcess | PythonProcess] = [
            *self.workers,
            *self.beats,
            *self.senders,
            *self.recorders,
        ]
        self.restart_at: dict[int, float] = {}
        self.done: list[FaultDone] = []
        self.ended_themselves: list[str] = []

    def _make_recorders(self) -> list[StackProcess]:
        """Make the recorders of a history, not yet started; none where there is no history."""
        return []

    def _prepare(self) -> None:  # noqa: B027 - most worlds need nothing
        """Let happen what is to be there before the load begins; by default nothing."""

    def _start(self, process: StackProcess | PythonProcess) -> None:
        self._stack.callback(process.kill, group=True)
        process.start()

    def _start_module(self, name: str, *args: object) -> PythonProcess:
        """Start a process of this package that works on the folder and the receiver's URLs."""
        process = PythonProcess(
            f"crash.{name}", [str(self.folder), self._urls, *map(str, args)], env=self._env,
            log_path=self.folder / f"{name}.log",
        )  # fmt: skip
        self._start(process)
        return process

    @property
    def is_sent(self) -> bool:
        """True when all senders have come to their end."""
        return all(sender.finished for sender in self.senders)

    def turn(self) -> None:
        """Start again the processes that have died; unless a fault killed them, they ended by themselves."""
        for number, process in enumerate(self.supervised):
            if process.alive or (isinstance(process, PythonProcess) and process.finished):
                continue
            if number not in self.restart_at:
                self.ended_themselves.append(process.log_path.stem)
                self.restart_at[number] = time.time() + RESTART_S
            if time.time() >= self.restart_at[number]:
                del self.restart_at[number]
                process.start()
        time.sleep(0.02)

    def turn_until(self, done: Callable[[], bool], deadline_s: float) -> bool:
        """Supervise until something is done (at most until ``deadline_s``); return whether it is."""
        while True:
            with suppress(redis.RedisError):
                if done():
                    return True
            if time.time() > deadline_s:
                return False
            self.turn()

    def stop_processes(self) -> None:
        """Stop beats and workers, then the recorders."""
        drain([*self.beats, *self.workers], STOP_WITHIN_S)
        drain(self.recorders, STOP_WITHIN_S)

    @abstractmethod
    def do_faults(self) -> None:
        """Do all faults while the load lasts."""

    def mend(self) -> None:  # noqa: B027 - a world that breaks nothing for good has nothing to mend
        """Mend what no process could by itself, before the world drains."""

    def on_the_way(self, client: redis.Redis) -> dict[str, int]:
        """Count what has not come to its end, by place; empty when all has.

        Raises:
            BrokerError: the broker cannot be asked.
        """
        return broker.on_the_way(client)

    def compare_history(self, client: redis.Redis) -> HistoryComparison | None:  # noqa: ARG002
        """Compare the ledger with the history, where one was recorded; nothing else is running any more."""
        return None

    @abstractmethod
    def client(self, timeout_s: float) -> redis.Redis:
        """Make a client of the broker, for the caller to close."""

    @abstractmethod
    def unsynced_deaths(self) -> list[float]:
        """Return the times at which accepted postbacks or notes may have died with a broker."""
