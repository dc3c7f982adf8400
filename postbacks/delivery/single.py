"""One POST of one event, without queue and ledger: eager mode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postbacks.delivery.request import headers
from postbacks.delivery.transport import CurlAdapter, Transfer
from postbacks.settings import load
from postbacks.xml import render

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.delivery.outcomes import Outcome


def post_once(postback_id: str, event: Event, url: str) -> Outcome:
    """POST an event to a URL and wait for what comes of it."""
    adapter = CurlAdapter(load())
    try:
        lines = headers(postback_id, 1, int(time.time() * 1000), 1)
        return adapter.post(Transfer(url, render(event), lines))
    finally:
        adapter.close()
