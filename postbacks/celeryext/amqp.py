"""The app's ``amqp``: ``task-sent`` events that show account and code alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from celery.app.amqp import AMQP

from postbacks.flower_events.events import TASK, args_in

#: Tasks without ``task-sent`` events: a tick a second would push the postbacks out of Flower.
SILENT: Final = frozenset({"postbacks.dispatch", "postbacks.deliver"})


class PostbackAmqp(AMQP):
    """Mirrors ``celery.app.amqp.AMQP``; differs in the events of sent messages.

    However a postback is sent, by ``.delay()``, ``app.send_task`` or Flower, its event shows account and
    code alone; ticks and wake-ups have none.
    """

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            if message.sent_event is not None:
                message = message._replace(sent_event=_sent_event(name, message))
            return send(producer, name, message, **options)

        return send_task_message


def _sent_event(name: str, message: Any) -> dict[str, Any] | None:
    if name in SILENT:
        return None
    if name != TASK:
        return dict(message.sent_event)
    # Protocol 1's body is one object, protocol 2's is a tuple.
    args = message.body["args"] if isinstance(message.body, dict) else message.body[0]
    return {**message.sent_event, "args": args_in(args), "kwargs": "{}"}
