"""The Celery options that a call of ``send_postback`` may have, and those that it may not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from postbacks import keys
from postbacks.errors import UnsupportedOption
from postbacks.queue.message import can_unpack, is_id

#: Celery options that a postback cannot honour, and what to do instead.
_REFUSED: Final = {
    "link": "a postback may take half an hour; look at its AsyncResult instead",
    "link_error": "a dead postback stays in the ledger; look at its AsyncResult instead",
    "chord": "a chord would wait for it; put postbacks outside the chord",
    "chain": "what stands after it in a chain would wait for it; put the postback last",
    "expires": "an accepted postback is sent or stands as dead; use revoke() to cancel one",
}


def check_options(*, task_id: object = None, **options: Any) -> None:
    """Check the options of a call; what is not named here is Celery's own business.

    Raises:
        UnsupportedOption: names the option and what to do instead.
    """
    if task_id is not None and not is_id(task_id):
        shown = repr(str(task_id)[:60])
        raise UnsupportedOption(
            f"task_id {shown} cannot be a postback's id: 1 to 255 printable ASCII characters, no spaces."
        )
    for name, instead in _REFUSED.items():
        if options.get(name) or (name == "expires" and options.get(name) is not None):
            raise UnsupportedOption(f"send_postback cannot take {name}=: {instead}.")
    for name in ("queue", "exchange", "routing_key"):
        given = options.get(name)
        if given and str(getattr(given, "name", given)) != keys.QUEUE:
            raise UnsupportedOption(
                f"send_postback cannot take {name}={given!r}: postbacks wait in {keys.QUEUE!r}."
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


def _check_times(countdown: Any, eta: Any) -> None:
    """A time that cannot be read would make a dead postback of it later."""
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
