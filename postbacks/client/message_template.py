"""Celery's message for a postback, rendered from a template instead of made anew at every call.

Celery takes a quarter of a millisecond to make a message that is the same but for its id, its arguments and who
called. So its own ``apply_async`` is called once for this process, thread and configuration, with a specimen. What it
publishes becomes a template with holes where the specimen's texts stand, and each call fills them in. Whenever anything
could make Celery write another message (the configuration, the router, somebody who listens to a publish signal), there
is no template and the call takes Celery's own way. tests/client/test_publish.py compares the two field by field.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import uuid
from collections.abc import Mapping
from json import dumps as _json
from json import loads
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery import signals

from postbacks.client.producer import RedisProducer

if TYPE_CHECKING:
    from postbacks.client.task import PostbackTask
    from postbacks.queue.send_request import SendRequest

#: The part of a message's body that says what Celery would do after the task: nothing.
_NOTHING_AFTERWARDS: Final = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'
#: Celery's settings that change more than the text of a message.
_NEED_CELERY: Final = ("task_always_eager", "task_send_sent_event", "task_inherit_parent_priority")


class _Holes(NamedTuple):
    """Parts of a message that differ between two calls; each as the specimen has it, or as it stands in JSON."""

    body: str
    id: str
    args: str
    root: str
    parent: str
    tag: str


class MessageTemplate:
    """A message with holes.

    Attributes:
        queue: the list that the message goes to.
        is_complete: the message has every hole.
    """

    def __init__(self, text: str, holes: _Holes, queue: str) -> None:
        self.queue = queue
        pieces = re.split("(" + "|".join(map(re.escape, holes)) + ")", text)
        self._order = [holes.index(piece) for piece in pieces[1::2]]
        pieces[1::2] = ["%s"] * len(self._order)
        pieces[::2] = [piece.replace("%", "%%") for piece in pieces[::2]]
        self._format = "".join(pieces)
        self.is_complete = set(self._order) == set(range(len(holes)))

    def render(self, postback_id: str, request: SendRequest, argsrepr: str, parent: Any) -> str:
        """Fill the holes in for one postback.

        Args:
            postback_id: the task id.
            request: the request, checked.
            argsrepr: the arguments as people see them.
            parent: the task that calls, or None.
        """
        root_id, parent_id = postback_id, None
        if parent is not None:
            root_id, parent_id = parent.request.root_id or parent.request.id or postback_id, parent.request.id
        body = _body(request.account, request.event.to_mapping(), request.url)
        values = (
            base64.b64encode(body.encode()).decode(),
            _json(postback_id),
            _json(argsrepr),
            _json(root_id),
            _json(parent_id or None),
            new_id(),
        )
        return self._format % tuple([values[hole] for hole in self._order])


class MessageTemplateCache:
    """Templates of a task's messages: one a thread, as long as nothing that Celery reads has changed."""

    def __init__(self, task: PostbackTask) -> None:
        self._task = task
        self._app = task.app
        self._cache = threading.local()

    def get(self) -> MessageTemplate | None:
        """Return the template that holds now; None where the call must take Celery's own way."""
        if (
            signals.before_task_publish.receivers
            or signals.after_task_publish.receivers
            or signals.task_sent.receivers
        ):
            return None
        conf = self._app.conf
        # The last map holds Celery's defaults, which nobody changes.
        now = (os.getpid(), self._app.amqp.router, [*conf.maps[:-1]])
        if now != getattr(self._cache, "made_for", None):
            self._cache.template = None if any(conf[name] for name in _NEED_CELERY) else self._make()
            self._cache.made_for = (*now[:2], [dict(settings) for settings in conf.maps[:-1]])
        template: MessageTemplate | None = self._cache.template
        return template

    def _make(self) -> MessageTemplate | None:
        producer = _RecordingProducer()
        postback_id, account, root_id, parent_id = (f"specimen{uuid.uuid4().hex}" for _ in range(4))
        event = {"ORIGIN": "SUB", "CODE": "N301"}
        self._task.send_with_celery(
            (account, event),
            {},
            task_id=postback_id,
            producer=producer,
            argsrepr=account,
            kwargsrepr="{}",
            root_id=root_id,
            parent_id=parent_id,
            add_to_parent=False,
        )
        queue, text = producer.published[0]
        envelope = loads(text)
        body = base64.b64encode(_body(account, event, None).encode()).decode()
        if envelope["body"] != body:
            return None  # compressed, or of another protocol
        tag = envelope["properties"]["delivery_tag"]
        holes = _Holes(body, _json(postback_id), _json(account), _json(root_id), _json(parent_id), tag)
        template = MessageTemplate(text, holes, queue)
        return template if template.is_complete else None


class _RecordingProducer(RedisProducer):
    """Records messages instead of sending them."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[str, str]] = []

    def put(self, queue: str, text: str) -> None:
        self.published.append((queue, text))


def new_id() -> str:
    """Make a random UUID (version 4) as text; the uuid module takes three times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _body(account: str, event: Mapping[str, Any], url: str | None) -> str:
    kwargs = "{}" if url is None else _json({"url": url})
    return f'[["{account}", {_json(event)}], {kwargs}, {_NOTHING_AFTERWARDS}]'
