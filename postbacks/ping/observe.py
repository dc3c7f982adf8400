"""Test POST of ``postbacks ping``: its event, its headers and limits."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Final

from postbacks.catalogue.general import Subscribed
from postbacks.delivery.request import headers
from postbacks.settings import Settings
from postbacks.transport.probe import Probe, observe_post
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

#: Header by which a receiver can tell a test.
TEST_HEADER: Final = "Postback-Test: 1"
#: Limits of a test POST, in multiples of the account's.
RELAXED_FACTOR: Final = 3


def test_event() -> Subscribed:
    """Return the event of a test without an event of its own; it uses a reserved test phone number."""
    return Subscribed(mobile="15555550100", campaign_id="0", campaign_title="Test postback", source="API")


def observe(url: str, body: bytes, limits: Profile, settings: Settings, now_ms: int) -> Probe:
    """Make one test POST and return what it has shown.

    Args:
        url: URL of the POST.
        body: the document.
        limits: the account's profile.
        settings: the process's settings.
        now_ms: time for the signature.
    """
    relaxed_limits = replace(
        limits,
        connect_timeout_s=limits.connect_timeout_s * RELAXED_FACTOR,
        answer_timeout_s=limits.answer_timeout_s * RELAXED_FACTOR,
    )
    probe = Probe(url, f"ping-{uuid.uuid4()}", limits, relaxed_limits)
    lines = headers(
        limits, body, postback_id=probe.postback_id, number=1, created_ms=now_ms, sequence=0, at_ms=now_ms
    )
    lines.append(TEST_HEADER)
    observe_post(Transfer(url, body, lines, relaxed_limits), probe, settings)
    return probe
