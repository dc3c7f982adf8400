"""Consumer of our worker: it outlives a connection whose closing fails, and waits where the broker refuses a command."""

from __future__ import annotations

import time
from typing import Final

from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis import ResponseError
from redis.exceptions import OutOfMemoryError

from postbacks.broker.errors import missing_right
from postbacks.logs import EventLog

log = EventLog(__name__)

#: Seconds until the worker tries again after a refusal; without a pause it would do nothing else.
REFUSED_PAUSE_S: Final = 1.0


class SteadyConsumer(Consumer):
    """Mirrors ``celery.worker.consumer.Consumer``; differs in three kinds of errors.

    A connection whose closing fails. In kombu 5.7 a lost connection is closed twice over, and the second time its
    channel restores unacknowledged messages over a connection that is gone (``'NoneType' object has no attribute
    'hostname'``). No list of connection errors holds that error, and Celery would end the worker. Ticks and wake-ups
    carry nothing, so there is nothing to restore.

    A right that the broker's user lacks. Celery takes the refusal for a lost connection, logs its class and tries again
    without a pause, or ends with a traceback.

    A full broker, which refuses even the mutex. Celery tries again six times a second, and each time leaves connections
    behind.
    """

    def start(self) -> None:
        """Consume; end the worker with a sentence where kombu gives up what the broker refuses."""
        try:
            super().start()
        except (OperationalError, ResponseError) as error:
            if (sentence := missing_right(error)) is None:
                raise
            log.error("worker.refused", sentence)  # noqa: TRY400 - a line, not a trace
            raise SystemExit(2) from None

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the rest of the connection before a new one is made; after a refusal, wait first."""
        if sentence := missing_right(exc):
            log.error("worker.refused", f"{sentence} The worker tries again.")
            time.sleep(REFUSED_PAUSE_S)
        elif isinstance(exc, OutOfMemoryError):
            time.sleep(REFUSED_PAUSE_S)
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            self.connection = None
            log.debug("worker.not_closed", str(error))

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log that the worker tries again; wait first where the broker is full."""
        super().on_connection_error_before_connected(exc)
        if isinstance(exc, OutOfMemoryError):
            time.sleep(REFUSED_PAUSE_S)
