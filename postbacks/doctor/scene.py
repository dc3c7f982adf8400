"""The scene: what a few cheap questions to the broker say about it, its processes and Celery's queues."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis

from postbacks import keys
from postbacks.broker import clock, memory
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import why_refused
from postbacks.devtools.local import CONFIG_NAME
from postbacks.doctor.account_checks import (
    Still,
    Unrouted,
    read_dead_bytes,
    read_down,
    read_still,
    read_unrouted,
)
from postbacks.monitor.presence import Presence, find_present
from postbacks.queue.shares import shares_of
from postbacks.queue.slow_start import EndpointStart
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postbacks.queue.scripts import Scripts

#: Messages of a queue that are read.
SAMPLE: Final = 200
#: Lanes of each ring whose first postback is looked at.
HEADS: Final = 100
#: Celery's own default queue; nothing of ours belongs there.
CELERY_QUEUE: Final = "celery"
#: Where kombu keeps what a worker has taken and not acknowledged (kombu 5.7, ``Channel.unacked_key``).
UNACKED: Final = "unacked"


@dataclass(frozen=True, slots=True)
class Scene:
    """One look at the broker. Times are ms since the epoch on the broker's clock.

    Attributes:
        info: the broker's INFO.
        refusal: why it would refuse a postback; empty where it would take it.
        database: number of the database that is looked at.
        fsync: its appendfsync; None where it does not tell.
        free_bytes: free on the disk of the broker's data, where that is an embedded broker of this machine; else None.
        now_ms: its clock.
        here_ms: this machine's clock at the same moment.
        last_tick_ms: when a tick last finished.
        ticks: version of postbacks -> when a tick of it last finished.
        newest_ms: the latest time that a postback's end was noted with.
        claimers: token of a delivering loop -> when its lease ends.
        intake: messages that a tick has taken and not accepted.
        intake_lease_ms: when the lease on them ends.
        queue: messages that wait to be taken in.
        work: messages in the workers' queue.
        tasks: ``queue: task`` -> how many of it, in samples of the queues ``postbacks``, ``postbacks.work``
            and ``celery``.
        unacked: delivery tag -> task, of what workers hold unacknowledged.
        ready: a lane in turn -> its first id.
        overdue: parked postbacks whose countdown ended before the slack.
        overdue_since_ms: when the first of them was due.
        sizes: quarantine, parked, dead, done.
        quarantined_ms: when the last POST began of the one that is in quarantine the longest, of those looked at.
        unreached: endpoint that took no connection the last time -> since when it has taken none; a sample.
        down: account with a lane of which every attempt has failed for an hour -> since when, in ms.
        still: account that stands still while postbacks of its wait -> its state and since when; of a sample.
        unrouted: account that events came for and that was not known, or had no URL -> how many; of the latest.
        dead_bytes: the accounts whose dead take the most memory -> bytes.
        dead_bytes_max: what an account's dead may take.
        workers: names of the workers that answered; None where they were not asked.
        present: ``worker`` and ``beat`` -> those that give signs of life.
    """

    info: Mapping[str, Any]
    refusal: str
    database: int
    fsync: str | None
    free_bytes: int | None
    now_ms: int
    here_ms: int
    last_tick_ms: int | None
    ticks: Mapping[str, int]
    newest_ms: int | None
    claimers: Mapping[str, int]
    intake: int
    intake_lease_ms: int | None
    queue: int
    work: int
    tasks: Mapping[str, int]
    unacked: Mapping[str, str]
    ready: Mapping[str, str]
    overdue: int
    overdue_since_ms: int | None
    sizes: Mapping[str, int]
    quarantined_ms: int | None
    unreached: Mapping[str, int]
    down: Mapping[str, int]
    still: Mapping[str, Still]
    unrouted: Mapping[str, Unrouted]
    dead_bytes: Mapping[str, int]
    dead_bytes_max: int
    workers: tuple[str, ...] | None
    present: Mapping[str, Presence]

    @property
    def tick_age_s(self) -> float | None:
        """Seconds since a tick last finished; negative where that lies in the future."""
        return None if self.last_tick_ms is None else (self.now_ms - self.last_tick_ms) / 1000


def look(scripts: Scripts, *, overdue_slack_ms: int, workers: Sequence[str] | None = None) -> Scene:
    """Take a look."""
    client: Any = scripts.client
    with broker_errors():
        info = client.info("everything")
        fsync = _setting(client, "appendfsync")
        free_bytes = _free_bytes(client)
        before_s = time.time()
        broker_ms = clock.now_ms(client)
        here_ms = int((before_s + time.time()) * 500)
        now_ms = broker_ms + scripts.clock_offset_ms
        pipe = client.pipeline(transaction=False)
        pipe.get(keys.LAST_TICK)
        # After it: a tick of a version that says which it is is never seen in the first alone.
        pipe.hgetall(keys.TICKS)
        pipe.zrevrange(keys.DONE, 0, 0, withscores=True)
        pipe.zrevrange(keys.DEAD, 0, 0, withscores=True)
        pipe.zrange(keys.CLAIMERS, 0, -1, withscores=True)
        pipe.llen(keys.INTAKE)
        pipe.hget(keys.INTAKE_LEASE, "expires_ms")
        pipe.zrange(keys.READY_TRUSTED, 0, HEADS - 1)
        pipe.zrange(keys.READY_SUSPECT, 0, HEADS - 1)
        pipe.zcount(keys.PARKED, "-inf", now_ms - overdue_slack_ms)
        pipe.zrange(keys.PARKED, 0, 0, withscores=True)
        pipe.zcard(keys.QUARANTINE)
        pipe.zcard(keys.PARKED)
        pipe.zcard(keys.DEAD)
        pipe.zcard(keys.DONE)
        pipe.llen(keys.WORK_QUEUE)
        pipe.hscan(UNACKED, 0, count=SAMPLE) if client.type(UNACKED) == b"hash" else pipe.time()
        pipe.hscan(keys.STARTS, 0, count=SAMPLE)
        pipe.zrange(keys.WORKERS, 0, -1, withscores=True)
        pipe.zrange(keys.BEATS, 0, -1, withscores=True)
        for one in keys.QUEUE_LISTS:
            pipe.llen(one)
        (
            tick, ticks, done, dead, claimers, intake, lease, trusted, suspect, overdue, first, quarantined, parked,
            dead_size, done_size, work, unacked, (_, starts), signs, beat_signs, *waiting,
        ) = pipe.execute()  # fmt: skip
        tasks = _tasks(client)
        ready = _heads(client, [*trusted, *suspect])
        quarantined_ms = _quarantined_ms(client)
        refusal = why_refused(client)
        down = read_down(client, now_ms)
        still, unrouted = read_still(client), read_unrouted(client)
        dead_bytes = read_dead_bytes(client)
    ends = [int(score) for _, score in (*done, *dead)]
    held = unacked[1] if isinstance(unacked[1], dict) else {}
    return Scene(
        info=info,
        refusal=refusal,
        database=int(client.connection_pool.connection_kwargs.get("db") or 0),
        fsync=fsync,
        free_bytes=free_bytes,
        now_ms=now_ms,
        here_ms=here_ms + scripts.clock_offset_ms,
        last_tick_ms=None if tick is None else int(float(tick)),
        ticks={text(version): int(float(at_ms)) for version, at_ms in ticks.items()},
        newest_ms=max(ends, default=None),
        claimers={text(token): int(score) for token, score in claimers},
        intake=intake,
        intake_lease_ms=None if lease is None else int(float(lease)),
        queue=sum(waiting),
        work=work,
        tasks=tasks,
        unacked={text(tag): _task_of(raw) for tag, raw in held.items()},
        ready=ready,
        overdue=overdue,
        overdue_since_ms=int(first[0][1]) if overdue and first else None,
        sizes={"quarantine": quarantined, "parked": parked, "dead": dead_size, "done": done_size},
        quarantined_ms=quarantined_ms,
        unreached=_unreached(starts),
        down=down,
        still=still,
        unrouted=unrouted,
        dead_bytes=dead_bytes,
        dead_bytes_max=shares_of(memory.limit_of(client), load()).dead_bytes,
        workers=None if workers is None else tuple(workers),
        present={"worker": find_present(signs, now_ms), "beat": find_present(beat_signs, now_ms)},
    )


def _unreached(starts: Mapping[bytes, bytes]) -> dict[str, int]:
    parsed = {text(endpoint): EndpointStart.parse(start) for endpoint, start in starts.items()}
    return {endpoint: start.since_ms for endpoint, start in parsed.items() if not start.is_up}


def _quarantined_ms(client: Any) -> int | None:
    pipe = client.pipeline(transaction=False)
    for one in client.zrange(keys.QUARANTINE, 0, SAMPLE - 1):
        pipe.hget(keys.record(text(one)), "sent_ms")
    return min((int(ms) for ms in pipe.execute() if ms), default=None)


def _setting(client: Any, name: str) -> str | None:
    try:
        found = client.config_get(name)
    except redis.ResponseError:  # a hosted broker may keep CONFIG to itself
        return None
    return found.get(name) or None


def _free_bytes(client: Any) -> int | None:
    host = client.connection_pool.connection_kwargs.get("host")
    folder = _setting(client, "dir") if host in {"127.0.0.1", "localhost", "::1"} else None
    if not folder or not (Path(folder) / CONFIG_NAME).is_file():
        return None
    return shutil.disk_usage(folder).free


def _tasks(client: Any) -> dict[str, int]:
    found: Counter[str] = Counter()
    for queue in (*keys.QUEUE_LISTS, keys.WORK_QUEUE, CELERY_QUEUE):
        if client.type(queue) != b"list":  # under Celery's names another application may keep other things
            continue
        name = keys.QUEUE if queue in keys.QUEUE_LISTS else queue
        for raw in client.lrange(queue, -SAMPLE, -1):
            found[f"{name}: {_task_of(raw)}"] += 1
    return dict(found)


def _heads(client: Any, lanes: Sequence[bytes]) -> dict[str, str]:
    pipe = client.pipeline(transaction=False)
    for lane in lanes:
        pipe.lindex(keys.lane(text(lane)), 0)
    return {text(lane): text(head) for lane, head in zip(lanes, pipe.execute(), strict=True) if head}


def _task_of(raw: bytes) -> str:
    """The task that a message of Celery's asks for, as far as that can be told."""
    try:
        message = json.loads(raw)
        if isinstance(message, list):  # unacked: message, exchange, routing key
            message = message[0]
        task = message["headers"].get("task")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "(not a Celery message)"
    return str(task) if task else "(a message of Celery's protocol 1)"
