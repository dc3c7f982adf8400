"""Details that doctor alone asks for, beside the snapshot: INFO, lists, and samples of what the snapshot counts."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import LISTPACK_SETTINGS
from postbacks.broker.versions import read_versions
from postbacks.devtools.embedded_broker import CONFIG_NAME
from postbacks.history.status import StoreStatus, read_store
from postbacks.queue.slow_start import EndpointStart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postbacks.queue.scripts import Scripts
    from postbacks.settings import Settings

#: Messages of a queue, endpoints, and postbacks in quarantine that are read.
SAMPLE: Final = 200
#: Lanes of each ring whose first postback is read.
HEADS: Final = 100
#: The latest postbacks that came for accounts which nobody knows, or without a URL, that are read.
UNROUTED_SAMPLE: Final = 1000
#: Accounts of those that are read, the most postbacks or bytes first.
ACCOUNTS_MAX: Final = 10
#: Celery's own default queue; nothing of ours belongs there.
CELERY_QUEUE: Final = "celery"
#: Where kombu keeps what a worker has taken and not acknowledged (kombu 5.7, ``Channel.unacked_key``).
UNACKED: Final = "unacked"


class Unrouted(NamedTuple):
    """Postbacks that came for an account that was not known, or without a URL.

    Attributes:
        events: how many of the latest.
        reason: why most of them are dead.
        left_ms: when the account was removed; None where nobody remembers it.
    """

    events: int
    reason: str
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class Details:
    """Facts about the broker, its queues, lanes and accounts. Times are ms since the epoch on the broker's clock.

    Attributes:
        info: the broker's INFO.
        database: number of the database that is examined.
        fsync: the broker's appendfsync; None where it does not tell.
        listpack: the broker's ``hash-max-listpack-…`` settings; those that it does not tell are not in it.
        free_bytes: free on the disk of the broker's data, where that is an embedded broker of this machine; else None.
        clock_ahead_s: seconds that this machine's clock is ahead of the broker's.
        newest_end_ms: the latest time at which a postback's end was noted; None where none has ended.
        versions: version of postbacks at work -> its work (``versions.py``).
        tasks: ``queue: task`` -> how many of it, in samples of the queues ``postbacks``, ``postbacks.work``
            and ``celery``.
        unacked: delivery tag -> task, of what workers hold unacknowledged.
        ready: a lane in turn -> its first id.
        overdue: parked postbacks whose countdown ended before the slack.
        quarantined_ms: when the last POST began of the one that is in quarantine the longest, of those read.
        unreached: endpoint that took no connection the last time -> since when it has taken none; a sample.
        unrouted: account that events came for and that was not known, or had no URL -> those events.
        dead_bytes: the accounts whose dead take the most memory -> bytes.
        answered: names of the workers that answered a ping; None where they were not asked.
        history: database of the history, as far as one is set here.
    """

    info: Mapping[str, Any]
    database: int
    fsync: str | None
    listpack: Mapping[str, int]
    free_bytes: int | None
    clock_ahead_s: float
    newest_end_ms: int | None
    versions: Mapping[str, set[str]]
    tasks: Mapping[str, int]
    unacked: Mapping[str, str]
    ready: Mapping[str, str]
    overdue: int
    quarantined_ms: int | None
    unreached: Mapping[str, int]
    unrouted: Mapping[str, Unrouted]
    dead_bytes: Mapping[str, int]
    answered: tuple[str, ...] | None
    history: StoreStatus


def read(
    scripts: Scripts, settings: Settings, *, overdue_before_ms: int, answered: Sequence[str] | None = None
) -> Details:
    """Read the details of the system as it is now.

    Args:
        scripts: the broker's.
        settings: the history's database.
        overdue_before_ms: when a countdown has ended that counts as overdue.
        answered: names of the workers that answered a ping; None where they were not asked.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    client: Any = scripts.client
    with broker_errors():
        pipe = client.pipeline(transaction=False)
        for key in (keys.DONE, keys.DEAD):
            pipe.zrevrange(key, 0, 0, withscores=True)
        for key in (keys.READY_TRUSTED, keys.READY_SUSPECT):
            pipe.zrange(key, 0, HEADS - 1)
        pipe.zcount(keys.PARKED, "-inf", overdue_before_ms)
        pipe.hscan(keys.STARTS, 0, count=SAMPLE)
        pipe.zrange(keys.DEAD_BYTES, 0, ACCOUNTS_MAX - 1, desc=True, withscores=True)
        done, dead, trusted, suspect, overdue, (_, starts), dead_bytes = pipe.execute()
        return Details(
            info=client.info("everything"),
            database=int(client.connection_pool.connection_kwargs.get("db") or 0),
            fsync=_broker_setting(client, "appendfsync"),
            listpack=_listpack_settings(client),
            free_bytes=_free_bytes(client),
            clock_ahead_s=_clock_ahead_s(client),
            newest_end_ms=max((int(score) for _, score in (*done, *dead)), default=None),
            versions=read_versions(scripts.client, clock_offset_ms=scripts.clock_offset_ms),
            tasks=_tasks(client),
            unacked=_unacked(client),
            ready=_heads(client, [*trusted, *suspect]),
            overdue=overdue,
            quarantined_ms=_quarantined_ms(client),
            unreached=_unreached(starts),
            unrouted=_unrouted(client),
            dead_bytes={text(account): int(size) for account, size in dead_bytes},
            answered=None if answered is None else tuple(answered),
            history=read_store(settings),
        )


def _clock_ahead_s(client: Any) -> float:
    before_s = time.time()
    seconds, microseconds = client.time()
    here_s = (before_s + time.time()) / 2
    return here_s - float(seconds + microseconds / 1_000_000)


def _broker_setting(client: Any, name: str) -> str | None:
    try:
        return client.config_get(name).get(name) or None
    except redis.ResponseError:  # a hosted broker may keep CONFIG to itself
        return None


def _listpack_settings(client: Any) -> dict[str, int]:
    told = {name: _broker_setting(client, name) for name in LISTPACK_SETTINGS}
    return {name: int(value) for name, value in told.items() if value is not None}


def _free_bytes(client: Any) -> int | None:
    host = client.connection_pool.connection_kwargs.get("host")
    folder = _broker_setting(client, "dir") if host in {"127.0.0.1", "localhost", "::1"} else None
    if not folder or not (Path(folder) / CONFIG_NAME).is_file():
        return None
    return shutil.disk_usage(folder).free


def _tasks(client: Any) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for queue in (*keys.QUEUE_LISTS, keys.WORK_QUEUE, CELERY_QUEUE):
        if client.type(queue) != b"list":  # under Celery's names another application may keep other things
            continue
        name = keys.QUEUE if queue in keys.QUEUE_LISTS else queue
        for message in client.lrange(queue, -SAMPLE, -1):
            counts[f"{name}: {_task_of(message)}"] += 1
    return dict(counts)


def _unacked(client: Any) -> dict[str, str]:
    if client.type(UNACKED) != b"hash":
        return {}
    _, messages = client.hscan(UNACKED, 0, count=SAMPLE)
    return {text(tag): _task_of(message) for tag, message in messages.items()}


def _task_of(raw: bytes) -> str:
    """Name the task that a message of Celery's asks for, as far as that can be told."""
    try:
        message = json.loads(raw)
        if isinstance(message, list):  # unacked: message, exchange, routing key
            message = message[0]
        task = message["headers"].get("task")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "(not a Celery message)"
    return str(task) if task else "(a message of Celery's protocol 1)"


def _heads(client: Any, lanes: Sequence[bytes]) -> dict[str, str]:
    pipe = client.pipeline(transaction=False)
    for lane in lanes:
        pipe.lindex(keys.lane(text(lane)), 0)
    return {text(lane): text(head) for lane, head in zip(lanes, pipe.execute(), strict=True) if head}


def _quarantined_ms(client: Any) -> int | None:
    pipe = client.pipeline(transaction=False)
    for postback_id in client.zrange(keys.QUARANTINE, 0, SAMPLE - 1):
        pipe.hget(keys.record(text(postback_id)), "sent_ms")
    return min((int(sent_ms) for sent_ms in pipe.execute() if sent_ms), default=None)


def _unreached(starts: Mapping[bytes, bytes]) -> dict[str, int]:
    parsed = {text(endpoint): EndpointStart.parse(start) for endpoint, start in starts.items()}
    return {endpoint: start.since_ms for endpoint, start in parsed.items() if start and not start.is_up}


def _unrouted(client: Any) -> dict[str, Unrouted]:
    pipe = client.pipeline(transaction=False)
    for postback_id in client.zrevrange(keys.UNROUTED, 0, UNROUTED_SAMPLE - 1):
        pipe.hmget(keys.record(text(postback_id)), "account", "reason")
    counts = Counter((text(account or b""), text(reason or b"")) for account, reason in pipe.execute())
    most = counts.most_common(ACCOUNTS_MAX)
    pipe = client.pipeline(transaction=False)
    for (account, _), _ in most:
        pipe.zscore(keys.LEFT, account)
    return {
        account: Unrouted(count, reason, None if left_ms is None else int(left_ms))
        for ((account, reason), count), left_ms in zip(most, pipe.execute(), strict=True)
    }
