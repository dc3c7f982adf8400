"""Metrics, health and logs of a real stack: what an operator sees."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import EVENT
from helpers import (
    BASE_ENV,
    Rig,
    dripping,
    ended,
    environment,
    eventually,
    free_port,
    running,
    set_account,
    short_and_long,
)
from pages import cells
from prometheus_client.parser import text_string_to_metric_families
from scraping import page, samples

from postbacks import keys, send_postback, send_postbacks, settings
from postbacks.broker.sign_of_life import SignOfLife
from postbacks.cli import main
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.errors import NotReplicated
from postbacks.history.feed import Feed
from postbacks.monitor import snapshot
from postbacks.monitor.health import Health, judge
from postbacks.monitor.metrics import SystemCollector
from postbacks.monitor.server import MonitorServer
from postbacks.operate import pause_account
from postbacks.queue.rows import AttemptRow
from postbacks.version import VERSION

pytestmark = pytest.mark.usefixtures("forked")

DOCS = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
SECRETS = ("words that nobody may read", "hunter2", "tokenvalue")
SMS = {
    "ORIGIN": "SMS_MO", "CODE": "N211", "FROM": "15552312102", "TO": "86717",
    "RECEIVED": "2026-11-24T10:00:00Z", "TEXT": SECRETS[0],
}  # fmt: skip
#: What health says of a broker that no process of ours has used.
NOBODY = (
    "not well: No tick has ever finished. No worker has been heard of: start one (celery -A postbacks worker). "
    "No beat has been heard of: start one (celery -A postbacks beat).\n"
)
#: A line of the text form: event, then fields whose values are words or JSON strings.
LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: (?P<level>[A-Z]+)/[\w-]+\] (?P<event>[\w.]+)"
    r'(?P<fields>(?: \w+=(?:[^\s"=\']+|"(?:[^"\\]|\\.)*"))*)'
)
FIELD = re.compile(r'(\w+)=([^\s"=\']+|"(?:[^"\\]|\\.)*")')


def health(*args: str):
    """Call ``postbacks health`` in this process."""
    return CliRunner().invoke(main, ["health", *args], prog_name="postbacks")


@dataclass
class Watched:
    """Output of a stack while it ran: logs, metrics, health."""

    form: str
    logs: dict[str, str]
    system: str
    own: str
    pages: dict[str, tuple[int, str]]
    health: object


def pages_of_the_command(form: str) -> dict[str, tuple[int, str]]:
    """Yield the pages of ``postbacks metrics``, which says its port in the form of the logs, and ends in order."""
    command = [str(Path(sys.executable).with_name("postbacks")), "metrics", "--port", "0"]
    env = {**os.environ, "POSTBACKS_LOG": form}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as served:
        try:
            line = served.stderr.readline()
            port = json.loads(line)["port"] if form == "json" else int(re.search(r":(\d+)/metrics", line)[1])
            return {path: page(port, path) for path in ("/metrics", "/healthz", "/readyz", "/")}
        finally:
            served.terminate()
            assert served.wait(60) == 0


def watch(form: str, broker: EmbeddedBroker, tmp_path: Path) -> Watched:
    """Two workers with one port for their metrics, a beat, a receiver that answers 500 to one account."""
    port = free_port()
    env = {
        "POSTBACKS_LOG": form,
        "POSTBACKS_METRICS_PORT": str(port),
        "POSTBACKS_RETRY_COUNTDOWN_S": "0.2",
        "POSTBACKS_MAX_RESENDS": "1",
    }
    pool = "prefork" if form == "json" else "threads"
    with (
        broker.client() as client,
        Receiver(lambda p: Answer(500 if p.path.startswith("/bad") else 200)) as receiver,
    ):
        feed = Feed(client)
        feed.register()
        feed.acquire("a recorder", 600_000)
        set_account("acme", url=receiver.url("/good"))
        bad = receiver.url("/bad").replace("://", f"://user:{SECRETS[1]}@") + f"?key={SECRETS[2]}"
        set_account("bad", url=bad)
        with running(broker, tmp_path, pool=pool, workers=2, concurrency=3, env=env) as stack:
            with dripping(port, 900):  # they hold the port, and delay neither a POST nor a scrape
                dead = send_postbacks("bad", [SMS] * 3)
                good = send_postbacks("acme", [EVENT] * 20)
                # as a foreign client sends it: our own calls refuse it
                broken = send_postback.send_unchecked(("acme", SMS | {"FROM": [SECRETS[0]]}), {})
                for one in (*dead, *good, broken.id):
                    ended(client, one)
                assert samples(page(port, "/metrics")[1])["postbacks_worker_open_files",] < 400
            ticks = int(client.hget("postbacks:totals", "ticks"))
            eventually(lambda: int(client.hget("postbacks:totals", "ticks")) >= ticks + 2, what="two ticks")
            feed.trim(feed.last_id())  # as if it were recorded
            pages = pages_of_the_command(form)
            own = page(port, "/metrics")[1]
            pages["own /healthz"], pages["own /readyz"] = page(port, "/healthz"), page(port, "/readyz")
            with environment(POSTBACKS_METRICS_PORT=str(port)):
                said = health("--json", "--worker")
        signs = [client.zrange(key, 0, -1, withscores=True) for key in (keys.WORKERS, keys.BEATS)]
        assert [[score < 0 for _, score in of_kind] for of_kind in signs] == [
            [True, True],
            [True],
        ]  # all withdrew
        logs = {p.log_path.name: p.log() for p in (*stack.workers, *stack.beats)}
    return Watched(form, logs, pages["/metrics"][1], own, pages, said)


def told(watched: Watched) -> list[dict[str, object]]:
    """Every event of the workers' and beat's logs; a line that is none fails."""
    found = []
    for name, text in watched.logs.items():
        lines = text.splitlines()
        if watched.form == "json":
            found += [json.loads(line) for line in lines]
            continue
        began = next(number for number, line in enumerate(lines) if LINE.match(line))
        for line in lines[began:]:  # Celery's banner stands before
            if line in {"", "worker: Warm shutdown (MainProcess)"}:
                continue
            match = LINE.fullmatch(line)
            assert match, f"{name}: {line}"
            fields = {
                key: json.loads(value) if value.startswith('"') else value
                for key, value in FIELD.findall(match["fields"])
            }
            found.append({"level": match["level"], "event": match["event"], **fields})
    return found


def check_attempts(watched: Watched) -> None:
    """Three postbacks, two attempts each: one line a failure, one a death, none a delivery."""
    every = told(watched)
    attempts = [one for one in every if str(one["event"]).startswith("postback.")]
    assert Counter(one["event"] for one in attempts) == {"postback.failed": 3, "postback.dead": 3}
    for one in attempts:
        failed = one["event"] == "postback.failed"
        assert (one["account"], one["outcome"], str(one["status"])) == ("bad", "status", "500")
        assert str(one["attempt"]) == ("1" if failed else "2")
        assert re.fullmatch(r"[0-9a-f-]{36}", one["id"])
        assert ("next_at" in one) == failed
    (unreadable,) = [one for one in every if one["event"] == "intake.unreadable"]
    assert unreadable["account"] == "acme"
    assert "FROM" in unreadable["detail"]


def check_secrets_and_ticks(watched: Watched) -> None:
    """Neither a password nor a query's value of a URL nor a message's words; INFO has no line a tick."""
    everything = "\n".join(watched.logs.values())
    assert [secret for secret in SECRETS if secret in everything] == []
    shown = [line for line in everything.splitlines() if re.search(r"postbacks\.(dispatch|deliver)\b", line)]
    assert [line for line in shown if not line.startswith("  . ")] == []  # the banner names the tasks
    assert 'beat: Starting..."' in everything


def check_taken_port(watched: Watched) -> None:
    """Two workers had one port: one serves, one warns, both end well."""
    events = Counter(one["event"] for one in told(watched))
    assert (events["metrics.served"], events["metrics.not_served"]) == (1, 1)
    (warning,) = [one for one in told(watched) if one["event"] == "metrics.not_served"]
    assert "is in use" in warning["detail"]
    assert all("celery.apps.worker" in log for name, log in watched.logs.items() if name.startswith("worker"))


def check_figures(watched: Watched) -> None:
    """Counted over both workers; a worker's own are no more than all."""
    seen = samples(watched.system)
    assert seen["postbacks_broker_up",] == 1
    assert seen["postbacks_attempts_total", "delivered"] == 20
    assert seen["postbacks_attempts_total", "status"] == 6
    assert seen["postbacks_answer_seconds_count",] == seen["postbacks_posts_total",] == 26
    assert seen["postbacks_answer_seconds_bucket", "+Inf"] == 26
    assert 1 <= seen["postbacks_connections_opened_total",] < 26
    assert seen["postbacks_given_up_total",] == 3
    assert seen["postbacks_accepted_total", "general"] == 20
    assert seen["postbacks_accepted_total", "mo"] == 3
    assert seen["postbacks_refused_total", "unreadable"] == 1
    assert seen["postbacks_first_post_seconds_count", "general"] == 20
    assert seen["postbacks_build_info", platform.python_version(), VERSION] == 1
    assert (seen["postbacks_dead",], seen["postbacks_done",]) == (4, 20)
    assert (seen["postbacks_parked",], seen["postbacks_claimed",], seen["postbacks_not_taken_in",]) == (
        0,
        0,
        0,
    )
    assert seen["postbacks_last_tick_age_seconds",] < 20
    assert seen["postbacks_ticks_total",] >= 3
    assert (seen["postbacks_workers",], seen["postbacks_beats",]) == (2, 1)
    assert seen["postbacks_broker_takes_writes",] == 1
    assert 0 < seen["postbacks_ledger_bytes",] < seen["postbacks_ledger_limit_bytes",]
    own = samples(watched.own)
    assert 0 <= own["postbacks_worker_posts_total",] <= 26
    assert own["postbacks_worker_cpu_seconds_total",] > 0
    assert own["postbacks_worker_memory_bytes",] > 10_000_000
    assert own["postbacks_worker_processes",] == (4 if watched.form == "json" else 1)


def check_table(watched: Watched) -> None:
    """Names, kinds and labels, of the system's page and a worker's."""
    families = [*text_string_to_metric_families(watched.system), *text_string_to_metric_families(watched.own)]
    exposed = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type) for family in families
    }
    table = DOCS.split("| metric |")[1].split("\n\n")[0]
    rows = [cells(line) for line in table.splitlines() if line.startswith("| `")]
    assert {(row[0].strip("`"), row[1]) for row in rows} == exposed
    labels = {row[0].strip("`"): {name.strip() for name in row[2].split(",") if name.strip()} for row in rows}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert all(set(s.labels) - {"le"} == labels[name] for s in family.samples), name


def check_health(watched: Watched) -> None:
    """Exit code 0, 200 and 200; another path says what there is."""
    assert watched.health.exit_code == 0, watched.health.output
    said = json.loads(watched.health.output)
    assert said["ok"] is said["broker"] is said["worker"] is True
    assert said["faults"] == []
    for where in ("", "own "):
        assert watched.pages[f"{where}/healthz"] == (200, "alive\n")
        status, line = watched.pages[f"{where}/readyz"]
        assert status == 200
        assert re.fullmatch(
            r"well: the last tick finished \d+\.\d s ago, 0 wait, the oldest for 0\.0 s\n", line
        )
    assert watched.pages["/"][0] == 404


@pytest.mark.parametrize("form", short_and_long("json", "text"))
def test_a_real_stack_shows_what_happened_in_logs_metrics_and_health(form, broker, tmp_path):
    """A stack for each form of logs: failures are one line each, nothing private is told, figures and docs agree,
    all is well.
    """
    watched = watch(form, broker, tmp_path)
    check_attempts(watched)
    check_secrets_and_ticks(watched)
    check_taken_port(watched)
    check_figures(watched)
    check_table(watched)
    check_health(watched)


# -- with the clock moved, and without a broker ----------------------------------------------------


def test_waiting_is_told_by_group_by_failure_and_by_account(rig):
    """A resend counts from the end of its countdown; only the accounts with the most are named."""

    def look():
        return snapshot.read(rig.client, rig.settings, clock_offset_ms=rig.scripts.clock_offset_ms)

    with Receiver(lambda p: Answer(500 if p.path.startswith("/bad") else 200)) as receiver:
        set_account("bad", url=receiver.url("/bad"))
        set_account("acme", url=receiver.url())
        send_postbacks("bad", [EVENT] * 2)
        rig.tick()
        rig.deliver()
        assert (look().parked, look().in_flight, look().totals["attempt:status"]) == (2, 0, 2)
        rig.advance(400)  # both should have been released 100 s ago
        assert look().parked_overdue_s == pytest.approx(100, abs=20)
        send_postbacks("acme", [SMS] * 3)
        rig.tick()
        assert look().totals["late_ticks"] == 1
        rig.advance(30)
        found = look()
    waiting = {(one.group, one.failing): (one.count, one.oldest_s) for one in found.waiting if one.count}
    assert waiting == {
        ("general", True): (2, pytest.approx(130, abs=20)),
        ("mo", False): (3, pytest.approx(30, abs=20)),
    }
    assert found.oldest_waiting_s == pytest.approx(30, abs=20)
    assert found.tick_age_s == pytest.approx(30, abs=20)
    assert found.accounts == [("acme", 3), ("bad", 2)]
    claim = {"suspects_max": 9, "free": 200, "held_max": 9, "held_per_lane": 9, "slow_lanes": ()}
    _, begun, held, _ = rig.scripts.claim("dies", 1000, at_most=9, **claim)
    found = look()
    assert (found.claimed, found.in_flight) == (len(begun) + len(held), len(begun))
    assert (found.loops, found.loops_expired) == (1, 0)
    rig.advance(5)
    assert (look().loops, look().loops_expired) == (0, 1)
    rig.tick()
    assert look().totals["attempt:unknown"] == len(begun)
    with environment(POSTBACKS_METRICS_TOP_ACCOUNTS="1"):
        rig.settings = settings.load()
        assert look().accounts == [("acme", 3)]


def test_more_accounts_than_are_looked_at_bound_the_reading_and_are_said(rig, monkeypatch):
    """A fixed number of pages, and complete is False."""
    rig.client.hset("postbacks:backlog", mapping={f"a{number}": 1 for number in range(3000)})
    monkeypatch.setattr(snapshot, "PAGES_MAX", 3)
    rig.client.config_resetstat()
    assert not snapshot.read(rig.client, rig.settings).complete
    assert rig.client.info("commandstats")["cmdstat_eval_ro"]["calls"] == 3
    monkeypatch.setattr(snapshot, "PAGES_MAX", 100)
    assert snapshot.read(rig.client, rig.settings).complete


def test_a_batch_that_is_noted_twice_is_counted_once(rig: Rig):
    """The script's answer was lost, so the loop asked again."""
    set_account("acme", url="http://127.0.0.1:8080/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()
    claim = {"suspects_max": 9, "free": 200, "held_max": 9, "held_per_lane": 9, "slow_lanes": ()}
    rig.scripts.claim("t", 60_000, at_most=9, **claim)
    attempt = '{"number": 1, "at_ms": 1, "outcome": "delivered"}'
    row = AttemptRow(one, "acme/general", "delivered", 1, attempt, 0, "ok", "")
    for _ in range(2):
        rig.scripts.commit("t", 60_000, 10, 60, [row], {"attempt:delivered": 1, "posts": 1})
    assert rig.client.hmget("postbacks:totals", "attempt:delivered", "posts") == [b"1", b"1"]


def test_health_says_what_is_wrong(rig):
    """No tick ever, one too long ago, a postback that waits too long: one line, exit code 1, 503."""
    assert health().output == NOBODY
    set_account("acme", url="http://127.0.0.1:8080/")
    send_postbacks("acme", [EVENT])
    rig.advance(-100)
    rig.tick()
    said = health("--json")
    assert said.exit_code == 1
    shown = json.loads(said.output)
    assert shown["tick_age_s"] >= 100
    assert shown["oldest_waiting_s"] >= 100
    assert [fault.split(" (")[0][:23] for fault in shown["faults"]] == [
        "The last tick finished ", "No worker has been hear", "No beat has been heard ",
        "A postback has waited f",
    ]  # fmt: skip
    for key, name in ((keys.WORKERS, "celery@here"), (keys.BEATS, "beat@here")):
        SignOfLife(key, name).give()
    shown = json.loads(health("--json").output)
    assert (shown["workers"], shown["beats"], shown["takes_writes"]) == (1, 1, True)
    assert re.fullmatch(
        r"The last tick finished 1\d\d s ago \(limit 10 s\), though a worker was heard of \d+ s ago "
        r"and a beat was heard of \d+ s ago: their logs say why\.",
        shown["faults"][0],
    )
    assert health("--max-tick-age", "1000", "--max-waiting-age", "1000").exit_code == 0
    alive = True
    server = MonitorServer("127.0.0.1", 0, [], settings.load(), alive=lambda: alive)
    server.start()
    try:
        status, line = page(server.port, "/readyz")
        assert (status, line.startswith("not well: The last tick")) == (503, True)
        assert page(server.port, "/healthz")[0] == 200
        alive = False
        assert page(server.port, "/healthz") == (503, "stopping\n")
        assert page(server.port, "/readyz") == (503, "not well: it is stopping.\n")
    finally:
        server.close()
    with environment(POSTBACKS_METRICS_PORT=str(free_port())):
        assert "does not answer (ConnectionRefusedError): is it running?" in health("--worker").output
    assert health("--worker").exit_code == 2


def test_health_says_which_replicas_are_missing(own_broker):
    """Replicas of POSTBACKS_WAIT_REPLICAS, without which a call raises; and those that the broker itself asks for."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url, POSTBACKS_WAIT_REPLICAS="1"):
        with pytest.raises(NotReplicated):
            send_postback.delay("acme", EVENT)
        shown = json.loads(health("--json").output)
        assert shown["takes_writes"] is False
        assert "has 0 replicas and POSTBACKS_WAIT_REPLICAS is 1" in shown["faults"][0]
    with environment(POSTBACKS_BROKER_URL=own_broker.url), own_broker.client() as client:
        assert json.loads(health("--json").output)["takes_writes"] is True
        client.config_set("min-replicas-to-write", 1)
        assert "fewer replicas in step than its min-replicas-to-write wants" in health().output
        assert client.exists(keys.PROBE) == 0


def test_health_says_whose_postbacks_wait(rig):
    """Postbacks of receivers that fail may wait for long while all is well: they are told apart, and the longest
    lane.
    """

    def waiting() -> str:
        said = health("--max-tick-age", "1000", "--max-waiting-age", "1000")
        assert said.exit_code == 0, said.output
        return said.output.partition(" ago, ")[2].strip()

    rig.advance(-400)
    with dead_port() as port:
        for name, count in (("acme", 3), ("beta", 1)):
            set_account(name, url=f"http://127.0.0.1:{port}/")
            send_postbacks(name, [EVENT] * count)
        rig.tick()
        assert waiting().startswith("4 wait, the oldest for ")
        while rig.deliver():
            pass
    rig.advance(301)
    rig.tick()
    assert waiting() == "4 wait, all of them for receivers that fail (longest lane: acme/general)"
    set_account("fine", url="http://127.0.0.1:8080/")
    send_postbacks("fine", [EVENT] * 2)
    rig.tick()
    assert re.fullmatch(
        r"6 wait, 4 of them for receivers that fail \(longest lane: acme/general\), "
        r"the oldest of the others for \d+\.\d s",
        waiting(),
    )
    shown = json.loads(health("--json", "--max-tick-age", "1000", "--max-waiting-age", "1000").output)
    assert (shown["waiting"], shown["failing_waiting"]) == (6, 4)
    assert shown["longest_failing_lane"] == "acme/general"


def test_health_says_who_is_paused_and_is_well(rig):
    set_account("acme", url="http://127.0.0.1:8080/")
    send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    pause_account("acme", reason="they move", by="ann")
    limits = ("--max-tick-age", "1000", "--max-waiting-age", "0.001")
    said = health(*limits)
    assert said.exit_code == 0, said.output
    words = r"0 wait, the oldest for 0\.0 s; 1 account is paused \(acme\): 3 wait, the oldest for \d+\.\d s"
    assert re.fullmatch(words, said.output.partition(" ago, ")[2].strip())
    shown = json.loads(health("--json", *limits).output)
    assert (shown["accounts_paused"], shown["paused_waiting"], shown["waiting"]) == (1, 3, 0)
    assert (shown["paused"]["acme"]["waiting"], shown["paused"]["acme"]["reason"]) == (3, "they move")


#: Each takes tens of milliseconds to load, and a health check runs in every container every 30 s.
HEAVY = (
    "amqp", "billiard", "celery", "certifi", "cryptography.x509", "kombu", "lxml", "postbacks.catalogue",
    "postbacks.tasks", "prometheus_client", "pycurl", "requests", "rich", "vine",
)  # fmt: skip


def test_a_health_check_loads_what_it_needs_alone(broker):
    """Of our own modules about two dozen small ones, and nothing that only workers and other commands need."""
    program = (
        "import sys\n"
        "from postbacks.cli import main\n"
        "try:\n    main.main(['health'])\n"
        "except SystemExit as end:\n    print(end.code, *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=BASE_ENV | {"POSTBACKS_BROKER_URL": broker.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line, rest = done.stdout.splitlines()
    code, *loaded = rest.split()
    assert (line + "\n", code) == (NOBODY, "1")
    assert sorted(set(HEAVY) & set(loaded)) == []
    assert len([name for name in loaded if name.split(".")[0] == "postbacks"]) <= 26


def test_a_broker_that_hangs_or_is_gone_is_told_in_bounded_time():
    """SIGSTOP: the command's exit code 1 and its sentence, the page's broker_up 0; then the same without a broker."""
    with EmbeddedBroker() as broker:
        broker.pause()
        try:
            began_s = time.monotonic()
            with environment(POSTBACKS_BROKER_URL=broker.url):
                judged = judge(settings.load(), timeout_s=0.5)
                took_s = time.monotonic() - began_s
                server = MonitorServer("127.0.0.1", 0, [SystemCollector(settings.load())], settings.load())
            done = subprocess.run(
                [str(Path(sys.executable).with_name("postbacks")), "health", "--timeout", "1"],
                check=False,
                env=BASE_ENV | {"POSTBACKS_BROKER_URL": broker.url},
                capture_output=True,
                text=True,
                timeout=90,
            )
            server.start()
            text = page(server.port, "/metrics")[1]
            server.close()
        finally:
            broker.resume()
        assert not judged.ok
        assert took_s < 20
        assert done.returncode == 1
        assert re.fullmatch(r"not well: The broker at \S+ does not answer .*\n", done.stdout)
        seen = samples(text)
        assert seen.pop(("postbacks_broker_up",)) == 0
        assert [name for name, *_ in seen] == ["postbacks_build_info"]
    with environment(POSTBACKS_BROKER_URL=broker.url):
        assert health("--json").exit_code == 1


def test_a_port_in_use_is_one_sentence():
    """``postbacks metrics`` says which and what to do, with exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = CliRunner().invoke(main, ["metrics", "--port", str(port)], prog_name="postbacks")
    assert said.exit_code == 2
    assert (
        f"Port {port} of 127.0.0.1 is in use: stop what listens there, or give another port." in said.output
    )


def test_a_line_for_whoever_looks_again_and_again_stays_the_same_while_nothing_happens():
    idle = Health(ok=True, broker=True, tick_age_s=0.1, waiting=0, oldest_waiting_s=0.0)
    assert {replace(idle, tick_age_s=age_s).steady_line for age_s in (0.0, 0.4, 1.1, 2.9)} == {
        "well: the last tick finished less than 3 s ago, nothing waits"
    }
    late = replace(
        idle,
        tick_age_s=9.4,
        waiting=2,
        oldest_waiting_s=1.2,
        accounts_paused=1,
        paused_waiting=3,
        oldest_paused_s=190,
    )
    assert late.steady_line == (
        "well: the last tick finished 9 s ago, 2 wait, the oldest for less than 3 s; 1 account is paused, and nothing waits for it"
    )
    assert replace(late, ok=False, faults=("No tick.",)).steady_line == "not well: No tick."
    opt_outs = replace(idle, late_opt_outs=2, oldest_late_opt_out_s=1000.0)
    assert opt_outs.steady_line.endswith("; 2 opt-outs are not delivered in time, the oldest for 16 min")
    assert replace(opt_outs, oldest_late_opt_out_s=5400.0).line.endswith(", the oldest for 1 h 30 min")
