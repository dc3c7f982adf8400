"""The broker's files rewritten, so that they have nothing any more of what was erased from its memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import redis

from postbacks.broker.errors import broker_errors, missing_right

if TYPE_CHECKING:
    from collections.abc import Generator

    from postbacks.operate.forget.request import Requests

#: Seconds between two looks whether a file is written.
LOOK_EVERY_S: Final = 0.1
#: How a save of the broker's memory is asked for, whether one is under way, and whether the last one did.
_APPEND_ONLY: Final = (
    "BGREWRITEAOF",
    ("aof_rewrite_in_progress", "aof_rewrite_scheduled"),
    "aof_last_bgrewrite_status",
)
_SNAPSHOT: Final = ("BGSAVE", ("rdb_bgsave_in_progress",), "rdb_last_bgsave_status")


def rewrite_broker(client: redis.Redis, requests: Requests, request: str) -> Generator[float, None, None]:
    """Have the append-only file and the snapshot written anew; note what came of each, and the replicas.

    Raises:
        BrokerError: the broker cannot be used.
    """
    with broker_errors():
        replicas = int(client.info("replication").get("connected_slaves", 0))
        has_append_only = bool(client.info("persistence").get("aof_enabled"))
    append_only = "the broker keeps none"
    if has_append_only:
        append_only = yield from _written(client, *_APPEND_ONLY)
    snapshot = "the broker keeps none"
    if _keeps_snapshots(client):
        snapshot = yield from _written(client, *_SNAPSHOT)
    requests.note(request, append_only=append_only, snapshot=snapshot, replicas=replicas)


def _keeps_snapshots(client: redis.Redis) -> bool:
    """Tell whether the broker writes snapshots by itself; True where its user may not ask."""
    try:
        return bool(client.config_get("save").get("save", ""))
    except redis.ResponseError:
        return True


def _written(
    client: Any, command: str, under_way: tuple[str, ...], status: str
) -> Generator[float, None, str]:
    """Have a file written after all that was done before; return what came of it as a clause.

    One that is under way was begun before: its end is waited for, and another one asked for.
    """
    while _is_any(_look(client), under_way):
        yield LOOK_EVERY_S
    began_s = time.monotonic()
    while True:
        try:
            with broker_errors():
                client.execute_command(command)
            break
        except Exception as error:
            cause = error.__cause__ or error
            if "in progress" in str(cause) or "can't BGSAVE" in str(cause):  # another one has just begun
                yield LOOK_EVERY_S
                continue
            if not isinstance(cause, redis.ResponseError):
                raise
            return f"not rewritten: {missing_right(cause) or str(cause)}"
    while _is_any(info := _look(client), under_way):
        yield LOOK_EVERY_S
    if info.get(status) != "ok":
        return f"not rewritten: the broker says {info.get(status)!r} of {command}; its log has the reason"
    return f"rewritten in {time.monotonic() - began_s:.1f} s"


def _is_any(info: dict[str, Any], names: tuple[str, ...]) -> bool:
    return any(info.get(name) for name in names)


def _look(client: Any) -> dict[str, Any]:
    with broker_errors():
        info: dict[str, Any] = client.info("persistence")
    return info
