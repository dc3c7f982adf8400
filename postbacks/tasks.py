"""The three tasks: ``send_postback`` (an application calls it), ``dispatch`` (the tick), ``deliver``.

An application loads this module to send. So what only workers and eager mode need (the tick, the delivering loop,
libcurl, lxml) is imported in the bodies; a worker has loaded it when it begins (``worker/bootsteps.py``). The catalogue
and the broker's client are loaded by the first call (``client/sending.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from postbacks import retry
from postbacks.app import DELIVER, DISPATCH, SEND_POSTBACK, app
from postbacks.celeryext.capture import current
from postbacks.celeryext.refusals import refuse
from postbacks.celeryext.worker_task import TickTask, WorkerTask
from postbacks.client.results import eager_ids
from postbacks.client.task import PostbackTask
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.queue.protocol import MAPS

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.client.task import AccountName, EventOrTags

log = EventLog(__name__)


def _register(function: Callable[..., Any]) -> PostbackTask:
    """Register ``send_postback``; a decorator of our own, since Celery's hides the type from checkers."""
    task: PostbackTask = app.task(
        name=SEND_POSTBACK,
        bind=True,
        base=PostbackTask,
        shared=False,
        acks_late=True,
        acks_on_failure_or_timeout=False,
        trail=False,
        typing=False,
    )(function)
    return task


@_register
def send_postback(
    self: Any, account: str, event: Event | Mapping[str, Any], *, url: str | None = None
) -> Any:
    """Tell an account's server what happened: ``send_postback.delay("acme", event)``.

    No worker of ours consumes the queue that this is sent to; the tick takes it in. A worker that is
    given the queue by mistake accepts the postback in the same way and delivers. In eager mode, and
    when called as a function, one POST is made, with no ledger and no resend; inside a task of our
    own worker a call as a function sends a postback.

    Args:
        self: the task.
        account: name of the account; where it is unknown the ledger says ``dead``.
        event: an event type of the catalogue, or the mapping of its upper-case tags.
        url: where to send it instead of the account's URL.

    Returns:
        In eager mode, what came of the POST; else the postback's id.
    """
    request = self.request
    kwargs = {} if url is None else {"url": url}
    worker_task = _worker_task() if request.called_directly else None
    if worker_task is not None:
        send = self.send_unchecked if worker_task.name in MAPS else self.apply_async
        return send((account, event), kwargs).id
    if request.called_directly and current() is not None:
        refuse(
            "call as a function while captured_postbacks() is open, as it would make its POST at once",
            "write send_postback.delay(account, event), or test it against the fixture postback_receiver",
        )
    if request.called_directly or request.is_eager:
        from postbacks.client.message_template import new_id
        from postbacks.delivery.request import post_request
        from postbacks.queue.send_request import check_request

        return post_request(
            request.id or new_id(),
            check_request((account, event), kwargs),
            eager=app.conf.task_always_eager,
        )
    from postbacks.accounts import store
    from postbacks.broker.client import client
    from postbacks.queue.intake import Intake
    from postbacks.queue.message import Message
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import load
    from postbacks.worker import process

    # Checked by the intake, as the tick's are: a bad one is kept among the dead.
    message = Message(request.id, [account, event], kwargs, None, None)
    Intake(Scripts(client()), store(), load()).accept_one(message)
    process.deliver(decide, lambda: None)
    return request.id


#: The retry rule for what ``send_postback`` has sent; it takes the postback that failed.
decide = partial(retry.decide, send_postback)


def _worker_task() -> Any:
    """Return the task that our own worker runs in this thread, or None."""
    task = app.current_worker_task
    return task if task is not None and task.app is app and not task.request.is_eager else None


def send_postbacks(
    account: AccountName, events: Iterable[EventOrTags], *, url: str | None = None
) -> list[str]:
    """Send many events of one account, in pipelined batches.

    Every event is checked before the first is sent, so bad input sends nothing.

    Args:
        account: name of the account.
        events: event types or mappings.
        url: where to send them instead of the account's URL.

    Returns:
        The postbacks' ids, in the order of the events.

    Raises:
        InvalidEvent: names the number of the event (from 1) and every tag at fault.
        BrokerError: the broker failed; what was sent before may be accepted.
        PostbackFailed: in eager mode, where each is POSTed at once, not all of them were delivered.
    """
    from postbacks.client.sending import check_many, send_many

    requests = check_many(account, events, url)
    if current() is None and app.conf.task_always_eager:
        return eager_ids([send_postback.apply_async(request.args, request.kwargs) for request in requests])
    return send_many(send_postback, requests)


# Neither sends events: a tick a second would push the postbacks out of what Flower keeps.
@app.task(name=DISPATCH, base=TickTask, shared=False, ignore_result=True, trail=False, send_events=False)
def dispatch() -> None:
    """Tick once: take in, release, reap, and wake as many ``deliver`` tasks as there is work for."""
    from postbacks.accounts import store
    from postbacks.broker.client import client
    from postbacks.broker.errors import broker_errors
    from postbacks.queue.scripts import Scripts
    from postbacks.queue.tick import Tick
    from postbacks.settings import load
    from postbacks.worker import quarantine, shutdown

    try:
        with shutdown.finish_task(), broker_errors():
            result = Tick(Scripts(client()), store(), load()).run(_wake_early)
            if result.quarantined:
                quarantine.request_run()
            _wake(result.wakes)
            if result.more and not shutdown.is_requested():
                dispatch.enqueue_next()
    except BrokerError as error:
        log.error("tick.broker_lost", f"{error} The next tick tries again.")  # noqa: TRY400 - a line, not a trace


def _wake(loops: int) -> None:
    for _ in range(loops):
        deliver.apply_async()


def _wake_early(loops: int) -> None:
    """Wake loops in the middle of a tick, which goes on where the broker refuses their messages."""
    from postbacks.broker.errors import broker_errors

    with suppress(BrokerError), broker_errors():
        _wake(loops)


@app.task(name=DELIVER, base=WorkerTask, shared=False, ignore_result=True, trail=False, send_events=False)
def deliver() -> int:
    """Claim and POST until nothing is ready; carries nothing, so that losing one does no harm."""
    from postbacks.worker import process, shutdown

    with shutdown.finish_task():
        return process.deliver(decide, deliver.apply_async)
