"""One column of the ledger: the world is started, hurt by plan, drained, and read."""

from __future__ import annotations

import heapq
import os
import signal
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from crash.broker import on_the_way, read_held
from crash.customers import changes
from crash.history import History
from crash.ledger import Ledger, Post, compare
from crash.notes import read_notes
from crash.plan import KILLS, Fault, make_plan
from crash.processes import PythonProcess, workers_and_beats
from crash.proxy import Proxy
from crash.receive import read_posts
from postbacks.devtools.local import CeleryProcess, EmbeddedBroker
from postbacks.errors import BrokerError

Fsync = Literal["always", "everysec"]

#: Seconds that a silent worker keeps its claims here; 30 in earnest.
LEASE_S: Final = 3.0
#: What differs from the defaults: the promise's minutes would make it a run of hours.
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
#: Seconds after which a fault is tried again that could not be done, and for how long after the load's end.
TRY_AGAIN_S: Final = 0.2
TRY_UNTIL_S: Final = 10.0
#: Seconds that processes may take to start.
START_WITHIN_S: Final = 60.0
#: Seconds of data that a power cut takes with ``everysec``.
POWER_CUT_S: Final = 1.0
#: Seconds that the broker must have held nothing for it to count as drained.
QUIET_S: Final = 1.5


@dataclass(frozen=True)
class Column:
    """What one run showed.

    Attributes:
        fsync: the broker's ``appendfsync``.
        ledger: the comparison.
        done: how often each kind of fault was done.
        silences: kind -> seconds from each fault to the next POST.
        raised: calls of the producer that raised.
        ended_themselves: processes that nobody had killed, and that had to be started again.
        posts: POSTs at the receiver.
        took_s: the load, and the draining after it.
        left: what was still on its way at the deadline.
        unfinished: the producer, or who changes the accounts, did not come to the end in time.
        changed: changes of accounts.
    """

    fsync: Fsync
    ledger: Ledger
    done: Mapping[str, int]
    silences: Mapping[str, list[float]]
    raised: int
    ended_themselves: Sequence[str]
    posts: int
    took_s: tuple[float, float]
    left: Mapping[str, int]
    unfinished: bool
    changed: int

    @property
    def kills(self) -> int:
        """How many faults killed."""
        return sum(count for kind, count in self.done.items() if kind in KILLS)

    def faults(self) -> list[str]:
        """What breaks the promise; empty when it holds."""
        said = self.ledger.faults(may_lose=self.fsync == "everysec")
        if self.unfinished:
            said.append("not all postbacks were accepted, or not all changes of accounts made, in time")
        return said


@dataclass
class Options:
    """What is asked for; see ``__main__``."""

    seed: int
    seconds: float
    postbacks: int
    drain_s: float = 90.0
    keep: Path | None = None
    say: Callable[[str], None] = field(default=print)


class _World:
    """Everything that runs, and what may be done to it."""

    def __init__(self, options: Options, fsync: Fsync, folder: Path, stack: ExitStack) -> None:
        self.options, self.fsync, self.folder = options, fsync, folder
        self.broker = EmbeddedBroker(folder / "broker", config={"appendfsync": fsync})
        self.broker.start()
        stack.callback(self.broker.stop)
        assert self.broker.port is not None
        self.proxy = Proxy(self.broker.port, options.seed)
        self.proxy.start()
        stack.callback(self.proxy.stop)
        env = SETTINGS | {"POSTBACKS_BROKER_URL": self.proxy.url}
        self.workers, self.beats = workers_and_beats(2, env, folder)
        self.receiver = PythonProcess(
            "crash.receive", [str(folder / "posts")], env={}, log_path=folder / "receiver.log"
        )
        stack.callback(self.receiver.kill, group=True)
        self.receiver.start()
        for process in [*self.workers, *self.beats]:
            stack.callback(process.kill, group=True)
            process.start()
        url = _log_with("http", self.receiver).strip()
        for worker in self.workers:  # on a slow machine the first faults would hit nothing
            _log_with(" ready.", worker)
        self.began_s = time.time() + 2  # until the producer has started
        self.end_s = self.began_s + options.seconds
        args = [
            str(folder), url, str(options.seed), str(options.postbacks), str(options.seconds), str(self.began_s),
        ]  # fmt: skip
        self.producer = PythonProcess("crash.producer", args, env=env, log_path=folder / "producer.log")
        stack.callback(self.producer.kill, group=True)
        self.producer.start()
        args = [str(folder), url, str(options.seconds), str(self.began_s)]
        self.customers = PythonProcess("crash.customers", args, env=env, log_path=folder / "customers.log")
        stack.callback(self.customers.kill, group=True)
        self.customers.start()
        self.supervised: list[CeleryProcess | PythonProcess] = [
            *self.workers, *self.beats, self.producer, self.customers,
        ]  # fmt: skip
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._restart_at: dict[int, float] = {}
        self._paused: set[int] = set()
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=200)
        self.broker_up = True
        self.done: list[tuple[float, str]] = []
        self.broker_deaths: list[float] = []
        self.ended_themselves: list[str] = []

    # -- time -------------------------------------------------------------------------------

    def later(self, at_s: float, act: Callable[[], None]) -> None:
        """Do something at a time (epoch)."""
        self._count += 1
        heapq.heappush(self._due, (at_s, self._count, act))

    def pending(self) -> bool:
        """Whether anything is still to be done."""
        return bool(self._due)

    def turn(self) -> None:
        """Do what is due, start again what has died, and note how long the append-only file is."""
        while self._due and self._due[0][0] <= time.time():
            heapq.heappop(self._due)[2]()
        for number, process in enumerate(self.supervised):
            if process.alive or (isinstance(process, PythonProcess) and process.finished):
                continue
            if number not in self._restart_at:
                self.ended_themselves.append(process.log_path.stem)
                self._restart_at[number] = time.time() + RESTART_S
            if time.time() >= self._restart_at[number]:
                del self._restart_at[number]
                process.start()
        if (last := self._append_only_file()) is not None:
            with suppress(FileNotFoundError):
                self._sizes.append((time.time(), last, last.stat().st_size))
        time.sleep(0.02)

    # -- faults -----------------------------------------------------------------------------

    def do(self, fault: Fault) -> None:
        """Do it, and plan how it ends. What is down cannot be killed: that is tried again, and counted once it is done."""
        kind, now_s = fault.kind, time.time()
        acts: dict[str, Callable[[], bool]] = {
            "worker killed": lambda: self._kill(self.workers[fault.target], fault),
            "beat killed": lambda: self._kill(self.beats[fault.target], fault),
            "producer killed": lambda: self._kill((self.producer, self.customers)[fault.target], fault),
            "broker killed": lambda: self._kill_broker(fault, cut_tail=False),
            "power cut": lambda: self._kill_broker(fault, cut_tail=self.fsync == "everysec"),
            "all killed": lambda: self._kill_all(fault),
            "worker paused": lambda: self._pause(fault),
            "broker restarted": self._restart_broker,
            "connections cut": lambda: self.proxy.cut(fault.share),
            "connections delayed": lambda: self._delay(fault),
            "connections half-open": lambda: self.proxy.leave_half_open(fault.share),
        }
        if acts[kind]():
            self.done.append((now_s, kind))
        elif now_s < self.end_s + TRY_UNTIL_S and not (kind == "producer killed" and self.producer.finished):
            self.later(now_s + TRY_AGAIN_S, partial(self.do, fault))

    def _kill(self, process: CeleryProcess | PythonProcess, fault: Fault) -> bool:
        if not process.alive:
            return False
        number = self.supervised.index(process)
        self._paused.discard(number)
        self._restart_at[number] = time.time() + fault.hold_s
        process.kill(group=True)
        return True

    def _kill_broker(self, fault: Fault, *, cut_tail: bool) -> bool:
        if not self.broker_up:
            return False
        now_s = time.time()
        self.broker.kill(group=True)
        self.broker_up = False
        self.broker_deaths.append(now_s)
        if cut_tail:
            self._cut_tail(now_s)
        self.later(now_s + fault.hold_s, self._start_broker)
        return True

    def _start_broker(self) -> None:
        self.broker.start()
        self.broker_up = True

    def _restart_broker(self) -> bool:
        if self.broker_up:
            self.broker.restart()
        return self.broker_up

    def _kill_all(self, fault: Fault) -> bool:
        killed = [self._kill(process, fault) for process in self.supervised]
        return self._kill_broker(fault, cut_tail=self.fsync == "everysec") and any(killed)

    def _pause(self, fault: Fault) -> bool:
        number, worker = fault.target, self.workers[fault.target]
        if number in self._paused or not worker.alive:
            return False
        self._paused.add(number)
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)

        def resume() -> None:
            if number in self._paused and worker.alive and worker.pid == pid:
                os.kill(pid, signal.SIGCONT)
            self._paused.discard(number)

        self.later(time.time() + fault.hold_s, resume)
        return True

    def _delay(self, fault: Fault) -> bool:
        self.proxy.set_delay(fault.share * 0.3)
        self.later(time.time() + fault.hold_s, lambda: self.proxy.set_delay(0.0))
        return True

    # -- what a power cut takes -------------------------------------------------------------

    def _append_only_file(self) -> Path | None:
        """The file that the broker appends to now."""
        return max(
            (self.folder / "broker" / "appendonlydir").glob("*.incr.aof"),
            key=lambda path: int(path.name.split(".")[-3]),
            default=None,
        )

    def _cut_tail(self, now_s: float) -> None:
        """Take what was written in the last second off the file: it was in the kernel's hands only.

        SIGKILL leaves the kernel its pages, so ``everysec`` would lose nothing by it; a machine that
        loses its power does.
        """
        current = self._append_only_file()
        old = [size for at_s, path, size in self._sizes if path == current and at_s <= now_s - POWER_CUT_S]
        if current is not None and old:
            os.truncate(current, old[-1])


def _log_with(words: str, process: CeleryProcess | PythonProcess) -> str:
    """Wait for these words in a process's log; returns the log."""
    deadline_s = time.monotonic() + START_WITHIN_S
    while words not in (log := process.log()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{process.log_path.stem} did not start: {log}")
        time.sleep(0.02)
    return log


def _turn_until(world: _World, done: Callable[[], bool], deadline_s: float) -> bool:
    while not done():
        if time.time() > deadline_s:
            return False
        world.turn()
    return True


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="postbacks-crash-") as name:
            yield Path(name)
    else:
        # A new one: the notes of another run would count as this one's.
        keep.mkdir(parents=True)
        yield keep


def run(options: Options, fsync: Fsync) -> Column:
    """Run one column."""
    keep = options.keep / fsync if options.keep else None
    with _folder(keep) as folder, ExitStack() as stack:
        world = _World(options, fsync, folder, stack)
        plan = make_plan(options.seed, options.seconds, LEASE_S)
        for fault in plan:
            world.later(world.began_s + fault.at_s, partial(world.do, fault))
        end_s = world.end_s
        _turn_until(world, lambda: time.time() > end_s and not world.pending(), end_s + 60)
        unfinished = not _turn_until(
            world, lambda: world.producer.finished and world.customers.finished, end_s + 60
        )
        world.proxy.cut_half_open()
        drained_s, left = _drain(world, options.drain_s)
        for process in [*world.beats, *world.workers]:
            process.terminate()
        for process in [*world.beats, *world.workers]:
            with suppress(TimeoutError):
                process.wait(30)
            process.kill(group=True)
        options.say(f"{fsync}: drained in {drained_s:.1f} s; left: {left or 'nothing'}. Comparing …")
        with world.broker.client(timeout_s=30) as client:
            held = read_held(client)
        posts = read_posts(folder / "posts")
        history = History(changes(options.seconds), read_notes(folder / "changes"))
        accepted = {one: float(at) for _, one, at in read_notes(folder / "accepted")}
        deaths = world.broker_deaths if fsync == "everysec" else []
        done: defaultdict[str, int] = defaultdict(int)
        for _, kind in world.done:
            done[kind] += 1
        return Column(
            fsync=fsync,
            ledger=compare(
                accepted,
                posts,
                held,
                unsynced_deaths=deaths,
                explains=history.explains,
                astray=history.astray(posts, held.entries, exact=fsync == "always"),
            ),
            done=dict(done),
            silences=silences(world.done, posts),
            raised=len(read_notes(folder / "raised")),
            ended_themselves=world.ended_themselves,
            posts=len(posts),
            took_s=(end_s - world.began_s, drained_s),
            left=left,
            unfinished=unfinished,
            changed=history.made,
        )


def _drain(world: _World, limit_s: float) -> tuple[float, dict[str, int]]:
    """Wait until nothing is on its way, for a moment; returns the seconds and what is left."""
    began_s = time.time()
    left: dict[str, int] = {"not looked": 1}
    empty_since_s: float | None = None
    with world.broker.client() as client:
        while time.time() < began_s + limit_s:
            world.turn()
            with suppress(BrokerError):
                left = on_the_way(client)
                if not left:
                    empty_since_s = empty_since_s or time.time()
                    if time.time() - empty_since_s >= QUIET_S:
                        break
                else:
                    empty_since_s = None
            time.sleep(0.1)
    return time.time() - began_s, left


def silences(done: Sequence[tuple[float, str]], posts: Sequence[Post]) -> dict[str, list[float]]:
    """Kind -> seconds from each fault to the first POST after it."""
    times = sorted(post.at_s for post in posts)
    found: defaultdict[str, list[float]] = defaultdict(list)
    for at_s, kind in done:
        after = [time_s for time_s in times if time_s > at_s]
        if after:
            found[kind].append(after[0] - at_s)
    return dict(found)
