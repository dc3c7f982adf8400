"""Kinds of the catalogue's tags: what of each is personal, and so how it is shown.

==============  ====================================================================================================
``OPEN``        says nothing of a person: a time, a state, an id of a message, a campaign or a pass; shown as it is
``NUMBER``      a phone number; one of up to six digits is a short code, which is nobody's
``EMAIL``       an e-mail address
``TEXT``        words of a person: nothing of them is shown but their length
``REFERENCE``   names a person in a way that the account has chosen: a number, an address, or any text
``WORDS``       words of an account or a carrier, or a name of a thing; shown, with numbers and addresses in them masked
``FILE``        URL that anybody may fetch the picture of a message from; its host alone is shown
==============  ====================================================================================================
"""

from __future__ import annotations

from typing import Final

OPEN: Final = "open"
NUMBER: Final = "number"
EMAIL: Final = "email"
TEXT: Final = "text"
REFERENCE: Final = "reference"
WORDS: Final = "words"
FILE: Final = "file"

#: Tag -> its kind. A test holds it to the catalogue.
KIND_OF: Final = {
    "ORIGIN": OPEN,
    "CODE": OPEN,
    "FROM": NUMBER,
    "TO": NUMBER,
    "MOBILE": NUMBER,
    "SHORTCODE": NUMBER,
    "EMAIL": EMAIL,
    "TEXT": TEXT,
    "SUBJECT": TEXT,
    # The word that a message began with: a part of its text.
    "KEYWORD": TEXT,
    "REFERENCEVALUE": REFERENCE,
    # An alphanumeric sender; some senders put a number there.
    "FROM_MASK": WORDS,
    "REFERENCEDBY": WORDS,
    "STATUSDETAILS": WORDS,
    "CAMPAIGNTITLE": WORDS,
    "BRANDNAME": WORDS,
    "HANDSET": WORDS,
    "VIDEONAME": WORDS,
    "AUDIONAME": WORDS,
    "FILE": FILE,
    "STATUS": OPEN,
    "STATUSCODE": OPEN,
    "SOURCE": OPEN,
    "SENTAS": OPEN,
    "TIMESTAMP": OPEN,
    "RECEIVED": OPEN,
    "SPID": OPEN,
    "AGGREGATORID": OPEN,
    "CAMPAIGNID": OPEN,
    "CUSTOMPASSID": OPEN,
    "MMSID": OPEN,
    "PASSDATAID": OPEN,
    "SERIALNUMBER": OPEN,
    "SUBID": OPEN,
    "TRACKINGID": OPEN,
    "TRANSACTIONID": OPEN,
}

#: Origin -> the tag that names the person whom its events are about. A test holds it to the catalogue.
_PERSON_OF: Final = {
    "SUB": "MOBILE",
    "EMAIL_SUB": "EMAIL",
    "SMS_MO": "FROM",
    "MMS_MO": "FROM",
    "SMS_MT": "TO",
    "MMS_MT": "TO",
    "GENERATE_PASS": "REFERENCEVALUE",
}


def tag_of_person(origin: str) -> str:
    """Return the tag that names the person whom events of an origin are about; empty for one that this version does not know."""
    return _PERSON_OF.get(origin, "")


def kind_of(tag: str) -> str:
    """Return the kind of a tag; one that this version does not know is taken for words of a person."""
    return KIND_OF.get(tag, TEXT)
