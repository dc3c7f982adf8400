"""Cost and time of a resend job: dead postbacks, of which half have left the broker, frozen, moved and answered.

They die and are delivered by the moves themselves, without POSTs: what is measured is the job's part alone, the CPU of the
process that runs history and the broker's while the mover has its turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import fill
from benchmarks.machine import exact_cpu_s
from benchmarks.scenario import environment
from postbacks import keys
from postbacks.accounts import make_account, redis_accounts
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.history import Query
from postbacks.history import recorder as recorder_module
from postbacks.history.recorder import Recorder
from postbacks.ledger.record import Attempt
from postbacks.operate.jobs.job import ASKED, ENDED, RUNNING
from postbacks.operate.jobs.mover import Mover
from postbacks.operate.jobs.requests import start_resend
from postbacks.operate.jobs.status import read
from postbacks.queue.rows import AttemptRow
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.version import new_loop_id

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCOUNTS = 200
#: Claims between two turns of the mover.
CLAIMS = 20


class Measured:
    """Run of a job over so many postbacks of so many accounts.

    Args:
        broker: an empty one.
        url: of the history.
        count: postbacks.
    """

    def __init__(self, broker: EmbeddedBroker, url: str, count: int) -> None:
        self._broker, self._client, self._count = broker, broker.client(), count
        self._scripts, self._token = Scripts(self._client), new_loop_id()
        self._recorder = Recorder(self._client, load().model_copy(update={"history_url": url}))
        self._spent = {"own": 0.0, "broker": 0.0}

    def run(self) -> dict[str, float]:
        """Let them die, half of them leave, and send all again."""
        self._settle()
        for number in range(ACCOUNTS):
            redis_accounts().set(make_account(f"a{number}", url=f"https://receiver.example/{number}"))
        fill.accept(
            self._client,
            range(self._count),
            lambda number: (f"a{number % ACCOUNTS}", f"https://receiver.example/{number % ACCOUNTS}"),
        )
        while self._answer("dead", "status", 503):
            pass
        self._settle()
        dead = [postback_id.decode() for postback_id in self._client.zrange(keys.DEAD, 0, -1)]
        self._leave(dead[::2])
        self._settle()
        mover = Mover(self._recorder, self._client, load())
        began_s = time.monotonic()
        job = start_resend(Query(state="dead"))
        while read(job.id).state == ASKED:
            self._recorder.turn()
            self._turn(mover)
        frozen_s, freezing = time.monotonic() - began_s, dict(self._spent)
        self._spent = dict.fromkeys(self._spent, 0.0)
        began_s, in_turns_s = time.monotonic(), 0.0
        while (now := read(job.id)).state == RUNNING:
            before_s = time.monotonic()
            self._turn(mover)
            in_turns_s += time.monotonic() - before_s
            for _ in range(CLAIMS):
                if not self._answer("delivered", "delivered", 200):
                    break
        assert (now.state, now.counts.delivered) == (ENDED, self._count), now
        self._recorder.close()
        return {
            "freeze_s": frozen_s,
            "freeze_us": freezing["own"] / self._count * 1e6,
            "move_s": in_turns_s,
            "whole_s": time.monotonic() - began_s,
            "own_us": self._spent["own"] / self._count * 1e6,
            "broker_us": self._spent["broker"] / self._count * 1e6,
        }

    def _turn(self, mover: Mover) -> None:
        broker_s, own_s = exact_cpu_s(self._broker.pid), time.process_time()
        mover.turn()
        self._spent["own"] += time.process_time() - own_s
        self._spent["broker"] += exact_cpu_s(self._broker.pid) - broker_s

    def _settle(self) -> None:
        while self._recorder.turn() < 0.5 or self._client.hexists(keys.HISTORY, "resync"):
            pass

    def _leave(self, postback_ids: Sequence[str]) -> None:
        for first in range(0, len(postback_ids), 500):
            self._scripts.drop(2**53, "", postback_ids[first : first + 500])

    def _answer(self, verdict: str, outcome: str, status: int) -> int:
        """Claim and end some postbacks; return how many."""
        now_ms, begun, _, _ = self._scripts.claim(
            self._token, 30_000, at_most=500, suspects_max=500, free=5000, held_max=0, held_per_lane=0, slow_lanes=()
        )  # fmt: skip
        rows = [
            AttemptRow(row.id.decode(), row.lane.decode(), verdict, row.number,
             Attempt(row.number, now_ms, outcome, status, 12).to_json(), 0, "ok", outcome)
            for row in begun
        ]  # fmt: skip
        if rows:
            self._scripts.commit(self._token, 30_000, 1000, 86_400, rows)
        return len(rows)


def main() -> None:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resend_jobs", description=__doc__)
    parser.add_argument("--postbacks", type=int, default=100_000)
    count = parser.parse_args().postbacks
    recorder_module.GATHER_S = 0.0  # type: ignore[misc]
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedBroker() as broker,
        environment(broker.url),
    ):
        found = Measured(broker, f"sqlite:///{Path(folder)}/history.db", count).run()
    print(
        f"{count:,} dead postbacks of {ACCOUNTS} accounts, half of them in the history alone:\n"
        f"  frozen in {found['freeze_s']:.1f} s ({found['freeze_us']:.0f} µs of CPU each)\n"
        f"  moved in {found['move_s']:.1f} s of the mover's turns, {count / found['move_s']:,.0f}/s: "
        f"{found['own_us']:.0f} µs of its CPU each, {found['broker_us']:.0f} µs of the broker's\n"
        f"  answered by the moves alone, {found['whole_s']:.1f} s in all"
    )


if __name__ == "__main__":
    main()
