"""The way to Redis or Valkey: clients from the broker URL, its errors as sentences, its fitness."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from postbacks import sentinel
from postbacks.errors import BrokerUnfit, BrokerUnreachable
from postbacks.settings import load

#: LPOP and RPOP with a count came with 6.2, ZADD's and HRANDFIELD's forms we use with 7.0.
MIN_REDIS: Final = (7, 0)
MIN_VALKEY: Final = (8, 0)


def redis_url(url: str) -> str:
    """The broker URL as redis-py wants it (kombu writes a socket as ``redis+socket://``)."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if "virtual_host" in query:
            query["db"] = query.pop("virtual_host")
        return _socket_url("unix", parts, query)
    return url


def kombu_url(url: str) -> str:
    """The broker URL as kombu wants it (redis-py writes a socket as ``unix://``)."""
    if sentinel.is_sentinel(url):
        return sentinel.kombu_url(url)
    parts = urlsplit(url)
    if parts.scheme == "unix":
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if "db" in query:
            query["virtual_host"] = query.pop("db")
        return _socket_url("redis+socket", parts, query)
    return url


def _socket_url(scheme: str, parts: SplitResult, query: dict[str, str]) -> str:
    # urlunsplit leaves the // out where it does not know the scheme
    return f"{scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{urlencode(query)}"


def redacted(url: str) -> str:
    """A broker URL without its password, for sentences and logs."""
    head, _, query = url.partition("?")
    scheme, mark, rest = head.partition("://")
    user_info, at, host = rest.rpartition("@")  # a password may hold an @ or a slash
    if at:
        head = f"{scheme}{mark}{user_info.partition(':')[0]}:***@{host}"
    query = re.sub(r"(?i)(\w*password|\w*username)=[^&]*", r"\1=***", query)
    return f"{head}?{query}" if query else head


@lru_cache(maxsize=8)
def client_for(url: str, timeout_s: float) -> redis.Redis:
    """One client a URL and process; its connections are pooled and safe to share between threads."""
    with broker_errors(url):
        try:
            if sentinel.is_sentinel(url):
                return sentinel.client(url, timeout_s)
            target = redis_url(url)
            # A Unix socket has no other machine that could fall silent, and redis-py takes no keep-alive for it.
            keepalive = {} if target.startswith("unix:") else {"socket_keepalive": True}
            return redis.Redis.from_url(
                target,
                **keepalive,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                # A script must not be sent twice behind our back; who calls decides.
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError) as error:
            raise BrokerUnreachable(
                f"POSTBACKS_BROKER_URL={redacted(url)!r} is no broker URL ({error}); "
                "write redis://host:6379/0, rediss://…, unix:///path/to/socket?db=0 or sentinel://…/NAME."
            ) from None


def client() -> redis.Redis:
    """The client of this process's settings."""
    settings = load()
    return client_for(settings.broker_url, settings.broker_timeout_s)


@contextmanager
def broker_errors(url: str | None = None) -> Iterator[None]:
    """Turn what redis-py and kombu raise into one sentence.

    Raises:
        BrokerUnreachable: it does not answer.
        BrokerUnfit: it answers with an error that no retry cures.
    """
    try:
        yield
    except _broker_faults() as error:
        raise _explained(error, redacted(url or load().broker_url)) from error


def _broker_faults() -> tuple[type[Exception], ...]:
    """Return what a broker's client may raise; kombu's where kombu is loaded, since a health check does without."""
    kombu = sys.modules.get("kombu.exceptions")
    return (redis.RedisError, OSError, *([kombu.OperationalError] if kombu else []))


#: Words of the server and what they mean. redis-py takes the codes that it knows (READONLY) off the text.
_RESPONSES: Final = (
    (
        "previous master is now a slave",
        BrokerUnreachable,
        "is changing its primary (a failover); try again in a moment",
    ),
    (
        "NOREPLICAS",
        BrokerUnfit,
        "has fewer replicas in step than its min-replicas-to-write wants; see its replicas",
    ),
    (
        "enough good replicas",
        BrokerUnfit,
        "has fewer replicas in step than its min-replicas-to-write wants; see its replicas",
    ),
    (
        "Link with MASTER is down",
        BrokerUnfit,
        "is a replica that has lost its primary; point POSTBACKS_BROKER_URL at the primary",
    ),
    (
        "read only replica",
        BrokerUnfit,
        "is read-only (a replica?); point POSTBACKS_BROKER_URL at the primary",
    ),
    (
        "> 'maxmemory'",
        BrokerUnfit,
        "is full (maxmemory reached); give it more memory",
    ),
    ("MISCONF", BrokerUnfit, "cannot write to its disk; see its log"),
    ("loading the dataset", BrokerUnreachable, "is still loading its data; try again in a moment"),
    ("invalid username-password", BrokerUnfit, "refused the password in POSTBACKS_BROKER_URL"),
    (
        "Authentication required",
        BrokerUnfit,
        "wants a password; put it into POSTBACKS_BROKER_URL (redis://:password@host)",
    ),
    (
        "already authenticated",
        BrokerUnfit,
        "wants a password; put it into POSTBACKS_BROKER_URL (redis://:password@host)",
    ),
    ("no permissions", BrokerUnfit, "does not allow this user what postbacks needs; see its ACL"),
    ("DB index", BrokerUnfit, "has no database of that number; correct POSTBACKS_BROKER_URL"),
    ("WRONGTYPE", BrokerUnfit, "holds other data under a key of postbacks; use a database of its own"),
    ("unknown command", BrokerUnfit, "is too old: Redis 7.0 or Valkey 8.0 is needed"),
)


def _explained(error: Exception, url: str) -> BrokerUnfit | BrokerUnreachable:
    text = str(error)
    if isinstance(error, MasterNotFoundError):
        return BrokerUnreachable(f"The broker at {url} has no primary to talk to: {text.rstrip('.')}.")
    for mark, kind, advice in _RESPONSES:
        if mark in text:
            return kind(f"The broker at {url} {advice}.")
    if isinstance(error, redis.ResponseError):
        return BrokerUnfit(f"The broker at {url} answered with an error: {text.rstrip('.')}.")
    return BrokerUnreachable(
        f"The broker at {url} does not answer ({text.rstrip('.') or type(error).__name__}); "
        "start it (`postbacks up` starts one) or correct POSTBACKS_BROKER_URL."
    )


def check(connection: redis.Redis | None = None) -> list[str]:
    """Check that the broker may be trusted with postbacks.

    Returns:
        Warnings, one sentence each; empty when all is well.

    Raises:
        BrokerUnreachable: it does not answer.
        BrokerUnfit: it is read-only, evicts keys, or is too old.
    """
    url = redacted(load().broker_url)
    with broker_errors():
        info: dict[str, Any] = (connection or client()).info("everything")
    if info.get("role") in {"slave", "replica"}:
        raise BrokerUnfit(
            f"The broker at {url} is a replica and read-only; point POSTBACKS_BROKER_URL at the primary."
        )
    if info.get("cluster_enabled"):
        raise BrokerUnfit(f"The broker at {url} is a cluster node; Celery 5.7 cannot use Redis Cluster.")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BrokerUnfit(
            f"The broker at {url} evicts keys when it is full (maxmemory-policy {policy}), "
            "which would lose postbacks; set maxmemory-policy noeviction."
        )
    name = "valkey_version" if "valkey_version" in info else "redis_version"
    version = str(info.get(name, "0"))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < (MIN_VALKEY if name == "valkey_version" else MIN_REDIS):
        raise BrokerUnfit(f"The broker at {url} is version {version}; Redis 7.0 or Valkey 8.0 is needed.")
    warnings = []
    if not info.get("aof_enabled") and not info.get("loading"):
        lost = "has no append-only file: what it holds is lost when it dies"
        warnings.append(f"The broker at {url} {lost}. Set appendonly yes and appendfsync always.")
    wanted, replicas = load().wait_replicas, int(info.get("connected_slaves") or 0)
    if replicas < wanted:
        warnings.append(
            f"The broker at {url} has {replicas} replica{'s' * (replicas != 1)} and POSTBACKS_WAIT_REPLICAS is "
            f"{wanted}: no postback is accepted until there are as many."
        )
    return warnings
