"""Celery's message for a postback, written from a specimen instead of anew at every call.

Celery takes a quarter of a millisecond to make a message that is the same but for its id, its arguments and who
called. So its own ``apply_async`` is called once for this process, thread and configuration; what it publishes is
kept with holes where the specimen's own texts stand, and each call fills them in. Whenever anything could make
Celery write another message (the configuration, the router, somebody who listens to a publish signal), there is no
template and the call takes Celery's own way. tests/integration/test_publish.py compares the two field by field.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from json import dumps as _json
from json import loads
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import signals

from postbacks.client.producer import RedisProducer

if TYPE_CHECKING:
    from celery import Celery

#: What Celery would do after a task, as its protocol 2 says that there is nothing.
_NOTHING_AFTERWARDS = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'
#: Celery's settings that change more than the text of a message.
_OWN_WAY = ("task_always_eager", "task_send_sent_event", "task_inherit_parent_priority")


class _Holes(NamedTuple):
    """What differs between two calls; each as the specimen has it, or as it stands in JSON."""

    body: str
    id: str
    args: str
    root: str
    parent: str
    tag: str


class Template:
    """A message with holes. ``queue`` is the list that it goes to."""

    def __init__(self, text: str, holes: _Holes, queue: str) -> None:
        self.queue = queue
        pieces = re.split("(" + "|".join(map(re.escape, holes)) + ")", text)
        self._order = [holes.index(piece) for piece in pieces[1::2]]
        pieces[1::2] = ["%s"] * len(self._order)
        pieces[::2] = [piece.replace("%", "%%") for piece in pieces[::2]]
        self._format = "".join(pieces)
        self.whole = set(self._order) == set(range(len(holes)))

    def fill(
        self,
        postback_id: str,
        account: str,
        event: Mapping[str, Any],
        url: str | None,
        shown: str,
        parent: Any,
    ) -> str:
        """The message of one postback.

        Args:
            postback_id: the task id.
            account: the account's name, checked.
            event: the event's mapping, ORIGIN and CODE first.
            url: the call's own URL, or None.
            shown: the arguments as people see them.
            parent: the task that calls, or None.
        """
        root_id, parent_id = postback_id, None
        if parent is not None:
            root_id, parent_id = parent.request.root_id or parent.request.id or postback_id, parent.request.id
        values = (
            base64.b64encode(_body(account, event, url).encode()).decode(),
            _json(postback_id),
            _json(shown),
            _json(root_id),
            _json(parent_id or None),
            new_id(),
        )
        return self._format % tuple([values[hole] for hole in self._order])


class MessageTemplateCache:
    """The templates of this process: one a thread, as long as nothing that Celery reads has changed.

    Args:
        app: the Celery app.
        publish: calls Celery's own ``apply_async`` with these options for these arguments.
    """

    def __init__(self, app: Celery, publish: Callable[..., Any]) -> None:
        self._app = app
        self._publish = publish
        self._kept = threading.local()

    def get(self) -> Template | None:
        """The template that holds now; None where the call must take Celery's own way."""
        if (
            signals.before_task_publish.receivers
            or signals.after_task_publish.receivers
            or signals.task_sent.receivers
        ):
            return None
        conf = self._app.conf
        # The last map holds Celery's defaults, which nobody changes.
        now = (os.getpid(), self._app.amqp.router, [*conf.maps[:-1]])
        if now != getattr(self._kept, "made_for", None):
            self._kept.template = None if any(conf[name] for name in _OWN_WAY) else self._make()
            self._kept.made_for = (*now[:2], [dict(one) for one in conf.maps[:-1]])
        template: Template | None = self._kept.template
        return template

    def _make(self) -> Template | None:
        specimen = _RecordingProducer()
        postback_id, account, root_id, parent_id = (f"specimen{uuid.uuid4().hex}" for _ in range(4))
        event = {"ORIGIN": "SUB", "CODE": "N301"}
        self._publish(
            (account, event),
            {},
            task_id=postback_id,
            producer=specimen,
            argsrepr=account,
            kwargsrepr="{}",
            root_id=root_id,
            parent_id=parent_id,
            add_to_parent=False,
        )
        queue, text = specimen.published[0]
        envelope = loads(text)
        body = base64.b64encode(_body(account, event, None).encode()).decode()
        if envelope["body"] != body:
            return None  # compressed, or of another protocol
        tag = envelope["properties"]["delivery_tag"]
        holes = _Holes(body, _json(postback_id), _json(account), _json(root_id), _json(parent_id), tag)
        template = Template(text, holes, queue)
        return template if template.whole else None


class _RecordingProducer(RedisProducer):
    """Keeps what it is to publish."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[str, str]] = []

    def put(self, queue: str, text: str) -> None:
        self.published.append((queue, text))


def new_id() -> str:
    """A random UUID (version 4) as text; the uuid module takes three times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _body(account: str, event: Mapping[str, Any], url: str | None) -> str:
    kwargs = "{}" if url is None else _json({"url": url})
    return f'[["{account}", {_json(event)}], {kwargs}, {_NOTHING_AFTERWARDS}]'
