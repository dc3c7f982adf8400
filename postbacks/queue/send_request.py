"""A request to send: account, event and URL, checked in the caller and again by the tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from postbacks.catalogue import Event, parse_event
from postbacks.errors import UnsupportedOption
from postbacks.names import check_name
from postbacks.queue.options import ARGUMENTS, right_argument
from postbacks.urls import check_url


class SendRequest(NamedTuple):
    """Request of an application: an event of an account, and a URL if not the account's own."""

    account: str
    event: Event
    url: str | None

    @property
    def args(self) -> tuple[str, dict[str, Any]]:
        """Positional arguments of the task, as a message carries them."""
        return self.account, self.event.to_mapping()

    @property
    def kwargs(self) -> dict[str, str]:
        """Keyword arguments of the task, as a message carries them."""
        return {"url": self.url} if self.url else {}


def check_request(args: Sequence[Any], kwargs: Mapping[str, Any]) -> SendRequest:
    """Check the arguments of ``send_postback``: names, event, form of the URL; no account is looked up.

    Raises:
        InvalidEvent: lists every tag at fault.
        InvalidAccount: the name cannot be one.
        InvalidUrl: the URL cannot be one.
        UnsupportedOption: arguments that send_postback does not have.
    """
    if not (isinstance(args, tuple | list) and isinstance(kwargs, dict)):
        _check_form(args, kwargs)
    account, event, url = bind_arguments(*args, **kwargs)
    return SendRequest(check_name(account), parse_event(event), None if url is None else check_url(url))


def _check_form(args: object, kwargs: object) -> None:
    """Refuse arguments that are no sequence and no mapping; a text or a mapping is no sequence here."""
    is_sequence = isinstance(args, Iterable) and not isinstance(args, str | bytes | Mapping)
    if not is_sequence or not isinstance(kwargs, Mapping):
        raise UnsupportedOption(
            "send_postback takes its arguments as a list and a mapping, "
            'apply_async(("acme", event), {"url": ...}), '
            f"not as {type(args).__name__} and {type(kwargs).__name__}."
        )


def bind_arguments(*args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
    """Bind arguments as ``send_postback`` does: account, event and ``url=``, None where it is missing.

    Raises:
        UnsupportedOption: arguments that send_postback does not have, or that are missing.
    """
    if len(args) == 2 and not kwargs:
        return *args, None
    names = ("account", "event")
    values = dict(zip(names, args, strict=False))
    unknown = sorted(set(kwargs) - set(ARGUMENTS) | (set(values) & set(kwargs)))
    if len(args) > len(names) or unknown:
        raise UnsupportedOption(
            "send_postback takes account, event and url= "
            f"(got {len(args)} positional arguments and {', '.join(sorted(kwargs)) or 'no others'})."
            + "".join(right_argument(name) for name in unknown if name not in ARGUMENTS)
        )
    values |= kwargs
    missing = [name for name in names if name not in values]
    if missing:
        raise UnsupportedOption(f"send_postback wants {' and '.join(missing)} as well.")
    return values["account"], values["event"], values.get("url")
