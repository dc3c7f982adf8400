"""Ask the broker whether it takes what ``.delay()`` writes, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import NoPermissionError

from postbacks import keys
from postbacks.broker.client import FULL, broker_errors, too_few_replicas
from postbacks.errors import BrokerUnfit
from postbacks.settings import load

if TYPE_CHECKING:
    import redis


def refusal(client: redis.Redis) -> str:
    """Say why the broker would refuse a postback, and what to do; empty where it would take it.

    LPUSHX is refused as LPUSH is: by a full broker, a replica, one whose disk fails or whose replicas are too few. On a
    key that is not there it changes nothing. So this is exact where INFO has to be interpreted.

    Raises:
        BrokerError: the broker cannot be asked, or this user may not ask.
    """
    try:
        with broker_errors():
            client.lpushx(keys.PROBE, "")
            info = client.info("replication") if load().wait_replicas else {}
    except BrokerUnfit as error:
        if isinstance(error.__cause__, NoPermissionError):
            raise
        return f"{error} No postback is accepted meanwhile."
    return too_few_replicas(info)


def takes_signs(refused: str) -> bool:
    """Tell whether signs of life can be given, though a postback would be refused: a full broker takes them (``sign_of_life.lua``)."""
    return not refused or FULL in refused
