"""What may be wrong with the broker itself. Each takes a scene and returns what is at fault, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from postbacks.broker import fitness
from postbacks.devtools.local import DISK_LOW_BYTES

if TYPE_CHECKING:
    from postbacks.doctor.scene import Scene

#: Share of the memory from which on there is little time left.
MEMORY_SHARE: Final = 0.85
#: Seconds that a replica may be behind, and bytes.
REPLICA_LAG_S: Final = 10
REPLICA_LAG_BYTES: Final = 16 * 1024 * 1024
#: Seconds that two clocks may differ: a tick is thrown away by a worker when it is 5 s old (``app.py``).
CLOCK_SLACK_S: Final = 5.0

#: A finding that is about the whole system and not about one thing in it.
WHOLE: Final = ""


def version(scene: Scene) -> dict[str, str]:
    """Too old a server."""
    return {WHOLE: f"it is {server(scene)}"} if fitness.is_too_old(scene.info) else {}


def server(scene: Scene) -> str:
    """Name and version of the server."""
    name, number = fitness.version_of(scene.info)
    return f"{name} {number or '(unknown version)'}"


def role(scene: Scene) -> dict[str, str]:
    """A replica, or a node of a cluster."""
    if fitness.is_replica(scene.info):
        return {WHOLE: "it is a replica and takes no writes"}
    if fitness.is_cluster_node(scene.info):
        return {WHOLE: "it is a node of a cluster, which Celery 5.7 cannot use"}
    return {}


def refusal(scene: Scene) -> dict[str, str]:
    """A write such as ``.delay()`` makes, refused."""
    return {WHOLE: scene.refusal.rstrip(".")} if scene.refusal else {}


def eviction(scene: Scene) -> dict[str, str]:
    """A policy that throws keys away."""
    policy = fitness.evicting_policy(scene.info)
    return {WHOLE: f"maxmemory-policy is {policy}"} if policy else {}


def append_only(scene: Scene) -> dict[str, str]:
    """No append-only file, or one that is never forced to the disk."""
    if not fitness.has_append_only_file(scene.info):
        return {WHOLE: "there is no append-only file"}
    return {WHOLE: "appendfsync is no"} if scene.fsync == "no" else {}


def fsync(scene: Scene) -> dict[str, str]:
    """Anything less than ``always``."""
    if not fitness.has_append_only_file(scene.info) or scene.fsync in {"always", "no"}:
        return {}
    return {WHOLE: f"appendfsync is {scene.fsync}" if scene.fsync else "the broker does not tell appendfsync"}


def disk(scene: Scene) -> dict[str, str]:
    """Writes to disk that failed."""
    what = {
        "aof_last_write_status": "write to the append-only file",
        "aof_last_bgrewrite_status": "rewrite of the append-only file",
        "rdb_last_bgsave_status": "snapshot",
    }
    return {
        name: f"the last {words} failed"
        for name, words in what.items()
        if str(scene.info.get(name, "ok")) not in {"ok", "1"}
    }


def disk_space(scene: Scene) -> dict[str, str]:
    """Little room on the disk of an embedded broker."""
    if scene.free_bytes is None or scene.free_bytes >= DISK_LOW_BYTES:
        return {}
    return {WHOLE: f"{size(scene.free_bytes)} are free"}


def memory(scene: Scene) -> dict[str, str]:
    """Little memory left."""
    used, limit, whose = used_and_limit(scene)
    if not limit or used < MEMORY_SHARE * limit:
        return {}
    return {WHOLE: f"{size(used)} of {size(limit)} ({whose}) are used, {used / limit:.0%}"}


def used_and_limit(scene: Scene) -> tuple[int, int, str]:
    """Bytes used, bytes that may be, and who says so."""
    limit = int(scene.info.get("maxmemory") or 0)
    used = int(scene.info.get("used_memory") or 0)
    if limit:
        return used, limit, "maxmemory"
    return used, int(scene.info.get("total_system_memory") or 0), "the machine's memory, no maxmemory is set"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def replicas(scene: Scene) -> dict[str, str]:
    """Replicas that are not in step."""
    found = {}
    for number in range(fitness.replicas_of(scene.info)):
        replica: Any = scene.info.get(f"slave{number}")
        if not isinstance(replica, dict):
            continue
        name = f"{replica.get('ip')}:{replica.get('port')}"
        behind = int(scene.info.get("master_repl_offset") or 0) - int(replica.get("offset") or 0)
        lag_s = int(replica.get("lag") or 0)
        if replica.get("state") != "online":
            found[name] = f"{name} is not online yet ({replica.get('state')})"
        elif lag_s > REPLICA_LAG_S:
            found[name] = f"{name} was last heard of {lag_s} s ago"
        elif behind > REPLICA_LAG_BYTES:
            found[name] = f"{name} is {size(behind)} behind"
    return found


def too_few(scene: Scene, wanted: int) -> dict[str, str]:
    """Fewer replicas than every postback has to reach."""
    count = fitness.replicas_of(scene.info)
    if count >= wanted:
        return {}
    return {WHOLE: f"there are {count}, POSTBACKS_WAIT_REPLICAS is {wanted}: no postback is accepted"}


def clock(scene: Scene) -> dict[str, str]:
    """This machine's clock against the broker's."""
    difference_s = (scene.here_ms - scene.now_ms) / 1000
    if abs(difference_s) <= CLOCK_SLACK_S:
        return {}
    where = "ahead of" if difference_s > 0 else "behind"
    return {WHOLE: f"this machine's clock is {duration(abs(difference_s))} {where} the broker's"}


def clock_jump(scene: Scene) -> dict[str, str]:
    """Times in the ledger that lie in the future: the broker's clock was put back."""
    newest_ms = max(scene.last_tick_ms or 0, scene.newest_ms or 0)
    ahead_s = (newest_ms - scene.now_ms) / 1000
    if ahead_s <= CLOCK_SLACK_S:
        return {}
    return {WHOLE: f"the broker has noted things {duration(ahead_s)} from now"}


def duration(seconds: float) -> str:
    """A time for people: at most two units."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"
