"""postbacks: tells customers' servers what happened in their messaging account.

::

    from postbacks import SmsReceived, send_postback

    event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=when)
    result = send_postback.delay("acme", event)
"""

from typing import TYPE_CHECKING, Any

from postbacks.catalogue import *  # noqa: F403 - the event types, one class a row of the catalogue
from postbacks.errors import InvalidAccount as InvalidAccount
from postbacks.errors import InvalidEvent as InvalidEvent
from postbacks.errors import InvalidUrl as InvalidUrl
from postbacks.errors import PostbackDead as PostbackDead
from postbacks.errors import PostbackFailed as PostbackFailed
from postbacks.errors import PostbacksError as PostbacksError
from postbacks.errors import PostbackSkipped as PostbackSkipped

if TYPE_CHECKING:
    from postbacks.tasks import resend as resend
    from postbacks.tasks import send_postback as send_postback
    from postbacks.tasks import send_postbacks as send_postbacks

_TASKS = frozenset({"resend", "send_postback", "send_postbacks"})


def __getattr__(name: str) -> Any:
    """Load Celery when it is first asked for: it takes longer than all the rest."""
    if name in _TASKS:
        from postbacks import tasks  # noqa: PLC0415 - that is the point

        return getattr(tasks, name)
    raise AttributeError(f"module 'postbacks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_TASKS})
