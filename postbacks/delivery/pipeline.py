"""Scripts that run while their caller does something else: sent together, heard later.

A delivering loop that waited for each answer would move no bytes while the broker works, and leave the broker idle
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
    """One question to the broker at a time, of one script or several, over a connection of its own.

    Args:
        scripts: the scripts of the broker.
        timeout_s: seconds that an answer may take.
        watch: told, with each question, the descriptor on which the answer comes; None when the connection ends.
    """

    def __init__(self, scripts: Scripts, timeout_s: float, watch: Callable[[int | None], None]) -> None:
        self._scripts = scripts
        self._timeout_s = timeout_s
        self._watch = watch
        self._connection: Any = None
        self._sent_s = 0.0
        self._loaded: set[str] = set()  # scripts that were sent over this connection
        self._loading = 0  # answers to those, in front of the calls' own
        self.asked: Sequence[Call] = ()

    def __bool__(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self.asked)

    def send(self, calls: Sequence[Call]) -> None:
        """Have scripts run, one after the other. BrokerError: they may have run, or not."""
        for call in calls:
            reach(f"before:{call.name}")
        with broker_errors():
            try:
                if self._is_stale():
                    self.drop()
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
                self.drop()
                raise
        self.asked, self._sent_s, self._loading = calls, time.monotonic(), len(texts)
        self._loaded.update(call.name for call in calls)
        self._watch(connection._sock.fileno())  # noqa: SLF001 - redis-py names no descriptor in any other way

    def _is_stale(self) -> bool:
        """Whether the connection has ended, or has something to say, while nothing was asked."""
        if self._connection is None:
            return False
        try:
            return self._connection._sock is None or bool(self._connection.can_read())  # noqa: SLF001
        except (redis.RedisError, OSError):
            return True

    def wait(self, timeout_s: float) -> bool:
        """Wait for an answer, no longer than this; returns whether ``hear`` has one to read."""
        with broker_errors():
            return bool(self._connection.can_read(timeout=timeout_s))

    def overdue(self, now_s: float) -> bool:
        """Whether the answer has taken too long; then ``hear`` raises at once if there still is none."""
        return bool(self.asked) and now_s - self._sent_s > self._timeout_s

    def hear(self) -> list[Any]:
        """Wait for the answers: a script's reply each, or the BrokerError that it ended with.

        Raises:
            BrokerError: no answer came; the scripts may have run, or not.
        """
        replies: list[Any] = []
        calls = self.asked
        with broker_errors():
            try:
                self._check_in_time()
                for _ in range(self._loading):
                    self._reply()
                replies = [self._reply() for _ in calls]
            except BaseException:
                self.drop()
                raise
        self.asked = ()
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
        if self.overdue(time.monotonic()) and not self._connection.can_read():
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

    def drop(self) -> None:
        """Close the connection, with whatever is still to come on it; the next question opens a new one."""
        self.asked = ()
        self._loaded.clear()
        if self._connection is not None:
            self._watch(None)
            connection, self._connection = self._connection, None
            connection.disconnect()
            self._scripts.client.connection_pool.release(connection)
