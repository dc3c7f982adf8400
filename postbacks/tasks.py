"""The three tasks: ``send_postback`` (an application calls it), ``dispatch`` (the tick), ``deliver``."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Unpack

from celery.exceptions import MaxRetriesExceededError

from postbacks import accounts, keys
from postbacks.app import DELIVER, DISPATCH, SEND_POSTBACK, app
from postbacks.broker.client import client
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import check
from postbacks.catalogue import Event, parse_event
from postbacks.celeryext.control import cancel as cancel
from postbacks.celeryext.refusals import RefusingTask, refuse, signature_arguments
from postbacks.client.message_template import MessageTemplateCache, Template, new_id
from postbacks.client.producer import RedisProducer
from postbacks.client.results import PostbackResult as PostbackResult
from postbacks.client.results import eager_ids
from postbacks.delivery.claims import Claimed, Held
from postbacks.delivery.results import Decision
from postbacks.delivery.single import post_order
from postbacks.errors import BrokerError, InvalidEvent
from postbacks.flower_events import replayed
from postbacks.flower_events.facts import args_of
from postbacks.ledger.identity import check_id
from postbacks.ledger.record import id_text
from postbacks.ledger.states import WAITING
from postbacks.logs import EventLog
from postbacks.queue.intake import Intake
from postbacks.queue.message import MAPS, SCHEMA, SCHEMA_HEADER, Message
from postbacks.queue.options import Options, check_options
from postbacks.queue.scripts import Scripts
from postbacks.queue.send_request import SendRequest, check_request
from postbacks.queue.tick import Tick
from postbacks.settings import load
from postbacks.transport.outcomes import Outcome
from postbacks.urls import check_url
from postbacks.worker import process, quarantine, shutdown
from postbacks.worker.bootsteps import (
    EventSwitch,
    PoolCheck,
    Quarantine,
    SignsOfLife,
    Stopping,
    TickTask,
    UrlPolicy,
    WorkerTask,
)
from postbacks.worker.relief import Relief

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import EagerResult

    AccountName = str | int | uuid.UUID
    EventOrTags = Event | Mapping[str, Any]

log = EventLog(__name__)

app.steps["worker"].add(PoolCheck)
app.steps["worker"].add(Stopping)
app.steps["worker"].add(Quarantine)
app.steps["worker"].add(Relief)
app.steps["consumer"].add(EventSwitch)
app.steps["consumer"].add(UrlPolicy)
app.steps["consumer"].add(SignsOfLife)


class _Deciding(threading.local):
    """The decision that Celery's retry has come to in this thread, while one is asked for."""

    countdown_s: float | None = None
    asked: bool = False


_deciding = _Deciding()


class PostbackTask(RefusingTask):
    """``send_postback``'s class: what goes in is checked in the caller, and a retry is a decision."""

    abstract = True

    # For type checkers, as Celery has no types. When run, Celery's own methods pass everything on to
    # `apply_async`, where a wrong call gets a sentence instead of a TypeError.
    if TYPE_CHECKING:

        def __call__(
            self, account: AccountName, event: EventOrTags, *, url: str | None = None
        ) -> dict[str, Any]: ...
        def delay(
            self, account: AccountName, event: EventOrTags, *, url: str | None = None
        ) -> PostbackResult: ...
        def s(self, account: AccountName, event: EventOrTags, *, url: str | None = None) -> Signature: ...
        def si(self, account: AccountName, event: EventOrTags, *, url: str | None = None) -> Signature: ...

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | uuid.UUID | None = None,
        producer: Any = None,
        link: None = None,
        link_error: None = None,
        shadow: str | None = None,
        **options: Unpack[Options],
    ) -> PostbackResult:
        """Check event and URL, then send the message; no account is looked up.

        Mirrors ``celery.app.task.Task.apply_async``; differs in checking, and in that the call that
        ``Task.retry`` makes inside ``deliver`` only records what Celery decided.

        Args:
            args: account and event.
            kwargs: account, event and url by name.
            task_id: the idempotency key; the same postback sent again under it is one. A UUID is taken as its text.
                It costs a round trip: the ledger is asked whether another postback has it.
            producer: as Celery's; without one the message goes straight to Redis.
            link: refused.
            link_error: refused.
            shadow: as Celery's.
            options: Celery's; ``countdown=`` and ``eta=`` delay the first send.

        Returns:
            A ``PostbackResult``.

        Raises:
            InvalidEvent: lists every tag at fault.
            InvalidAccount: the account's name cannot be one.
            InvalidUrl: the URL cannot be one.
            IdTaken: another postback has the id.
            UnsupportedOption: an option that postbacks cannot honour.
            BrokerError: nothing was accepted.
        """
        if _deciding.asked:
            _deciding.countdown_s = options.get("countdown")
            return None  # type: ignore[return-value] # Task.retry looks at no result
        postback_id: str | None = id_text(task_id)
        if options or link or link_error or postback_id is not None:
            check_options(task_id=postback_id, link=link, link_error=link_error, **options)
        order = check_request(args or (), kwargs or {})
        _check_broker()
        if postback_id is not None and not app.conf.task_always_eager:
            check_id(postback_id, order.account, order.event, order.url)
        if not options and producer is None and shadow is None:
            template = _templates.get()
            if template is not None:
                return self.send_from_template(template, RedisProducer(), postback_id or new_id(), order)
        options["queue"] = keys.QUEUE
        options["headers"] = {**(options.get("headers") or {}), SCHEMA_HEADER: SCHEMA}
        options.setdefault("argsrepr", args_of(order.account, order.event.origin, order.event.code))
        options.setdefault("kwargsrepr", "{}")
        if producer is None and not options.get("connection") and not app.conf.task_always_eager:
            producer = RedisProducer()
        with broker_errors():
            result: PostbackResult = super().apply_async(
                (order.account, order.event.to_mapping()),
                {"url": order.url} if order.url else {},
                task_id=postback_id,
                producer=producer,
                shadow=shadow,
                **options,
            )
        result.account = order.account
        return result

    def send_from_template(
        self, template: Template, producer: RedisProducer, postback_id: str, order: SendRequest
    ) -> PostbackResult:
        """Mirrors what Celery's ``send_task`` does around a message; differs in how the message is made."""
        parent = self.app.current_worker_task
        shown = args_of(order.account, order.event.origin, order.event.code)
        text = template.fill(postback_id, order.account, order.event.to_mapping(), order.url, shown, parent)
        with broker_errors():
            producer.put(template.queue, text)
        result = self.AsyncResult(postback_id)
        result.ignored = self.ignore_result
        result.account = order.account
        if parent is not None:
            parent.add_trail(result)
        return result

    def send_unchecked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Send what nobody would hear an error of: the intake judges it, and keeps a bad one among the dead."""
        return self.send_with_celery(tuple(args), kwargs, producer=RedisProducer())

    def send_with_celery(self, *args: Any, **options: Any) -> Any:
        """Celery's own ``apply_async`` to our queue, nothing checked."""
        headers = {SCHEMA_HEADER: SCHEMA}
        return super().apply_async(*args, queue=keys.QUEUE, headers=headers, **options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | uuid.UUID | None = None,
        **options: Any,
    ) -> EagerResult:
        """Make one POST here and now, with no ledger and no resend.

        Mirrors ``celery.app.task.Task.apply``; differs in checking arguments and options first, as ``apply_async``
        does.
        """
        postback_id: str | None = id_text(task_id)
        check_options(task_id=postback_id, **options)
        order = check_request(args or (), kwargs or {})
        given = {"url": order.url} if order.url else {}
        return super().apply((order.account, order.event.to_mapping()), given, task_id=postback_id, **options)

    def retry(self, *args: Any, **options: Any) -> Any:
        """Decide what follows a failed attempt; refused to anybody but ``decide``."""
        if not _deciding.asked:
            refuse(
                "retry()", "a failed one is sent again by itself; postbacks.resend(id) sends a dead one again"
            )
        return super().retry(*args, **options)

    def signature(self, args: Any = None, kwargs: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """A signature that carries its queue, so that another app's worker sends it to the right one.

        Mirrors ``celery.app.task.Task.signature``; differs in the queue, in being checked and written as JSON
        when it is made, so that a group with a bad event sends nothing and another app's chain can carry it, and
        in being immutable: the result of the task before it in a chain is no argument of a postback.
        """
        if not _deciding.asked:
            args, kwargs = signature_arguments(args or (), kwargs or {})
        signature = super().signature(args, kwargs, *starargs, **starkwargs)
        signature.set(queue=keys.QUEUE, immutable=True)
        return signature

    def AsyncResult(self, task_id: str | uuid.UUID, **kwargs: Any) -> PostbackResult:  # noqa: N802 - Celery's name
        """The future of a postback by its id, which may be a UUID."""
        return PostbackResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs)


def _check_broker() -> None:
    if not app.conf.task_always_eager:
        _check_broker_once(load().broker_url)


@lru_cache(maxsize=4)
def _check_broker_once(_url: str) -> None:
    """Once a process and broker: may it be trusted with postbacks?"""
    for warning in check():
        log.warning("broker.unsafe", warning)


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
    given = {} if url is None else {"url": url}
    worker_task = _worker_task() if request.called_directly else None
    if worker_task is not None:
        send = self.send_unchecked if worker_task.name in MAPS else self.apply_async
        return send((account, event), given).id
    if request.called_directly or request.is_eager:
        order = check_request((account, event), given)
        return post_order(request.id or new_id(), order, eager=app.conf.task_always_eager)
    # Checked by the intake, as the tick's are: a bad one is kept among the dead.
    message = Message(request.id, [account, event], given, None, None)
    Intake(_scripts(), accounts.store(), load()).accept_one(message)
    process.deliver(decide, lambda: None)
    return request.id


# Not the bound method itself: to bind it reads the configuration, which waits until it is needed.
_templates = MessageTemplateCache(
    app,
    lambda *args, **options: send_postback.send_with_celery(*args, **options),  # noqa: PLW0108
)


def _worker_task() -> Any:
    """Return the task that our own worker runs in this thread, or None."""
    task = app.current_worker_task
    return task if task is not None and task.app is app and not task.request.is_eager else None


# Neither tells of itself: a tick a second would push the postbacks out of what Flower keeps.
@app.task(name=DISPATCH, base=TickTask, shared=False, ignore_result=True, trail=False, send_events=False)
def dispatch() -> None:
    """One tick: take in, release, reap, and wake as many ``deliver`` tasks as there is work for."""
    try:
        with shutdown.finishing(), broker_errors():
            result = Tick(_scripts(), accounts.store(), load()).run(_wake_early)
            if result.quarantined:
                quarantine.request_run()
            _wake(result.wakes)
            if result.more and not shutdown.is_stopping():
                dispatch.go_on()
    except BrokerError as error:
        log.error("tick.broker_lost", f"{error} The next tick tries again.")  # noqa: TRY400 - a line, not a trace


def _wake(loops: int) -> None:
    for _ in range(loops):
        deliver.apply_async()


def _wake_early(loops: int) -> None:
    """Wake loops in the middle of a tick, which goes on where the broker refuses their messages."""
    with suppress(BrokerError), broker_errors():
        _wake(loops)


@app.task(name=DELIVER, base=WorkerTask, shared=False, ignore_result=True, trail=False, send_events=False)
def deliver() -> int:
    """Claim and POST until nothing is ready; carries nothing, so that losing one does no harm."""
    with shutdown.finishing():
        return process.deliver(decide, deliver.apply_async)


def decide(postback: Claimed | Held, outcome: Outcome) -> Decision:
    """Ask Celery's own retry what follows a failed attempt.

    Enters the postback's request context and calls ``Task.retry``, whose message our ``apply_async``
    does not send but records: the resend is parked in Redis and not in a worker's memory. At the cap
    ``retry`` raises, even with ``throw=False``: that alone means dead. The settings hold the promise:
    every 5 minutes, at most 5 resends.
    """
    del outcome  # every failure is resent alike: only 200 counts
    settings = load()
    send_postback.push_request(
        id=postback.id,
        args=(postback.account, {"ORIGIN": postback.origin, "CODE": postback.code}),
        kwargs={},
        retries=postback.failures,
        called_directly=False,
        is_eager=False,
        delivery_info={"exchange": "", "routing_key": keys.QUEUE},
    )
    _deciding.asked, _deciding.countdown_s = True, None
    try:
        retried = send_postback.retry(
            countdown=settings.retry_countdown_s, max_retries=settings.max_resends, throw=False
        )
        # Celery's Retry holds itself: until Python's collector came by, every failure would keep 2 KB.
        retried.args = ()
    except MaxRetriesExceededError:
        return Decision(parked=False)
    finally:
        _deciding.asked = False
        send_postback.pop_request()
    countdown_s = _deciding.countdown_s
    if countdown_s is None:  # not its truth: a countdown of 0 is one
        raise RuntimeError("Celery's retry sent no countdown; postbacks supports celery 5.7")
    return Decision(parked=True, countdown_s=float(countdown_s))


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
    checked: list[Event] = []
    for number, event in enumerate(events, start=1):
        try:
            checked.append(parse_event(event))
        except InvalidEvent as error:
            problems = [
                (f"event {number}: {tag}" if tag else f"event {number}", why) for tag, why in error.problems
            ]
            raise InvalidEvent(problems, origin=error.origin, code=error.code) from None
    account = accounts.check_name(account)
    given = {} if url is None else {"url": check_url(url)}
    if app.conf.task_always_eager:
        return eager_ids([send_postback.apply_async((account, event), given) for event in checked])
    ids = [new_id() for _ in checked]
    _check_broker()
    template = _templates.get()
    with RedisProducer() as producer:
        for postback_id, event in zip(ids, checked, strict=True):
            if template is None:
                send_postback.apply_async((account, event), given, task_id=postback_id, producer=producer)
            else:
                send_postback.send_from_template(
                    template, producer, postback_id, SendRequest(account, event, url)
                )
    return ids


def resend(postback_id: str | uuid.UUID) -> str:
    """Send a dead postback again, the same bytes; returns its state afterwards, empty if unknown.

    A message that was of a newer version is taken in again instead: ``queued``.
    """
    known_id = id_text(postback_id)
    state = _scripts().replay(known_id)
    if state == WAITING:
        replayed(known_id)
    return state


def _scripts() -> Scripts:
    return Scripts(client())
