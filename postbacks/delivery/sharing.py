"""Who shares a connect time-out: one connection was tried for all that were held for its endpoint."""

from __future__ import annotations

from postbacks.delivery.claims import Claimed, Held, HeldPostbacks
from postbacks.delivery.profile import Profiles
from postbacks.delivery.transfer import Transfer
from postbacks.errors import PostbacksError


def sharers(held: HeldPostbacks, profiles: Profiles, transfer: Transfer, claimed: Claimed) -> list[Held]:
    """Take the held postbacks for which this connection stood.

    Not those of an account that would wait longer for its connection, or make it with another TLS.
    """
    try:
        known = profiles.look_up(held.accounts_of(claimed.endpoint), claimed.at_ms)
    except PostbacksError:
        return []
    tried = transfer.profile
    sharing = {
        name
        for name, profile in known.items()
        if profile.connect_timeout_s <= tried.connect_timeout_s and profile.tls == tried.tls
    }
    return held.take_endpoint(claimed.endpoint, transfer.started_s, sharing)
