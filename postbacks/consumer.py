"""Our worker's consumer: it outlives a connection whose closing fails."""

from __future__ import annotations

from celery.worker.consumer import Consumer

from postbacks.logs import EventLog

log = EventLog(__name__)


class SteadyConsumer(Consumer):
    """Mirrors ``celery.worker.consumer.Consumer``; differs in passing over what kombu raises as it closes.

    In kombu 5.7 a lost connection is closed twice over, and the second time its channel wants to restore what
    is unacknowledged on a connection that is gone (``'NoneType' object has no attribute 'hostname'``), which no
    list of connection errors holds: Celery would end the worker. Ticks and wake-ups carry nothing, so there is
    nothing to restore.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close what is left of the connection, before a new one is made."""
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            self.connection = None
            log.debug("worker.not_closed", str(error))
