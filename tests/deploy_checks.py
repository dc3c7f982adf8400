"""Checks of the blocks of docs/install.md: what needs a cluster, an engine or systemd is tried as far as files go."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import redis
import yaml
from command_blocks import ROOT, Block, Machine
from containers.compose_file import RAW
from containers.kubernetes_files import FILLED_EXAMPLE as SECRET
from containers.kubernetes_files import by_name, faults, kubectl_build
from containers.unit_files import COMMON, SERVICES, kind_of
from containers.unit_files import FOLDER as UNITS
from containers.unit_files import read as read_unit

from postbacks.broker import fitness
from postbacks.devtools.valkey import server_binary

#: What is skipped of systemd's steps: they change the machine, or ask pip's index.
_OF_THE_MACHINE = ("useradd", "python3", "/opt/postbacks/bin/pip", "systemctl")


def _with_deploy(machine: Machine) -> Path:
    """Give the reader the folder deploy/ of the checkout."""
    shutil.copytree(ROOT / "deploy", machine.folder / "deploy", dirs_exist_ok=True)
    return machine.folder


def is_head_of_external_redis(machine: Machine, block: Block) -> None:
    """Find the same lines at the head of the file that they are for; tests/containers lays it over the other one."""
    del machine
    text = (ROOT / "docker-compose.external-redis.yml").read_text()
    assert block.text.splitlines() == re.findall(r"(?m)^#   (\w+=.*)$", text)


def prepares_a_cluster(machine: Machine, block: Block) -> None:
    """Run what makes files; the image is built by commands that tests/containers reads."""
    _with_deploy(machine)
    build, *others = block.text.splitlines()
    assert re.fullmatch(r"docker build -t (\S+) \. && docker push \1", build)
    done = machine.type("\n".join(others))
    assert done.returncode == 0, done.stderr


def builds(machine: Machine, block: Block) -> None:
    """Build the reader's own kustomization; without kubectl, find what it names."""
    own = yaml.safe_load(block.text)
    path = machine.folder / block.text.splitlines()[0].removeprefix("# ")
    path.write_text(block.text)
    folder = path.parent
    secret = "".join(f"{name}={value}\n" for name, value in SECRET.items())
    (folder / own["secretGenerator"][0]["envs"][0]).write_text(secret)
    for name in (*own["resources"], *own["components"]):
        assert (folder / name / "kustomization.yaml").exists()
    assert {one["name"] for one in own["replicas"]} <= by_name("Deployment").keys()
    assert {one["name"] for one in own["configMapGenerator"]} == by_name("ConfigMap").keys()
    if not shutil.which("kubectl"):
        return
    built = {f"{one['kind']}/{one['metadata']['name']}": one for one in kubectl_build(folder)}
    assert {name: faults(one) for name, one in built.items() if faults(one)} == {}
    assert {one["metadata"]["namespace"] for one in built.values()} == {own["namespace"]}
    assert built["Secret/postbacks"]["data"].keys() == SECRET.keys()
    assert len(built["ConfigMap/postbacks-settings"]["data"]) == 2
    (image,) = own["images"]
    for name in by_name("Deployment"):
        (container,) = built[f"Deployment/{name}"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"{image['newName']}:{image['newTag']}"


def is_ingress(machine: Machine, block: Block) -> None:
    """Judge it by the schema of its kind; what it leads to is a port of a Service of ours."""
    del machine
    ingress = yaml.safe_load(block.text)
    assert faults(ingress) == []
    (rule,) = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    (path,) = rule["http"]["paths"]
    service = path["backend"]["service"]
    assert service["port"] in [
        {"name": port["name"]} for port in by_name("Service")[service["name"]]["spec"]["ports"]
    ]
    assert f"`POSTBACKS_WEB_HOSTS={rule['host']}`" in (ROOT / "docs" / "install.md").read_text()


def makes_a_user(machine: Machine, block: Block) -> None:
    """Run what the container would, with a folder in the place of its mount; then its service is shown the same folder."""
    folder, run = block.text.splitlines()
    assert folder == "mkdir web && sudo chown 10001 web"
    options, _, command = run.partition(" web postbacks ")
    assert options == "docker compose run --rm --no-deps -v ./web:/etc/postbacks"
    (machine.folder / "web").mkdir()
    done = machine.type(
        f"echo 'correct horse battery staple' | postbacks {command.replace('/etc/postbacks', 'web')}"
    )
    assert "ann is added to web/users" in done.stdout + done.stderr


def is_override(machine: Machine, block: Block) -> None:
    """Find the file of users where the mount shows it."""
    (service,) = yaml.safe_load(block.text)["services"].items()
    name, own = service
    assert name in RAW["services"]
    (volume,) = own["volumes"]
    source, target, mode = volume.split(":")
    assert mode == "ro"
    users = own["environment"]["POSTBACKS_WEB_USERS"]
    assert (machine.folder / source / users.removeprefix(f"{target}/")).exists()


def clusters(machine: Machine, block: Block) -> None:
    """Check commands of kubectl without a cluster: what they name exists, ours are typed into a terminal."""
    for line in block.text.splitlines():
        words = [word for word in shlex.split(line) if word != "-n"]
        match words:
            case ["kubectl", "create", "namespace", "postbacks"]:
                pass
            case ["kubectl", "apply", "-k", path]:
                assert (machine.folder / path / "kustomization.yaml").exists()
            case ["kubectl", "postbacks", "rollout", "status", deployment]:
                assert deployment.removeprefix("deployment/") in by_name("Deployment")
            case ["kubectl", "postbacks", "exec", deployment, "--", *command]:
                assert deployment.removeprefix("deploy/") in by_name("Deployment")
                done = machine.type(shlex.join(command))
                assert done.returncode == 0, done.stderr
            case _:
                raise AssertionError(f"say how {line!r} is checked")


def makes_a_rule(machine: Machine, block: Block) -> None:
    """Run it up to kubectl: what comes out is the alerts' file below a head."""
    _with_deploy(machine)
    made, _, rest = block.text.rpartition(" | ")
    assert rest == "kubectl -n postbacks apply -f -"
    done = machine.type(made)
    rule = yaml.safe_load(done.stdout)
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())


def installs_units(machine: Machine, block: Block) -> None:
    """Run what makes folders and copies files, below a folder that stands for the machine's root."""
    root = _with_deploy(machine) / "root"
    (root / "etc" / "systemd" / "system").mkdir(parents=True)
    lines = [line.removeprefix("sudo ") for line in block.text.splitlines()]
    assert all(line.split()[0] in {*_OF_THE_MACHINE, "install", "cp"} for line in lines)
    kept = [line.replace(" /", f" {root}/") for line in lines if line.split()[0] not in _OF_THE_MACHINE]
    done = machine.type("\n".join(kept).replace("-g postbacks ", ""))
    assert done.returncode == 0, done.stderr
    for source in UNITS.rglob("*.*"):
        if source.is_file():
            copied = root / "etc" / "systemd" / "system" / source.relative_to(UNITS)
            assert copied.read_text() == source.read_text()
    assert {path.name for path in (root / "srv" / "postbacks").iterdir()} == {
        "celeryconfig.py",
        "flowerconfig.py",
    }


def enables_units(machine: Machine, block: Block) -> None:
    """Find a file for each unit that is named, and each kind of process among those that are started."""
    named = machine.type("\n".join(f"echo {line}" for line in block.text.splitlines())).stdout.split()
    units = [word for word in named if word.startswith("postbacks")]
    started = {re.sub(r"@\d+$", "@", unit) for unit in units} - {"postbacks.target"}
    assert {f"{unit}.service" for unit in started} == set(SERVICES)
    assert sum(unit.startswith("postbacks-beat@") for unit in units) == 2


def runs_beside_the_units(machine: Machine, block: Block) -> None:
    """Compare its files with those of the worker's unit, and type its command."""
    words = shlex.split(block.text)
    files = [word.removeprefix("EnvironmentFile=") for word in words if word.startswith("EnvironmentFile=")]
    assert files == [
        file.replace("%p", "postbacks-worker") for file in read_unit(COMMON)["Service.EnvironmentFile"]
    ]
    assert {kind_of(unit) for unit in SERVICES} >= {"worker"}
    assert (
        "PATH=/opt/postbacks/bin:/usr/bin:/bin" in words
    )  # systemd-run has no other, and finds no `postbacks` itself
    done = machine.type(shlex.join(words[words.index("env") :]))
    assert done.returncode == 0, done.stderr


def is_configuration_of_redis(machine: Machine, block: Block) -> None:
    """Start a server with it: it is fit without a warning, and has what docker-compose.yml gives its own."""
    folder = machine.folder / "own-redis"
    folder.mkdir()
    (folder / "redis.conf").write_text(block.text)
    socket = str(folder / "socket")
    options = ["--port", "0", "--unixsocket", socket, "--dir", str(folder)]
    with subprocess.Popen(
        [server_binary(), str(folder / "redis.conf"), *options], stdout=subprocess.DEVNULL
    ) as server:
        try:
            with redis.Redis(unix_socket_path=socket, password="PASSWORD", decode_responses=True) as client:
                deadline_s = time.monotonic() + 30
                while time.monotonic() < deadline_s:
                    with suppress(redis.ConnectionError):
                        if client.ping():
                            break
                    time.sleep(0.05)
                assert fitness.check(client) == []
                names = [line.split()[0] for line in block.text.splitlines()]
                told = {name: client.config_get(name)[name] for name in names}
        finally:
            server.terminate()
    command = RAW["services"]["redis"]["command"][1:]
    ours = {name.removeprefix("--"): value for name, value in zip(command[::2], command[1::2], strict=True)}
    assert told.keys() == ours.keys()
    assert told | {"requirepass": "", "maxmemory": ""} == ours | {
        "requirepass": "", "maxmemory": "", "auto-aof-rewrite-min-size": str(256 * 1024**2),
    }  # fmt: skip
    assert told["maxmemory"] == str(1024**3)
