"""postbacks: tells customers' servers what happened in their messaging account.

::

    from postbacks import SmsReceived, send_postback

    event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=when)
    result = send_postback.delay("acme", event)
"""

from typing import TYPE_CHECKING, Any

from postbacks.errors import InvalidAccount as InvalidAccount
from postbacks.errors import InvalidEvent as InvalidEvent
from postbacks.errors import InvalidUrl as InvalidUrl
from postbacks.errors import PostbackDead as PostbackDead
from postbacks.errors import PostbackFailed as PostbackFailed
from postbacks.errors import PostbacksError as PostbacksError
from postbacks.errors import PostbackSkipped as PostbackSkipped

if TYPE_CHECKING:
    from postbacks.catalogue import *  # noqa: F403 - the event types, one class a row of the catalogue
    from postbacks.tasks import resend as resend
    from postbacks.tasks import send_postback as send_postback
    from postbacks.tasks import send_postbacks as send_postbacks

_TASKS = frozenset({"resend", "send_postback", "send_postbacks"})
_FUNCTIONS = frozenset({"event_type", "parse_event", "table"})


def __getattr__(name: str) -> Any:
    """Load the catalogue, or Celery, when it is first asked for: a health check needs neither.

    Python asks for our modules as well before it imports them (``from postbacks import keys``): all of these are in
    lower case.
    """
    from importlib import import_module  # noqa: PLC0415

    if name in _TASKS:
        return getattr(import_module("postbacks.tasks"), name)
    if name[:1].isupper() or name in _FUNCTIONS:
        catalogue = vars(import_module("postbacks.catalogue"))
        if name in catalogue:
            return catalogue[name]
    raise AttributeError(f"module 'postbacks' has no attribute {name!r}")


def __dir__() -> list[str]:
    from postbacks import catalogue  # noqa: PLC0415

    public = (name for name in vars(catalogue) if name[:1].isupper() or name in _FUNCTIONS)
    return sorted({*globals(), *_TASKS, *public})
