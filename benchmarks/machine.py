"""Readings of the kernel and the broker: CPU and memory of processes, the machine's name."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pids: Iterable[int]) -> set[int]:
    """Return these processes and all that descend from them."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    found: set[int] = set()
    look = list(pids)
    while look:
        pid = look.pop()
        found.add(pid)
        look += children[pid]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes, their descendants, and those children that have ended."""
    ticks = 0
    for pid in tree(pids):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def exact_cpu_s(pid: int) -> float:
    """CPU seconds of one process's threads, to the nanosecond, for short moves."""
    return (
        sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    )


def written_bytes() -> int:
    """Bytes that this process has had written to disks."""
    return int(Path("/proc/self/io").read_text().split("\nwrite_bytes: ")[1].split()[0])


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory that these processes and their descendants hold."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in tree(pids))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def commands(client: redis.Redis) -> dict[str, tuple[int, int]]:
    """Calls and microseconds of every command that the broker has served."""
    return {
        name.removeprefix("cmdstat_"): (stat["calls"], stat["usec"])
        for name, stat in client.info("commandstats").items()
    }


def described(client: redis.Redis) -> dict[str, Any]:
    """The machine and the versions."""
    import celery
    import kombu
    import pycurl
    import redis as redis_py

    from postbacks.devtools.valkey import jemalloc

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or "unknown",
    )
    info = client.info()
    allocator = "jemalloc" if jemalloc() else info["mem_allocator"]
    server = "Valkey" if "valkey_version" in info else "Redis"
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * _PAGE / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "broker": f"{server} {info.get('valkey_version', info.get('redis_version'))} ({allocator}), appendfsync always",
        "celery": celery.__version__,
        "kombu": kombu.__version__,
        "redis_py": redis_py.__version__,
        "libcurl": pycurl.version_info()[1],
        "load_before": os.getloadavg()[0],
    }
