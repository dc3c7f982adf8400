"""Realistic events of every row of the catalogue, for ``postbacks demo`` and ``example`` and for tests.

They are built from the event types: a new row needs a line here only for a tag that no other row has.
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
    """Return a realistic event of a type, as a mapping."""
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
    """Return an event of every row, each with every tag that the row has."""
    from postbacks.catalogue import EVENTS

    return {row: example(event) for row, event in EVENTS.items()}
