"""Pipelined, non-blocking script calls: send several now, read their replies later.

A delivering loop that waited for each reply would move no bytes while the broker works, and leave the broker idle
while it moves them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import NoScriptError

from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.killpoints import reach
from postbacks.queue.scripts import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postbacks.queue.scripts import Call, Scripts


class Pipeline:
    """Calls of scripts over a connection of their own, one batch under way at a time.

    Args:
        scripts: the scripts of the broker.
        timeout_s: seconds that a reply may take.
        watch: called with the descriptor on which the reply comes, at each batch; with None when the connection ends.

    Attributes:
        pending: the calls whose replies have not been read.
    """

    def __init__(self, scripts: Scripts, timeout_s: float, watch: Callable[[int | None], None]) -> None:
        self._scripts = scripts
        self._timeout_s = timeout_s
        self._watch = watch
        self._connection: Any = None
        self._sent_s = 0.0
        self._loaded: set[str] = set()  # scripts that were sent over this connection
        self._loading = 0  # replies to those, in front of the calls' own
        self.pending: Sequence[Call] = ()

    def __bool__(self) -> bool:
        """True while a reply is awaited."""
        return bool(self.pending)

    def send(self, calls: Sequence[Call]) -> None:
        """Have scripts run, one after the other. BrokerError: they may have run, or not."""
        for call in calls:
            reach(f"before:{call.name}")
        with broker_errors():
            try:
                if self._is_stale():
                    self.close()
                if self._connection is None:
                    self._connection = self._scripts.client.connection_pool.get_connection()
                connection = self._connection
                # A broker that knew only the later script of two would run it before the other.
                texts = [
                    ("SCRIPT", "LOAD", assemble(name).text)
                    for name in {call.name for call in calls} - self._loaded
                ]
                commands = [*texts, *map(self._scripts.command, calls)]
                connection.send_packed_command(connection.pack_commands(commands))
            except BaseException:
                self.close()
                raise
        self.pending, self._sent_s, self._loading = calls, time.monotonic(), len(texts)
        self._loaded.update(call.name for call in calls)
        self._watch(connection._sock.fileno())  # noqa: SLF001 - redis-py names no descriptor in any other way

    def _is_stale(self) -> bool:
        """True if the connection has ended, or has something to say, while nothing was asked."""
        if self._connection is None:
            return False
        try:
            return self._connection._sock is None or bool(self._connection.can_read())  # noqa: SLF001
        except (redis.RedisError, OSError):
            return True

    def reply_ready(self, within_s: float) -> bool:
        """Wait for a reply, no longer than this; returns whether ``receive`` has one to read."""
        with broker_errors():
            return bool(self._connection.can_read(timeout=within_s))

    def timed_out(self, now_s: float) -> bool:
        """True if the reply has taken too long; then ``receive`` raises at once if there still is none."""
        return bool(self.pending) and now_s - self._sent_s > self._timeout_s

    def receive(self) -> list[Any]:
        """Wait for the replies: each call's, or the BrokerError that its script ended with.

        Raises:
            BrokerError: no reply came; the scripts may have run, or not.
        """
        replies: list[Any] = []
        calls = self.pending
        with broker_errors():
            try:
                self._check_in_time()
                for _ in range(self._loading):
                    self._reply()
                replies = [self._reply() for _ in calls]
            except BaseException:
                self.close()
                raise
        self.pending = ()
        for number, call in enumerate(calls):
            if not isinstance(replies[number], NoScriptError):
                reach(f"after:{call.name}")
                continue
            try:
                replies[number] = self._scripts.run(*call)  # a new broker, or it has restarted
            except BrokerError as error:
                replies[number] = error
        return replies

    def _check_in_time(self) -> None:
        if self.timed_out(time.monotonic()) and not self._connection.can_read():
            raise redis.TimeoutError("no answer in time")

    def _reply(self) -> Any:
        try:
            with broker_errors():
                try:
                    return self._connection.read_response()
                except NoScriptError as unknown:
                    return unknown
        except BrokerError as error:
            if isinstance(error.__cause__, redis.ResponseError):
                return error  # the other scripts' replies follow
            raise

    def close(self) -> None:
        """Close the connection, with whatever is still to come on it; the next batch opens a new one."""
        self.pending = ()
        self._loaded.clear()
        if self._connection is not None:
            self._watch(None)
            connection, self._connection = self._connection, None
            connection.disconnect()
            self._scripts.client.connection_pool.release(connection)
