"""Every setting, one field each: its default, its bounds, and one sentence of description."""

from __future__ import annotations

import os
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from postbacks.settings.kubernetes import is_service_link
from postbacks.settings.values import (
    BrokerUrl,
    HistoryUrl,
    Hosts,
    HttpUrl,
    Key,
    Nat64Prefixes,
    Networks,
    OptOutWords,
    Origin,
    Ports,
    ProxyUrl,
    SigningSecret,
    WebRole,
    complete_weights,
)

PREFIX: Final = "POSTBACKS_"


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
    broker_url: BrokerUrl = Field(
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
    nat64_prefixes: Nat64Prefixes = Field(
        (),
        description="IPv6 prefixes, comma-separated, of a network's own NAT64: the IPv4 address behind one is judged.",
    )
    allowed_ports: Ports = Field(
        ((80, 80), (443, 443), (1024, 65535)),
        description="Ports and ranges, comma-separated, that URLs may have; below 1024 are mail, shells and the like.",
    )
    https_only: bool = Field(default=False, description="Refuse http:// URLs.")
    proxy_url: ProxyUrl = Field(
        "",
        repr=False,
        description="Proxy that all postbacks go through (http:// or https://), for a fixed outgoing address.",
    )
    secret_key: SecretStr = Field(
        SecretStr(""),
        description="Keys, comma-separated, that encrypt accounts' secrets in the store; the first encrypts, all decrypt.",
    )
    privacy_key: Key = Field(
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
    opt_out_words: OptOutWords = Field(
        (),
        description="Words, comma-separated, that mean stop as the whole of an incoming message, beside the English ones (arrêt, baja).",
    )
    opt_out_late_s: float = Field(
        900, gt=0, description="Seconds after which an opt-out that is not delivered is late, and told."
    )

    # -- history ----------------------------------------------------------------------------
    history_url: HistoryUrl = Field(
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
    notice_url: HttpUrl = Field(
        "",
        repr=False,
        description="URL that notices of incidents are POSTed to, as JSON; it may be of your own network. Empty: none.",
    )
    notice_secret: SigningSecret = Field(
        SecretStr(""),
        description="Secret that notices are signed with, as postbacks are (whsec_ and base64); empty: not signed.",
    )

    # -- dashboard --------------------------------------------------------------------------
    web_users: str = Field(
        "", description="File of the dashboard's users, as `postbacks web user add` writes it; empty: none."
    )
    web_token: Key = Field(
        SecretStr(""), description="Token that logs in to the dashboard with all rights; empty: none."
    )
    web_key: Key = Field(
        SecretStr(""),
        description="Key that signs the dashboard's sessions and links; empty: one that the broker keeps.",
    )
    web_hosts: Hosts = Field(
        (),
        description="Names, comma-separated, by which browsers reach the dashboard, beside loopback's and --host's.",
    )
    web_url: Origin = Field(
        "", description="Address of the dashboard for customers: https://postbacks.example."
    )
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
        variables = {name: environment.get(f"{PREFIX}{name.upper()}") for name in cls.model_fields}
        merged = {name: value for name, value in variables.items() if value is not None} | values
        return {name: value for name, value in merged.items() if not is_service_link(name.upper(), value)}

    @field_validator("group_weights")
    @classmethod
    def _complete_weights(cls, value: str) -> str:
        return complete_weights(value, cls.model_fields["group_weights"].default)
