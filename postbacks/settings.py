"""Settings of a process: each with its type, its default, its description, and its unit in its name.

A setting is read from the variable ``POSTBACKS_`` and its name in upper case.
"""

from __future__ import annotations

import logging
import os
import re
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from postbacks.broker import sentinel
from postbacks.broker import url as broker_url
from postbacks.errors import BadSetting

#: Ratios above 100:1 have no further effect.
MAX_GROUP_WEIGHT: Final = 100
_WEIGHT = re.compile(r"(\w+)\s*=\s*(\d{1,3})", re.ASCII)

#: Characters of a key below which it could be guessed.
MIN_KEY: Final = 16

#: Bits of a NAT64 prefix (RFC 6052 2.2).
NAT64_LENGTHS: Final = frozenset({32, 40, 48, 56, 64, 96})

#: Roles of the dashboard, from the one that may least.
WebRole = Literal["viewer", "support", "operator", "admin"]
WEB_ROLES: Final[tuple[str, ...]] = get_args(WebRole)

Networks = tuple[IPv4Network | IPv6Network, ...]

_PREFIX: Final = "POSTBACKS_"
#: Variables of that prefix that are no settings: the command line and the embedded broker read them.
_NO_SETTINGS: Final = frozenset(
    {"POSTBACKS_DEBUG", "POSTBACKS_LOCAL_SERVER", "POSTBACKS_USER", "POSTBACKS_VERIFY_SECRET"}
)
#: Settings that may hold a password, so that an error does not quote them.
_SECRET: Final = frozenset(
    {"proxy_url", "secret_key", "privacy_key", "broker_url", "history_url", "notice_url", "notice_secret", "web_token",
     "web_key"}
)  # fmt: skip

_PROXY = re.compile(
    r"https?://(?:[\w.~%!$&'()*+,;=-]*(?::[\w.~%!$&'()*+,;=-]*)?@)?[\w.-]+(?::(\d{1,5}))?/?", re.ASCII
)

#: URL that notices are sent to; the transport reads the whole of it.
_WEB_URL: Final = re.compile(r"https?://[^\s/?#]+(?:[/?#]\S*)?", re.ASCII)
#: Host's name or address, as the dashboard compares it.
_HOST: Final = re.compile(r"[a-z0-9_.-]+|\[?[0-9a-f:.]+\]?", re.ASCII)
#: Databases that the history can stand in; ``history/engine.py`` reads the whole URL.
_HISTORY_URL = re.compile(r"sqlite:///[^?]+|postgres(ql)?(\+psycopg)?://\S+", re.ASCII)

#: Address of a Kubernetes Service, which stands as ``<SERVICE>_PORT`` in every pod of its namespace.
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+", re.ASCII | re.IGNORECASE)
#: Names of a Service's other variables: ``<SERVICE>_SERVICE_HOST``, ``<SERVICE>_PORT_9464_TCP_ADDR`` and the like.
_SERVICE_NAME = re.compile(
    r"POSTBACKS_\w*(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)


class Settings(BaseModel):
    """Settings of one process, immutable. What the constructor is not given comes from the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, validate_default=True)

    # -- the promise ------------------------------------------------------------------------
    retry_countdown_s: float = Field(
        300, ge=0, description="Seconds from a failure to the resend. The promise: every 5 minutes."
    )
    max_resends: int = Field(
        5,
        ge=0,
        le=1000,
        description="Resends after the first send. The promise: at most 5, so 6 POSTs in all.",
    )
    connect_timeout_s: float = Field(
        10, gt=0, description="Seconds to establish a connection: name look-up, TCP, TLS and proxy together."
    )
    answer_timeout_s: float = Field(
        10, gt=0, description="Seconds from the connection to the whole header of the answer."
    )

    # -- broker -----------------------------------------------------------------------------
    broker_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Where Redis or Valkey is: redis://, rediss:// (TLS), unix:///path?db=0 or sentinel://host,host/NAME.",
    )
    broker_timeout_s: float = Field(
        3, gt=0, description="Seconds a broker command or connection may take before it counts as failed."
    )
    wait_replicas: int = Field(
        0,
        ge=0,
        le=1000,
        description="Replicas that must have a postback before it counts as accepted; 0: the primary alone.",
    )
    accounts: str = Field(
        "",
        description="Where accounts come from: empty for our own store in Redis, or module:attribute of an AccountStore.",
    )

    # -- queue ------------------------------------------------------------------------------
    intake_batch: int = Field(
        500,
        ge=1,
        le=4000,
        description="Messages taken in by one script call; bounds how long it blocks the broker.",
    )
    intake_lease_s: float = Field(
        10, gt=0, description="Seconds until messages that a dead tick had taken are taken again."
    )
    account_removed_keep_s: float = Field(
        3600,
        gt=0,
        description="Seconds that an account may be gone before its postbacks that wait end as dead.",
    )
    claim_lease_s: float = Field(
        30, gt=0, description="Seconds a silent worker keeps its claims; it renews at a third of it."
    )
    release_batch: int = Field(
        1000, ge=1, le=10_000, description="Parked postbacks released by one script call of a tick."
    )
    max_waiting_per_account: int = Field(
        1_000_000,
        ge=1,
        description="Postbacks that each group of an account may have open; what comes beyond it is dead at once.",
    )
    account_open_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of the broker's memory that the open postbacks of one group of an account may take.",
    )

    # -- delivery ---------------------------------------------------------------------------
    max_transfers: int = Field(
        2000,
        ge=2,
        le=20_000,
        description="POSTs open at a time in one worker process (file descriptors allowing).",
    )
    lane_max_transfers: int = Field(
        10, ge=1, description="POSTs of one lane (account and group) open at a time, over all workers."
    )
    endpoint_max_transfers: int = Field(
        0,
        ge=0,
        description="POSTs of all accounts to one scheme, host and port open at a time, over all workers; 0: any number.",
    )
    group_weights: str = Field(
        "general=1,mo=1,mt=0,pass=1",
        description="Turns of an account's groups beside each other; of weight 0 are those that give way to general and mo.",
    )
    probe_claims: int = Field(
        1000,
        ge=1,
        description="Postbacks claimed at once from a lane that fails: one is tried, a connect time-out counts for all.",
    )
    slow_after_s: float = Field(
        1,
        gt=0,
        description="A lane with a transfer open for longer counts as slow and shares the half with the failing.",
    )
    deliver_slice_s: float = Field(
        60, gt=0, description="Seconds a deliver task claims before it hands over to the next one."
    )
    stop_within_s: float = Field(
        25,
        gt=0,
        description="Seconds that a stopping worker gives its open POSTs; a container's grace is often 30.",
    )
    allowed_networks: Networks = Field(
        (),
        description="Networks, comma-separated, that postbacks may reach though they are not global (127.0.0.0/8).",
    )
    denied_networks: Networks = Field(
        (), description="Networks, comma-separated, that postbacks may not reach, whatever else allows them."
    )
    nat64_prefixes: Networks = Field(
        (),
        description="IPv6 prefixes, comma-separated, of a network's own NAT64: the IPv4 address behind one is judged.",
    )
    allowed_ports: tuple[tuple[int, int], ...] = Field(
        ((80, 80), (443, 443), (1024, 65535)),
        description="Ports and ranges, comma-separated, that URLs may have; below 1024 are mail, shells and the like.",
    )
    https_only: bool = Field(default=False, description="Refuse http:// URLs.")
    proxy_url: str = Field(
        "",
        repr=False,
        description="Proxy that all postbacks go through (http:// or https://), for a fixed outgoing address.",
    )
    secret_key: SecretStr = Field(
        SecretStr(""),
        description="Keys, comma-separated, that encrypt accounts' secrets in the store; the first encrypts, all decrypt.",
    )
    privacy_key: SecretStr = Field(
        SecretStr(""),
        description="Key of the suffixes with which numbers and addresses are masked; empty: one that the broker keeps.",
    )
    profile_cache_s: float = Field(
        5,
        ge=0,
        description="Seconds that a worker keeps an account's delivery settings before it looks again.",
    )

    # -- watching ---------------------------------------------------------------------------
    events_per_s: int = Field(
        500,
        ge=1,
        description="Postbacks a second of a worker up to which Flower is shown each; above it as many failures, and a share of the rest.",
    )
    # A tenth of the 10,000 a second that one broker carries leaves Flower, which is full at about 3,500, the failures.
    flower_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the postbacks that Flower is shown at any rate, and from the call on; by the hash of the id.",
    )

    # -- ledger -----------------------------------------------------------------------------
    retention_delivered_s: float = Field(
        7 * 86_400,
        gt=0,
        description="Seconds a delivered, skipped or cancelled postback stays in the ledger.",
    )
    retention_dead_s: float = Field(
        30 * 86_400, gt=0, description="Seconds a dead postback stays replayable."
    )
    retention_unrouted_s: float = Field(
        86_400,
        gt=0,
        description="Seconds that a dead postback of an unknown account, or without a URL, stays replayable.",
    )
    ledger_memory_share: float = Field(
        0.3,
        gt=0,
        le=1,
        description="Share of the broker's memory past which delivered records are dropped early.",
    )
    account_dead_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the ledger's memory that one account's dead postbacks may take; 10,000 of 4 KB each always stay.",
    )
    excerpt_bytes: int = Field(
        256, ge=0, le=4096, description="Bytes of a failed answer's body that the ledger keeps."
    )

    # -- opt-outs ---------------------------------------------------------------------------
    opt_out_words: tuple[str, ...] = Field(
        (),
        description="Words, comma-separated, that mean stop as the whole of an incoming message, beside the English ones (arrêt, baja).",
    )
    opt_out_late_s: float = Field(
        900, gt=0, description="Seconds after which an opt-out that is not delivered is late, and told."
    )

    # -- history ----------------------------------------------------------------------------
    history_url: str = Field(
        "",
        repr=False,
        description="Database of the history, as an SQLAlchemy URL: sqlite:///FILE or postgresql://…; empty: none.",
    )
    history_postbacks_days: float = Field(
        90,
        gt=0,
        description="Days that the history keeps a postback after its end: state, times and business values.",
    )
    history_attempts_days: float = Field(
        90, gt=0, description="Days that the history keeps attempts: each POST and what the receiver said."
    )
    history_documents_days: float = Field(
        30,
        gt=0,
        description="Days that the history keeps documents, with which a postback can be shown and sent again.",
    )
    history_journal_days: float = Field(
        1095,
        gt=0,
        description="Days that the history keeps the journal: who did what, when and why.",
    )
    history_feed_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Share of the broker's memory that the feed of the history may take while no recorder reads it.",
    )

    # -- incidents --------------------------------------------------------------------------
    incident_after_s: float = Field(
        300,
        gt=0,
        description="Seconds for which every attempt at an endpoint must have failed before it is an incident.",
    )
    incident_after_postbacks: int = Field(
        1000,
        ge=1,
        description="Postbacks that wait for such an endpoint, or have died, from which on it is one after a minute already.",
    )
    notice_url: str = Field(
        "",
        repr=False,
        description="URL that notices of incidents are POSTed to, as JSON; it may be of your own network. Empty: none.",
    )
    notice_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret that notices are signed with, as postbacks are (whsec_ and base64); empty: not signed.",
    )

    # -- dashboard --------------------------------------------------------------------------
    web_users: str = Field(
        "", description="File of the dashboard's users, as `postbacks web user add` writes it; empty: none."
    )
    web_token: SecretStr = Field(
        SecretStr(""), description="Token that logs in to the dashboard with all rights; empty: none."
    )
    web_key: SecretStr = Field(
        SecretStr(""),
        description="Key that signs the dashboard's sessions and links; empty: one that the broker keeps.",
    )
    web_hosts: tuple[str, ...] = Field(
        (),
        description="Names, comma-separated, by which browsers reach the dashboard, beside loopback's and --host's.",
    )
    web_url: str = Field("", description="Address of the dashboard for customers: https://postbacks.example.")
    web_proxy_header: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9-]*)?$",
        description="Header in which a proxy names the user (X-Forwarded-User); taken from web_proxy_addresses alone.",
    )
    web_proxy_addresses: Networks = Field(
        (), description="Networks, comma-separated, from which that proxy reaches the dashboard."
    )
    web_proxy_role: WebRole = Field(
        "viewer", description="Role of a user whom the proxy names and who is not in the file of users."
    )
    web_idle_s: float = Field(
        3600, ge=60, description="Seconds without a page being opened that end a session of the dashboard."
    )
    web_session_s: float = Field(
        43_200, ge=60, description="Seconds after which a session of the dashboard ends in any case."
    )

    # -- watching ---------------------------------------------------------------------------
    log: Literal["text", "json"] = Field(
        "text",
        description="Form of the workers' and beats' logs: text (key=value) or json (an object a line).",
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of a worker's own metrics and health pages; 0 serves none."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address that a worker's metrics are served on; 0.0.0.0 in a container."
    )
    metrics_top_accounts: int = Field(
        10,
        ge=0,
        le=1000,
        description="Accounts with the most open postbacks, and that have been down for the longest, which the metrics name; 0 names none.",
    )
    gone_after_s: float = Field(
        30,
        gt=0,
        le=300,
        description="Seconds without a sign of life after which a worker or beat counts as gone; it gives three in that time.",
    )
    health_tick_age_s: float = Field(
        10, gt=0, description="Seconds since the last finished tick past which the system is not healthy."
    )
    health_waiting_age_s: float = Field(
        60,
        gt=0,
        description="Seconds that a postback of a working receiver may wait before the system is not healthy.",
    )

    @model_validator(mode="before")
    @classmethod
    def _add_environment(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Add the environment's settings to those that were given; leave out what Kubernetes has set."""
        environment = {name.upper(): value for name, value in os.environ.items()}
        variables = {name: environment.get(f"{_PREFIX}{name.upper()}") for name in cls.model_fields}
        merged = {name: value for name, value in variables.items() if value is not None} | values
        return {name: value for name, value in merged.items() if not _is_service_link(name.upper(), value)}

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: str) -> str:
        value = value.strip()  # a variable that was filled from a file often ends with a new line
        scheme = value.partition("://")[0].lower()
        if "cluster" in scheme:
            raise ValueError("Celery 5.7 cannot use Redis Cluster; use one server, or several with Sentinel")
        if sentinel.is_sentinel(value):
            sentinel.parse(value)
        else:
            broker_url.parse(value)
        return value

    @field_validator("history_url")
    @classmethod
    def _history(cls, value: str) -> str:
        value = value.strip()
        if value and not _HISTORY_URL.match(value):
            raise ValueError(
                "not sqlite:///FILE (four slashes for an absolute path) or postgresql://user:password@host/database"
            )
        return value

    @field_validator("notice_url")
    @classmethod
    def _notice(cls, value: str) -> str:
        value = value.strip()
        if value and not _WEB_URL.fullmatch(value):
            raise ValueError("not http://host/path or https://host/path")
        return value

    @field_validator("notice_secret")
    @classmethod
    def _notice_signer(cls, value: SecretStr) -> SecretStr:
        if secret := value.get_secret_value():
            try:
                b64decode(secret.removeprefix("whsec_"), validate=True)
            except ValueError:
                raise ValueError("not whsec_ and base64; `openssl rand -base64 32` makes one") from None
        return value

    @field_validator("privacy_key", "web_key", "web_token")
    @classmethod
    def _key(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < MIN_KEY:
            raise ValueError(f"too short to be a key: give {MIN_KEY} random characters or more")
        return value

    @field_validator("web_hosts", mode="before")
    @classmethod
    def _web_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(part.strip().lower() for part in value.split(",") if part.strip())
        if bad := [name for name in names if not _HOST.fullmatch(name)]:
            raise ValueError(f"{bad[0]!r} is no host's name: leave out scheme, port and path")
        return tuple(name.strip("[]") for name in names)

    @field_validator("web_url")
    @classmethod
    def _web_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[\w.:\[\]-]+/?", value, re.ASCII):
            raise ValueError("give a scheme, a host and perhaps a port: https://postbacks.example")
        return value.rstrip("/")

    @field_validator("proxy_url")
    @classmethod
    def _proxy(cls, value: str) -> str:
        match = _PROXY.fullmatch(value)
        if value and (match is None or not 1 <= int(match[1] or 80) <= 65_535):
            raise ValueError(
                "not http://host:port or https://host:port; in a user or password encode what is no letter or digit"
            )
        return value

    @field_validator("allowed_ports", mode="before")
    @classmethod
    def _ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        ranges = []
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last <= 65535:
                raise ValueError(f"{part.strip()!r} is no port or range of ports (443, 1024-65535)")
            ranges.append((first, last))
        return tuple(ranges)

    @field_validator("opt_out_words", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        words = tuple(filter(None, map(str.strip, value.split(","))))
        if bad := [word for word in words if not any(map(str.isalnum, word))]:
            raise ValueError(
                f"{bad[0]!r} has no letter and no digit, so that any message of such signs would be one"
            )
        return words

    @field_validator("group_weights")
    @classmethod
    def _weights(cls, value: str) -> str:
        """Give groups that the setting does not name their default weight."""
        weights: dict[str, str] = dict(_WEIGHT.findall(cls.model_fields["group_weights"].default))
        for part in filter(str.strip, value.split(",")):
            match = _WEIGHT.fullmatch(part.strip())
            if match is None or match[1] not in weights or int(match[2]) > MAX_GROUP_WEIGHT:
                raise ValueError(
                    f"{part.strip()!r} is no weight of a group: write {', '.join(weights)} "
                    f"with = and 0 to {MAX_GROUP_WEIGHT} (general=2,mo=2,mt=1)"
                )
            weights[match[1]] = match[2]
        return ",".join(f"{group}={weight}" for group, weight in weights.items())

    @field_validator(
        "allowed_networks", "denied_networks", "nat64_prefixes", "web_proxy_addresses", mode="before"
    )
    @classmethod
    def _networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value

    @field_validator("nat64_prefixes")
    @classmethod
    def _prefixes(cls, value: Networks) -> Networks:
        for prefix in value:
            if prefix.version != 6 or prefix.prefixlen not in NAT64_LENGTHS:
                raise ValueError(
                    f"{prefix} is no IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits (RFC 6052 2.2)"
                )
        return value


@lru_cache(maxsize=1)
def load() -> Settings:
    """Read the settings from the environment, once a process.

    Raises:
        BadSetting: names the variable, its value and what it should be.
    """
    if sentence := service_links():
        logging.getLogger(__name__).warning(sentence)
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{_PREFIX}{'_'.join(map(str, problem['loc'])).upper()}={_quoted(problem)}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise BadSetting(f"{problems}. Correct the environment and start again.") from None


def _quoted(problem: Mapping[str, Any]) -> str:
    """Quote the value that was refused; hide one that may hold a password."""
    return "(not shown)" if _SECRET.intersection(problem["loc"]) else repr(problem["input"])


def _is_service_link(name: str, value: object) -> bool:
    """Tell whether Kubernetes may have set a variable to this value; no port or host looks like it."""
    return (
        name.endswith(("_PORT", "_HOST", "_ADDR"))
        and isinstance(value, str)
        and _SERVICE_ADDRESS.fullmatch(value) is not None
    )


def service_links() -> str:
    """Return one sentence about settings that Kubernetes has set and that are ignored; "" if there are none."""
    names = sorted(
        name
        for name, value in os.environ.items()
        if name.removeprefix(_PREFIX).lower() in Settings.model_fields and _is_service_link(name, value)
    )
    if not names:
        return ""
    variables = " and ".join(f"{name}={os.environ[name]}" for name in names)
    service = names[0].rpartition("_")[0].lower().replace("_", "-")
    return (
        f"{variables} is ignored: Kubernetes sets it in every pod beside a Service of the name {service}. "
        "Write enableServiceLinks: false into the pod's spec."
    )


def unknown_names() -> list[str]:
    """Return variables of the environment that look like settings and are none: most likely misspelt."""
    settings = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name
        for name, value in os.environ.items()
        if name.startswith(_PREFIX)
        and name not in settings | _NO_SETTINGS
        and not _SERVICE_NAME.fullmatch(name)
        and not _is_service_link(name, value)
    )
