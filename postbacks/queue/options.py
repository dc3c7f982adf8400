"""Options of a call of ``send_postback``: those of Celery that it may have, and those that are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from postbacks import keys
from postbacks.errors import UnsupportedOption
from postbacks.names import is_id
from postbacks.queue.protocol import can_unpack

#: Names of the arguments of ``send_postback``.
ARGUMENTS: Final = ("account", "event", "url")

#: Celery options that a postback cannot honour, and what to do instead.
_REFUSED: Final = {
    "link": "a postback may take half an hour; look at its AsyncResult instead",
    "link_error": "a dead postback stays in the ledger; look at its AsyncResult instead",
    "chord": "a chord would wait for it; put postbacks outside the chord",
    "chain": "what stands after it in a chain would wait for it; put the postback last",
    "expires": "an accepted postback is sent or stands as dead; use revoke() to cancel one",
}


class Options(TypedDict, total=False):
    """Every option of a call that Celery 5.7 gives a meaning to, with its type.

    Parameters of ``apply_async`` are not among them, nor options that are refused. tests/client/test_options.py compares
    the names with the functions of Celery and kombu that read them.
    """

    # When and where.
    countdown: float | None
    eta: datetime | str | None
    queue: Any
    exchange: Any
    exchange_type: str | None
    routing_key: str | None
    priority: int | None

    # How the message is written and sent.
    connection: Any
    publisher: Any
    router: Any
    route_name: str | None
    retry: bool | None
    retry_policy: Mapping[str, Any] | None
    timeout: float | None
    confirm_timeout: float | None
    declare: Any
    delivery_mode: int | str | None
    mandatory: bool | None
    immediate: bool | None
    serializer: str | None
    compression: str | None
    headers: Mapping[str, Any] | None
    event_dispatcher: Any

    # Who calls, and what a worker and Flower show.
    add_to_parent: bool
    ignore_result: bool | None
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    group_index: int | None
    reply_to: str | None
    retries: int
    replaced_task_nesting: int
    time_limit: float | None
    soft_time_limit: float | None
    origin: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    stamped_headers: Iterable[str] | None

    # Properties of AMQP's messages, which kombu writes into Redis as well.
    content_type: str | None
    content_encoding: str | None
    application_headers: Any
    correlation_id: str | None
    expiration: float | None
    message_id: str | None
    timestamp: Any
    type: str | None
    user_id: str | None
    app_id: str | None
    cluster_id: str | None

    # Options of ``apply``, which eager mode calls.
    throw: bool | None
    logfile: Any
    loglevel: Any


_KNOWN: Final = {*Options.__annotations__, "task_id", "producer", "shadow", "link", "link_error", *_REFUSED}


def check_options(*, task_id: object = None, **options: Any) -> None:
    """Check the options of a call.

    Raises:
        UnsupportedOption: names the option and what to do instead.
    """
    if task_id is not None and not is_id(task_id):
        raise UnsupportedOption(
            f"task_id {str(task_id)[:60]!r} cannot be a postback's id: 1 to 255 printable ASCII characters, no spaces."
        )
    for name in options:
        if name not in _KNOWN and name not in (options.get("stamped_headers") or ()):
            raise UnsupportedOption(f"send_postback knows no option {name}=.{_right_option(name)}")
    for name, instead in _REFUSED.items():
        if options.get(name) or (name == "expires" and options.get(name) is not None):
            raise UnsupportedOption(f"send_postback cannot take {name}=: {instead}.")
    for name in ("queue", "exchange", "routing_key"):
        value = options.get(name)
        if value and str(getattr(value, "name", value)) != keys.QUEUE:
            raise UnsupportedOption(
                f"send_postback cannot take {name}={value!r}: postbacks wait in {keys.QUEUE!r}."
            )
    if options.get("serializer") not in {None, "json"}:
        raise UnsupportedOption(
            f"send_postback cannot take serializer={options['serializer']!r}: JSON is the only one."
        )
    if options.get("compression") and not can_unpack(options["compression"]):
        raise UnsupportedOption(
            f"send_postback cannot take compression={options['compression']!r}: gzip and bzip2 can be read."
        )
    _check_times(options.get("countdown"), options.get("eta"))
    _check_headers(options)


def _check_headers(options: Mapping[str, Any]) -> None:
    """Refuse headers, stamps and a priority that cannot be written into a message."""
    priority = options.get("priority")
    try:
        int(priority or 0)
    except (ValueError, TypeError):
        raise UnsupportedOption(
            f"send_postback cannot take priority={priority!r}: a priority is a number from 0 to 9."
        ) from None
    for name in ("headers", *(options.get("stamped_headers") or ())):
        try:
            json.dumps(options.get(name))
        except (ValueError, TypeError, RecursionError) as error:
            raise UnsupportedOption(
                f"send_postback cannot take this {name}=: it travels as JSON ({error})."
            ) from None


def _right_option(name: str) -> str:
    if name in ARGUMENTS:
        return f' It is an argument: apply_async(("acme", event), {{{name!r}: ...}}).'
    match = _nearest_of(name, _KNOWN)
    return f" Did you mean {match}=?" if match else ""


def right_argument(name: str) -> str:
    """Return a sentence that says what to write instead of an argument which ``send_postback`` does not have.

    Returns:
        The sentence, or "" where no name comes near.
    """
    if name in _KNOWN:
        return f" {name}= is an option: {_takes(name)}"
    match = _nearest_of(name, {*ARGUMENTS, *_KNOWN})
    if match in _KNOWN:  # a misspelt option given to ``delay``
        return f" Did you mean {match}=? It is an option: {_takes(match)}"
    return f" Did you mean {match}=?" if match else ""


def _takes(option: str) -> str:
    # After `delay_on_commit` nobody must be led to a call that sends before the commit.
    return f"apply_async(args, kwargs, {option}=...) takes it, and so does apply_async_on_commit."


def _nearest_of(name: str, names: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415 - needed only where a call is wrong

    return next(iter(get_close_matches(name, sorted(names), n=1)), None)


def _check_times(countdown: Any, eta: Any) -> None:
    """Refuse times that cannot be read, which would make a dead postback later."""
    try:
        moment = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
        if moment is not None and moment.utcoffset() is None:
            raise UnsupportedOption(
                f"send_postback cannot take eta={eta!r}: it has no time zone (datetime.now(UTC) has one)."
            )
        if countdown is not None:
            datetime.now(UTC) + timedelta(seconds=countdown)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise UnsupportedOption(
            f"send_postback cannot take countdown={countdown!r}, eta={eta!r}: "
            "a countdown is seconds, an eta a datetime with a time zone."
        ) from None
