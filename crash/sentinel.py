"""``python -m crash.sentinel``: kill the primary under load, let the sentinels elect another, count every postback.

Two columns: accepted by the primary alone, where what it had not yet passed on may be lost with it, and accepted
by one replica besides (``POSTBACKS_WAIT_REPLICAS=1``), where nothing may be. Exit code 0 only if that holds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from crash.broker import on_the_way, read_held
from crash.history import History
from crash.ledger import Ledger, compare
from crash.notes import read_notes
from crash.processes import PythonProcess, workers_and_beats
from crash.receive import read_posts
from crash.run import QUIET_S, RESTART_S, SETTINGS
from crash.sentinels import SentinelGroup, Server, until
from postbacks.devtools.local import CeleryProcess
from postbacks.errors import BrokerError

#: Seconds that a frozen primary stays frozen: longer than the sentinels' patience and an election.
FROZEN_S: Final = 5.0
#: Seconds after a fault in which a client may still have been talking to the old primary.
OLD_PRIMARY_S: Final = 15
FAULTS: Final = ("primary killed", "primary frozen", "primary and a sentinel killed")


@dataclass
class Column:
    """What one run showed.

    Attributes:
        wait_replicas: replicas that had to have a postback for it to be accepted.
        ledger: the comparison.
        done: when each fault was done, and its kind.
        elected_s: seconds from each fault until the sentinels named another primary.
        accepted_after_s: seconds until the next call that was accepted.
        posted_after_s: seconds until the next POST.
        raised: calls that raised, by error.
        ended: workers and beats that ended by themselves and were started again (see docs/losses.md).
        left: what was still on its way at the deadline.
        unfinished: the producer did not come to its end in time.
    """

    wait_replicas: int
    ledger: Ledger
    done: list[tuple[float, str]]
    elected_s: list[float]
    accepted_after_s: list[float]
    posted_after_s: list[float]
    raised: Counter[str]
    ended: list[str]
    left: dict[str, int]
    unfinished: bool

    def faults(self) -> list[str]:
        """What breaks the promise; empty when it holds."""
        said = self.ledger.faults(may_lose=self.wait_replicas == 0)
        if self.unfinished:
            said.append("the producer did not get all postbacks accepted in time")
        if self.left:
            said.append(f"not drained: {self.left}")
        return said


@dataclass
class Options:
    """What is asked for; see ``main``."""

    seed: int
    seconds: float
    postbacks: int
    faults: tuple[str, ...] = FAULTS
    pairs: int = 2
    drain_s: float = 60.0
    countdown_s: float = 2.0
    replicas: int = 2
    say: Callable[[str], None] = field(default=print)


def run(options: Options, wait_replicas: int, folder: Path) -> Column:
    """Run one column."""
    chance = random.Random(options.seed)
    with ExitStack() as stack:
        group = stack.enter_context(SentinelGroup(folder, replicas=options.replicas))
        options.say(f"wait {wait_replicas}: {group.programs}")
        env = SETTINGS | {
            "POSTBACKS_BROKER_URL": group.url,
            "POSTBACKS_WAIT_REPLICAS": str(wait_replicas),
            "POSTBACKS_RETRY_COUNTDOWN_S": str(options.countdown_s),
        }
        workers, beats = workers_and_beats(options.pairs, env, folder)
        ours = [*workers, *beats]
        receiver = PythonProcess(
            "crash.receive", [str(folder / "posts")], env={}, log_path=folder / "receiver.log"
        )
        for process in (receiver, *ours):
            stack.callback(process.kill, group=True)
            process.start()
        until(lambda: "http" in receiver.log(), 30, "the receiver")
        for process in workers:
            process.wait_for_log(" ready.", 60)
        ended: list[str] = []
        over = threading.Event()
        watcher = threading.Thread(target=_start_again, args=(ours, ended, over), daemon=True)
        stack.callback(over.set)
        watcher.start()
        began_s = time.time() + 0.5
        args = [
            str(folder), receiver.log().strip(), str(options.seed), str(options.postbacks),
            str(options.seconds), str(began_s),
        ]  # fmt: skip
        producer = PythonProcess("crash.producer", args, env=env, log_path=folder / "producer.log")
        stack.callback(producer.kill, group=True)
        producer.start()
        until(lambda: len(read_notes(folder / "posts")) > 0, 30, "the first POST")

        done: list[tuple[float, str]] = []
        elected_s: list[float] = []
        for kind in options.faults:
            time.sleep(chance.uniform(0.5, 2.0))
            at_s, took_s = _do(group, kind, chance)
            done.append((at_s, kind))
            elected_s.append(took_s)
        finished = _within(
            lambda: producer.finished, began_s + options.seconds + options.drain_s - time.time()
        )
        left = _drain(group, options.drain_s)
        over.set()
        watcher.join()
        for process in ours:
            process.terminate()
        for process in ours:
            with suppress(TimeoutError):
                process.wait(30)
        with group.primary().client(30) as client:
            held = read_held(client)
        posts = read_posts(folder / "posts")
        accepted = {one: float(at) for _, one, at in read_notes(folder / "accepted")}
        # Until the old primary is a replica or its clients have left it, what they tell it goes with it.
        windows = [at_s + n for at_s, _ in done for n in range(OLD_PRIMARY_S)]
        nothing_changed = History((), ())
        ledger = compare(
            accepted, posts, held, unsynced_deaths=windows,
            astray=nothing_changed.astray(posts, held.entries, exact=True), explains=nothing_changed.explains,
        )  # fmt: skip
        return Column(
            wait_replicas,
            ledger,
            done,
            elected_s,
            _after(done, accepted.values()),
            _after(done, (post.at_s for post in posts)),
            Counter(fields[-1] for fields in read_notes(folder / "raised")),
            ended,
            left,
            not finished,
        )


def _start_again(ours: list[CeleryProcess], ended: list[str], over: threading.Event) -> None:
    """What a service manager does; nobody here kills any of them, so each is reported."""
    while not over.wait(RESTART_S):
        for process in ours:
            if not process.alive:
                ended.append(process.log_path.stem)
                process.start()


def _do(group: SentinelGroup, kind: str, chance: random.Random) -> tuple[float, float]:
    """Once all is whole: do it, wait for another primary, start again what died; when it began, and how long
    there was no primary.
    """
    group.wait_until_whole(60)
    old, began_s = group.primary(), time.time()
    down: list[Server] = [] if kind == "primary frozen" else [old]
    if kind == "primary and a sentinel killed":
        down.append(chance.choice(group.sentinels))
    if down:
        for one in down:
            one.kill(group=True)
    else:
        old.pause()
    group.wait_for_another(old)
    took_s = time.time() - began_s
    if not down:
        time.sleep(max(0.0, began_s + FROZEN_S - time.time()))
        old.resume()
    for one in down:
        one.start()
    return began_s, took_s


def _within(done: Callable[[], bool], limit_s: float) -> bool:
    with suppress(TimeoutError):
        return bool(until(done, max(1.0, limit_s), "it"))
    return False


def _drain(group: SentinelGroup, limit_s: float) -> dict[str, int]:
    """Wait until nothing has been on its way for a moment; returns what is left."""
    deadline_s, empty_since_s = time.monotonic() + limit_s, None
    left: dict[str, int] = {"not looked": 1}
    with group.primary().client() as client:
        while time.monotonic() < deadline_s:
            with suppress(BrokerError):
                left = on_the_way(client)
            if left:
                empty_since_s = None
            else:
                empty_since_s = empty_since_s or time.monotonic()
                if time.monotonic() - empty_since_s >= QUIET_S:
                    break
            time.sleep(0.1)
    return left


def _after(done: list[tuple[float, str]], times: Any) -> list[float]:
    ordered = sorted(times)
    return [next((one - at_s for one in ordered if one > at_s), float("inf")) for at_s, _ in done]


def _print(columns: list[Column]) -> None:
    def row(name: str, of: Callable[[Column], object]) -> None:
        print(f"{name:44}" + "".join(f"{of(column)!s:>32}" for column in columns))

    row("", lambda one: f"POSTBACKS_WAIT_REPLICAS={one.wait_replicas}")
    row("accepted", lambda one: f"{one.ledger.accepted:,}")
    row("  calls that raised", lambda one: one.raised.total())
    row("delivered (200 at the receiver)", lambda one: f"{one.ledger.delivered:,}")
    row("dead, with their story", lambda one: one.ledger.dead)
    row("LOST", lambda one: len(one.ledger.lost) + (len(one.ledger.unsynced) if one.wait_replicas else 0))
    row(
        "  not yet at a replica when it died",
        lambda one: "-" if one.wait_replicas else len(one.ledger.unsynced),
    )
    row("stuck", lambda one: len(one.ledger.stuck))
    row("in no place or in two", lambda one: len(one.ledger.misplaced))
    row("counters off", lambda one: len(one.ledger.leaks))
    row("sent twice, same id", lambda one: len(set().union(*one.ledger.twice.values())))
    for reason in sorted({reason for one in columns for reason in one.ledger.twice}):
        row(f"  {reason}", lambda one, reason=reason: len(one.ledger.twice.get(reason, [])))
    row("arrived though not accepted", lambda one: one.ledger.arrived_unaccepted)
    row("processes that ended by themselves", lambda one: len(one.ended))
    print("then: new primary, next call accepted, next POST after")
    for number, (_, kind) in enumerate(columns[0].done):
        row(
            f"  {kind}",
            lambda one, n=number: (
                f"{one.elected_s[n]:.1f} s, {one.accepted_after_s[n]:.1f} s, {one.posted_after_s[n]:.1f} s"
            ),
        )


def main() -> int:
    """Run the columns, print the table."""
    parser = argparse.ArgumentParser(prog="python -m crash.sentinel", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="repeats the load and the pauses; a random one where not given"
    )
    parser.add_argument("--seconds", type=float, default=40, help="of load, a column (default: 40)")
    parser.add_argument("--postbacks", type=int, default=6000, help="a column (default: 6000)")
    parser.add_argument("--wait", choices=("0", "1", "both"), default="both")
    parser.add_argument("--replicas", type=int, default=2, help="of the primary (default: 2)")
    parser.add_argument("--faults", type=int, default=len(FAULTS), help=f"how many of: {', '.join(FAULTS)}")
    parser.add_argument("--pairs", type=int, default=2, help="workers, and beats (default: 2)")
    parser.add_argument("--drain", type=float, default=60, help="seconds to drain at most (default: 60)")
    parser.add_argument("--countdown", type=float, default=2, help="seconds to a resend (default: 2)")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    faults = FAULTS[: args.faults]
    options = Options(
        seed,
        args.seconds,
        args.postbacks,
        faults,
        args.pairs,
        args.drain,
        countdown_s=args.countdown,
        replicas=args.replicas,
    )
    columns = []
    for wait in (0, 1) if args.wait == "both" else (int(args.wait),):
        print(
            f"sentinel, wait {wait}: {args.postbacks:,} postbacks in {args.seconds:g} s, seed {seed} …",
            flush=True,
        )
        with tempfile.TemporaryDirectory(prefix="postbacks-sentinel-") as folder:
            columns.append(run(options, wait, Path(folder)))
    print()
    _print(columns)
    print()
    broken = [f"wait {one.wait_replicas}: {fault}" for one in columns for fault in one.faults()]
    for line in broken:
        print(f"BROKEN {line}"[:900])
    print(f"The promise {'does NOT hold' if broken else 'holds'}. Repeat with --seed {seed}.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
