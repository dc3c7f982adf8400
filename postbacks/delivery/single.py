"""One POST of one event, without queue and ledger: eager mode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postbacks.delivery.profile import Profile
from postbacks.delivery.request import headers
from postbacks.delivery.transfer import Transfer
from postbacks.delivery.transport import CurlAdapter
from postbacks.settings import load
from postbacks.xml import render

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.delivery.outcomes import Outcome


def post_once(postback_id: str, event: Event, url: str) -> Outcome:
    """POST an event to a URL and wait for what comes of it."""
    adapter = CurlAdapter(load())
    try:
        profile, body, now_ms = Profile.default(load()), render(event), int(time.time() * 1000)
        lines = headers(postback_id, 1, now_ms, 1, now_ms, body, profile)
        return adapter.post(Transfer(url, body, lines, profile))
    finally:
        adapter.close()
