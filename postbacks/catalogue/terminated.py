"""Mobile terminated events: the fate of a message that was sent (catalogue: SMS/MMS MT).

N101 and N102 (or N202) of one message have the same ``tracking_id``. Where two rows have the same tags, a private class
lends them to both. Neither class derives from the other, so that ``isinstance(event, MmsDelivered)`` is never true for a
discovery message.
"""

from typing import Literal

from postbacks.catalogue.base import Event
from postbacks.catalogue.values import CarrierId, FreeText, OpaqueId, PhoneNumber, SenderMask, Timestamp

# MMS: binary; SMS: a link to an xHTML page.
_SentAs = Literal["MMS", "SMS"]

# STATUS of E202, of SMS and of MMS sent as a link alike.
_SmsFailure = Literal["Message Sent/Failed", "Message Sent/Expired", "Message Sent/NotSupported"]

# -- SMS ----------------------------------------------------------------------------------------


class SmsSubmitted(Event, origin="SMS_MT", code="N201", meaning="submitted to the carrier"):
    """catalogue: SMS_MT N201."""

    status: Literal["Message Sent"]
    from_: PhoneNumber | None = None
    from_mask: SenderMask | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp


class SmsSubmissionFailed(Event, origin="SMS_MT", code="E201", meaning="submission failed"):
    """catalogue: SMS_MT E201."""

    status: Literal["Message Failed"]
    from_: PhoneNumber | None = None
    from_mask: SenderMask | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    status_details: FreeText | None = None


class SmsDelivered(Event, origin="SMS_MT", code="N202", meaning="delivered (delivery receipt)"):
    """catalogue: SMS_MT N202. Older senders also use ``Message Sent/Failed`` here."""

    status: Literal["Message Sent/Delivered", "Message Sent/Failed"]
    from_: PhoneNumber | None = None
    from_mask: SenderMask | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    aggregator_id: OpaqueId | None = None
    status_details: FreeText | None = None


class SmsNotDelivered(Event, origin="SMS_MT", code="E202", meaning="not delivered (delivery receipt)"):
    """catalogue: SMS_MT E202."""

    status: _SmsFailure
    from_: PhoneNumber | None = None
    from_mask: SenderMask | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    aggregator_id: OpaqueId | None = None
    status_details: FreeText | None = None


# -- MMS ----------------------------------------------------------------------------------------


class _Begun(Event):
    sent_as: _SentAs
    status: Literal["Message Sent"]
    mms_id: OpaqueId
    from_: PhoneNumber | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    status_details: FreeText | None = None


class MmsProcessing(_Begun, origin="MMS_MT", code="N101", meaning="processing of the MMS began"):
    """catalogue: MMS_MT N101. ``status_details`` has the reason when the MMS was degraded to a link."""


class _Failed(Event):
    status: Literal["Message Failed"]
    mms_id: OpaqueId
    from_: PhoneNumber | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp | None = None
    status_details: FreeText | None = None


class MmsFailed(_Failed, origin="MMS_MT", code="E101", meaning="the MMS could not be sent"):
    """catalogue: MMS_MT E101."""


class _Delivered(Event):
    sent_as: _SentAs
    status: Literal["Message Sent/Delivered", "Message Sent/Expired", "Message Sent/Rejected"]
    mms_id: OpaqueId | None = None
    from_: PhoneNumber | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    handset: FreeText | None = None
    aggregator_id: OpaqueId | None = None


class MmsDelivered(_Delivered, origin="MMS_MT", code="N102", meaning="MMS delivered"):
    """catalogue: MMS_MT N102. Older senders also use ``Message Sent/Expired`` and ``…/Rejected`` here."""


class _NotDelivered(Event):
    sent_as: _SentAs | None = None
    status: Literal[
        "Message Sent/Expired", "Message Sent/Rejected", "Message Sent/Failed", "Message Sent/NotSupported"
    ]
    mms_id: OpaqueId
    from_: PhoneNumber | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    aggregator_id: OpaqueId | None = None
    status_details: FreeText | None = None


class MmsNotDelivered(_NotDelivered, origin="MMS_MT", code="E102", meaning="MMS not delivered"):
    """catalogue: MMS_MT E102."""


# -- MMS that went out as a link ----------------------------------------------------------------


class MmsLinkDelivered(
    Event,
    origin="MMS_MT",
    code="N202",
    meaning="an MMS that went out as an SMS link (xHTML) was delivered",
):
    """catalogue: MMS_MT N202. Not to be confused with N202 of SMS_MT."""

    sent_as: _SentAs
    status: Literal["Message Sent/Delivered", "Message Sent/Failed"]
    from_: PhoneNumber | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    aggregator_id: OpaqueId | None = None
    status_details: FreeText | None = None


class MmsLinkNotDelivered(
    Event,
    origin="MMS_MT",
    code="E202",
    meaning="an MMS that went out as an SMS link was not delivered",
):
    """catalogue: MMS_MT E202. Not to be confused with E202 of SMS_MT."""

    sent_as: _SentAs
    status: _SmsFailure
    from_: PhoneNumber | None = None
    to: PhoneNumber
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    aggregator_id: OpaqueId | None = None
    status_details: FreeText | None = None


# -- device discovery messages ------------------------------------------------------------------


class DiscoverySent(_Begun, origin="MMS_MT", code="N501", meaning="the device discovery message was sent"):
    """catalogue: MMS_MT N501."""


class DiscoveryDelivered(
    _Delivered, origin="MMS_MT", code="N502", meaning="the device discovery message was delivered"
):
    """catalogue: MMS_MT N502."""


class DiscoveryFailed(_Failed, origin="MMS_MT", code="E501", meaning="the device discovery message failed"):
    """catalogue: MMS_MT E501."""


class DiscoveryNotDelivered(
    _NotDelivered, origin="MMS_MT", code="E502", meaning="the device discovery message was not delivered"
):
    """catalogue: MMS_MT E502."""


# -- storing and encoding of content ------------------------------------------------------------
# The catalogue gives E002 and E012 (E003 and E013) one meaning. The names follow N013, whose second digit says that the
# sending was requested along with the storing.


class ContentStored(Event, origin="MMS_MT", code="N003", meaning="content was stored and encoded"):
    """catalogue: MMS_MT N003."""

    mms_id: OpaqueId


class ContentStoredForSending(
    Event,
    origin="MMS_MT",
    code="N013",
    meaning="content was stored and encoded, and its sending was triggered",
):
    """catalogue: MMS_MT N013."""

    mms_id: OpaqueId


class MobileVideoEncodingFailed(
    Event, origin="MMS_MT", code="E001", meaning="encoding of mobile video failed"
):
    """catalogue: MMS_MT E001."""

    mms_id: OpaqueId
    video_name: FreeText | None = None


class _AudioFailed(Event):
    mms_id: OpaqueId
    audio_name: FreeText | None = None
    video_name: FreeText | None = None


class AudioEncodingFailed(_AudioFailed, origin="MMS_MT", code="E002", meaning="encoding of MMS audio failed"):
    """catalogue: MMS_MT E002."""


class AudioEncodingForSendingFailed(
    _AudioFailed, origin="MMS_MT", code="E012", meaning="encoding of MMS audio failed"
):
    """catalogue: MMS_MT E012."""


class _VideoFailed(Event):
    mms_id: OpaqueId
    video_name: FreeText | None = None
    audio_name: FreeText | None = None


class VideoEncodingFailed(_VideoFailed, origin="MMS_MT", code="E003", meaning="encoding of MMS video failed"):
    """catalogue: MMS_MT E003."""


class VideoEncodingForSendingFailed(
    _VideoFailed, origin="MMS_MT", code="E013", meaning="encoding of MMS video failed"
):
    """catalogue: MMS_MT E013."""
