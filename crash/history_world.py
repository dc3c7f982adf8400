"""World of a history: two recorders beside the planned world's processes, and faults done to them and to their database."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import redis

from crash.databases import Database
from crash.history_comparison import HistoryComparison
from crash.history_reading import compare_all, read_ledger
from crash.plan import KINDS, Fault
from crash.planned_world import PlannedWorld
from crash.record import POINTS
from crash.world import Load
from postbacks.devtools.stack import StackProcess
from postbacks.errors import BrokerError
from postbacks.history.engine import connect
from postbacks.history.feed import Feed


class HistoryWorld(PlannedWorld):
    """World whose broker syncs each write, so that what the recorders have read cannot be forgotten.

    Args:
        database: kind of the history's database.
        load: of the run.
        folder: where all files are.
        stack: gets what is to be undone.
        options: as of ``PlannedWorld``.
    """

    def __init__(
        self, database: type[Database], load: Load, folder: Path, stack: ExitStack, **options: Any
    ) -> None:
        self._point = folder / "recorder.point"
        self._database = database(folder)
        stack.callback(self._database.remove)
        super().__init__("always", load, folder, stack, kinds=KINDS | database.kinds, **options)

    def _make_recorders(self) -> list[StackProcess]:
        return [
            StackProcess(
                "The recorder",
                [sys.executable, "-m", "crash.record", str(self._point)],
                env={**self._env, "POSTBACKS_HISTORY_URL": self._database.url},
                log_path=self.folder / f"recorder{number}.log",
                cwd=Path(__file__).parents[1],
            )
            for number in (1, 2)
        ]

    def on_the_way(self, client: redis.Redis) -> dict[str, int]:
        """Count what is not at its end or not recorded yet."""
        feed = Feed(client).state()
        unrecorded = {
            "feed": feed.length,
            "resync": int(bool(feed.resync)),
            "feed off": int(feed.on_ms is None),
        }
        return super().on_the_way(client) | {place: count for place, count in unrecorded.items() if count}

    # -- faults -----------------------------------------------------------------------------

    def _acts(self, fault: Fault) -> dict[str, Callable[[], bool]]:
        return {
            **super()._acts(fault),
            "recorder killed": lambda: self._kill(self._recorder(fault), fault),
            "recorder killed in a batch": lambda: self._kill_in_batch(self._recorder(fault), fault),
            "recorder paused": lambda: self._pause(self._recorder(fault), fault),
            "database killed": lambda: self._kill_database(fault),
            "database locked": lambda: self._lock_database(fault),
        }

    def _recorder(self, fault: Fault) -> StackProcess:
        """Return the recorder that works; where none is known to, the one that the fault names."""
        holder: list[str] = []
        with suppress(BrokerError), self.client(1.0) as client:
            holder = Feed(client).state().holder.split(":")
        for recorder in self.recorders:
            if recorder.alive and str(recorder.pid) in holder:
                return recorder
        return self.recorders[fault.target]

    def _kill_in_batch(self, recorder: StackProcess, fault: Fault) -> bool:
        """Let it kill itself at a step of its next batch."""
        number = self.supervised.index(recorder)
        if number in self._paused or not recorder.alive:
            return False
        self._point.write_text(POINTS[int(fault.at_s * 1000) % len(POINTS)])
        self.restart_at[number] = time.time() + fault.hold_s
        os.kill(recorder.pid, signal.SIGUSR1)
        return True

    def _kill_all(self, fault: Fault) -> bool:
        is_done = super()._kill_all(fault)
        if is_done and "database killed" in self._database.kinds:
            self._kill_database(fault)
        return is_done

    def _kill_database(self, fault: Fault) -> bool:
        if not self._database.is_up:
            return False
        self._database.kill()
        self._later(time.time() + fault.hold_s, self._database.start)
        return True

    def _lock_database(self, fault: Fault) -> bool:
        if not self._database.lock():
            return False
        self._later(time.time() + fault.hold_s, self._database.unlock)
        return True

    # -- afterwards -------------------------------------------------------------------------

    def compare_history(self, client: redis.Redis) -> HistoryComparison:
        """Compare all that the ledger has with all that the history has."""
        engine = connect(self._database.url)
        try:
            return compare_all(read_ledger(client), engine)
        finally:
            engine.dispose()
