"""One realistic event of every row of the catalogue: for ``postbacks demo`` and ``example``, and for tests.

Made from the event types, so a new row needs nothing here unless it brings a tag that no row had before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postbacks.catalogue import Event

_VALUES: dict[str, Any] = {
    "FROM": "15552312102",
    "FROM_MASK": "AT&T Alerts",
    "TO": "86717",
    "MOBILE": "15552312102",
    "SHORTCODE": "86717",
    "EMAIL": "jane.doe@example.com",
    "CAMPAIGNID": "17041",
    "SUBID": "a-81",
    "TRACKINGID": "MMS_b1b5c7a8-0d0c-11e3",
    "TRANSACTIONID": "9812376",
    "AGGREGATORID": "2119",
    "MMSID": "35674",
    "SPID": "0032",
    "TIMESTAMP": "2013-11-05T05:41:08-05:00",
    "RECEIVED": "2013-11-05T05:41:08-05",
    "TEXT": "STOP ✋ please & thank you",
    "KEYWORD": "PHOTO",
    "SUBJECT": "From the beach",
    "STATUSDETAILS": "Delivered to handset <ok>",
    "CAMPAIGNTITLE": "Winter sale",
    "BRANDNAME": "Müller & Söhne",
    "HANDSET": "Nokia 3310",
    "VIDEONAME": "intro.mp4",
    "AUDIONAME": "jingle.amr",
    "REFERENCEDBY": "MOBILE",
    "REFERENCEVALUE": "15552312102",
    "CUSTOMPASSID": "loyalty-7",
    "PASSDATAID": "550817",
    "SERIALNUMBER": "A4-0017",
    "CONTENT": {"FILE": ["https://cdn.example/1.jpg", "https://cdn.example/2.smil?x=1&y=2"]},
}


def example(event: type[Event], *, required_only: bool = False) -> dict[str, Any]:
    """Return the mapping of one realistic event of this type."""
    return {
        "ORIGIN": event.origin,
        "CODE": event.code,
        **{
            tag.name: tag.form.values[0] if tag.form.values else _VALUES[tag.name]
            for tag in event.tags
            if tag.required or not required_only
        },
    }


def examples() -> dict[tuple[str, str], dict[str, Any]]:
    """Return one mapping for every row, with every tag that the row has."""
    from postbacks.catalogue import EVENTS

    return {row: example(event) for row, event in EVENTS.items()}
