"""Where the work tells what happened: kept for a moment, then sent by a thread of its own.

The work only appends to a list in memory. Events are dropped, and counted, where the broker does not take
them or they come faster than they leave: delivery goes on as if nobody looked.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis

from postbacks import keys
from postbacks.broker.client import client, client_for
from postbacks.broker.clock import to_ms
from postbacks.errors import BrokerError
from postbacks.flower_events import events as _told
from postbacks.flower_events import wire
from postbacks.flower_events.events import REVOKED, Batch, Postback
from postbacks.flower_events.facts import Fields, args_of, event
from postbacks.flower_events.sampling import Levels, Meter, is_in_share
from postbacks.logs import EventLog
from postbacks.settings import load

if TYPE_CHECKING:
    from postbacks.ledger.record import Attempt

log = EventLog(__name__)

#: Seconds between two batches: what Flower lags behind, and five commands or so a second.
FLUSH_EVERY_S: Final = 0.2
#: Postbacks whose events may wait to be sent; past it they are dropped.
PENDING_MAX: Final = 50_000
#: Seconds without sending after the broker has failed.
PAUSE_S: Final = 2.0
#: Seconds that the broker may take to answer the sending thread, or the caller's own time-out if less.
TIMEOUT_S: Final = 1.0
#: Changes of the share that are remembered.
LEVELS_KEPT: Final = 500
#: Seconds for which a worker's word counts that it sends events.
ON_FOR_S: Final = 30
#: Seconds between two lines of the log about the same thing.
LOG_EVERY_S: Final = 60.0
# Prefork's children learn from the main process, through memory that they share with it.
_on = multiprocessing.Value("b", 0, lock=False)
#: sent, dropped, sampled out: of the worker's processes together. Without a lock, which a child that is killed
#: would keep: a count may be missed.
_counts = multiprocessing.Array("Q", 3, lock=False)

_lock = threading.Lock()
_sending = threading.Lock()
_pending: deque[tuple[int, Callable[[Levels], Batch]]] = deque()  # PENDING_MAX
_pending_count = 0
_thread: tuple[int, threading.Thread] | None = None
_hostname = ""
_exchange = ""
_words: Mapping[str, str] = {}
_pause_until_s = 0.0
_logged_s: dict[str, float] = {}  # one a kind of line


def set_up(hostname: str, exchange: str, words: Mapping[str, str]) -> None:
    """Say whose events these are; called by the main process, before it forks.

    Args:
        hostname: the worker's node name.
        exchange: Celery's ``event_exchange``.
        words: what each outcome of an attempt means.
    """
    global _hostname, _exchange, _words
    _hostname, _exchange, _words = hostname, exchange, words


def switch(on: bool) -> None:
    """Turn events on or off in all processes of this worker."""
    if bool(_on.value) != on:
        _on.value = int(on)
        if on:
            log.info("taskevents.on")
        else:
            log.info("taskevents.off")


def is_on() -> bool:
    """Whether anybody wants events."""
    return bool(_on.value)


def announce() -> bool:
    """Let programs that cancel postbacks know that events are on, and where they go; False: not now."""
    word = json.dumps({"hostname": _hostname, "exchange": _exchange})
    try:
        _client().set(keys.TASK_EVENTS_ON, word, ex=ON_FOR_S)
    except (redis.RedisError, OSError, BrokerError) as error:
        if _seldom("not_announced"):
            log.warning("taskevents.not_announced", str(error))
        return False
    return True


def counts() -> dict[str, Any]:
    """What ``celery inspect stats`` says of them."""
    sent, dropped, sampled_out = _counts[:]
    return {"on": is_on(), "sent": sent, "dropped": dropped, "sampled_out": sampled_out}


# -- what happened ------------------------------------------------------------------------------


def admit(clock_offset_ms: int, count: int) -> int:
    """Count postbacks that are about to be accepted; returns the level that they are shown at, 0 for all.

    Only whoever holds the intake's lease calls it, so the changes of the level are in order.
    """
    if not _on.value:
        return 0
    per_s = load().events_per_s
    try:
        broker = _client()
        pipe = broker.pipeline(transaction=False)
        pipe.time()
        pipe.hmget(keys.TASK_EVENTS_METER, "level", "room", "at_ms")
        time_reply, (level, room, at_ms) = pipe.execute()
        now_ms = to_ms(time_reply) + clock_offset_ms
        before = Meter(int(level or 0), float(room or 0), int(at_ms or 0))
        now = before.after(count, now_ms, per_s)
        pipe = broker.pipeline(transaction=True)
        pipe.hset(keys.TASK_EVENTS_METER, mapping={"level": now.level, "room": now.room, "at_ms": now.at_ms})
        if now.level != before.level:
            pipe.zadd(keys.TASK_EVENTS_LEVELS, {f"{now_ms}:{now.level}": now_ms})
            pipe.zremrangebyrank(keys.TASK_EVENTS_LEVELS, 0, -LEVELS_KEPT - 1)
        pipe.execute()
    except (redis.RedisError, OSError, BrokerError, ValueError) as error:
        if _seldom("not_counted"):
            log.warning("taskevents.not_counted", str(error))
        return 0
    if now.level and not before.level and _seldom("sampling"):
        log.warning(
            "taskevents.sampling",
            "more postbacks than POSTBACKS_EVENTS_PER_S; Flower is shown every failure and a share of the rest",
            limit_per_s=per_s,
        )
    elif before.level and not now.level and _seldom("sampling_ended"):
        log.warning("taskevents.sampling_ended", "Flower is shown every postback again", limit_per_s=per_s)
    return now.level


def received(level: int, rows: Sequence[Any], results: Sequence[int]) -> None:
    """Tell of postbacks that were accepted: the rows that ``accept.lua`` took and its results."""
    if _on.value and results:
        at_s = time.time()
        _tell(len(results), lambda _: _told.received(at_s, level, rows, results))


def started(claimed: Sequence[Any]) -> None:
    """Tell of postbacks whose POST has begun."""
    if _on.value and claimed:
        at_s = time.time()
        _tell(len(claimed), lambda levels: _told.started(at_s, claimed, levels))


def unsent(rows: Sequence[Sequence[str]]) -> None:
    """Tell of postbacks that ended unsent: id, account, origin, code, state and reason of each."""
    if _on.value and rows:
        at_s = time.time()
        _tell(len(rows), lambda _: _told.unsent(at_s, rows))


def noted(notes: Sequence[tuple[Any, Attempt, Sequence[Any]]], results: Sequence[Sequence[Any]]) -> None:
    """Tell of attempts that were noted, each with the state and time that ``commit.lua`` gave back."""
    if _on.value:
        at_s = time.time()
        _tell(len(notes), lambda levels: _told.noted(at_s, notes, results, levels, _words))


def gone(held: Sequence[Postback]) -> None:
    """Tell of postbacks that could not be begun, as far as they were cancelled while they were held."""
    if _on.value and held:
        at_s = time.time()
        _tell(len(held), lambda _: _told.gone(at_s, held, _client()))


def revoked(postback_id: str) -> None:
    """Tell at once of a postback that was cancelled, from whatever program; nothing where events are off."""
    _tell_one("revoked", postback_id, REVOKED)


def replayed(postback_id: str) -> None:
    """Tell at once of a dead postback that is sent again by hand: it is on its way as after a failure."""
    _tell_one("retried", postback_id, {"exception": "sent again by hand", "traceback": ""})


def _tell_one(kind: str, postback_id: str, more: Fields) -> None:
    try:
        broker = client()
        pipe = broker.pipeline(transaction=False)
        pipe.get(keys.TASK_EVENTS_ON)
        pipe.hmget(keys.record(postback_id), "account", "origin", "code", "failures")
        word, known = pipe.execute()
        if not word:
            return
        # a worker's name: Flower would take a program's for a worker
        at = json.loads(word)
        account, origin, code, failures = ((one or b"").decode("utf-8", "replace") for one in known)
        args = args_of(account, origin, code)
        one = event(kind, time.time(), postback_id, args, int(failures or 0), **more)
        wire.publish(broker, at["exchange"], at["hostname"], [one])
    except (redis.RedisError, OSError, BrokerError, ValueError) as error:
        _dropped(1, error)


# -- sending --------------------------------------------------------------------------------------


def _client() -> redis.Redis:
    settings = load()
    return client_for(settings.broker_url, min(TIMEOUT_S, settings.broker_timeout_s))


def _tell(count: int, build: Callable[[Levels], Batch]) -> None:
    global _pending_count, _thread  # noqa: PLW0603 - state of the process
    with _lock:
        if _pending_count + count > PENDING_MAX:
            dropped = True
        else:
            dropped = False
            _pending.append((count, build))
            _pending_count += count
        if _thread is None or _thread[0] != os.getpid():
            thread = threading.Thread(target=_send_for_ever, name="postbacks-taskevents", daemon=True)
            with suppress(RuntimeError):  # no more threads, or the process ends: the next call tries again
                thread.start()
                _thread = (os.getpid(), thread)
    if dropped:
        _dropped(count, "they come faster than they can be sent")


def _send_for_ever() -> None:
    global _thread  # noqa: PLW0603 - state of the process
    while True:
        time.sleep(FLUSH_EVERY_S)
        flush()
        with _lock:
            if not _on.value and not _pending:
                _thread = None
                return


def flush() -> None:
    """Send what waits, unless the broker has just failed; never raises."""
    global _pause_until_s, _pending_count  # noqa: PLW0603 - state of the process
    with _sending:
        if not _pending or time.monotonic() < _pause_until_s:
            return
        with _lock:
            batches = list(_pending)
            _pending.clear()
            _pending_count = 0
        try:
            _send([build for _, build in batches])
        except Exception as error:
            if not isinstance(error, (redis.RedisError, OSError, BrokerError)):
                log.exception("taskevents.failed")  # a fault of ours must not stop a delivery either
            _pause_until_s = time.monotonic() + PAUSE_S
            _dropped(sum(count for count, _ in batches), error)


def _send(builds: Sequence[Callable[[Levels], Batch]]) -> None:
    broker = _client()
    # Asked after these things happened: whatever level they were taken in at stands in it.
    changes: Any = broker.zrange(keys.TASK_EVENTS_LEVELS, 0, -1, withscores=True)
    levels = Levels([(int(ms), int(member.rpartition(b":")[2])) for member, ms in changes])
    batches = [build(levels) for build in builds]
    told = [one for batch, _ in batches for one in batch]
    failures = sum(1 for _, shown in told if not shown)
    share = _share_of_failures(broker, failures) if failures else 1.0
    events = [one for one, shown in told if shown or is_in_share(one["uuid"], share)]
    wire.publish(broker, _exchange, _hostname, events)
    _counts[0] += len(events)
    _counts[2] += sum(left_out for _, left_out in batches) + len(told) - len(events)


def _share_of_failures(broker: redis.Redis, forced: int) -> float:
    """How many of the failures that the share has not chosen may be shown: as many a second as all others."""
    limit = 2 * load().events_per_s  # a failed attempt has two events
    key = f"{keys.TASK_EVENTS_FAILED}{int(time.time())}"
    pipe = broker.pipeline(transaction=False)
    pipe.incrby(key, forced)
    pipe.expire(key, 5)
    total = int(pipe.execute()[0])
    if total <= limit:
        return 1.0
    if _seldom("sampling_failures"):
        log.warning(
            "taskevents.sampling_failures", "more fail than Flower can be shown", limit_per_s=limit // 2
        )
    return max(0.0, min(1.0, (limit - (total - forced)) / forced))


def _dropped(count: int, why: object) -> None:
    _counts[1] += count
    if _seldom("dropped"):
        log.warning(
            "taskevents.dropped", f"{why}; Flower does not see them, they are delivered", postbacks=count
        )


def _seldom(name: str) -> bool:
    """Whether a line of this name may be written again."""
    now_s = time.monotonic()
    if now_s - _logged_s.get(name, -LOG_EVERY_S) < LOG_EVERY_S:
        return False
    _logged_s[name] = now_s
    return True
