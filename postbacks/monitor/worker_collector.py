"""Metrics of one worker: CPU, memory and files of its processes, and the counters of its loops."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from postbacks.monitor.metrics import attempts, build_info, counter, gauge

if TYPE_CHECKING:
    from postbacks.delivery.counters import WorkerCounters

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PROC: Final = Path("/proc")


class WorkerCollector(Collector):
    """Metrics of this worker: main process and prefork's children together.

    Args:
        loop_counters: counters of its loops, in memory that all its processes share.
    """

    def __init__(self, loop_counters: WorkerCounters) -> None:
        self._loop_counters = loop_counters
        self._pid = os.getpid()

    def describe(self) -> Iterable[Metric]:
        """Describe nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        cpu_s, memory_bytes, open_files, processes = 0.0, 0, 0, 0
        for pid in (self._pid, *_children(self._pid)):
            try:
                fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                cpu_s += (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
                if pid == self._pid:  # and of children that have ended, so that the sum does not fall
                    cpu_s += (int(fields[13]) + int(fields[14])) / _TICKS_A_SECOND
                memory_bytes += int(fields[21]) * _PAGE_BYTES
                open_files += sum(1 for _ in (_PROC / str(pid) / "fd").iterdir())
                processes += 1
            except OSError:
                continue  # the process has just ended, or this system has no /proc
        yield build_info()
        yield counter("postbacks_worker_cpu_seconds", "CPU time of this worker and its children.", cpu_s)
        yield gauge("postbacks_worker_memory_bytes", "Resident memory of them together.", memory_bytes)
        yield gauge("postbacks_worker_open_files", "File descriptors of them together.", open_files)
        yield gauge("postbacks_worker_processes", "How many they are.", processes)
        yield from attempts(
            "postbacks_worker", self._loop_counters.total(), "of this worker since it started"
        )


def _children(pid: int) -> list[int]:
    try:
        tasks = list((_PROC / str(pid) / "task").iterdir())
        children = [(task / "children").read_text().split() for task in tasks]
    except OSError:
        return []
    return [int(child) for of_task in children for child in of_task]
