"""Fitness of the broker: the rules of what makes one fit for postbacks, for the worker's start, commands and the doctor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoPermissionError

from postbacks import keys
from postbacks.broker.client import client
from postbacks.broker.errors import FULL, broker_errors
from postbacks.broker.url import redacted_broker_url
from postbacks.errors import BrokerUnfit
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

#: LPOP and RPOP with a count came with 6.2, ZADD's and HRANDFIELD's forms we use with 7.0.
MIN_REDIS: Final = (7, 0)
MIN_VALKEY: Final = (8, 0)
#: Settings with which the broker keeps a record as a listpack, which takes half the memory of a hash table. A value may be
#: a document; a record has up to some 30 fields. Larger hashes (claims, accounts) are searched faster as tables.
LISTPACK_SETTINGS: Final = {"hash-max-listpack-value": 4096, "hash-max-listpack-entries": 64}
#: Values of these settings that do as well, measured.
LISTPACK_RANGES: Final = {
    "hash-max-listpack-value": range(4096, 1 << 31),
    "hash-max-listpack-entries": range(32, 129),
}


# -- one rule each, on what INFO says -----------------------------------------------------------------


def version_of(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return the server's name and version; an empty version where it does not say."""
    if "valkey_version" in info:
        return "Valkey", str(info["valkey_version"])
    return "Redis", str(info.get("redis_version", ""))


def is_too_old(info: Mapping[str, Any]) -> bool:
    """Compare the server's version with the first that can do what the scripts need."""
    name, version = version_of(info)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version or "0")[:2])
    return numbers < (MIN_VALKEY if name == "Valkey" else MIN_REDIS)


def is_replica(info: Mapping[str, Any]) -> bool:
    """Tell whether the server is a replica, which takes no writes."""
    return info.get("role") in {"slave", "replica"}


def is_cluster_node(info: Mapping[str, Any]) -> bool:
    """Tell whether the server is a node of a cluster, which Celery 5.7 cannot use."""
    return bool(info.get("cluster_enabled"))


def evicting_policy(info: Mapping[str, Any]) -> str:
    """Return the policy by which a full server throws keys away; empty where it does not."""
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return "" if policy == "noeviction" else policy


def has_append_only_file(info: Mapping[str, Any]) -> bool:
    """Tell whether what the server holds survives its death."""
    return bool(info.get("aof_enabled"))


def replicas_of(info: Mapping[str, Any]) -> int:
    """Return how many replicas are connected."""
    return int(info.get("connected_slaves") or 0)


# -- the judgement ------------------------------------------------------------------------------------


def check(connection: redis.Redis | None = None) -> list[str]:
    """Check that the broker may be trusted with postbacks.

    Returns:
        Warnings, one sentence each; empty when all is well.

    Raises:
        BrokerUnreachable: it does not answer.
        BrokerUnfit: it is read-only, evicts keys, or is too old.
    """
    url = redacted_broker_url(load().broker_url)
    with broker_errors():
        info: dict[str, Any] = (connection or client()).info("everything")
    if is_replica(info):
        raise BrokerUnfit(
            f"The broker at {url} is a replica and read-only; point POSTBACKS_BROKER_URL at the primary."
        )
    if is_cluster_node(info):
        raise BrokerUnfit(f"The broker at {url} is a cluster node; Celery 5.7 cannot use Redis Cluster.")
    if policy := evicting_policy(info):
        raise BrokerUnfit(
            f"The broker at {url} evicts keys when it is full (maxmemory-policy {policy}), "
            "which would lose postbacks; set maxmemory-policy noeviction."
        )
    if is_too_old(info):
        _, version = version_of(info)
        raise BrokerUnfit(
            f"The broker at {url} is version {version or '0'}; Redis 7.0 or Valkey 8.0 is needed."
        )
    warnings = []
    if not has_append_only_file(info) and not info.get("loading"):
        lost = "has no append-only file: what it holds is lost when it dies"
        warnings.append(f"The broker at {url} {lost}. Set appendonly yes and appendfsync always.")
    if sentence := _too_few_replicas(info):
        warnings.append(sentence)
    return warnings


def why_refused(client: redis.Redis) -> str:
    """Say why the broker would refuse a postback, and what to do; empty where it would take it. Nothing is written.

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
    return _too_few_replicas(info)


def takes_signs(refusal: str) -> bool:
    """Tell whether a broker that refuses postbacks so takes signs of life: a full one does (``sign_of_life.lua``)."""
    return not refusal or FULL in refusal


def _too_few_replicas(info: Mapping[str, Any]) -> str:
    """Say that there are fewer replicas than every postback has to reach; empty where there are enough."""
    wanted, replicas = load().wait_replicas, replicas_of(info)
    if replicas >= wanted:
        return ""
    return (
        f"The broker at {redacted_broker_url(load().broker_url)} has {replicas} replica{'s' * (replicas != 1)} and "
        f"POSTBACKS_WAIT_REPLICAS is {wanted}: no postback is accepted until there are as many."
    )
