"""Producer of messages that writes straight to Redis, in bounded time.

Celery builds the message, fires its signals and sends its events as ever; only the last step is ours.
kombu would make its Redis client anew for every message and wait for a frozen broker several time-outs
long. The envelope is kombu's, field by field (tests/client/test_publish.py compares them).
"""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import redis
from kombu.compression import compress
from kombu.serialization import dumps

from postbacks import keys
from postbacks.broker.client import client_for
from postbacks.broker.envelope import kombu_envelope
from postbacks.broker.errors import broker_errors
from postbacks.broker.url import redacted_broker_url
from postbacks.errors import BrokerUnreachable, NotReplicated
from postbacks.flower_events.client_side import ROUTING_KEY, sent
from postbacks.killpoints import reach
from postbacks.settings import load

#: kombu's priority steps (kombu 5.7, ``Channel.priority_steps``): a priority goes to the list at or below it.
_STEPS: Final = (0, 3, 6, 9)
#: Most messages of one command: a few hundred kilobytes.
BATCH: Final = 500
#: Part of the time limit in which replicas must acknowledge: less than the half after which the socket gives up.
_WAIT_PART: Final = 0.4
_NOT_KNOWN: Final = (
    "Whether the message arrived is not known; sent again with the same task_id it is still one postback."
)


class RedisProducer:
    """Publishes to the queue of postbacks, and nothing else.

    Mirrors ``kombu.Producer``; differs in the way to Redis, in its time limit and in its errors.

    As a context manager it collects messages and sends ``BATCH`` of them in a command; the rest
    leaves at the end of the block.

    A message whose broker fails is tried once more on a new connection, since a pooled one may be
    stale: the id makes a double harmless.

    With ``POSTBACKS_WAIT_REPLICAS`` a command counts as done when so many replicas have it as well.
    """

    def __init__(self) -> None:
        settings = load()
        # Each try may wait to connect and to be answered; two tries must fit into the limit.
        self._limit_s = settings.broker_timeout_s
        self._client = client_for(settings.broker_url, self._limit_s / 2)
        self._replicas = settings.wait_replicas
        self._collected: dict[str, list[str]] | None = None
        self._count = 0
        self._sent: list[dict[str, Any]] = []
        self._event_exchange = ""

    @property
    def connection(self) -> _NoConnection:
        """Return a connection that leaves errors as they are; ``broker_errors`` explains them."""
        return _NoConnection()

    def __enter__(self) -> Self:
        self._collected = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del error, trace
        if kind is None:
            self._flush()
        self._collected = None

    def publish(
        self,
        body: Any,
        *,
        routing_key: str,
        exchange: str = "",
        serializer: str = "json",
        compression: str | None = None,
        headers: dict[str, Any] | None = None,
        delivery_mode: int | str | None = None,
        priority: int | None = None,
        retry: bool | None = None,
        retry_policy: Any = None,
        declare: Any = None,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **properties: Any,
    ) -> None:
        """Publish a message.

        Mirrors ``kombu.Producer.publish`` and the ``_put`` of its Redis transport; differs in nothing that is sent.

        Raises:
            BrokerError: the message is not known to be accepted.
        """
        del retry, retry_policy, declare, timeout, confirm_timeout
        if (
            routing_key == ROUTING_KEY
        ):  # the event of a message that Celery has just sent (task_send_sent_event)
            self._sent.append(body)
            self._event_exchange = exchange
            if self._collected is None:
                self._flush_sent()
            return
        headers = dict(headers or {})
        content_type, content_encoding, data = dumps(body, serializer)
        if compression:
            data, headers["compression"] = compress(data, compression)
        raw = data if isinstance(data, bytes) else data.encode()
        priority = max(0, min(9, int(priority or 0)))
        text = kombu_envelope(
            raw,
            exchange=exchange,
            routing_key=routing_key,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            properties=properties,
            delivery_mode=1 if delivery_mode in {1, "transient"} else 2,
            priority=priority,
        )
        self.put(keys.QUEUE_LISTS[bisect(_STEPS, priority) - 1], text)

    def put(self, queue: str, text: str) -> None:
        """Put a message as it is into one of the queue's lists.

        Raises:
            BrokerError: the message is not known to be accepted.
        """
        if self._collected is None:
            self._push(queue, [text])
            return
        self._collected.setdefault(queue, []).append(text)
        self._count += 1
        if self._count >= BATCH:
            self._flush()

    def _flush(self) -> None:
        for queue, texts in (self._collected or {}).items():
            self._push(queue, texts)
            reach("publish:between-batches")
        self._collected, self._count = {}, 0
        self._flush_sent()

    def _flush_sent(self) -> None:
        events, self._sent = self._sent, []
        sent(self._client, self._event_exchange, events)

    def _push(self, queue: str, texts: list[str]) -> None:
        began_s = time.monotonic()
        with broker_errors():
            try:
                self._put(queue, texts)
            except redis.TimeoutError as error:
                # A second try would not be answered sooner.
                raise BrokerUnreachable(
                    f"The broker at {redacted_broker_url(load().broker_url)} did not answer in time ({error}). {_NOT_KNOWN}"
                ) from error
            except redis.ConnectionError:
                if time.monotonic() - began_s > self._limit_s / 2:
                    raise  # a second try would not fit
                self._put(queue, texts)

    def _put(self, queue: str, texts: list[str]) -> None:
        if not self._replicas:
            self._client.lpush(queue, *texts)
            return
        # WAIT asks for the writes of its own connection: both travel on one, in one go.
        pipe = self._client.pipeline(transaction=False)
        pipe.lpush(queue, *texts)
        pipe.execute_command("WAIT", self._replicas, int(self._limit_s * _WAIT_PART * 1000))
        pushed, acknowledged = pipe.execute(raise_on_error=False)
        for reply in (pushed, acknowledged):
            if isinstance(reply, Exception):
                raise reply
        if acknowledged < self._replicas:
            raise NotReplicated(
                f"The broker at {redacted_broker_url(load().broker_url)} has the message, but {acknowledged} of the "
                f"{self._replicas} replicas that POSTBACKS_WAIT_REPLICAS asks for said in time that they have it. "
                f"It may still be delivered; sent again with the same task_id it is still one postback."
            )


class _NoConnection:
    """Connection as ``Celery.send_task`` uses one.

    Mirrors ``kombu.Connection``; differs in having only this method, which changes no error.
    """

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield
