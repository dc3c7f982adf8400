"""docker-compose.external-redis.yml, laid over docker-compose.yml as Compose does it: the same system without a Redis."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from containers.compose_file import OURS, RAW, ROOT, Refused, interpolated, read_env
from jsonschema import Draft202012Validator

TEXT = (ROOT / "docker-compose.external-redis.yml").read_text()
SCHEMA = json.loads((ROOT / "tests" / "compose-spec.json").read_text())
FILLED = read_env((ROOT / ".env.example").read_text()) | {
    "REDIS_PASSWORD": "secret1", "FLOWER_BASIC_AUTH": "me:secret2", "POSTGRES_PASSWORD": "secret3",
    "POSTBACKS_WEB_TOKEN": "secret4-of-web-users",
    "POSTBACKS_BROKER_URL": "rediss://:secret1@redis.example:6379/0",
}  # fmt: skip
RESET = object()


class _Overridden(dict[str, Any]):
    """A map that replaces what is below it."""


class _Loader(yaml.SafeLoader):
    """Knows the two tags of Compose."""


_Loader.add_constructor("!reset", lambda _loader, _node: RESET)
_Loader.add_constructor(
    "!override", lambda loader, node: _Overridden(loader.construct_mapping(node, deep=True))
)


def laid_over(base: Any, over: Any) -> Any:
    """Merge as Compose does: maps are merged, `!reset` removes, `!override` replaces; lists do not occur here."""
    assert not isinstance(over, list)
    if isinstance(over, _Overridden):
        return dict(over)
    if isinstance(over, dict):
        both = (base or {}) | {name: laid_over((base or {}).get(name), value) for name, value in over.items()}
        return {name: value for name, value in both.items() if value is not RESET}
    return over


def project(env: dict[str, str]) -> dict[str, Any]:
    """Read both files; each is filled in by itself, before they are merged."""
    return laid_over(interpolated(RAW, env), interpolated(yaml.load(TEXT, _Loader), env))


def test_both_files_together_are_valid_and_nothing_is_left_of_redis():
    """No service, no volume, nobody who waits for it; a name that is nowhere defined is in no `depends_on`."""
    merged = project(FILLED)
    assert [e.message for e in Draft202012Validator(SCHEMA).iter_errors(merged)] == []
    assert set(merged["services"]) == set(RAW["services"]) - {"redis"}
    assert set(merged["volumes"]) == set(RAW["volumes"]) - {"redis-data"}
    for name, service in merged["services"].items():
        assert service.get("depends_on", {}).keys() <= merged["services"].keys(), name
    for name in ("history", "web"):
        assert merged["services"][name]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_broker_alone_is_another_one():
    """All else of each service is as docker-compose.yml has it."""
    before, after = interpolated(RAW, FILLED)["services"], project(FILLED)["services"]
    for name in OURS:
        url = after[name]["environment"].pop("POSTBACKS_BROKER_URL")
        assert url == "rediss://:secret1@redis.example:6379/0"
        del before[name]["environment"]["POSTBACKS_BROKER_URL"]
        after[name]["depends_on"] = before[name]["depends_on"]
        assert after[name] == before[name]
    assert after["postgres"] == before["postgres"]


@pytest.mark.parametrize("missing", ["POSTBACKS_BROKER_URL", "REDIS_PASSWORD"])
def test_without_the_url_or_the_password_compose_refuses_with_a_sentence(missing):
    """Compose fills docker-compose.yml in before anything is taken out of it, so the password stands in .env as well."""
    with pytest.raises(Refused, match=rf"Set {missing}"):
        project(FILLED | {missing: ""})


def test_the_lines_for_the_env_file_are_those_that_are_needed():
    """As the file's head has them; the third one saves the two `-f` of each command."""
    lines = read_env("\n".join(re.findall(r"(?m)^#   (\w+=.*)$", TEXT)))
    assert lines.keys() == {"REDIS_PASSWORD", "POSTBACKS_BROKER_URL", "COMPOSE_FILE"}
    assert all((ROOT / name).exists() for name in lines["COMPOSE_FILE"].split(":"))
    assert "${REDIS_PASSWORD}" in lines["POSTBACKS_BROKER_URL"]
