"""deploy/kubernetes: valid, hardened, without any password, and of one mind with docker-compose.yml.

No cluster is needed. tests/kubernetes.json has the parts of Kubernetes' schema and of the Prometheus operator's that
are used here (its comment says from where); their licence (Apache 2.0) is that of compose-spec.LICENSE.
``test_containers.py`` runs the commands and asks the probes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter

import pytest
import yaml
from containers.compose_file import RAW, ROOT, Refused, image_env, read_env
from containers.kubernetes_files import (
    EXAMPLE,
    FOLDER,
    KUSTOMIZATION,
    build,
    by_name,
    documents,
    faults,
    kubectl_build,
    pod,
)
from containers.kubernetes_files import FILLED_EXAMPLE as SECRET

from postbacks.settings import load

KINDS = ("worker", "beat", "history", "web", "flower", "metrics")
COMPONENTS = ("monitoring", "autoscaling")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


def containers() -> dict[str, dict]:
    """Return each pod's only container, by the pod's kind."""
    found = {}
    for name, one in by_name("Deployment").items():
        (found[name.removeprefix("postbacks-")],) = one["spec"]["template"]["spec"]["containers"]
    return found


def component(name: str) -> list[dict]:
    """Return the resources of a component."""
    own = yaml.safe_load((FOLDER / name / "kustomization.yaml").read_text())
    assert own["kind"] == "Component"
    return [one for path in own["resources"] for one in documents(f"{name}/{path}")]


def test_every_resource_is_valid_by_the_schema_of_its_kind():
    """Unknown fields are faults, and so are two resources of one name."""
    resources = [*build(), *(one for name in COMPONENTS for one in component(name))]
    assert {f"{one['kind']}/{one['metadata']['name']}": faults(one) for one in resources if faults(one)} == {}
    assert set(Counter((one["kind"], one["metadata"]["name"]) for one in resources).values()) == {1}


@pytest.mark.parametrize(
    "spoil",
    [{"comand": ["x"]}, {"ports": [{"containerPort": "x"}]}, {"livenessProbe": {"httpGet": {"path": "/"}}}],
)
def test_the_schema_would_find_a_mistake(spoil):
    """A misspelt field, a value of the wrong type, one that is missing: the test above can fail."""
    worker = by_name("Deployment")["postbacks-worker"]
    worker["spec"]["template"]["spec"]["containers"][0] |= spoil
    assert faults(worker)


def test_each_file_is_named_by_its_kustomization():
    """Nothing lies there that nobody applies."""
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    named = {
        *KUSTOMIZATION["resources"],
        *generator["envs"],
        *(one["path"] for one in KUSTOMIZATION["patches"]),
    }
    assert {path.name for path in FOLDER.iterdir() if path.is_file() and path.name != "secret.env"} == {
        *named, "kustomization.yaml", "secret.env.example",
    }  # fmt: skip
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(COMPONENTS)


@needs_kubectl
def test_kubectl_builds_what_this_file_judges():
    """The other tests build the kustomization by themselves, as not everybody has kubectl."""

    def sorted_resources(resources):
        return sorted(resources, key=lambda one: (one["kind"], one["metadata"]["name"]))

    assert sorted_resources(kubectl_build(FOLDER)) == sorted_resources(build())


@needs_kubectl
def test_an_autoscaler_has_the_number_of_workers_for_itself(tmp_path):
    """With the component no `kubectl apply` sets it back."""
    paths = {name: str((FOLDER / name).relative_to(ROOT)) for name in COMPONENTS}
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    own = {"resources": ["deploy/kubernetes"], "components": list(paths.values())}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    built = {(one["kind"], one["metadata"]["name"]): one for one in kubectl_build(tmp_path)}
    assert "replicas" not in built["Deployment", "postbacks-worker"]["spec"]
    assert built["Deployment", "postbacks-beat"]["spec"]["replicas"] == 2
    scaler = built["HorizontalPodAutoscaler", "postbacks-worker"]["spec"]
    assert ("Deployment", scaler["scaleTargetRef"]["name"]) in built


def test_every_pod_may_do_no_more_than_it_must():
    """The restricted Pod Security Standard, a read-only root, and no token of Kubernetes."""
    assert set(by_name("Deployment")) == {f"postbacks-{kind}" for kind in KINDS}
    for name, deployment in by_name("Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        user = re.search(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text())
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": int(user[1]),
            "runAsGroup": int(user[2]),
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        assert containers()[name.removeprefix("postbacks-")]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        (volume,) = spec["volumes"]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
        limits = containers()[name.removeprefix("postbacks-")]["resources"]["limits"]
        assert limits.keys() == {"memory"}  # held back by a limit of CPU, a worker ticks late


def test_the_commands_are_those_of_compose():
    """Word for word; a shell refuses to start Flower without a password, and becomes the same command."""
    for kind, one in containers().items():
        service = RAW["services"][kind]["command"]
        assert one["command"] == service or one["command"][:2] == ["sh", "-c"]
    lines = containers()["flower"]["command"][2].splitlines()
    assert lines[-1].split() == ["exec", *RAW["services"]["flower"]["command"]]


def test_no_password_is_in_here_and_without_one_no_pod_starts():
    """The kustomization makes no Secret; what a pod must have and the Secret has not keeps it from starting."""
    assert not any(one["kind"] == "Secret" for one in build())
    assert read_env(EXAMPLE) == {}
    must = {
        "POSTBACKS_BROKER_URL": KINDS,
        "POSTBACKS_HISTORY_URL": ["history"],
        "FLOWER_BASIC_AUTH": ["flower"],
        "POSTBACKS_WEB_TOKEN": ["web"],
    }
    for key, kinds in must.items():
        for kind in kinds:
            with pytest.raises(Refused, match=key):
                pod(kind, {name: value for name, value in SECRET.items() if name != key})
    assert "/deploy/kubernetes/secret.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_flower_does_not_start_with_an_empty_password():
    """An operator may leave the line of secret.env empty."""
    command = pod("flower", SECRET | {"FLOWER_BASIC_AUTH": ""})["argv"]
    done = subprocess.run(command, env={"PATH": "/bin", "FLOWER_BASIC_AUTH": ""}, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "Set FLOWER_BASIC_AUTH=user:password in the Secret postbacks" in done.stderr


def test_each_process_has_the_values_of_the_secret_that_it_needs_and_no_other():
    """As in docker-compose.yml: who signs the key of secrets, recorder and dashboard the database, Flower its password."""
    kept = {kind: {name for name in pod(kind, SECRET)["env"] if name in SECRET} for kind in KINDS}
    assert kept == {
        "worker": {"POSTBACKS_BROKER_URL", "POSTBACKS_SECRET_KEY"},
        "beat": {"POSTBACKS_BROKER_URL"},
        "history": {"POSTBACKS_BROKER_URL", "POSTBACKS_HISTORY_URL", "POSTBACKS_NOTICE_URL", "POSTBACKS_NOTICE_SECRET"},
        "web": {
            "POSTBACKS_BROKER_URL", "POSTBACKS_HISTORY_URL", "POSTBACKS_SECRET_KEY", "POSTBACKS_WEB_TOKEN", "POSTBACKS_WEB_KEY",
        },
        "flower": {"POSTBACKS_BROKER_URL", "FLOWER_BASIC_AUTH"},
        "metrics": {"POSTBACKS_BROKER_URL"},
    }  # fmt: skip
    settings = (ROOT / "docs" / "settings.md").read_text()
    known = (
        {name for kind in KINDS for name in pod(kind, SECRET)["env"]}
        - image_env().keys()
        - {"FLOWER_BASIC_AUTH"}
    )
    assert all(f"`{name}`" in settings for name in known)


def test_a_worker_has_the_time_to_finish_and_another_one_is_there_first():
    """More than POSTs are given; two of each that the promise needs, on different nodes, and one at a time for a drain."""
    assert pod("worker", SECRET)["stop_s"] == 35 > load().stop_within_s + 5
    budgets = by_name("PodDisruptionBudget")
    for kind in ("worker", "beat"):
        spec = by_name("Deployment")[f"postbacks-{kind}"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["replicas"] == 2
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        budget = budgets[f"postbacks-{kind}"]["spec"]
        assert budget["maxUnavailable"] == 1
        selectors = (spec["selector"], spread["labelSelector"], budget["selector"])
        assert [one["matchLabels"] for one in selectors] == [labels] * 3


def test_probes_ask_a_process_about_itself():
    """No probe judges the system, whose trouble no restart cures; nothing that costs a process is asked often."""
    probes = {kind: pod(kind, SECRET)["probes"] for kind in KINDS}
    assert probes["beat"] == {}
    assert list(probes["history"]) == ["readinessProbe"]
    assert probes["history"]["readinessProbe"]["periodSeconds"] >= 60
    for kind, path in (
        ("worker", "/healthz"),
        ("metrics", "/healthz"),
        ("web", "/healthz"),
        ("flower", "/healthcheck"),
    ):
        assert set(probes[kind]) == {"startupProbe", "readinessProbe", "livenessProbe"}
        for probe in probes[kind].values():
            assert probe["httpGet"]["path"] == path
            assert probe["httpGet"]["port"] in pod(kind, SECRET)["ports"]


def test_metrics_are_found_by_the_service_and_the_monitors_and_let_in():
    """Labels, names and numbers of ports agree; of the ports Flower's alone stays closed."""
    labels = {
        kind: by_name("Deployment")[f"postbacks-{kind}"]["spec"]["template"]["metadata"]["labels"]
        for kind in KINDS
    }
    service = by_name("Service")["postbacks-metrics"]
    assert service["spec"]["selector"] == service["metadata"]["labels"] == labels["metrics"]
    (port,) = service["spec"]["ports"]
    assert pod("metrics", SECRET)["ports"] == {port["targetPort"]: port["port"]}
    of_service, of_pods = component("monitoring")
    assert of_service["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert of_service["spec"]["endpoints"][0]["port"] == port["name"]
    assert of_pods["spec"]["selector"]["matchLabels"] == labels["worker"]
    worker = pod("worker", SECRET)
    assert worker["ports"] == {
        of_pods["spec"]["podMetricsEndpoints"][0]["port"]: int(worker["env"]["POSTBACKS_METRICS_PORT"])
    }
    (policy,) = by_name("NetworkPolicy").values()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels["flower"].items()
    allowed = {one["port"] for rule in policy["spec"]["ingress"] for one in rule["ports"]}
    assert allowed == {port["port"], *worker["ports"].values(), *pod("web", SECRET)["ports"].values()}


def test_the_dashboard_is_found_by_its_service_and_a_new_one_is_ready_before_the_old_one_ends():
    """An Ingress names the Service (docs/install.md); without a token and users it would refuse to start."""
    service = by_name("Service")["postbacks-web"]
    deployment = by_name("Deployment")["postbacks-web"]["spec"]
    assert service["spec"]["selector"] == deployment["template"]["metadata"]["labels"]
    (port,) = service["spec"]["ports"]
    assert pod("web", SECRET)["ports"] == {port["targetPort"]: port["port"]}
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
