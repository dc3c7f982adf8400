"""docker-compose.yml, Dockerfile and .env.example: valid, hardened, and of one mind.

No container engine is needed. tests/compose-spec.json is the schema of the Compose Specification as the
package check-jsonschema 0.39.0 ships it, unchanged; its licence (Apache 2.0) stands beside it.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib

import pytest
import yaml
from containers.compose_file import (
    OURS,
    RAW,
    ROOT,
    Refused,
    container,
    image_env,
    interpolated,
    read_env,
    variables,
)
from jsonschema import Draft202012Validator

from postbacks.broker import fitness

SERVICES = RAW["services"]
SCHEMA = json.loads((ROOT / "tests" / "compose-spec.json").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
EXAMPLE = (ROOT / ".env.example").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILLED = read_env(EXAMPLE) | {
    "REDIS_PASSWORD": "secret1", "FLOWER_BASIC_AUTH": "me:secret2", "POSTGRES_PASSWORD": "secret3",
    "POSTBACKS_WEB_TOKEN": "secret4-of-web-users",
}  # fmt: skip
#: Where PostgreSQL of that password is, for those who may know.
HISTORY_URL = "postgresql://postbacks:secret3@postgres:5432/postbacks"


# -- docker-compose.yml ---------------------------------------------------------------------------


def test_the_file_is_valid_by_the_schema_of_the_compose_specification():
    """No fault anywhere, as it stands and with its variables filled in."""
    for file in (RAW, interpolated(RAW, FILLED)):
        faults = [
            f"{'.'.join(map(str, e.path))}: {e.message}"
            for e in Draft202012Validator(SCHEMA).iter_errors(file)
        ]
        assert faults == []


@pytest.mark.parametrize(
    "spoil", [{"comand": ["x"]}, {"ports": 5555}, {"restart": 1}, {"command": {"a": "b"}}]
)
def test_the_schema_would_find_a_mistake(spoil):
    """A misspelt key and values of the wrong type are refused: the test above can fail."""
    spoilt = RAW | {"services": SERVICES | {"worker": SERVICES["worker"] | spoil}}
    assert not Draft202012Validator(SCHEMA).is_valid(spoilt)


def test_every_container_comes_up_again_and_may_do_no_more_than_it_must():
    """Read-only root, no capabilities, no new privileges, bounded logs; what is published is on this machine alone."""
    assert set(SERVICES) == {"redis", "postgres", *OURS, "prometheus"}
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "container_name" not in service, name


def test_workers_can_be_many_and_have_the_time_to_finish_and_beats_are_two():
    """No port or name that only one could have; more time than POSTs are given; enough open files."""
    worker = SERVICES["worker"]
    assert "ports" not in worker
    assert "--hostname=worker@%h" in worker["command"]
    assert worker["deploy"]["replicas"] == "${WORKERS:-2}"
    assert container("worker", FILLED)["stop_s"] == 30  # POSTBACKS_STOP_WITHIN_S is 25
    assert worker["ulimits"]["nofile"] == 65536
    assert SERVICES["beat"]["deploy"]["replicas"] == 2


def test_redis_keeps_what_it_accepted_and_asks_for_a_password():
    """Redis has its data on a volume, a version that will do, and small records; the password reaches the health check
    by the environment.
    """
    service = SERVICES["redis"]
    assert "redis-data:/data" in service["volumes"]
    assert "redis-data" in RAW["volumes"]
    assert int(re.fullmatch(r"redis:(\d+)-alpine", service["image"])[1]) >= fitness.MIN_REDIS[0]
    filled = container("redis", FILLED)
    for name, value in fitness.LISTPACK_SETTINGS.items():
        assert f"--{name} {value}" in " ".join(filled["argv"])
    assert filled["argv"][-2:] == ["--requirepass", "secret1"]
    assert filled["env"]["REDISCLI_AUTH"] == "secret1"
    assert "secret1" not in " ".join(filled["healthcheck"])


def test_postgres_keeps_the_history_where_the_recorder_and_the_dashboard_alone_reach_it():
    """A pinned major version, its data on a volume; neither a port nor a network that others are in; ready by TCP alone."""
    service = SERVICES["postgres"]
    assert re.fullmatch(r"postgres:\d+-alpine", service["image"])
    assert service["user"] == "postgres"
    assert "postgres-data:/var/lib/postgresql" in service["volumes"]
    assert "postgres-data" in RAW["volumes"]
    assert "ports" not in service
    assert RAW["networks"] == {"database": {"internal": True}}
    networks = {name: one.get("networks", ["default"]) for name, one in SERVICES.items()}
    assert {name for name, of in networks.items() if "database" in of} == {"postgres", "history", "web"}
    assert networks["postgres"] == ["database"]
    assert networks["history"] == networks["web"] == ["default", "database"]
    filled = container("postgres", FILLED)
    assert filled["env"]["POSTGRES_PASSWORD"] == "secret3"
    assert "--host=127.0.0.1" in filled["healthcheck"]


def test_install_names_the_services_that_a_file_without_postgres_has_to_change():
    """Compose refuses a service that waits for one that is not there, or stands in a network that is not there."""
    page = " ".join((ROOT / "docs" / "install.md").read_text().split())
    (named,) = re.findall(r"what names them in the services ([^(]+) \(`depends_on`, `networks`\)", page)
    naming = {
        name
        for name, service in SERVICES.items()
        if name != "postgres"
        and {"postgres", "database"} & {*service.get("depends_on", ()), *service.get("networks", ())}
    }
    assert set(re.findall(r"`(\w+)`", named)) == naming


def test_the_recorder_starts_behind_redis_and_postgres_and_may_be_many():
    """Both are healthy before it; no port or name that only one could have."""
    service = SERVICES["history"]
    assert service["depends_on"] == {key: {"condition": "service_healthy"} for key in ("redis", "postgres")}
    assert "ports" not in service
    assert service["command"] == ["postbacks", "history", "run"]
    assert container("history", FILLED)["stop_s"] >= 10


def test_the_dashboard_is_published_to_this_machine_alone_and_starts_behind_both_servers():
    """The health check asks the very port that is served, and others than its own container reach that."""
    service = SERVICES["web"]
    assert service["ports"] == ["127.0.0.1:8910:8910"]
    assert service["command"] == ["postbacks", "web", "--host", "0.0.0.0", "--port", "8910"]
    assert "http://127.0.0.1:8910/healthz" in " ".join(service["healthcheck"]["test"])
    assert service["depends_on"] == {key: {"condition": "service_healthy"} for key in ("redis", "postgres")}


def test_what_logs_in_to_the_dashboard_is_known_to_it_alone():
    """Token and key of sessions: the whole .env reaches the others, without these two."""
    env = FILLED | {"POSTBACKS_WEB_KEY": "a key of sessions"}
    for name in OURS:
        given = {
            key: container(name, env)["env"][key] for key in ("POSTBACKS_WEB_TOKEN", "POSTBACKS_WEB_KEY")
        }
        assert list(given.values()) == (
            ["secret4-of-web-users", "a key of sessions"] if name == "web" else ["", ""]
        ), name


def test_only_the_recorder_and_the_dashboard_have_the_historys_database():
    """Least privilege: whoever delivers or is asked for figures has no URL of it, whatever .env says."""
    env = FILLED | {"POSTBACKS_HISTORY_URL": "postgresql://elsewhere/history"}
    given = {name: container(name, env)["env"].get("POSTBACKS_HISTORY_URL") for name in SERVICES}
    nobodys = dict.fromkeys(("worker", "beat", "flower", "metrics"), "")
    theirs = dict.fromkeys(("history", "web"), HISTORY_URL)
    assert given == {**theirs, "redis": None, "postgres": None, "prometheus": None, **nobodys}


@pytest.mark.parametrize(
    "missing", ["REDIS_PASSWORD", "FLOWER_BASIC_AUTH", "POSTGRES_PASSWORD", "POSTBACKS_WEB_TOKEN"]
)
def test_without_a_password_compose_refuses_with_a_sentence(missing):
    """The example as it stands has none, so a copy of it refuses as well."""
    with pytest.raises(Refused, match=rf"^Set {missing}.* in \.env \(see \.env\.example\)"):
        interpolated(RAW, FILLED | {missing: ""})
    assert read_env(EXAMPLE)[missing] == ""


def test_every_variable_is_explained_in_the_example_and_nothing_else_stands_there():
    """Each assignment has a comment above it; what begins with POSTBACKS_ is a setting that docs/settings.md knows."""
    given = re.findall(r"^(#?)(\w+)=", EXAMPLE, re.MULTILINE)
    assert {name for mark, name in given if not mark} == variables()
    settings = (ROOT / "docs" / "settings.md").read_text()
    assert all(f"`{name}`" in settings for mark, name in given if mark)
    for block in EXAMPLE.split("\n\n"):
        assert block.startswith("# "), block


def test_settings_of_the_env_file_reach_every_process_of_ours_and_no_server():
    """Any POSTBACKS_… variable, without its standing in docker-compose.yml; the broker's URL is Compose's own."""
    env = FILLED | {"POSTBACKS_MAX_RESENDS": "3"}
    for name in OURS:
        ours = container(name, env)["env"]
        assert ours["POSTBACKS_MAX_RESENDS"] == "3"
        assert ours["POSTBACKS_BROKER_URL"] == "redis://:secret1@redis:6379/0"
    assert "POSTBACKS_MAX_RESENDS" not in container("redis", env)["env"]
    assert "POSTBACKS_MAX_RESENDS" not in container("postgres", env)["env"]


def test_only_who_signs_has_the_key_of_accounts_secrets():
    """Workers, and the dashboard, which pings: the others run without it, though the whole .env reaches them; none is needed to
    start.
    """
    env = FILLED | {"POSTBACKS_SECRET_KEY": "k1,k2"}
    given = {name: container(name, env)["env"].get("POSTBACKS_SECRET_KEY") for name in SERVICES}
    none = dict.fromkeys(("beat", "history", "flower", "metrics"), "")
    theirs = dict.fromkeys(("worker", "web"), "k1,k2")
    assert given == {**theirs, "redis": None, "postgres": None, "prometheus": None, **none}
    assert container("worker", FILLED)["env"]["POSTBACKS_SECRET_KEY"] == ""


def test_prometheus_finds_its_configuration_and_our_metrics():
    """Behind a profile; the directory that is mounted has the file that is named; it asks the port that is served."""
    service = SERVICES["prometheus"]
    assert service["profiles"] == ["monitoring"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in service["volumes"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in service["command"]
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    job = config["scrape_configs"][0]
    port = SERVICES["metrics"]["command"][SERVICES["metrics"]["command"].index("--port") + 1]
    assert job["static_configs"] == [{"targets": [f"metrics:{port}"]}]
    assert config["rule_files"] == ["alerts.yml"]


# -- Dockerfile -----------------------------------------------------------------------------------


def steps(word: str, text: str = DOCKERFILE) -> list[str]:
    """The arguments of every instruction of that name."""
    return re.findall(rf"^{word} (.*)$", text, re.MULTILINE)


def test_the_image_holds_what_runs_and_no_compiler_and_belongs_to_nobody():
    """Wheels alone, copied from a first stage; a fixed user that is not root; every command in exec form."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert len(steps("FROM")) == 2
    assert "pip" not in last
    assert "apt-get" not in DOCKERFILE
    (install,) = (json.loads(step) for step in steps("RUN") if '"install"' in step)
    assert install[install.index("--only-binary") + 1] == ":all:"
    extras = re.fullmatch(r"/src\[([\w,]+)\]", install[-1])[1].split(",")
    assert set(extras) == {"flower", "history", "postgres", "web"} <= set(PROJECT["optional-dependencies"])
    assert steps("USER", last) == ["10001:10001"]
    assert steps("STOPSIGNAL", last) == ["SIGTERM"]
    for step in (*steps("RUN"), *steps("CMD"), steps("HEALTHCHECK")[0].partition(" CMD ")[2]):
        assert all(isinstance(word, str) for word in json.loads(step))
    assert json.loads(steps("CMD", last)[0]) == SERVICES["worker"]["command"]
    assert json.loads(steps("HEALTHCHECK", last)[0].partition(" CMD ")[2]) == ["postbacks", "health"]
    assert image_env()["PYTHONUNBUFFERED"] == "1"


def test_what_is_copied_into_the_image_exists_and_is_sent_to_the_builder_and_nothing_else_is():
    """.dockerignore lets through exactly what COPY names."""
    copied = {source for step in steps("COPY") if "--from" not in step for source in shlex.split(step)[:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert all((ROOT / source).exists() for source in copied)


# -- Pythons --------------------------------------------------------------------------------------


def test_the_workflow_runs_the_suite_on_every_python_that_the_project_names():
    """Workflow, classifiers, requires-python and the image agree; 3.14 is tried beside them."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["python"]
    pythons = job["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert job["strategy"]["fail-fast"] is False
    assert job["timeout-minutes"] <= 60
    runs, *_ = (step["run"] for step in job["steps"] if "make" in step.get("run", ""))
    assert runs.startswith("make test ")
    named = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one]
    assert [*named, "3.14"] == pythons
    # promised nowhere yet: it tells, and holds nothing up
    assert job["continue-on-error"] == "${{ matrix.python == '3.14' }}"
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert steps("ARG")[0].removeprefix("PYTHON=") in pythons
