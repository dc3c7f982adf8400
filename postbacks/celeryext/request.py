"""A worker's request for a tick or a wake-up."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from postbacks.logs import EventLog

log = EventLog(__name__)


class WakeRequest(Request):
    """A tick or a wake-up that a worker has taken.

    Mirrors ``celery.worker.request.Request``; differs in that it never expires, in that a cold shutdown does not
    cancel it, and in that an acknowledgement which fails harms nobody.
    """

    def acknowledge(self) -> None:
        """Acknowledge the message, if that can be.

        In kombu 5.7 a message whose connection was closed meanwhile raises what no list of connection errors
        holds (``'NoneType' object has no attribute 'hostname'``), and Celery would end the worker. It carries
        nothing: taken again, it wakes once more.
        """
        try:
            super().acknowledge()
        except Exception as error:  # noqa: BLE001 - see above
            self.acknowledged = True
            log.debug("worker.not_acknowledged", str(error))

    def maybe_expire(self) -> bool:
        """Return False: it wakes whenever it comes.

        A beat of version 0.1.0 or a deployment's own schedule may give it ``expires``, which this machine's clock
        would judge.
        """
        return False

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Do nothing: the loops learn of the shutdown and end by themselves (``worker/shutdown.py``).

        A thread cannot be killed, and a child is not killed in the middle of its commits.
        """
        del pool, signal, emit_retry
