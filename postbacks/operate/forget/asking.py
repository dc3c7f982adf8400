"""Requests from whoever asks: made, counted beforehand, and waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from postbacks.broker.client import client
from postbacks.errors import PostbacksError
from postbacks.history.feed import Feed
from postbacks.operate import journal
from postbacks.operate.forget.counting import count_all
from postbacks.operate.forget.erasure import Erasure
from postbacks.operate.forget.person import NUMBER, Person
from postbacks.operate.forget.request import Requests
from postbacks.operate.identity import current_user
from postbacks.privacy import mask_why, masker
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from postbacks.operate.forget.counting import Count
    from postbacks.operate.forget.request import Receipt
    from postbacks.settings import Settings

#: Seconds between two looks at how far a request is.
LOOK_EVERY_S: Final = 0.25


def count(*, number: str | None = None, email: str | None = None) -> Count:
    """Count what names a person, in the broker and the history; nothing is changed.

    Args:
        number: the person's number, in any spelling.
        email: or the person's e-mail address.

    Raises:
        InvalidQuery: neither or both are given, or it cannot be a person's.
        BrokerError: the broker cannot be used.
        HistoryError: the history cannot be read.
    """
    return count_all(client(), load(), Person.of(number=number, email=email))


def pseudonym(*, number: str | None = None, email: str | None = None) -> str:
    """Return the name that journal, receipt and logs have of a person: ``1555…37 ·k3f9``.

    Raises:
        InvalidQuery: neither or both are given, or it cannot be a person's.
    """
    person = Person.of(number=number, email=email)
    mask = masker(client(), load())
    return mask.number(number or "") if person.kind == NUMBER else mask.email(email or "")


def forget(
    *,
    number: str | None = None,
    email: str | None = None,
    now: bool = False,
    by: str | None = None,
    why: str = "",
) -> str:
    """Ask that a person be forgotten; return the name of the request, for ``wait``.

    The process that runs history goes on with it, whatever becomes of the caller. Where there is no history, ``wait`` does the
    work. A person who is being forgotten already has one request.

    Args:
        number: the person's number, in any spelling.
        email: or the person's e-mail address.
        now: cancel what is still to be delivered, which is delivered otherwise, for 24 hours at most.
        by: who asks; None for the user.
        why: why, for the journal; where it names a person it gets the pseudonym.

    Raises:
        InvalidQuery: neither or both are given, or it cannot be a person's.
        PostbacksError: there is a history, and no process runs it.
        BrokerError: the broker cannot be used.
    """
    broker, settings = client(), load()
    person = Person.of(number=number, email=email)
    if has_history(broker, settings) and not is_history_run(broker):
        raise PostbacksError(
            "There is a history, and no process runs it: start `postbacks history run`, which forgets in its database, too. "
            "Nothing was done."
        )
    name = pseudonym(number=number, email=email)
    user, why = by or current_user(), mask_why(person.without(why, name), broker)
    request = Requests(broker).start(person, name, now=now, by=user, why=why)
    journal.write("forget", name, why=why, details={"request": request, "now": now}, by=user, broker=broker)
    return request


def wait(request: str, on_progress: Callable[[Receipt], None] = lambda _: None) -> Receipt:
    """Wait until a request has ended; return its receipt. Where there is no history, do what is left of it.

    Args:
        request: as ``forget`` returned it.
        on_progress: called again and again with how far it is.

    Raises:
        PostbacksError: the broker does not have the request.
        BrokerError: the broker cannot be used.
    """
    broker, settings = client(), load()
    requests = Requests(broker)
    if not has_history(broker, settings):
        for wait_s in Erasure(broker, settings, request, None).steps():
            on_progress(requests.read(request))
            time.sleep(wait_s)
    while (receipt := requests.read(request)).ended_ms is None:
        on_progress(receipt)
        time.sleep(LOOK_EVERY_S)
    return receipt


def goes_on() -> bool:
    """Tell whether requests go on without whoever waits for them: a process runs history."""
    return is_history_run(client())


def has_history(broker: redis.Redis, settings: Settings) -> bool:
    """Tell whether there is a history: this process's settings name one, or the feed is on for another's."""
    return bool(settings.history_url) or Feed(broker).state().on_ms is not None


def is_history_run(broker: redis.Redis) -> bool:
    """Tell whether a process runs history now."""
    state = Feed(broker).state()
    return bool(state.holder) and state.lease_ends_ms is not None and state.lease_ends_ms > state.now_ms
