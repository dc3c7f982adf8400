"""docker-compose.yml as Compose reads it, as far as this file needs: .env, variables, environments, mounts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
#: As it stands, variables unread.
RAW: dict[str, Any] = yaml.safe_load(TEXT)
#: Our services, which run our image.
OURS = ("worker", "beat", "history", "web", "flower", "metrics")

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<mark>:[-?])(?P<rest>[^{}]*))?\})")


class Refused(Exception):
    """Compose refuses to start, with this sentence."""


def read_env(text: str) -> dict[str, str]:
    """The variables of a .env file: NAME=value lines, no quotes."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def interpolated(node: Any, env: Mapping[str, str]) -> Any:
    """The file with `${NAME}`, `${NAME:-default}`, `${NAME:?sentence}` and `$$` replaced in every value.

    After the Compose Specification's chapter "Interpolation"; other forms do not occur and are refused.
    """
    if isinstance(node, dict):
        return type(node)({name: interpolated(value, env) for name, value in node.items()})
    if isinstance(node, list):
        return [interpolated(value, env) for value in node]
    if not isinstance(node, str):
        return node
    assert "$" not in _VARIABLE.sub("", node), f"a form of variable that this test does not know: {node}"

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        given = env.get(found["name"], "")
        if given or not found["mark"]:
            return given
        if found["mark"] == ":?":
            raise Refused(found["rest"])
        return found["rest"]

    return _VARIABLE.sub(value, node)


def variables() -> set[str]:
    """Names of the variables that the file reads."""
    return {found["name"] for found in _VARIABLE.finditer(TEXT) if found["name"]}


def image_env() -> dict[str, str]:
    """The ENV of the image's last stage."""
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", last_stage, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split())


def working_dir() -> str:
    """The image's working directory."""
    (folder,) = re.findall(r"^WORKDIR (/srv\S*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return folder


def container(name: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that an engine needs of a service: argv, env, mounts, tmpfs, cwd, nofile, stop_s, healthcheck."""
    service = interpolated(RAW["services"][name], env)
    ours = name in OURS
    variables_: dict[str, str] = image_env() if ours else {"PATH": f"/opt/{name}/bin:/usr/bin:/bin"}
    if name == "postgres":  # ENV of its image
        variables_["PGDATA"] = "/var/lib/postgresql/18/docker"
    if "env_file" in service:
        assert service["env_file"] == [{"path": ".env", "required": False}]
        variables_ |= env
    variables_ |= service.get("environment", {})
    volumes = [volume.split(":") for volume in service.get("volumes", [])]
    return {
        "name": name,
        "argv": service.get("command", ["postgres"]),  # as the image of PostgreSQL has it
        "env": variables_,
        "cwd": working_dir() if ours else "/data" if name == "redis" else "/",  # as their images have it
        "binds": [[str((ROOT / source).resolve()), target, mode] for source, target, mode in _three(volumes)],
        "data": [target for source, target, _ in _three(volumes) if not source.startswith(".")],
        "tmpfs": [one.partition(":")[0] for one in service.get("tmpfs", [])],
        "read_only": service["read_only"],
        "nofile": service.get("ulimits", {}).get("nofile"),
        "stop_s": float(service.get("stop_grace_period", "10s").removesuffix("s")),
        "healthcheck": service.get("healthcheck", {}).get("test", ["CMD", "postbacks", "health"])[1:],
    }


def _three(volumes: list[list[str]]) -> list[tuple[str, str, str]]:
    return [(one[0], one[1], one[2] if len(one) > 2 else "rw") for one in volumes]
