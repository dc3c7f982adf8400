"""deploy/systemd as systemd reads it, as far as these files need, and its services as an engine is told of them."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from containers.compose_file import ROOT

FOLDER = ROOT / "deploy" / "systemd"
COMMON = "postbacks-.service.d/common.conf"
SERVICES = sorted(path.name for path in FOLDER.glob("*.service"))
#: Environment of a service of the system: systemd sets these, and HOME from the user's entry.
_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/srv/postbacks",
}


def read(*paths: str) -> dict[str, list[str]]:
    """Read files of one unit, the drop-in last: each "Section.Name" with its values in their order."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        section = ""
        for line in (FOLDER / path).read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                name, _, value = line.partition("=")
                values[f"{section}.{name}"].append(value)
    return values


def kind_of(unit: str) -> str:
    """Return the kind of process: worker of postbacks-worker@.service."""
    return unit.removeprefix("postbacks-").removesuffix(".service").removesuffix("@")


def service(unit: str, files: Mapping[str, Mapping[str, str]], instance: str = "1") -> dict[str, Any]:
    """Return the facts that an engine needs of a service, as ``compose_file.container`` does.

    Args:
        files: variables by the path of their file below /etc/postbacks.
    """
    values = read(unit, COMMON)
    env = dict(_ENV)
    prefix = unit.removesuffix(".service").partition("@")[0]
    for source in values["Service.EnvironmentFile"]:
        path = source.removeprefix("-").replace("%p", prefix).removeprefix("/etc/postbacks/")
        if path in files or not source.startswith("-"):
            env |= files[path]
    (command,) = values["Service.ExecStart"]
    (cwd,) = values["Service.WorkingDirectory"]
    assert values["Service.PrivateTmp"] == ["yes"]
    return {
        "name": kind_of(unit),
        "argv": [word.replace("%i", instance).replace("%%", "%") for word in shlex.split(command)],
        "env": env,
        "cwd": cwd,
        "binds": [
            [str(ROOT / file), f"{cwd}/{file}", "ro"] for file in ("celeryconfig.py", "flowerconfig.py")
        ],
        "data": [],
        "tmpfs": ["/tmp"],
        "read_only": values["Service.ProtectSystem"] == ["strict"],
        "stop_s": float(values["Service.TimeoutStopSec"][0]),
    }
