"""Transfers as they are when they have ended, for whoever judges them."""

from __future__ import annotations

from postbacks.transport.classify import classify
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer


def transfer(**seen) -> Transfer:
    """A transfer of which this has been seen."""
    return Transfer("http://a.example/", b"<POSTBACK/>", [], Profile(10, 10), **seen)


def judged(code: int = 0, message: str = "", **seen) -> Outcome:
    """The verdict on a transfer that has ended."""
    return classify(transfer(**seen), code, message)
