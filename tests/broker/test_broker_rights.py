"""Each kind of process runs as a user of the broker who has the rights that docs/settings.md gives it, and no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from events import examples
from helpers import BASE_ENV, ended, environment, eventually, free_port, set_account
from history.records import make_record
from recording import make_recorder, no_waiting, rows, settle

from postbacks import keys, send_postback, send_postbacks
from postbacks.accounts import store
from postbacks.broker.client import client_for
from postbacks.cli import main
from postbacks.client import sending
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.devtools.stack import CeleryProcess
from postbacks.doctor.table import CHECKS
from postbacks.errors import BrokerUnfit
from postbacks.history.feed import Feed
from postbacks.monitor import snapshot
from postbacks.operate import read_job, start_resend, stop_job
from postbacks.operate.jobs.mover import Mover
from postbacks.queue.scripts import Scripts
from postbacks.queue.tick import Tick
from postbacks.settings import load

pytestmark = pytest.mark.usefixtures("forked")

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
RULES = re.findall(r"^    (ACL SETUSER (\w+) .*)$", PAGE, re.MULTILINE)
PROGRAM = str(Path(sys.executable).with_name("postbacks"))
EVENT = examples()["SMS_MO", "N211"]
PASSWORD = "s3cret"
NODE = "rights@here"

SENDER = """
import json, sys
from postbacks import send_postback, send_postbacks
event = json.loads(sys.argv[1])
first = send_postback.delay("acme", event)
send_postback.apply_async(("acme", event), priority=5)
send_postbacks("acme", [event] * 3)
failing = send_postback.delay("failing", event)
print(first.get(timeout=30)["outcome"], first.id, failing.id)
"""


def url_of(broker: EmbeddedBroker, kind: str) -> str:
    """The broker's URL for the user of this kind of process."""
    return f"redis://{kind}:{PASSWORD}@127.0.0.1:{broker.port}"


def make_users(client: redis.Redis) -> None:
    """Paste the page into the broker."""
    for line, _ in RULES:
        client.execute_command(*line.replace(">PASSWORD", f">{PASSWORD}").split())


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[EmbeddedBroker, redis.Redis]]:
    """A broker whose users these tests make, and a client that may do everything."""
    with EmbeddedBroker() as broker, broker.client() as client:
        yield broker, client


@pytest.fixture
def guarded(server) -> tuple[EmbeddedBroker, redis.Redis]:
    """The broker with the users of the page, empty."""
    _, client = server
    client.flushdb()
    client.acl_log_reset()
    make_users(client)
    return server


def denials(client: redis.Redis) -> list[tuple[str, str, str]]:
    """List the refusals: to whom, where, what."""
    return [(entry["username"], entry["context"], entry["object"]) for entry in client.acl_log()]


def test_everything_runs_with_the_rights_of_the_page_and_asks_for_no_more(guarded, tmp_path):
    """Client, worker, beat, command line, doctor, health, metrics and Flower; ACL LOG stays empty."""
    broker, client = guarded
    base = {**os.environ, **BASE_ENV, "POSTBACKS_RETRY_COUNTDOWN_S": "0.5", "POSTBACKS_MAX_RESENDS": "1"}
    ports = {kind: free_port() for kind in ("worker", "metrics", "flower")}

    def env(kind: str, **more: str) -> dict[str, str]:
        return {**base, "POSTBACKS_BROKER_URL": url_of(broker, kind), **more}

    def run(kind: str, *command: str) -> str:
        done = subprocess.run(
            command, env=env(kind), input=json.dumps(EVENT), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def call(kind: str, *args: str) -> str:
        with environment(POSTBACKS_BROKER_URL=url_of(broker, kind)):
            shown = CliRunner().invoke(main, args, prog_name="postbacks")
        assert shown.exit_code == 0, (args, shown.output)
        return shown.stdout

    def page(kind: str, path: str) -> str:
        def look() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{ports[kind]}/{path}", timeout=60) as answer:
                    return answer.read().decode()
            except OSError:
                return ""

        return eventually(look, what=f"{kind}'s {path}")

    def answer(post):
        return Answer(500 if "failing" in post.path else 200)

    processes = [
        worker(broker, tmp_path, **{**base, "POSTBACKS_METRICS_PORT": str(ports["worker"])}),
        CeleryProcess("beat", env=env("beat"), log_path=tmp_path / "beat.log"),
        CeleryProcess(
            "flower",
            env=env("flower", FLOWER_UNAUTHENTICATED_API="1"),
            args=[f"--port={ports['flower']}", "--address=127.0.0.1"],
            log_path=tmp_path / "flower.log",
        ),
    ]
    metrics = [PROGRAM, "metrics", "--port", str(ports["metrics"])]
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(answer))
        for process in processes:
            stack.enter_context(process)
        processes[0].wait_for_log(" ready.", 120)
        processes[0].wait_for_log("taskevents.on", 60)  # which Flower asks for; before it would see nothing
        call("operator", "account", "set", "acme", "--url", receiver.url("/ok"), "--rate", "500/s")
        call("operator", "account", "set", "failing", "--url", receiver.url("/failing"))
        outcome, delivered, failing = run("sender", sys.executable, "-c", SENDER, json.dumps(EVENT)).split()
        assert outcome == "delivered"
        assert ended(client, failing).state == "dead"
        assert delivered in call("operator", "show", delivered)
        assert failing in call("operator", "list", "--dead")
        call("operator", "resend", failing)
        assert "/c/" in call("operator", "web", "link", "acme")
        assert "acme" in call("operator", "web", "link", "--list")
        call("operator", "web", "link", "acme", "--revoke")
        assert run("operator", PROGRAM, "send", "acme", "-", "--wait", "30")
        assert f"{len(CHECKS)} checks" in call("doctor", "doctor")
        assert f"{len(CHECKS)} checks" in call("operator", "doctor", "--fix")
        assert "well" in call("metrics", "health")
        ping = ["-m", "celery", "-A", "postbacks", "inspect", "ping", "-d", NODE, "--timeout", "30"]
        assert "pong" in run("flower", sys.executable, *ping)
        eventually(lambda: delivered in page("flower", "api/tasks"), what="the postback in Flower")
        eventually(lambda: NODE in page("flower", "api/workers?refresh=1"), what="the worker in Flower")
        assert "postbacks.work" in page("flower", "api/queues/length")
        assert page("worker", "readyz")
        served = stack.enter_context(subprocess.Popen(metrics, env=env("metrics")))
        stack.callback(served.terminate)
        assert "postbacks_dead" in page("metrics", "metrics")
        assert page("metrics", "readyz")
        logs = "".join(process.log() for process in processes)
    assert denials(client) == []
    assert "permission" not in logs


@pytest.mark.parametrize("kind", ["operator", "worker"])
def test_who_may_show_a_postback_is_told_why_it_waits(guarded, kind):
    """Of one that the ledger has, one that a loop holds and one that still is a message: nothing is refused."""
    broker, client = guarded
    scripts = Scripts(client)
    with environment(POSTBACKS_BROKER_URL=url_of(broker, "operator")):
        set_account("acme", url="http://127.0.0.1:8080/")
    with environment(POSTBACKS_BROKER_URL=url_of(broker, "worker")):
        taken_in = send_postbacks("acme", [EVENT] * 3)
        Tick(scripts, store(), load()).run()
        client.hset(f"{keys.LANE_STATE}acme/mo", "failing", 1)
        limits = {"at_most": 9, "suspects_max": 9, "free": 99, "held_max": 9, "held_per_lane": 2}
        scripts.claim("a loop", 30_000, slow_lanes=(), **limits)
        in_queue = send_postbacks("acme", [EVENT])
    told = []
    with environment(POSTBACKS_BROKER_URL=url_of(broker, kind)):
        for postback_id in (*taken_in, *in_queue):
            shown = CliRunner().invoke(main, ["show", postback_id, "--json"], prog_name="postbacks")
            told.append([cause["cause"] for cause in json.loads(shown.stdout)["why"]])
    assert told == [["open"], ["held", "probe"], ["probe"], ["in_queue"]]
    assert denials(client) == []


def granted(kind: str) -> list[str]:
    """The rights of a kind, commands and keys, as the page's lines give them."""
    words = [word for line, name in RULES if name == kind for word in line.split()[3:]]
    return [word for word in words if word[0] in "+~%&" and word != "+client|setinfo"]


def without(client: redis.Redis, kind: str, right: str) -> None:
    """Make the user anew with all the rights but one."""
    rights = [word for word in granted(kind) if word != right]
    client.execute_command("ACL", "SETUSER", kind, "reset", "on", f">{PASSWORD}", "+client|setinfo", *rights)


def send_and_look() -> None:
    """Send as an application does, once with a priority, and look what came of it."""
    sent = send_postback.apply_async(("acme", EVENT), priority=5)
    send_postback.delay("acme", EVENT)
    assert sent.state


@pytest.mark.parametrize("right", granted("sender"))
def test_a_sender_who_lacks_any_of_its_rights_is_told_which_and_who_it_is(guarded, right):
    """So the page's rule is the smallest."""
    broker, client = guarded
    without(client, "sender", right)
    sending._check_broker_once.cache_clear()
    with environment(POSTBACKS_BROKER_URL=url_of(broker, "sender")), pytest.raises(BrokerUnfit) as refused:
        send_and_look()
    names(str(refused.value), "sender", right)


@pytest.mark.parametrize("right", granted("metrics"))
def test_a_scrape_that_lacks_any_of_its_rights_is_told_which_and_who_it_is(guarded, right):
    """Also one that is missed inside a script; what is looked at has a postback in each of its places."""
    broker, client = guarded
    client.hset(keys.BACKLOG, "acme", 1)
    client.rpush(keys.lane("acme/mo"), "one")
    client.hset(keys.record("one"), "created_ms", 1)
    client.zadd(keys.CLAIMERS, {"few": 1, "many": 1})
    client.hset(keys.claims("few"), "two", 1)
    client.hset(keys.claims("many"), mapping=dict.fromkeys(map(str, range(5000)), 1))
    Feed(client).register()
    without(client, "metrics", right)
    url = url_of(broker, "metrics")
    with environment(POSTBACKS_BROKER_URL=url):
        try:
            now = snapshot.read(client_for(url, 5.0), load())
        except BrokerUnfit as error:
            refused = str(error)
        else:  # of the history alone: a user of 0.1.0 sees everything else
            assert right in {"+multi", "+exec", "+xlen", "+xrange", "+xrevrange", "+memory|usage"}
            refused = now.history.fault
    names(refused, "metrics", right)


def worker(broker: EmbeddedBroker, folder: Path, **more: str) -> CeleryProcess:
    """A worker as its own user; not started."""
    env = {**BASE_ENV, **more, "POSTBACKS_BROKER_URL": url_of(broker, "worker")}
    args = ["--loglevel=INFO", f"--hostname={NODE}"]
    return CeleryProcess("worker", env=env, args=args, log_path=folder / "worker.log")


def names(sentence: str, kind: str, right: str) -> None:
    """The sentence says who lacks what, and how it is allowed."""
    assert f"does not let its user '{kind}' " in sentence
    assert PASSWORD not in sentence
    if right.startswith("+"):
        assert f"run {right[1:]}: allow {right}; " in sentence
    else:
        assert "use a key: allow ~postbacks:* and what else this process uses, `ACL LOG`" in sentence


def test_a_worker_that_lacks_a_right_names_it_and_goes_on_when_it_is_given(guarded, tmp_path):
    """Not a lost connection without a reason, tried again without a pause."""
    broker, client = guarded
    without(client, "worker", "+brpop")
    with worker(broker, tmp_path) as process:
        process.wait_for_log("does not let its user 'worker' run brpop: allow +brpop; ", 60)
        assert "The worker tries again." in process.log()
        make_users(client)
        process.wait_for_log(" ready.", 120)


@pytest.mark.parametrize("right", ["+llen", "+lpush", "+multi"])
def test_a_beat_that_lacks_a_right_says_so_in_one_line(guarded, tmp_path, right):
    """Not by two stacks; and it goes on when the right is given."""
    broker, client = guarded
    without(client, "beat", right)
    env = {**BASE_ENV, "POSTBACKS_BROKER_URL": url_of(broker, "beat")}
    with CeleryProcess("beat", env=env, args=["--loglevel=DEBUG"], log_path=tmp_path / "beat.log") as process:
        process.wait_for_log(f"does not let its user 'beat' run {right[1:]}: allow {right}; ", 60)
        make_users(client)
        process.wait_for_log("postbacks.dispatch sent", 60)
        said = process.log()
    assert "beat.not_sent entry=postbacks.dispatch" in said
    assert "Traceback" not in said
    assert 'File "' not in said


def test_a_worker_that_kombu_gives_up_ends_with_the_sentence_and_no_traceback(guarded, tmp_path):
    """The channel of Celery's control commands."""
    broker, client = guarded
    without(client, "worker", "&/0.postbacks.control.pidbox")
    with worker(broker, tmp_path) as process:
        assert process.wait(60) == 2
        assert (
            "does not let its user 'worker' use a channel: allow &/0.postbacks.control.pidbox"
            in process.log()
        )
        assert "Traceback" not in process.log()


def test_a_recorder_records_and_resyncs_with_the_rights_of_the_page(guarded, tmp_path, monkeypatch):
    """And cannot write a record; ACL LOG stays empty until it tries."""
    no_waiting(monkeypatch)
    broker, client = guarded
    url = f"sqlite:///{tmp_path}/history.db"
    ids = ["one", "two"]
    as_recorder = client_for(url_of(broker, "recorder"), 5)
    recorder = make_recorder(as_recorder, url)
    for postback_id in ids:
        client.hset(keys.record(postback_id), mapping={"schema": 1, "state": "waiting", "created_ms": 1000})
        settle(recorder, as_recorder)  # the first by the resync, the second by the feed
        client.xadd(keys.CHANGES, {"ids": "two"})
    settle(recorder, as_recorder)
    recorder.close()
    assert [row[0] for row in rows(url)] == ids
    assert denials(client) == []
    with pytest.raises(redis.exceptions.NoPermissionError):
        as_recorder.hset(keys.record("one"), "state", "delivered")


def test_a_job_is_asked_for_and_moved_with_the_rights_of_the_page(guarded, tmp_path, monkeypatch):
    """By an operator and by a process that runs history; of one postback the history alone has the document."""
    no_waiting(monkeypatch)
    broker, client = guarded
    url = f"sqlite:///{tmp_path}/history.db"
    postback_ids = [f"postback-{number}" for number in range(3)]
    with environment(POSTBACKS_BROKER_URL=url_of(broker, "operator")):
        set_account("acme", url="http://127.0.0.1:8080/in")
        as_mover = client_for(url_of(broker, "mover"), 5)
        recorder = make_recorder(as_mover, url)
        for postback_id in postback_ids:
            now_ms = int(time.time() * 1000)
            _, fields = make_record(
                postback_id, state="dead", reason="status", accepted_ms=now_ms, ended_ms=now_ms
            )
            client.hset(keys.record(postback_id), mapping=fields)
            client.zadd(keys.DEAD, {postback_id: 1})
        settle(recorder, as_mover)
        client.delete(keys.record(postback_ids[0]))
        job = start_resend(ids=postback_ids)
        mover = Mover(recorder, as_mover, load())
        while read_job(job.id).state == "asked":
            recorder.turn()
            mover.turn()
        mover.turn()
        mover.turn()
        assert read_job(job.id).counts.moved == 3
        assert stop_job(job.id).state == "stopped"
        mover._tidy_at_s = 0.0
        mover.turn()
        recorder.close()
    assert denials(client) == []
