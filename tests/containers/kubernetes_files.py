"""deploy/kubernetes as kustomize builds it, as far as these files need, and its pods as an engine is told of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from containers.compose_file import ROOT, Refused, image_env, read_env, working_dir
from jsonschema import Draft202012Validator

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
EXAMPLE = (FOLDER / "secret.env.example").read_text()
#: The example with every line in force, and a value where it has none.
FILLED_EXAMPLE = {
    name: value or "x:y" for name, value in read_env(re.sub(r"(?m)^#(?=[A-Z_]+=)", "", EXAMPLE)).items()
}
_SCHEMA = json.loads((ROOT / "tests" / "kubernetes.json").read_text())
#: Fields by which items of a list of maps are told apart, in the lists that the patch touches.
_MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def documents(path: str) -> list[dict[str, Any]]:
    """Read the documents of a file of the folder."""
    return list(yaml.safe_load_all((FOLDER / path).read_text()))


def merged(base: Any, patch: Any, field: str = "") -> Any:
    """Lay a patch over a resource: Kubernetes' strategic merge, without its directives."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {name: merged(base.get(name), value, name) for name, value in patch.items()}
    if isinstance(base, list) and field in _MERGE_KEYS:
        key = _MERGE_KEYS[field]
        theirs = {item[key]: item for item in base}
        ours = {item[key]: merged(theirs.get(item[key]), item) for item in patch}
        return list((ours | {name: item for name, item in theirs.items() if name not in ours}).values())
    return patch


@cache
def _built() -> list[dict[str, Any]]:
    """Build the kustomization: its resources patched, and the ConfigMap without the hash behind its name."""
    assert KUSTOMIZATION.keys() == {"apiVersion", "kind", "resources", "configMapGenerator", "patches"}
    (patch,), (generator,) = KUSTOMIZATION["patches"], KUSTOMIZATION["configMapGenerator"]
    assert patch["target"] == {"kind": "Deployment"}
    (common,) = documents(patch["path"])
    resources = [one for path in KUSTOMIZATION["resources"] for one in documents(path)]
    for one in resources:
        if one["kind"] == "Deployment":
            one.update(merged(one, {"spec": common["spec"]}))
    (settings,) = generator["envs"]
    data = read_env((FOLDER / settings).read_text())
    name = {"name": generator["name"]}
    return [*resources, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": data}]


def build() -> list[dict[str, Any]]:
    """Build the kustomization anew, for whoever spoils it."""
    return deepcopy(_built())


def by_name(kind: str) -> dict[str, dict[str, Any]]:
    """Return the resources of a kind."""
    return {one["metadata"]["name"]: one for one in build() if one["kind"] == kind}


def pod(name: str, secret: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that an engine needs of a pod: those of ``compose_file.container``, and its probes.

    Raises:
        Refused: the Secret has no such key; Kubernetes leaves the pod in CreateContainerConfigError.
    """
    spec = by_name("Deployment")[f"postbacks-{name}"]["spec"]["template"]["spec"]
    (one,) = spec["containers"]
    env = image_env() | by_name("ConfigMap")[one["envFrom"][0]["configMapRef"]["name"]]["data"]
    for variable in one["env"]:
        if "value" in variable:
            env[variable["name"]] = variable["value"]
            continue
        source = variable["valueFrom"]["secretKeyRef"]
        assert source["name"] == "postbacks"
        if source["key"] in secret:
            env[variable["name"]] = secret[source["key"]]
        elif not source.get("optional"):
            raise Refused(f"couldn't find key {source['key']} in Secret postbacks")
    in_memory = {volume["name"] for volume in spec["volumes"] if volume["emptyDir"]["medium"] == "Memory"}
    assert {mount["name"] for mount in one["volumeMounts"]} == in_memory
    return {
        "name": name,
        "argv": one["command"],
        "env": env,
        "cwd": working_dir(),
        # The image has them.
        "binds": [[str(ROOT / file), f"{working_dir()}/{file}", "ro"] for file in ("celeryconfig.py", "flowerconfig.py")],
        "data": [],
        "tmpfs": [mount["mountPath"] for mount in one["volumeMounts"]],
        "read_only": one["securityContext"]["readOnlyRootFilesystem"],
        "uid": spec["securityContext"]["runAsUser"],
        # Kubernetes puts no init before it.
        "is_init": True,
        "stop_s": float(spec["terminationGracePeriodSeconds"]),
        "probes": {kind: one[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in one},
        "ports": {port["name"]: port["containerPort"] for port in one.get("ports", [])},
    }  # fmt: skip


def faults(resource: dict[str, Any]) -> list[str]:
    """Judge a resource by the schema of its kind."""
    kind = _SCHEMA["kinds"][f"{resource['apiVersion']} {resource['kind']}"]
    schema = {"$ref": f"#/$defs/{kind}", "$defs": _SCHEMA["$defs"]}
    errors = Draft202012Validator(schema).iter_errors(resource)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]


def kubectl_build(folder: Path) -> list[dict[str, Any]]:
    """Have kubectl build a kustomization; the hash behind generated names is left out."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(re.sub(r"\b(postbacks(?:-settings)?)-[a-z0-9]{10}\b", r"\1", done.stdout)))
