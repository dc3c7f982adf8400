"""Settings: from the environment, refused with a sentence when they cannot be, and all of them documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import environment
from pages import cells

from postbacks.errors import BadSetting
from postbacks.settings import Settings, load, service_links, unknown_names

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "settings.md").read_text()
NAMES = sorted(Settings.model_fields)
#: Variables with the prefix of settings that the command line reads.
NO_SETTINGS = {"POSTBACKS_DEBUG", "POSTBACKS_LOCAL_SERVER", "POSTBACKS_USER", "POSTBACKS_VERIFY_SECRET"}

#: The promise's numbers and what else operators rely on.
DEFAULTS = {
    "retry_countdown_s": 300,
    "max_resends": 5,
    "connect_timeout_s": 10,
    "answer_timeout_s": 10,
    "broker_url": "redis://127.0.0.1:6379/0",
    "allowed_networks": (),
    "retention_delivered_s": 7 * 86_400,
    "retention_dead_s": 30 * 86_400,
    "ledger_memory_share": 0.3,
    "max_waiting_per_account": 1_000_000,
}


@pytest.fixture
def bare(monkeypatch):
    """No setting in the environment."""
    for name in NAMES:
        monkeypatch.delenv(variable(name), raising=False)
    load.cache_clear()
    yield
    load.cache_clear()


def variable(name: str) -> str:
    """A setting's name in the environment."""
    return f"POSTBACKS_{name.upper()}"


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items(), ids=list(DEFAULTS))
def test_the_defaults_are_those_of_the_promise(bare, name, default):
    """5 minutes, 5 resends, 10 s and 10 s, 7 and 30 days."""
    assert getattr(load(), name) == default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("retry_countdown_s", "0.5", 0.5),
        ("max_resends", "0", 0),
        ("broker_url", "unix:///run/r?db=1", "unix:///run/r?db=1"),
        ("group_weights", "mt=1, general = 4", "general=4,mo=1,mt=1,pass=1"),
    ],
)
def test_a_setting_is_read_from_the_environment(bare, name, text, value):
    """POSTBACKS_ and its name in upper case."""
    with environment(**{variable(name): text}):
        assert getattr(load(), name) == value


def test_networks_are_a_list_with_commas(bare):
    """Spaces and empty parts do not matter, IPv6 stands beside IPv4."""
    with environment(POSTBACKS_ALLOWED_NETWORKS=" 127.0.0.0/8, ::1/128 ,"):
        assert [str(network) for network in load().allowed_networks] == ["127.0.0.0/8", "::1/128"]


BAD = [
    ("retry_countdown_s", "-1"),
    ("retry_countdown_s", "5 minutes"),
    ("retry_countdown_s", "nan"),
    ("retry_countdown_s", "inf"),
    ("retry_countdown_s", ""),
    ("max_resends", "-1"),
    ("max_resends", "2.5"),
    ("max_resends", "1001"),
    ("connect_timeout_s", "0"),
    ("answer_timeout_s", "ten"),
    ("broker_timeout_s", "inf"),
    ("intake_batch", "0"),
    ("intake_batch", "4001"),
    ("max_transfers", "1"),
    ("ledger_memory_share", "1.5"),
    ("ledger_memory_share", "0"),
    ("excerpt_bytes", "4097"),
    ("allowed_networks", "127.0.0.1/8"),
    ("allowed_networks", "10.0.0.0/8,everything"),
    ("allowed_ports", "ssh"),
    ("allowed_ports", "0-80"),
    ("https_only", "perhaps"),
    ("log", "xml"),
    ("metrics_port", "65536"),
    ("group_weights", "mt"),
    ("group_weights", "sms=2"),
    ("group_weights", "mt=101"),
    ("web_hosts", "https://postbacks.example"),
    ("web_url", "postbacks.example/path"),
    ("web_proxy_header", "X Forwarded"),
    ("web_proxy_addresses", "everybody"),
    ("web_proxy_role", "boss"),
    ("web_idle_s", "1"),
]


@pytest.mark.parametrize(("name", "text"), BAD, ids=[f"{name}={text}" for name, text in BAD])
def test_a_bad_value_is_refused_with_a_sentence_that_names_the_variable_and_the_value(bare, name, text):
    """Not pydantic's report: the variable as the operator wrote it, and what to do."""
    with environment(**{variable(name): text}), pytest.raises(BadSetting) as refused:
        load()
    sentence = str(refused.value)
    assert f"{variable(name)}={text!r}: " in sentence
    assert sentence.endswith("Correct the environment and start again.")
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    assert "Value error" not in sentence


def test_all_bad_values_are_named_at_once(bare):
    """A start needs one correction, not one for each value."""
    with (
        environment(POSTBACKS_MAX_RESENDS="x", POSTBACKS_ANSWER_TIMEOUT_S="0"),
        pytest.raises(BadSetting) as refused,
    ):
        load()
    assert "POSTBACKS_MAX_RESENDS='x'" in str(refused.value)
    assert "POSTBACKS_ANSWER_TIMEOUT_S='0'" in str(refused.value)


def test_settings_are_read_once_and_cannot_be_changed(bare):
    """A process has one set of settings."""
    assert load() is load()
    with pytest.raises(ValueError, match="frozen"):
        load().max_resends = 6


def test_another_programs_variables_are_none_of_ours(bare):
    """Unknown POSTBACKS_ names (POSTBACKS_DEBUG is the command line's) do not stop a start."""
    with environment(POSTBACKS_DEBUG="1"):
        assert load().max_resends == 5


#: What Kubernetes sets in each pod of a namespace with a Service of the name postbacks-metrics.
SERVICE = {
    "POSTBACKS_METRICS_PORT": "tcp://10.3.240.11:9464",
    "POSTBACKS_METRICS_SERVICE_HOST": "10.3.240.11",
    "POSTBACKS_METRICS_SERVICE_PORT": "9464",
    "POSTBACKS_METRICS_SERVICE_PORT_HTTP": "9464",
    "POSTBACKS_METRICS_PORT_9464_TCP": "tcp://10.3.240.11:9464",
    "POSTBACKS_METRICS_PORT_9464_TCP_PROTO": "tcp",
    "POSTBACKS_METRICS_PORT_9464_TCP_PORT": "9464",
    "POSTBACKS_METRICS_PORT_9464_TCP_ADDR": "10.3.240.11",
    "POSTBACKS_PORT": "tcp://[fd00::17]:80",  # of a Service of the name postbacks
    "POSTBACKS_SERVICE_HOST": "fd00::17",
}


def test_what_kubernetes_sets_beside_a_service_is_no_setting_and_none_that_is_misspelt(bare, caplog):
    """The log has one line a process, though the settings are read again and again."""
    with environment(**SERVICE, POSTBACKS_MAX_RESEND="3"):
        assert load().metrics_port == 0
        load()
        assert unknown_names() == ["POSTBACKS_MAX_RESEND"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "POSTBACKS_METRICS_PORT=tcp://10.3.240.11:9464 is ignored: Kubernetes sets it in every pod beside a Service "
        "of the name postbacks-metrics. Write enableServiceLinks: false into the pod's spec."
    )


def test_a_port_that_is_set_in_a_pod_is_taken(bare, caplog):
    """The pod's own variables go before those of Services."""
    with environment(**SERVICE | {"POSTBACKS_METRICS_PORT": "9464"}):
        assert load().metrics_port == 9464
        assert service_links() == ""
    assert caplog.records == []


def test_the_form_of_an_address_is_passed_over_in_ports_and_hosts_alone(bare):
    """Elsewhere it is what somebody wrote."""
    with environment(POSTBACKS_METRICS_HOST="udp://10.3.240.11:53"):
        assert load().metrics_host == "127.0.0.1"
    with environment(POSTBACKS_MAX_RESENDS="tcp://10.3.240.11:53"), pytest.raises(BadSetting):
        load()


# -- docs/settings.md -----------------------------------------------------------------------------


def documented() -> dict[str, list[str]]:
    """The rows of the document's tables: variable -> default, unit, reason, readers, what to restart."""
    rows = [cells(line) for line in DOCS.splitlines() if line.startswith("| `POSTBACKS_")]
    names = [row[0].strip("`") for row in rows]
    assert len(set(names)) == len(names), "a setting stands there twice"
    return {name: row[1:] for name, row in zip(names, rows, strict=True)}


def default_of(name: str) -> str:
    """A setting's default as an operator would write it."""
    value = Settings.model_fields[name].get_default()
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(str(part[0]) if part[0] == part[1] else f"{part[0]}-{part[1]}" for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value != int(value) else str(value)


UNITS = {"_s": "seconds", "_bytes": "bytes"}


def test_every_setting_is_documented_and_every_documented_setting_exists():
    """docs/settings.md against the class, in both directions."""
    assert sorted(documented()) == sorted(variable(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_documents_default_and_unit_are_the_true_ones(name):
    """As the environment would give it; the unit that the name says."""
    default, unit, reason, *_ = documented()[variable(name)]
    assert default == (f"`{default_of(name)}`" if default_of(name) else "empty")
    for ending, word in UNITS.items():
        assert (unit == word) is (name.endswith(ending) and not name.endswith("_per_s")), (name, unit)
    assert unit
    assert len(reason) > 20


#: Processes that read settings, in the order of the document; a command ends before a restart could matter.
READERS = ("program", "worker", "beat", "recorder", "metrics", "Flower", "web", "commands")


def readers_of(name: str) -> tuple[str, ...]:
    """Return the processes that read a setting by the document."""
    readers = documented()[variable(name)][3]
    return READERS if readers == "all" else tuple(readers.split(", "))


@pytest.mark.parametrize("name", NAMES)
def test_the_document_says_who_reads_a_setting_and_what_to_restart(name):
    """Whoever reads it and stays is started again; tests/house/test_readers_of_settings.py traces them."""
    readers = readers_of(name)
    assert readers == tuple(reader for reader in READERS if reader in readers)
    stay = [reader for reader in readers if reader != "commands"]
    restart = documented()[variable(name)][4]
    assert restart == ("all that run" if readers == READERS else ", ".join(stay) or "none")


@pytest.mark.parametrize("name", NAMES)
def test_the_documents_default_is_a_value_that_is_taken(bare, name):
    """Copied into the environment it changes nothing."""
    default = documented()[variable(name)][0].strip("`")
    before = getattr(load(), name)
    with environment(**{variable(name): "" if default == "empty" else default}):
        assert getattr(load(), name) == before


def test_the_document_names_no_variable_that_is_none():
    """In its prose either."""
    assert set(re.findall(r"POSTBACKS_[A-Z0-9_]*[A-Z]", DOCS)) - NO_SETTINGS == {
        variable(name) for name in NAMES
    }


def test_the_page_of_the_environment_names_the_variables_that_are_no_settings():
    """And so does the section that it leads to."""
    for page in (
        (ROOT / "docs" / "environment.md").read_text(),
        DOCS.split("## Variables that are no settings")[1],
    ):
        assert set(re.findall(r"`(POSTBACKS_[A-Z0-9_]*[A-Z])(?:=1)?`", page)) >= NO_SETTINGS


def test_every_setting_has_a_reason_in_the_class():
    """The reason is one sentence, as the command line shows it."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", ").")), name
