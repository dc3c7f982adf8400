"""Events for tests: a small one of each group, a long one, and the examples of every row."""

from __future__ import annotations

from typing import Any

from postbacks.catalogue import EVENTS
from postbacks.cli.examples import example as example
from postbacks.cli.examples import examples as examples

#: Event of the general group, for tests to which any event will do.
EVENT = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
MO = {
    "ORIGIN": "SMS_MO", "CODE": "N211", "FROM": "15552312102", "TO": "86717", "TEXT": "STOP",
    "RECEIVED": "2013-11-05T05:41:08-05:00",
}  # fmt: skip
MT = {
    "ORIGIN": "SMS_MT", "CODE": "N201", "STATUS": "Message Sent", "TO": "15552312102", "TRACKINGID": "1",
    "SPID": "0007", "TIMESTAMP": "2013-11-05T05:41:08-05:00",
}  # fmt: skip
#: MMS without content, to which a test adds some.
MMS = {
    "ORIGIN": "MMS_MO", "CODE": "N401", "FROM": "15552312102", "TO": "86717", "TRACKINGID": "1", "SPID": "0007",
    "TIMESTAMP": "2013-11-05T05:41:08-05:00",
}  # fmt: skip
#: Event with a long text, for filling memory and disks.
LONG = MO | {"TEXT": "x" * 8000, "RECEIVED": "2013-11-05T05:41:08-05", "TRANSACTIONID": "9812376"}


def minimal_examples() -> dict[tuple[str, str], dict[str, Any]]:
    """Return one mapping for every row, with its required tags only."""
    return {row: example(event, required_only=True) for row, event in EVENTS.items()}
