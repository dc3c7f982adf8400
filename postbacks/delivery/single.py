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
    from postbacks.accounts import Account
    from postbacks.catalogue import Event
    from postbacks.delivery.outcomes import Outcome


def post_once(postback_id: str, event: Event, url: str, account: Account | None = None) -> Outcome:
    """POST an event to a URL, as the account's are made, and wait for what comes of it."""
    body, now_ms = render(event), int(time.time() * 1000)
    profile = Profile.default(load()) if account is None else Profile.of(account, load(), now_ms)
    adapter = CurlAdapter(load())
    try:
        lines = headers(postback_id, 1, now_ms, 1, now_ms, body, profile)
        return adapter.post(Transfer(url, body, lines, profile))
    finally:
        adapter.close()
