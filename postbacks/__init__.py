"""postbacks: tells customers' servers what happened in their messaging account.

::

    from postbacks import SmsReceived, send_postback

    event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=when)
    result = send_postback.delay("acme", event)
"""

from typing import TYPE_CHECKING, Any

from postbacks.errors import (
    AccountsUnavailable,
    BadInput,
    BadSetting,
    BrokerError,
    BrokerUnfit,
    BrokerUnreachable,
    DeliveryError,
    HistoryError,
    HistoryOff,
    HistoryUnavailable,
    HistoryUnfit,
    IdTaken,
    InvalidAccount,
    InvalidEvent,
    InvalidQuery,
    InvalidUrl,
    LeaseLost,
    NotReplicated,
    PostbackDead,
    PostbackFailed,
    PostbacksError,
    PostbackSkipped,
    RevealRefused,
    UnknownAccount,
    UnknownIncident,
    UnknownJob,
    UnknownPostback,
    UnsupportedOption,
)

if TYPE_CHECKING:
    from postbacks.catalogue import *  # noqa: F403 - the event types, one class a row of the catalogue
    from postbacks.catalogue import event_type, parse_event, table
    from postbacks.client.results import PostbackResult
    from postbacks.client.task import PostbackTask
    from postbacks.queue.actions import resend
    from postbacks.tasks import send_postback, send_postbacks
else:
    _MODULES = {
        "PostbackResult": "postbacks.client.results",
        "PostbackTask": "postbacks.client.task",
        "resend": "postbacks.queue.actions",
        "send_postback": "postbacks.tasks",
        "send_postbacks": "postbacks.tasks",
    }

    # Hidden from type checkers, to which every misspelt name would be Any.
    def __getattr__(name: str) -> Any:
        """Load the catalogue, or Celery, when a name of theirs is first used: a health check needs neither."""
        from importlib import import_module  # noqa: PLC0415 - that is the point

        if name in __all__:  # Python asks for our modules as well, before it imports them
            return getattr(import_module(_MODULES.get(name, "postbacks.catalogue")), name)
        raise AttributeError(f"module 'postbacks' has no attribute {name!r}")


# Literal, as checkers read it; tests/house/test_public_names.py holds it to the catalogue and to errors.py.
__all__ = [
    "EVENTS",
    "MAX_EVENT_BYTES",
    "ORIGINS",
    "AccountsUnavailable",
    "AudioEncodingFailed",
    "AudioEncodingForSendingFailed",
    "BadInput",
    "BadSetting",
    "BrokerError",
    "BrokerUnfit",
    "BrokerUnreachable",
    "ContentStored",
    "ContentStoredForSending",
    "DeliveryError",
    "DiscoveryDelivered",
    "DiscoveryFailed",
    "DiscoveryNotDelivered",
    "DiscoverySent",
    "EmailSubscribed",
    "EmailUnsubscribed",
    "Event",
    "HistoryError",
    "HistoryOff",
    "HistoryUnavailable",
    "HistoryUnfit",
    "IdTaken",
    "InvalidAccount",
    "InvalidEvent",
    "InvalidQuery",
    "InvalidUrl",
    "LeaseLost",
    "MmsDelivered",
    "MmsFailed",
    "MmsLinkDelivered",
    "MmsLinkNotDelivered",
    "MmsNotDelivered",
    "MmsProcessing",
    "MmsReceived",
    "MobileVideoEncodingFailed",
    "NotReplicated",
    "PassCreditTooLow",
    "PassGenerated",
    "PassGenerationFailed",
    "PassLimitReached",
    "PostbackDead",
    "PostbackFailed",
    "PostbackResult",
    "PostbackSkipped",
    "PostbackTask",
    "PostbacksError",
    "RevealRefused",
    "Row",
    "SmsDelivered",
    "SmsNotDelivered",
    "SmsReceived",
    "SmsSubmissionFailed",
    "SmsSubmitted",
    "Subscribed",
    "Tag",
    "UnknownAccount",
    "UnknownIncident",
    "UnknownJob",
    "UnknownPostback",
    "Unsubscribed",
    "UnsupportedOption",
    "VideoEncodingFailed",
    "VideoEncodingForSendingFailed",
    "event_type",
    "parse_event",
    "resend",
    "send_postback",
    "send_postbacks",
    "table",
]


def __dir__() -> list[str]:
    return __all__
