"""Redis Sentinel: one URL for us, redis-py and kombu, and finding the primary in bounded time.

::

    sentinel://[user:password@]host1:26379,host2,host3/NAME?db=0&sentinel_password=…

``NAME`` is the primary's name in ``sentinel monitor``; user and password are the data servers';
``sentinel_username`` and ``sentinel_password`` are for the sentinels themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from postbacks.broker.url import can_be_looked_up, decoded, read_options

#: Where a sentinel listens by default.
PORT: Final = 26379
FORM: Final = "sentinel://[:password@]host1:26379,host2:26379,host3:26379/NAME_OF_THE_PRIMARY?db=0"
#: Share of a command's time-out for asking all sentinels together; the rest is for the primary's connection and answer.
_SHARE: Final = 0.5
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?", re.ASCII)
_OPTIONS: Final = ("db", "sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A ``sentinel://`` URL taken apart.

    Attributes:
        hosts: host and port of each sentinel.
        name: the primary's name there.
        db: number of the database.
        login: ``username`` and ``password`` of the data servers, as far as given.
        sentinel_login: the same of the sentinels.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    db: int
    login: dict[str, str]
    sentinel_login: dict[str, str]


def is_sentinel(url: str) -> bool:
    """Return True if the URL uses the ``sentinel://`` scheme."""
    return url.startswith("sentinel://")


def parse(url: str) -> SentinelUrl:
    """Take a ``sentinel://`` URL apart.

    Raises:
        ValueError: it cannot be one; the sentence holds no password.
    """
    head, _, query = url.removeprefix("sentinel://").partition("?")
    user_info, _, rest = head.rpartition("@")
    names, _, name = rest.partition("/")
    hosts = []
    if "://" in head:
        raise ValueError(f"it has several URLs, as kombu writes it; write {FORM}")
    for number, text in enumerate(names.split(","), 1):
        parts = _HOST.fullmatch(text.strip())
        port = int(parts[2] or PORT) if parts else 0
        if parts is None or not 1 <= port <= 65535 or not (parts[1][0] == "[" or can_be_looked_up(parts[1])):
            # Not shown: where the @ was forgotten it is a password.
            raise ValueError(f"sentinel {number} is no host:port; write {FORM}")
        hosts.append((parts[1].strip("[]"), port))
    if not name or "/" in name:
        raise ValueError(f"the name of the primary is missing behind the hosts; write {FORM}")
    options = read_options(query, _OPTIONS)
    if not re.fullmatch(r"\d{1,9}", db := options.get("db", "0"), re.ASCII):
        raise ValueError("db is no number of a database")
    user, _, password = user_info.partition(":")
    return SentinelUrl(
        hosts=tuple(hosts),
        name=decoded(name),
        db=int(db),
        login=_login(decoded(user), decoded(password)),
        sentinel_login=_login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
    )


def _login(username: str, password: str) -> dict[str, str]:
    return {key: value for key, value in (("username", username), ("password", password)) if value}


class _Finder(Sentinel):
    """Asks the sentinels who the primary is.

    Mirrors ``redis.sentinel.Sentinel.discover_master``; differs in saying which of its three failures it
    is, and in moving the sentinel that knew to the front by a new list: two threads that swap entries of one
    list at the same time may lose a sentinel.
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        silent, strangers = [], []
        sentinels = self.sentinels
        for sentinel in sentinels:
            try:
                masters: Any = sentinel.sentinel_masters()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                silent.append(f"{_address(sentinel)}: {_short(error)}")
                continue
            except redis.ResponseError as error:
                silent.append(f"{_address(sentinel)}: is it a sentinel? {_short(error)}")
                continue
            state = masters.get(service_name)
            if state is None:
                strangers.append(sorted(masters))
            elif self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                self.sentinels = [sentinel, *(other for other in sentinels if other is not sentinel)]
                return state["ip"], state["port"]
        if len(silent) == len(sentinels):
            raise MasterNotFoundError(f"no sentinel answers ({'; '.join(silent)})")
        if strangers and len(strangers) + len(silent) == len(sentinels):
            names_there = ", ".join(sorted({name for names in strangers for name in names})) or "none"
            raise MasterNotFoundError(
                f"the sentinels know no primary called {service_name!r} (they know: {names_there})"
            )
        raise MasterNotFoundError(
            f"the sentinels have no primary {service_name!r} at the moment; one is elected within seconds, "
            "if they are a majority and a replica is left"
        )


def _address(client: Any) -> str:
    return "{host}:{port}".format_map(client.connection_pool.connection_kwargs)


def _short(error: Exception) -> str:
    return str(error).rstrip(".")[:120] or type(error).__name__


def _sentinel_options(url: SentinelUrl, timeout_s: float) -> dict[str, Any]:
    """Return the options for asking a sentinel: once, and so briefly that all of them fit into a share of the time-out.

    redis-py would try each one three times more with pauses of seconds.
    """
    each_s = timeout_s * _SHARE / len(url.hosts)
    return {
        **url.sentinel_login,
        "socket_timeout": each_s,
        "socket_connect_timeout": each_s,
        "retry": Retry(NoBackoff(), 0),
    }


def client(text: str, timeout_s: float) -> redis.Redis:
    """Return a client of whichever server is the primary; each new connection asks the sentinels.

    Raises:
        ValueError: ``text`` is no such URL.
    """
    url = parse(text)
    finder = _Finder(url.hosts, sentinel_kwargs=_sentinel_options(url, timeout_s))  # type: ignore[no-untyped-call]
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        url.name,
        finder,
        **url.login,
        db=url.db,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis(connection_pool=pool)


def kombu_url(text: str) -> str:
    """Write the URL as kombu reads it: one a sentinel, each with password and database."""
    url = parse(text)
    login = ":".join(quote(url.login.get(key, ""), safe="") for key in ("username", "password"))
    hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in url.hosts)
    return ";".join(f"sentinel://{login + '@' if url.login else ''}{host}/{url.db}" for host in hosts)


def kombu_options(text: str, timeout_s: float) -> dict[str, Any]:
    """Return the options of kombu's Sentinel transport besides the URL."""
    url = parse(text)
    return {"master_name": url.name, "sentinel_kwargs": _sentinel_options(url, timeout_s)}


def troubles(text: str, timeout_s: float) -> dict[str, str]:
    """Ask every sentinel whether it could have another primary elected; return address and trouble of those that cannot."""
    url = parse(text)
    by_address = {}
    for host, port in url.hosts:
        sentinel = redis.Redis(host, port, **_sentinel_options(url, timeout_s))
        try:
            sentinel.execute_command("SENTINEL", "CKQUORUM", url.name)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            by_address[f"{host}:{port}"] = f"{host}:{port}: {_short(error)}"
        finally:
            sentinel.close()
    return by_address
