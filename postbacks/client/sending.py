"""Sends checked requests: from the message template, or by Celery's own way where an option is given.

The first call loads this module, and with it the catalogue, the broker's client and the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import check
from postbacks.catalogue import Event, parse_event
from postbacks.celeryext.capture import Capture, current
from postbacks.client.message_template import MessageTemplate, MessageTemplateCache, new_id
from postbacks.client.producer import RedisProducer
from postbacks.client.results import PostbackResult
from postbacks.errors import InvalidEvent
from postbacks.flower_events.events import args_of
from postbacks.ledger.identity import check_id
from postbacks.logs import EventLog
from postbacks.names import check_name
from postbacks.queue.send_request import SendRequest
from postbacks.settings import load
from postbacks.urls import check_url

if TYPE_CHECKING:
    from postbacks.client.task import AccountName, EventOrTags, PostbackTask

log = EventLog(__name__)

#: Message templates of each task, which is one of each app.
_templates = cache(MessageTemplateCache)


def send(
    task: PostbackTask,
    request: SendRequest,
    postback_id: str | None,
    *,
    producer: Any = None,
    shadow: str | None = None,
    capture: Capture | None = None,
    **options: Any,
) -> PostbackResult:
    """Send one request.

    Args:
        task: ``send_postback``.
        request: the request, checked.
        postback_id: the caller's task id; None for a new one.
        producer: the caller's producer.
        shadow: as Celery's.
        capture: a test's capture that takes the request where none is open.
        options: the caller's options, checked.

    Raises:
        IdTaken: another postback has the id.
        BrokerError: nothing was accepted.
    """
    if (capture := current() or capture) is not None:
        return _give(task, capture, request, postback_id, options)
    is_eager = task.app.conf.task_always_eager
    if not is_eager:
        _check_broker_once(load().broker_url)
        if postback_id is not None:
            check_id(postback_id, request.account, request.event, request.url)
    if not options and producer is None and shadow is None:
        template = _templates(task).get()
        if template is not None:
            return _send_from_template(task, template, RedisProducer(), postback_id or new_id(), request)
    options.setdefault("argsrepr", args_of(request.account, request.event.origin, request.event.code))
    options.setdefault("kwargsrepr", "{}")
    if producer is None and not options.get("connection") and not is_eager:
        producer = RedisProducer()
    with broker_errors():
        result = task.send_with_celery(
            request.args, request.kwargs, task_id=postback_id, producer=producer, shadow=shadow, **options
        )
    result.account = request.account
    return result


def check_many(account: AccountName, events: Iterable[EventOrTags], url: str | None) -> list[SendRequest]:
    """Check many events of one account.

    Raises:
        InvalidEvent: names the number of the event (from 1) and every tag at fault.
        InvalidAccount: the name cannot be one.
        InvalidUrl: the URL cannot be one.
    """
    checked: list[Event] = []
    for number, event in enumerate(events, start=1):
        try:
            checked.append(parse_event(event))
        except InvalidEvent as error:
            problems = [
                (f"event {number}: {tag}" if tag else f"event {number}", why) for tag, why in error.problems
            ]
            raise InvalidEvent(problems, origin=error.origin, code=error.code) from None
    name, own_url = check_name(account), None if url is None else check_url(url)
    return [SendRequest(name, event, own_url) for event in checked]


def send_many(task: PostbackTask, requests: Iterable[SendRequest]) -> list[str]:
    """Send requests in pipelined batches; return their ids in the same order.

    Raises:
        BrokerError: the broker failed; what was sent before may be accepted.
    """
    if (capture := current()) is not None:
        return [_give(task, capture, request, None, {}).id for request in requests]
    _check_broker_once(load().broker_url)
    template = _templates(task).get()
    ids: list[str] = []
    with RedisProducer() as producer:
        for request in requests:
            result = (
                send(task, request, None, producer=producer)
                if template is None
                else _send_from_template(task, template, producer, new_id(), request)
            )
            ids.append(result.id)
    return ids


def _give(
    task: PostbackTask,
    capture: Capture,
    request: SendRequest,
    postback_id: str | None,
    options: Mapping[str, Any],
) -> PostbackResult:
    """Give a request to a test's capture instead of sending it."""
    postback_id = capture.take(request, postback_id, options)
    result = PostbackResult(postback_id, backend=capture.backend, task_name=task.name, app=task.app)
    result.ignored = bool(options.get("ignore_result", task.ignore_result))
    result.account = request.account
    return result


def _send_from_template(
    task: PostbackTask,
    template: MessageTemplate,
    producer: RedisProducer,
    postback_id: str,
    request: SendRequest,
) -> PostbackResult:
    """Mirrors what Celery's ``send_task`` does around a message; differs in how the message is made."""
    parent = task.app.current_worker_task
    argsrepr = args_of(request.account, request.event.origin, request.event.code)
    message = template.render(postback_id, request, argsrepr, parent)
    with broker_errors():
        producer.put(template.queue, message)
    result = task.AsyncResult(postback_id)
    result.ignored = task.ignore_result
    result.account = request.account
    if parent is not None:
        parent.add_trail(result)
    return result


@lru_cache(maxsize=4)
def _check_broker_once(_url: str) -> None:
    """Ask once a process and broker whether it may be trusted with postbacks."""
    for warning in check():
        log.warning("broker.unsafe", warning)
