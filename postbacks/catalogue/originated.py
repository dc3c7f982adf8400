"""Mobile originated events: somebody wrote to us (catalogue: SMS/MMS MO)."""

from postbacks.catalogue.base import Event
from postbacks.catalogue.values import CarrierId, Content, FreeText, OpaqueId, PhoneNumber, Timestamp


class SmsReceived(Event, origin="SMS_MO", code="N211", meaning="an SMS was received"):
    """catalogue: SMS_MO N211. An SMS without words has an empty ``text``."""

    from_: PhoneNumber
    to: PhoneNumber
    text: FreeText
    received: Timestamp
    transaction_id: OpaqueId | None = None


class MmsReceived(Event, origin="MMS_MO", code="N401", meaning="an MMS was received"):
    """catalogue: MMS_MO N401. Each FILE of ``content`` is one picture, video, sound or text of the message."""

    from_: PhoneNumber
    to: PhoneNumber
    keyword: FreeText | None = None
    subject: FreeText | None = None
    tracking_id: OpaqueId
    spid: CarrierId
    timestamp: Timestamp
    content: Content
