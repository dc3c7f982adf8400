"""Retry rule: a postback that fails is sent again after a countdown, until the cap; then it is dead.

* The numbers are settings: ``retry_countdown_s`` (every 5 minutes) and ``max_resends`` (at most 5).
* Celery decides: ``decide`` enters the postback's request context and calls ``Task.retry``.
* What Celery would send is recorded: ``client/task.py`` gives the countdown to ``record_countdown`` instead of sending
  a message, and ``commit.lua`` parks the postback in Redis. A message would wait in a worker's memory.

Both numbers have other users:

* ``countdown_ms``: ``reap.lua`` parks a postback whose process died while it was alone for as long (the tick and the
  doctor's repairs call it), and ``monitor/snapshot.py`` dates resends by it. ``cli/up.py`` prints and sets the countdown.
* ``max_resends``: ``monitor/causes.py`` ("attempt 2 of 6") and ``ping/diagnose.py`` print it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from postbacks import keys

if TYPE_CHECKING:
    from celery import Task

    from postbacks.settings import Settings


class FailedPostback(Protocol):
    """A postback whose attempt has failed. ``failures`` is the number of failed attempts before that attempt."""

    id: str
    account: str
    origin: str
    code: str
    failures: int


class Decision(NamedTuple):
    """Decision on a failed attempt: the postback is parked for ``countdown_s``, or dead."""

    parked: bool
    countdown_s: float = 0.0


class _Recorder(threading.local):
    """The countdown that Celery's retry asks for in this thread, while ``decide`` waits for it."""

    is_deciding = False
    countdown_s: float | None = None


_recorder = _Recorder()


def is_deciding() -> bool:
    """Tell whether this thread's call of Celery is the retry's, which is recorded and not sent."""
    return _recorder.is_deciding


def record_countdown(countdown_s: float | None) -> None:
    """Record the countdown of the message that Celery's retry would send."""
    _recorder.countdown_s = countdown_s


def decide(task: Task, postback: FailedPostback) -> Decision:
    """Ask Celery's own retry what follows a failed attempt, whatever its outcome was: only 200 is no failure.

    At the cap ``retry`` raises, even with ``throw=False``: that alone means dead.
    """
    # Who sends knows the recorder and loads no settings for it; who judges health asks for the countdown, without Celery.
    from celery.exceptions import MaxRetriesExceededError  # noqa: PLC0415

    from postbacks.settings import load  # noqa: PLC0415

    settings = load()
    task.push_request(
        id=postback.id,
        args=(postback.account, {"ORIGIN": postback.origin, "CODE": postback.code}),
        kwargs={},
        retries=postback.failures,
        called_directly=False,
        is_eager=False,
        delivery_info={"exchange": "", "routing_key": keys.QUEUE},
    )
    _recorder.is_deciding, _recorder.countdown_s = True, None
    try:
        retry: Any = task.retry(
            countdown=settings.retry_countdown_s, max_retries=settings.max_resends, throw=False
        )
        # Celery's Retry refers to itself. Until Python's collector ran, every failure would keep 2 KB.
        retry.args = ()
    except MaxRetriesExceededError:
        return Decision(parked=False)
    finally:
        _recorder.is_deciding = False
        task.pop_request()
    countdown_s = _recorder.countdown_s
    if countdown_s is None:  # a countdown of 0 is valid
        raise RuntimeError("Celery's retry sent no countdown; postbacks supports celery 5.7")
    return Decision(parked=True, countdown_s=float(countdown_s))


def countdown_ms(settings: Settings) -> int:
    """Return the milliseconds from a failure to the resend."""
    return int(settings.retry_countdown_s * 1000)
