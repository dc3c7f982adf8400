"""The broker URL: read once, then written as redis-py's arguments and as kombu's URL.

redis-py and kombu read the same text differently: kombu fails at ``?db=5``, and takes ``rediss://`` without
options for TLS that verifies nothing. So neither of them sees the operator's text. Sentinel's URL is read by
``broker/sentinel.py``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

FORM: Final = "write redis://host:6379/0, rediss://…, unix:///path/to/socket?db=0 or sentinel://…/NAME"

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "unix": "unix", "redis+socket": "unix"}
_PORT: Final = 6379
_LOCATION: Final = re.compile(
    r"(?:(?P<name>[\w.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])?(?::(?P<port>\d{0,5}))?", re.ASCII
)
#: Characters of a name and of a part of it (RFC 1035 2.3.4).
_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63
_CLIENT_NAME: Final = re.compile(r"[!-~]+")  # what CLIENT SETNAME takes
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: Options of every URL.
OPTIONS: Final = ("db", "virtual_host", "username", "password", "client_name")
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: Options of ``rediss://`` besides.
TLS_OPTIONS: Final = ("ssl_cert_reqs", "ssl_check_hostname", *_FILES)
_CERT_REQS: Final = {
    word: plain
    for plain in ("none", "optional", "required")
    for word in (plain, f"cert_{plain}")  # as redis-py and as Celery's documents write it
}
_ENCODE: Final = (
    "encode what is no letter or digit in a user, password or option (%40 for @, %2F for /, %23 for #, %3B for ;); "
    "several servers are named with sentinel://"
)
_SWITCH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_TIMEOUT: Final = "POSTBACKS_BROKER_TIMEOUT_S sets it"
#: Options of redis-py or kombu that are decided elsewhere, and where.
_ELSEWHERE: Final = {
    "socket_timeout": _TIMEOUT,
    "socket_connect_timeout": _TIMEOUT,
    "timeout": _TIMEOUT,
    "health_check_interval": _TIMEOUT,
    "socket_keepalive": "it is always on",
    "retry_on_timeout": "a command must not be sent twice unseen",
    "retry_on_error": "a command must not be sent twice unseen",
    "max_connections": "connections are as many as there are threads that ask",
    "protocol": "kombu has no such option",
}


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A broker URL taken apart.

    Attributes:
        scheme: ``redis``, ``rediss`` or ``unix``.
        host: name or address; empty with ``unix``.
        port: 0 with ``unix``.
        path: of the socket with ``unix``, else empty.
        db: number of the database.
        login: ``username`` and ``password``, as far as they are named.
        client_name: shown by ``CLIENT LIST``; empty for none.
        tls: redis-py's ``ssl_…`` arguments; empty without TLS.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    login: dict[str, str] = field(default_factory=dict)
    client_name: str = ""
    tls: dict[str, Any] = field(default_factory=dict)

    def redis_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of ``redis.Redis`` that say where the broker is."""
        arguments: dict[str, Any] = {"db": self.db, **self.login}
        if self.client_name:
            arguments["client_name"] = self.client_name
        if self.scheme == "unix":
            return arguments | {"unix_socket_path": self.path}
        # A Unix socket has no other machine that could fall silent, and redis-py takes no keep-alive for it.
        arguments |= {"host": self.host, "port": self.port, "socket_keepalive": True}
        return arguments | {"ssl": True, **self.tls} if self.tls else arguments

    def kombu_url(self) -> str:
        """Write the URL as kombu reads it; its options that are no part of a URL there are ``kombu_options``."""
        login = ":".join(quote(self.login.get(key, ""), safe="") for key in ("username", "password"))
        at = f"{login}@" if self.login else ""
        if self.scheme == "unix":
            return f"redis+socket://{at}{quote(self.path)}?virtual_host={self.db}"
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else self.host
        options = {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in self.tls.items()
        }
        return f"{self.scheme}://{at}{host}:{self.port}/{self.db}{'?' if options else ''}{urlencode(options)}"

    def kombu_options(self) -> dict[str, Any]:
        """Return what belongs into kombu's transport options."""
        return {"client_name": self.client_name} if self.client_name else {}


def parse(text: str) -> BrokerUrl:
    """Take a broker URL apart.

    Raises:
        ValueError: it cannot be one; the sentence holds no password.
    """
    scheme = _SCHEMES.get(text.partition("://")[0].lower())
    if scheme is None:
        raise ValueError(f"it is no URL of a broker; {FORM}")
    try:
        parts = urlsplit(text)
    except ValueError:  # its words may hold the password
        raise ValueError(_ENCODE) from None
    if re.search(r"[\s\x00-\x1f\x7f;#]", text) or "@" in parts.query or "@" in parts.path:
        # Most likely a part of a password, so it is not shown.
        raise ValueError(_ENCODE)
    options = read_options(parts.query, (*OPTIONS, *(TLS_OPTIONS if scheme == "rediss" else ())))
    if not _CLIENT_NAME.fullmatch(options.get("client_name", "x")):
        raise ValueError("client_name is made of printable ASCII characters and no space")
    user_info, _, location = parts.netloc.rpartition("@")
    server: dict[str, Any]
    if scheme == "unix":
        if location or not parts.path.strip("/") or "%00" in parts.path:
            raise ValueError("a socket's URL has three slashes and no host: unix:///path/to/socket?db=0")
        server = {"path": decoded(parts.path)}
        path_db = ""
    else:
        server = _location(location)
        path_db = parts.path.removeprefix("/")
    return BrokerUrl(
        scheme=scheme,
        **server,
        db=_database(path_db, options),
        login=_login(user_info, options),
        client_name=options.get("client_name", ""),
        tls=_tls(options) if scheme == "rediss" else {},
    )


def redacted_broker_url(url: str) -> str:
    """Return a broker URL without its password, for sentences and logs."""
    head, _, query = url.partition("?")
    scheme, mark, rest = head.partition("://")
    user_info, at, host = rest.rpartition("@")  # a password may hold an @ or a slash
    if at:
        head = f"{scheme}{mark}{user_info.partition(':')[0]}:***@{host}"
    query = re.sub(r"(?i)(\w*password|\w*username)=[^&]*", r"\1=***", query)
    return f"{head}?{query}" if query else head


def read_options(query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """Read the options behind the ``?``: each once, with a value, and among the allowed ones."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            # What does not look like a name may be the rest of a password.
            option = f"{name!r}" if re.fullmatch(r"[a-z_]{1,40}", name) else "a word behind the ?"
            if name in _ELSEWHERE:
                raise ValueError(f"{option} is no option of it: {_ELSEWHERE[name]}; take it out of the URL")
            if name in TLS_OPTIONS:
                raise ValueError(f"{option} is an option of rediss:// alone; write rediss:// for TLS")
            raise ValueError(f"{option} is no option of it; there are {', '.join(sorted(allowed))}")
        if name in options:
            raise ValueError(f"{name} stands there twice; write it once")
        if not value:
            raise ValueError(f"{name} has no value")
        if _SURROGATE.search(value):
            raise ValueError(_ENCODE)
        options[name] = value
    return options


def _location(location: str) -> dict[str, Any]:
    """Read host and port; where there is no host it is this machine, and where there is no port Redis's own."""
    parts = _LOCATION.fullmatch(location)
    port = int(parts["port"] or _PORT) if parts else 0
    if parts is None or not 1 <= port <= 65_535 or not can_be_looked_up(parts["name"] or ""):
        # Not shown: where the @ was forgotten it is a password.
        raise ValueError(
            "behind the // stands no host:port (a port is 1 to 65535, an IPv6 address in brackets, no part of a name "
            "between dots empty or over 63 characters)"
        )
    return {"host": (parts["address"] or parts["name"] or "127.0.0.1").lower(), "port": port}


def can_be_looked_up(name: str) -> bool:
    """Tell whether a name of ASCII characters can be looked up; for others Python raises no network error, but a UnicodeError."""
    labels = name.removesuffix(".").split(".") if name else []
    return len(name) <= _MAX_NAME and all(0 < len(label) <= _MAX_LABEL for label in labels)


def decoded(encoded: str) -> str:
    """Decode a part of a URL into what can be sent to a broker.

    Raises:
        ValueError: it is no Unicode text.
    """
    try:
        text = unquote(encoded, errors="strict")
        text.encode()
    except UnicodeError:  # its words hold the password
        raise ValueError(_ENCODE) from None
    return text


def _database(path: str, options: dict[str, str]) -> int:
    """Read the number of the database from path, ``db`` or kombu's ``virtual_host``, which have to agree."""
    numbers = [text for text in (path, options.get("db"), options.get("virtual_host")) if text]
    if not all(re.fullmatch(r"\d{1,9}", number, re.ASCII) for number in numbers):
        raise ValueError("the number of the database is none; write /0 behind the host, or ?db=0")
    databases = sorted({int(number) for number in numbers})
    if len(databases) > 1:
        raise ValueError(f"it names several databases ({' and '.join(map(str, databases))}); write one")
    return databases[0] if databases else 0


def _login(user_info: str, options: dict[str, str]) -> dict[str, str]:
    user, _, password = user_info.partition(":")
    login = {"username": decoded(user), "password": decoded(password)}
    for name, value in login.items():
        if value and name in options:
            raise ValueError(f"{name} stands before the @ and behind the ?; write it once")
    login |= {name: options[name] for name in login if name in options}
    return {name: value for name, value in login.items() if value}


def _tls(options: dict[str, str]) -> dict[str, Any]:
    """Read the TLS options; the certificate is verified unless the URL says otherwise."""
    cert_reqs = _CERT_REQS.get(options.get("ssl_cert_reqs", "required").lower())
    if cert_reqs is None:
        raise ValueError("ssl_cert_reqs is none, optional or required (or CERT_NONE and so on)")
    by_default = "false" if cert_reqs == "none" else "true"
    check_hostname = _SWITCH.get(options.get("ssl_check_hostname", by_default).lower())
    if check_hostname is None:
        raise ValueError("ssl_check_hostname is true or false")
    if check_hostname and cert_reqs == "none":
        raise ValueError("ssl_check_hostname=true needs a certificate, and ssl_cert_reqs=none asks for none")
    files: dict[str, str] = {name: options[name] for name in _FILES if name in options}
    for name, path in files.items():
        if not os.access(path, os.R_OK):
            raise ValueError(f"{name}: there is no file {path!r} that this process may read")
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise ValueError("ssl_keyfile needs ssl_certfile beside it")
    return {"ssl_cert_reqs": cert_reqs, "ssl_check_hostname": check_hostname, **files}
