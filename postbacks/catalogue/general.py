"""General system events: people join and leave campaigns (catalogue: General system)."""

from typing import Literal

from postbacks.catalogue.base import Event
from postbacks.catalogue.values import Email, FreeText, OpaqueId, PhoneNumber, Timestamp


class _Subscription(Event):
    mobile: PhoneNumber
    campaign_id: OpaqueId
    sub_id: OpaqueId | None = None
    timestamp: Timestamp | None = None
    short_code: PhoneNumber | None = None
    campaign_title: FreeText | None = None
    brand_name: FreeText | None = None


class Subscribed(
    _Subscription,
    origin="SUB",
    code="N301",
    meaning="a phone number subscribed to a campaign (sent again if it opts in a second time)",
):
    """catalogue: SUB N301. ``source`` says where from."""

    source: Literal["MANAGER", "API", "MO", "WEB"] | None = None


class Unsubscribed(_Subscription, origin="SUB", code="N302", meaning="a phone number unsubscribed"):
    """catalogue: SUB N302. ``source`` has other values than at N301."""

    source: Literal["MANAGER", "API", "MO", "IMPORTED AS UNSUBSCRIBED"] | None = None


class _EmailSubscription(Event):
    email: Email
    campaign_id: OpaqueId
    sub_id: OpaqueId | None = None


class EmailSubscribed(
    _EmailSubscription,
    origin="EMAIL_SUB",
    code="N303",
    meaning="an e-mail address subscribed to a campaign",
):
    """catalogue: EMAIL_SUB N303."""


class EmailUnsubscribed(
    _EmailSubscription, origin="EMAIL_SUB", code="N304", meaning="an e-mail address unsubscribed"
):
    """catalogue: EMAIL_SUB N304."""
