"""What an event says of a postback: Celery's fields, and of the postback its account and code alone.

Nothing of the event's tags, of the URL or of the answer's body may stand in an event: Flower shows it to
whoever may look, and keeps it where the ledger's retention does not reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: What Flower calls a postback; its name as a Celery task.
TASK: Final = "postbacks.send_postback"

Fields = dict[str, Any]


def args_of(account: str, origin: str, code: str) -> str:
    """The arguments as they are shown: account and code, nothing personal."""
    parts = [repr(account) if account else "", f"{origin} {code}".strip()]
    return f"({', '.join(part for part in parts if part)})"


def args_in(args: Any) -> str:
    """The same for arguments as a client gave them; what cannot be an account's event shows nothing."""
    try:
        account, event = args
        if isinstance(account, str) and isinstance(event, Mapping):
            return args_of(account[:64], str(event["ORIGIN"])[:16], str(event["CODE"])[:8])
    except (TypeError, ValueError, KeyError):
        pass
    return "()"


def error_of(kind: str, outcome: str, status: int | None, attempt: int, words: Mapping[str, str]) -> str:
    """A failed attempt in words, in the form of an exception's repr, which Flower shows.

    Not in the words of the ledger's detail, which may name the host.

    Args:
        kind: name of the error in ``errors.py`` that an ``AsyncResult`` carries.
        outcome: a key of ``delivery.outcomes.OUTCOMES``.
        status: HTTP status, where one came.
        attempt: its number.
        words: what each outcome means.
    """
    what = f"status {status}" if status is not None else f"{outcome}, {words.get(outcome, '')}"
    return f'{kind}("attempt {attempt}: {what}")'


def event(
    kind: str,
    at_s: float,
    postback_id: str,
    args: str,
    retries: int,
    **more: Any,
) -> Fields:
    """One event as ``celery.events.event.Event`` makes it, but for the fields that all of a batch share.

    It has no ``clock``: its receiver then gives it its own, in the order of arrival, which for the events
    of one postback is the order in which they happened.
    """
    return {
        "type": f"task-{kind}",
        "timestamp": at_s,
        "uuid": postback_id,
        "name": TASK,
        "args": args,
        "kwargs": "{}",
        "retries": retries,
        **more,
    }
