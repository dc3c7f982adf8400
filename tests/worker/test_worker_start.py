"""`celery -A postbacks …` as operators type it: what starts, what refuses, which configuration is read."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from celery.app.defaults import NAMESPACES, flatten
from events import EVENT
from forked_processes import forking
from helpers import BASE_ENV, ended, eventually, free_port, running, set_account, short_and_long

from postbacks import keys, send_postback, send_postbacks
from postbacks.app import app
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.devtools.stack import CeleryProcess
from postbacks.ledger.ledger import Ledger

QUIET = ("--without-mingle", "--without-gossip", "--loglevel=INFO")


def celery(url: str, *args: str, cwd=None, app="postbacks", **env: str) -> subprocess.CompletedProcess[str]:
    """Run `celery -A postbacks …` to its end, forked; what goes on is started as operators start it."""
    with forking():
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", app, *args],
            env={**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": url, "COLUMNS": "200"} | env,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def in_background(kind: str, url: str, log_path, *args: str, cwd=None, **env: str) -> CeleryProcess:
    """`celery -A postbacks …` that goes on until it is stopped."""
    env = {**BASE_ENV, "POSTBACKS_BROKER_URL": url} | env
    return CeleryProcess(kind, env=env, args=args, log_path=log_path, cwd=cwd)  # type: ignore[arg-type]


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--pool", "solo"], "the pool 'solo' cannot deliver and tick at the same time; use --pool threads or prefork."),
        (["--concurrency", "1"],
         "a concurrency of 1 cannot deliver and tick at the same time; use --concurrency 2 or more."),
        (["--pool", "prefork", "--concurrency", "1"],
         "a concurrency of 1 cannot deliver and tick at the same time; use --concurrency 2 or more."),
        (["--pool", "prefork", "--pool-start-method", "spawn"],
         "children that are spawned share no delivering loops with their worker; use --pool-start-method fork."),
        (["POSTBACKS_ACCOUNTS=no_such_shop.accounts:Store"],
         "POSTBACKS_ACCOUNTS='no_such_shop.accounts:Store' cannot be loaded (No module named 'no_such_shop'); write module:attribute of an AccountStore."),
    ],
    ids=["solo", "threads 1", "prefork 1", "spawn", "no account store"],
)  # fmt: skip
def test_a_worker_that_cannot_work_refuses_to_start_with_one_sentence(broker, args, sentence):
    """Exit code 2, what to do instead, no traceback. A setting stands before the options, as in a shell."""
    settings = [arg for arg in args if arg.startswith("POSTBACKS_")]
    options = [arg for arg in args if arg not in settings]
    env = dict(setting.split("=") for setting in settings)
    done = celery(broker.url, "worker", *QUIET, *options, **env)
    assert done.returncode == 2, done.stderr
    assert f"postbacks: {sentence}\n" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
        ({"replicaof": "127.0.0.1 1"}, "point POSTBACKS_BROKER_URL at the primary"),
        ({"cluster-enabled": "yes"}, "is a cluster node; Celery 5.7 cannot use Redis Cluster"),
    ],
    ids=["evicting", "replica", "cluster node"],
)
def test_a_broker_that_would_lose_postbacks_is_refused_with_one_sentence(config, words):
    """Exit code 2, one sentence, no traceback."""
    with EmbeddedBroker(config=config) as unfit:
        done = celery(unfit.url, "worker", *QUIET)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("postbacks: ")]
    assert words in line
    assert "Traceback" not in done.stdout + done.stderr


def test_a_broker_without_an_append_only_file_is_warned_of(tmp_path):
    """The worker works, and the log says what may be lost; a misspelt setting is named there, too."""
    with (
        EmbeddedBroker(config={"appendonly": "no"}) as careless,
        in_background(
            "worker", careless.url, tmp_path / "worker.log", *QUIET, POSTBACKS_MAX_RESEND="3"
        ) as worker,
    ):
        worker.wait_for_log(" ready.", 90)
        assert "Set appendonly yes and appendfsync always." in worker.log()
        assert "POSTBACKS_MAX_RESEND is no setting of postbacks" in worker.log()


def test_a_cluster_url_stops_a_start_with_a_sentence():
    """A cluster is not waited for as a broker that is away is; the password is not shown."""
    done = celery("redis+cluster://:SECRET@127.0.0.1:7000/0", "worker", *QUIET)
    assert done.returncode == 2
    assert "Celery 5.7 cannot use Redis Cluster" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr


@pytest.mark.parametrize("setting", ["POSTBACKS_MAX_RESENDS", "POSTBACKS_ALLOWED_NETWORKS"])
def test_a_bad_setting_stops_a_start_with_a_sentence(broker, setting):
    """The variable and its value are named; there is no traceback to read."""
    done = celery(broker.url, "worker", *QUIET, **{setting: "many"})
    assert done.returncode == 2
    assert f"{setting}='many'" in done.stderr
    assert "Correct the environment and start again." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_waits_for_a_broker_that_is_not_there_yet(tmp_path):
    """Started before its broker, it says so and goes on as soon as there is one."""
    port = free_port()
    worker = in_background("worker", f"redis://127.0.0.1:{port}/0", tmp_path / "worker.log", *QUIET)
    worker.start()
    try:
        worker.wait_for_log("It is waited for.", 90)
        with EmbeddedBroker(port=port):
            worker.wait_for_log(" ready.", 90)
            worker.stop()
    finally:
        worker.kill(group=True)


# -- the commands ---------------------------------------------------------------------------------


def test_inspect_report_and_the_rest_of_celerys_commands_work(broker, tmp_path):
    """inspect registered, inspect stats and status of a running worker; report without one."""
    # with a destination the answer ends the waiting, not the time-out
    ours = ("--timeout", "10", "--destination", f"worker1@{socket.gethostname()}")
    with running(broker, tmp_path):
        registered = celery(broker.url, "inspect", "registered", "--json", *ours)
        assert registered.returncode == 0, registered.stderr
        (tasks,) = json.loads(registered.stdout).values()
        assert sorted(tasks) == ["postbacks.deliver", "postbacks.dispatch", "postbacks.send_postback"]
        eventually(lambda: broker.client().get(keys.LAST_TICK), what="a tick")
        stats = celery(broker.url, "inspect", "stats", "--json", *ours)
        (numbers,) = json.loads(stats.stdout).values()
        assert numbers["pool"]["max-concurrency"] == 4
        assert "postbacks.dispatch" in numbers["total"]
        ping = celery(broker.url, "status", *ours)
        assert "1 node online." in ping.stdout
    report = celery(broker.url, "report")
    assert report.returncode == 0
    assert "software -> celery:5.7" in report.stdout


def test_a_report_shows_no_password_of_the_broker():
    """celery report prints the whole configuration; people paste it into tickets."""
    with EmbeddedBroker() as guarded:
        with guarded.client() as client:
            client.config_set("requirepass", "hunter2")
        report = celery(guarded.url.replace("//", "//:hunter2@"), "report")
    assert report.returncode == 0, report.stderr
    assert "hunter2" not in report.stdout + report.stderr


def test_beat_leaves_no_file_in_the_working_directory(broker, tmp_path):
    """The schedule is in memory; a container needs no volume for it."""
    cwd = tmp_path / "empty"
    cwd.mkdir()
    with in_background("beat", broker.url, tmp_path / "beat.log", "--loglevel=DEBUG", cwd=cwd) as beat:
        beat.wait_for_log("postbacks.dispatch sent", 90)
        assert list(cwd.iterdir()) == []
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize("configuration", short_and_long("", "task_default_priority = 9"))
def test_beats_without_workers_leave_one_tick_in_the_queue(broker, tmp_path, configuration):
    """However long no worker runs, how many beats do, and which priority a deployment's tasks have."""
    (tmp_path / "celeryconfig.py").write_text(f"{configuration}\n")
    beats = [
        in_background("beat", broker.url, tmp_path / f"beat{n}.log", "--loglevel=DEBUG", cwd=tmp_path)
        for n in (1, 2)
    ]
    with beats[0], beats[1], broker.client() as client:
        for beat in beats:
            eventually(lambda beat=beat: beat.log().count("postbacks.dispatch sent") >= 2)
        assert client.llen("postbacks.work") in {1, 2}  # two beats may look at the same moment
        assert client.keys("postbacks.work*") == [b"postbacks.work"]  # no list of another priority


def test_flower_starts_answers_and_ends(broker, tmp_path):
    """`celery -A postbacks flower` on a port of its own: health, the worker and its tasks."""
    with Receiver() as spare:
        port = spare.port  # free as soon as the receiver has stopped
    with (
        running(broker, tmp_path) as stack,
        in_background("flower", broker.url, tmp_path / "flower.log", "--address=127.0.0.1", f"--port={port}",
                      FLOWER_UNAUTHENTICATED_API="true", cwd=tmp_path) as flower,
    ):  # fmt: skip
        assert eventually(lambda: get(port, "/healthcheck"), what="Flower's answer") == (200, "OK")

        def workers():
            status, body = get(port, "/api/workers?refresh=1") or (0, "")
            return json.loads(body) if status == 200 else {}

        (seen,) = eventually(workers, what="a worker in Flower").values()
        assert [queue["name"] for queue in seen["active_queues"]] == ["postbacks.work"]
        with Receiver(lambda _: Answer(500)) as receiver:
            set_account("bad", url=receiver.url())
            parked = send_postback.delay("bad", EVENT)
            ledger = Ledger(broker.client())
            eventually(lambda: getattr(ledger.find(parked.id), "state", "") == "parked")
            assert get(port, f"/api/task/revoke/{parked.id}", "POST")[0] == 200  # what its button does
            assert ended(broker.client(), parked.id).state == "cancelled"
        flower.terminate()
        flower.wait(90)
        assert all(worker.alive for worker in stack.workers)


def get(port: int, path: str, method: str = "GET") -> tuple[int, str] | None:
    """Make one request; None where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def test_revoking_as_flowers_button_does_cancels_in_redis(broker, tmp_path):
    """app.control.revoke(id): what is parked is cancelled for good, also for workers started later."""
    answers = {"/bad": Answer(500)}
    with Receiver(lambda post: answers.get(post.path, Answer())) as receiver, running(broker, tmp_path):
        set_account("bad", url=receiver.url("/bad"))
        parked = [send_postback.delay("bad", EVENT) for _ in range(3)]
        ledger = Ledger(broker.client())
        for result in parked:
            eventually(lambda result=result: getattr(ledger.find(result.id), "state", "") == "parked")
        app.control.revoke(parked[0].id)
        app.control.revoke([parked[1].id, parked[2].id], terminate=True)
        for result in parked:
            assert ended(broker.client(), result.id).state == "cancelled"
            assert result.state == "REVOKED"
        assert broker.client().zcard("postbacks:parked") == 0
        assert len(receiver.received) == 3


# -- configuration --------------------------------------------------------------------------------


def test_the_working_directorys_celeryconfig_is_applied(broker, tmp_path):
    """The file overrides the built-in configuration, the rest stays."""
    (tmp_path / "celeryconfig.py").write_text("worker_concurrency = 7\nbroker_heartbeat = 11\n")
    with in_background("worker", broker.url, tmp_path / "worker.log", *QUIET, cwd=tmp_path) as worker:
        worker.wait_for_log(" ready.", 90)
        assert "concurrency: 7 (thread)" in worker.log()
        assert "postbacks.work" in worker.log()
    assert "broker_heartbeat: 11" in celery(broker.url, "report", cwd=tmp_path).stdout


def test_the_option_config_names_another_one_and_celerys_variable_does_not(broker, tmp_path):
    """The option wins over a celeryconfig.py that is there as well; the variable is another app's."""
    (tmp_path / "celeryconfig.py").write_text("worker_concurrency = 7\n")
    (tmp_path / "production.py").write_text("worker_concurrency = 9\n")
    report = celery(
        broker.url, "--config", "production", "report", cwd=tmp_path, CELERY_CONFIG_MODULE="shop.settings"
    )
    assert "worker_concurrency: 9\n" in report.stdout, report.stderr
    report = celery(broker.url, "report", cwd=tmp_path, CELERY_CONFIG_MODULE="production")
    assert "worker_concurrency: 7\n" in report.stdout, report.stderr
    assert "settings.not_read variables=CELERY_CONFIG_MODULE " in report.stderr


def test_a_deployments_own_schedule_stands_beside_the_tick(broker, tmp_path):
    """beat_schedule in celeryconfig.py adds entries; without the tick nothing would ever leave."""
    (tmp_path / "celeryconfig.py").write_text('beat_schedule = {"mine": {"task": "x", "schedule": 3600}}\n')
    shown = "from postbacks.celery import app; print(sorted(app.conf.beat_schedule))"
    done = subprocess.run(
        [sys.executable, "-c", shown], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "['mine', 'postbacks.dispatch']"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config", "prodcution"], "the configuration 'prodcution' cannot be loaded"),
        (["-b", "redis://127.0.0.1:1"], "celery -b (--broker) is not for postbacks: the broker is POSTBACKS_BROKER_URL"),
        ([], "celeryconfig.py sets what postbacks cannot work with: CELERY_RESULT_BACKEND ("),
    ],
    ids=["a configuration that is not there", "a broker", "another project's configuration"],
)  # fmt: skip
def test_what_would_run_on_the_wrong_configuration_does_not_start(broker, tmp_path, args, words):
    """Nobody wants to run on the defaults by a slip of the pen: exit code 2, one sentence, no traceback."""
    (tmp_path / "celeryconfig.py").write_text('CELERY_RESULT_BACKEND = "django-db"\n')
    done = celery(broker.url, *args, "worker", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("postbacks: ")
    assert words in line
    assert done.stdout == ""


def test_a_deployments_routes_and_transport_options_stand_beside_ours(broker, tmp_path):
    """`*` would take the ticks away from the workers; without our time-outs a frozen broker would hold them."""
    (tmp_path / "celeryconfig.py").write_text(
        'task_routes = {"*": {"queue": "shop"}}\nbroker_transport_options = {"visibility_timeout": 7200}\n'
    )
    shown = (
        "from postbacks.celery import app\n"
        "print(app.conf.broker_transport_options)\n"
        "for name in ('postbacks.dispatch', 'postbacks.deliver', 'postbacks.send_postback', 'shop.add'):\n"
        "    print(app.amqp.router.route({}, name)['queue'].name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", shown], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    options, *queues = done.stdout.splitlines()
    assert "'socket_timeout': 3.0" in options
    assert "'visibility_timeout': 7200" in options
    assert queues == ["postbacks.work", "postbacks.work", "postbacks", "shop"]


def test_any_app_option_that_leads_to_our_app_starts_the_same_worker(broker, tmp_path):
    """`-A postbacks.app` and another module's name for it: tasks, bootsteps and configuration are there."""
    (tmp_path / "celeryconfig.py").write_text("worker_concurrency = 7\n")
    (tmp_path / "shop.py").write_text("from postbacks.app import app\n")
    env = {**BASE_ENV, "POSTBACKS_BROKER_URL": broker.url}
    worker = CeleryProcess(
        "worker", env=env, args=QUIET, log_path=tmp_path / "worker.log", cwd=tmp_path, app="postbacks.app"
    )
    beat = CeleryProcess("beat", env=env, log_path=tmp_path / "beat.log", cwd=tmp_path, app="shop")
    with Receiver() as receiver, worker, beat:
        set_account("acme", url=receiver.url())
        assert ended(broker.client(), send_postback.delay("acme", EVENT).id).state == "delivered"
        assert "concurrency: 7 (thread)" in worker.log()
    assert worker.wait(5) == 0
    refused = celery(broker.url, "worker", *QUIET, "--pool", "solo", app="postbacks.app")
    assert refused.returncode == 2
    assert "postbacks: the pool 'solo' cannot deliver and tick" in refused.stderr


def test_our_own_celeryconfig_has_settings_that_celery_knows():
    """The file beside docker-compose.yml; tests/containers start workers with it."""
    settings: dict[str, object] = {}
    path = Path(__file__).parents[2] / "celeryconfig.py"
    exec(compile(path.read_text(), path.name, "exec"), settings)
    known = {name for name, _ in flatten(NAMESPACES)}
    assert {name for name in settings if not name.startswith("__")} <= known


LINK = {"POSTBACKS_METRICS_PORT": "tcp://10.3.240.11:9464"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_kubernetes_sets_beside_a_service_is_told_once_and_ignored(broker, tmp_path, form):
    """In the form of the logs, by every process that reads settings."""
    done = celery(broker.url, "report", cwd=tmp_path, POSTBACKS_LOG=form, **LINK)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    told = json.loads(line)["detail"] if form == "json" else line
    assert told.startswith("POSTBACKS_METRICS_PORT=tcp://10.3.240.11:9464 is ignored: Kubernetes sets it")
    assert "enableServiceLinks: false" in told


def test_an_application_in_kubernetes_sends_and_warns_once_through_its_logging(broker, tmp_path):
    """Every .delay() raised BadSetting."""
    program = (
        "import logging, postbacks\n"
        "logging.basicConfig(format='%(levelname)s %(name)s %(message)s')\n"
        f"print([postbacks.send_postback.delay('acme', {EVENT!r}).state for _ in range(2)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **BASE_ENV, **LINK, "POSTBACKS_BROKER_URL": broker.url},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "['PENDING', 'PENDING']\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "WARNING postbacks.settings POSTBACKS_METRICS_PORT=tcp://10.3.240.11:9464 is ignored"
    )


@pytest.mark.parametrize("named", [{}, {"CELERY_CONFIG_MODULE": "celeryconfig"}], ids=["there", "named"])
def test_a_program_that_imports_postbacks_never_loads_a_file_of_that_name(broker, tmp_path, named):
    """The file is the application's own; we neither run it nor take settings from it."""
    (tmp_path / "celeryconfig.py").write_text("raise SystemExit('celeryconfig was loaded')\n")
    program = (
        "import sys, postbacks\n"
        "from postbacks.app import app\n"
        "assert app.conf.worker_concurrency == 4\n"
        f"print(postbacks.send_postback.delay('acme', {EVENT!r}).state)\n"
        "assert 'celeryconfig' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": broker.url, **named},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "PENDING\n"), done.stderr


def test_celerys_shutdown_command_stops_claiming_as_a_signal_does(broker, tmp_path):
    """`celery control shutdown` sends no signal: the loop is told all the same, and the rest stays for others."""
    with Receiver(lambda _: Answer(delay_s=0.2)) as receiver, running(broker, tmp_path) as stack:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [EVENT] * 3000)
        receiver.wait_for(20, 90)
        app.control.shutdown()
        assert stack.workers[0].wait(90) == 0
        assert len(receiver.received) < 2000
        assert not broker.client().exists("postbacks:claimers")


def test_revoking_a_group_without_a_worker_cancels_in_redis(broker):
    """GroupResult.revoke() goes through app.control, where stock Celery would reach nobody."""
    results = [send_postback.delay("acme", EVENT) for _ in range(2)]
    app.control.revoke([result.id for result in results])
    assert [result.state for result in results] == ["REVOKED", "REVOKED"]
