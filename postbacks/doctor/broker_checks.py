"""Checks of the broker itself. Each takes an inspection and returns what is at fault, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from postbacks.broker import fitness
from postbacks.devtools.embedded_broker import DISK_LOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.doctor.inspection import Inspection

#: Share of the memory from which on there is little time left.
MEMORY_SHARE: Final = 0.85
#: Seconds since a replica was last heard of, and bytes that it lacks, up to which it counts as in step.
REPLICA_LAG_S: Final = 10
REPLICA_LAG_BYTES: Final = 16 * 1024 * 1024
#: Seconds that two clocks may differ before it is reported.
CLOCK_SLACK_S: Final = 5.0

#: Subject of a finding about the whole system and not about one thing in it.
WHOLE: Final = ""


def version(inspection: Inspection) -> dict[str, str]:
    """Report a server that is too old."""
    info = inspection.details.info
    return {WHOLE: f"it is {server(info)}"} if fitness.is_too_old(info) else {}


def server(info: Mapping[str, Any]) -> str:
    """Name the server and its version."""
    name, number = fitness.version_of(info)
    return f"{name} {number or '(unknown version)'}"


def role(inspection: Inspection) -> dict[str, str]:
    """Report a replica, or a node of a cluster."""
    info = inspection.details.info
    if fitness.is_replica(info):
        return {WHOLE: "it is a replica and takes no writes"}
    if fitness.is_cluster_node(info):
        return {WHOLE: "it is a node of a cluster, which Celery 5.7 cannot use"}
    return {}


def refusal(inspection: Inspection) -> dict[str, str]:
    """Report that a write such as that of ``.delay()`` is refused."""
    refused = inspection.snapshot.refusal
    return {WHOLE: refused.rstrip(".")} if refused else {}


def eviction(inspection: Inspection) -> dict[str, str]:
    """Report a policy that throws keys away."""
    policy = fitness.evicting_policy(inspection.details.info)
    return {WHOLE: f"maxmemory-policy is {policy}"} if policy else {}


def append_only(inspection: Inspection) -> dict[str, str]:
    """Report a missing append-only file, or one that is never forced to the disk."""
    if not fitness.has_append_only_file(inspection.details.info):
        return {WHOLE: "there is no append-only file"}
    return {WHOLE: "appendfsync is no"} if inspection.details.fsync == "no" else {}


def fsync(inspection: Inspection) -> dict[str, str]:
    """Report an append-only file that is forced to the disk less often than ``always``."""
    policy = inspection.details.fsync
    if not fitness.has_append_only_file(inspection.details.info) or policy in {"always", "no"}:
        return {}
    return {WHOLE: f"appendfsync is {policy}" if policy else "the broker does not tell appendfsync"}


def records(inspection: Inspection) -> dict[str, str]:
    """Report settings by which the broker keeps records as hash tables, or large other hashes as listpacks."""
    findings = {}
    for name, values in fitness.LISTPACK_RANGES.items():
        value = inspection.details.listpack.get(name)
        if value is None:
            findings[name] = f"the broker does not tell {name}"
        elif value not in values:
            findings[name] = f"{name} is {value}"
    return findings


def disk(inspection: Inspection) -> dict[str, str]:
    """Report writes to disk that failed."""
    writes = {
        "aof_last_write_status": "write to the append-only file",
        "aof_last_bgrewrite_status": "rewrite of the append-only file",
        "rdb_last_bgsave_status": "snapshot",
    }
    return {
        name: f"the last {write} failed"
        for name, write in writes.items()
        if str(inspection.details.info.get(name, "ok")) not in {"ok", "1"}
    }


def disk_space(inspection: Inspection) -> dict[str, str]:
    """Report that there is little room on the disk of an embedded broker."""
    free_bytes = inspection.details.free_bytes
    if free_bytes is None or free_bytes >= DISK_LOW_BYTES:
        return {}
    return {WHOLE: f"{size(free_bytes)} are free"}


def memory(inspection: Inspection) -> dict[str, str]:
    """Report that there is little memory left."""
    used, limit = inspection.snapshot.used_memory_bytes, inspection.snapshot.max_memory_bytes
    if not limit or used < MEMORY_SHARE * limit:
        return {}
    has_limit = int(inspection.details.info.get("maxmemory") or 0)
    whose = "maxmemory" if has_limit else "the machine's memory, no maxmemory is set"
    return {WHOLE: f"{size(used)} of {size(limit)} ({whose}) are used, {used / limit:.0%}"}


def size(count: int) -> str:
    """Write a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def replicas(inspection: Inspection) -> dict[str, str]:
    """Report replicas that are not in step."""
    info = inspection.details.info
    findings = {}
    for number in range(fitness.replicas_of(info)):
        replica: Any = info.get(f"slave{number}")
        if not isinstance(replica, dict):
            continue
        name = f"{replica.get('ip')}:{replica.get('port')}"
        behind = int(info.get("master_repl_offset") or 0) - int(replica.get("offset") or 0)
        lag_s = int(replica.get("lag") or 0)
        if replica.get("state") != "online":
            findings[name] = f"{name} is not online yet ({replica.get('state')})"
        elif lag_s > REPLICA_LAG_S:
            findings[name] = f"{name} was last heard of {lag_s} s ago"
        elif behind > REPLICA_LAG_BYTES:
            findings[name] = f"{name} is {size(behind)} behind"
    return findings


def too_few(inspection: Inspection) -> dict[str, str]:
    """Report that there are fewer replicas than every postback has to reach."""
    wanted = inspection.settings.wait_replicas
    count = fitness.replicas_of(inspection.details.info)
    if count >= wanted:
        return {}
    return {WHOLE: f"there are {count}, POSTBACKS_WAIT_REPLICAS is {wanted}: no postback is accepted"}


def clock(inspection: Inspection) -> dict[str, str]:
    """Compare this machine's clock with the broker's."""
    ahead_s = inspection.details.clock_ahead_s
    if abs(ahead_s) <= CLOCK_SLACK_S:
        return {}
    where = "ahead of" if ahead_s > 0 else "behind"
    return {WHOLE: f"this machine's clock is {duration(abs(ahead_s))} {where} the broker's"}


def clock_jump(inspection: Inspection) -> dict[str, str]:
    """Report times in the ledger that lie in the future: the broker's clock was put back."""
    snapshot = inspection.snapshot
    newest_ms = max(snapshot.last_tick_ms or 0, inspection.details.newest_end_ms or 0)
    ahead_s = (newest_ms - snapshot.now_ms) / 1000
    if ahead_s <= CLOCK_SLACK_S:
        return {}
    return {WHOLE: f"the broker has noted things {duration(ahead_s)} from now"}


def duration(seconds: float) -> str:
    """Write a time for people, in two units at most."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"
