"""The class of ``send_postback``: arguments and options are checked in the caller, and a retry is a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from postbacks import keys
from postbacks.celeryext.capture import current
from postbacks.celeryext.refusals import MANY, RefusingTask, refuse
from postbacks.client.results import PostbackResult
from postbacks.errors import UnsupportedOption
from postbacks.ledger.record import id_text
from postbacks.queue.options import Options, check_options
from postbacks.queue.protocol import SCHEMA, SCHEMA_HEADER
from postbacks.retry import is_deciding, record_countdown

if TYPE_CHECKING:
    import uuid

    from celery.canvas import Signature
    from celery.result import EagerResult

    from postbacks.catalogue import Event

    AccountName = str | int | uuid.UUID
    EventOrTags = Event | Mapping[str, Any]


class PostbackTask(RefusingTask):
    """Task that sends postbacks instead of messages to a worker."""

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
        def delay_on_commit(
            self,
            account: AccountName,
            event: EventOrTags,
            *,
            url: str | None = None,
            using: str | None = None,
        ) -> None: ...
        def s(self, account: AccountName, event: EventOrTags, *, url: str | None = None) -> Signature: ...
        def si(self, account: AccountName, event: EventOrTags, *, url: str | None = None) -> Signature: ...

    else:

        def delay_on_commit(self, *args: Any, using: str | None = None, **kwargs: Any) -> None:
            """Check the call now, and send when Django's transaction has committed; a rollback sends nothing.

            Mirrors ``celery.contrib.django.task.DjangoTask.delay_on_commit``; differs as ``apply_async_on_commit`` does.
            """
            self.apply_async_on_commit(args, kwargs, using=using)

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
        ``Task.retry`` makes for ``retry.decide`` only records what Celery decided.

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
        if is_deciding():
            record_countdown(options.get("countdown"))
            return None  # type: ignore[return-value] # Task.retry looks at no result
        postback_id: str | None = id_text(task_id)
        if options or link or link_error or postback_id is not None:
            check_options(task_id=postback_id, link=link, link_error=link_error, **options)
        # The catalogue, the broker's client and the settings: loaded with the first call, as Celery loads its transport.
        from postbacks.client.sending import send
        from postbacks.queue.send_request import check_request

        request = check_request(args or (), kwargs or {})
        return send(self, request, postback_id, producer=producer, shadow=shadow, **options)

    def apply_async_on_commit(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | uuid.UUID | None = None,
        *,
        using: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Check the call now, and send when Django's transaction has committed; a rollback sends nothing.

        Mirrors ``celery.contrib.django.task.DjangoTask.apply_async_on_commit``; differs in checking at the call, so that
        a bad event rolls back, and in ``using``. Outside a transaction it sends at once. What the send raises comes
        out of the commit, which has happened by then.

        Args:
            args: account and event.
            kwargs: account, event and url by name.
            task_id: the idempotency key.
            using: alias of the database whose transaction is meant; None for Django's default.
            options: as those of ``apply_async``.

        Raises:
            InvalidEvent: lists every tag at fault.
            InvalidAccount: the account's name cannot be one.
            InvalidUrl: the URL cannot be one.
            UnsupportedOption: an option that postbacks cannot honour, or no Django with a database is set up.
        """
        postback_id: str | None = id_text(task_id)
        check_options(task_id=postback_id, **options)
        from postbacks.client.sending import send
        from postbacks.queue.send_request import check_request

        request = check_request(args or (), kwargs or {})
        # A capture that is open now has the call, even where the commit comes when its context has ended.
        _on_commit(partial(send, self, request, postback_id, capture=current(), **options), using)

    def send_with_celery(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> PostbackResult:
        """Send by Celery's own ``apply_async`` to the queue of postbacks; nothing is checked."""
        options["queue"] = keys.QUEUE
        options["headers"] = {**(options.get("headers") or {}), SCHEMA_HEADER: SCHEMA}
        result: PostbackResult = super().apply_async(tuple(args), kwargs, **options)
        return result

    def send_unchecked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> PostbackResult:
        """Send where nobody would see an error: the tick judges the message, and keeps a bad one among the dead."""
        from postbacks.client.producer import RedisProducer

        return self.send_with_celery(args, kwargs, producer=RedisProducer())

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | uuid.UUID | None = None,
        **options: Any,
    ) -> EagerResult:
        """Make one POST in the caller, with no ledger and no resend.

        Mirrors ``celery.app.task.Task.apply``; differs in checking arguments and options first, as ``apply_async``
        does.
        """
        postback_id: str | None = id_text(task_id)
        check_options(task_id=postback_id, **options)
        from postbacks.queue.send_request import check_request

        request = check_request(args or (), kwargs or {})
        if current() is not None:  # a host program's eager chain comes here
            from postbacks.client.sending import send

            return send(self, request, postback_id, **options)
        return super().apply(request.args, request.kwargs, task_id=postback_id, **options)

    def retry(self, *args: Any, **options: Any) -> Any:
        """Let Celery decide what follows a failed attempt; refuse any caller but ``retry.decide``.

        Mirrors ``celery.app.task.Task.retry``; differs in the refusal.
        """
        if not is_deciding():
            refuse(
                "retry()", "a failed one is sent again by itself; postbacks.resend(id) sends a dead one again"
            )
        return super().retry(*args, **options)

    def signature(self, args: Any = None, kwargs: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """Make a signature that carries its queue, so that another app's worker sends it to the right one.

        Mirrors ``celery.app.task.Task.signature``; differs in the queue, in being checked and written as JSON
        when it is made, so that a group with a bad event sends nothing and another app's chain can carry it, and
        in being immutable: the result of the task before it in a chain is no argument of a postback.
        """
        if not is_deciding():
            args, kwargs = _signature_arguments(args or (), kwargs or {})
        signature = super().signature(args, kwargs, *starargs, **starkwargs)
        signature.set(queue=keys.QUEUE, immutable=True)
        return signature

    def AsyncResult(self, task_id: str | uuid.UUID, **kwargs: Any) -> PostbackResult:  # noqa: N802 - Celery's name
        """Return the future of a postback by its id, which may be a UUID."""
        return PostbackResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs)


def _on_commit(send: Callable[[], Any], using: str | None) -> None:
    """Let Django call a function after its commit.

    Raises:
        UnsupportedOption: Django is missing, or has no settings or no database here; says what to call instead.
    """
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.db import transaction
    except ImportError as error:
        raise _refused_on_commit("which is not installed") from error
    try:
        transaction.get_autocommit(using)  # the first thing that wants settings and a database
    except ImproperlyConfigured as error:
        raise _refused_on_commit("which has no database set up here") from error
    transaction.on_commit(send, using)


def _refused_on_commit(why: str) -> UnsupportedOption:
    return UnsupportedOption(
        f"send_postback.delay_on_commit() waits for a commit of Django, {why}. Elsewhere call delay() "
        "once your transaction has committed: docs/sending.md, After the commit."
    )


def _signature_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Check the arguments of a signature and write them as JSON can say them.

    Raises:
        InvalidEvent: lists every tag at fault.
        InvalidAccount: the account's name cannot be one.
        InvalidUrl: the URL cannot be one.
        UnsupportedOption: arguments that send_postback does not have, or too few: a signature takes none later.
    """
    from postbacks.queue.send_request import check_request

    try:
        request = check_request(args, kwargs)
    except UnsupportedOption as error:
        raise UnsupportedOption(
            f"{error} A signature of it takes no arguments later; for many write {MANY}."
        ) from None
    return request.args, request.kwargs
