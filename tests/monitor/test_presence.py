"""Signs of life: who is missing is named, and its alert fires, when it was killed for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from helpers import eventually, running
from scraping import page, samples

from postbacks import keys, settings
from postbacks.broker.sign_of_life import KEPT_S, SignOfLife
from postbacks.cli import main
from postbacks.doctor import doctor as rounds
from postbacks.monitor.health import judge
from postbacks.monitor.metrics import SystemCollector
from postbacks.monitor.presence import Presence, find_present
from postbacks.monitor.server import MonitorServer

pytestmark = pytest.mark.usefixtures("forked")

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
#: ``make alerts`` fetches it where it is missing.
PROMTOOL = shutil.which("promtool") or str(FOLDER.parents[1] / ".venv/promtool/usr/bin/promtool")


def check_alerts(text: str, expected: set[str], folder: Path) -> None:
    """Check with promtool that exactly these alerts fire where a page of metrics stays as it is for ten minutes."""
    if not Path(PROMTOOL).exists():
        return
    series = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    cases = []
    for rule in RULES:
        alert = {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}
        cases.append({"eval_time": "10m", "alertname": rule["alert"]})
        if rule["alert"] in expected:
            cases[-1]["exp_alerts"] = [alert]
    trial = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": f"{value}x60"} for name, value in series],
                "alert_rule_test": cases,
            }
        ],
    }
    (folder / "trial.yml").write_text(json.dumps(trial))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "trial.yml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_whoever_is_killed_or_frozen_is_named_and_its_alert_fires(broker, tmp_path, monkeypatch):
    """A worker is killed, the other one frozen, then beat is killed: page, alerts, health and doctor say who is
    missing.
    """
    monkeypatch.setattr(rounds, "PAUSE_S", 0.0)
    server = MonitorServer("127.0.0.1", 0, [SystemCollector(settings.load())], settings.load())
    server.start()

    def counts(*expected: int) -> str:
        """Wait for a page with these workers and beats; where one is missing, until its ticks are late as well."""

        def look() -> str:
            text = page(server.port, "/metrics")[1]
            seen = samples(text)
            age_s = seen.get(("postbacks_last_tick_age_seconds",))
            if age_s is None:  # whom we kill must have ticked before
                return ""
            late = age_s > 6
            found = (seen["postbacks_workers",], seen["postbacks_beats",])
            return text if (*found, late) == (*expected, 0 in expected) else ""

        return eventually(look, what=f"workers and beats {expected}")

    def faults() -> list[str]:
        return list(judge(settings.load(), tick_age_s=5).faults)

    def doctor() -> str:
        return CliRunner().invoke(main, ["doctor"], prog_name="postbacks").stdout

    env = {"POSTBACKS_GONE_AFTER_S": "3"}
    try:
        # the second worker runs prefork: its signs come from its main process
        with (
            running(broker, tmp_path, env=env) as stack,
            running(broker, tmp_path, pool="prefork", beats=0, env=env) as prefork,
        ):
            (killed,), (frozen,), (beat,) = stack.workers, prefork.workers, stack.beats
            counts(2, 1)
            killed.kill()
            os.kill(frozen.pid, signal.SIGSTOP)
            text = counts(0, 1)
            assert [fault.split(" since ")[0] for fault in faults()[1:]] == ["No worker has been heard of"]
            said = doctor()
            assert ("no-worker" in said, "no-beat" in said) == (True, False)
            check_alerts(text, {"PostbacksWorkersGone"}, tmp_path)

            os.kill(frozen.pid, signal.SIGCONT)
            check_alerts(counts(1, 1), set(), tmp_path)
            beat.kill()
            text = counts(1, 0)
            assert [fault.split(" since ")[0] for fault in faults()[1:]] == ["No beat has been heard of"]
            said = doctor()
            assert ("no-worker" in said, "no-beat" in said) == (False, True)
            check_alerts(text, {"PostbacksBeatsGone"}, tmp_path)
        with broker.client() as client:
            (ended,) = [
                score for _, score in client.zrange(keys.WORKERS, 0, -1, withscores=True) if score < 0
            ]
            assert look(client).last_ms == -ended
    finally:
        server.close()


def look(client, key=keys.WORKERS, later_s: float = 0) -> Presence:
    """Judge who runs, so many seconds from now."""
    seconds, microseconds = client.time()
    now_ms = seconds * 1000 + microseconds // 1000 + int(later_s * 1000)
    return find_present(client.zrange(key, 0, -1, withscores=True), now_ms)


def test_a_process_counts_as_gone_after_its_time_out_or_at_once_when_it_ends_in_order(rig):
    """Two of one name are two; what is silent for ten minutes is dropped by the next that gives a sign."""
    first, second = (SignOfLife(keys.WORKERS, "celery@here") for _ in range(2))
    assert look(rig.client) == Presence()
    for sign in (first, second):
        sign.withdraw()  # has given none yet
        sign.give_when_due()
        sign.give_when_due()
    assert look(rig.client).names == ("celery@here",) * 2
    assert look(rig.client, later_s=28).names == ("celery@here",) * 2
    gone = look(rig.client, later_s=31)
    assert gone.names == ()
    assert gone.age_s == pytest.approx(31, abs=5)
    assert look(rig.client, later_s=-3600).names == ()  # left of a clock that was put back
    second.withdraw()
    assert look(rig.client).names == ("celery@here",)
    assert look(rig.client).age_s == pytest.approx(0, abs=5)
    for member, score in rig.client.zrange(keys.WORKERS, 0, -1, withscores=True):
        old_ms = score + KEPT_S * 1000 * (1 if score < 0 else -1)
        rig.client.zadd(keys.WORKERS, {member: old_ms})
    SignOfLife(keys.WORKERS, "celery@there").give()
    assert rig.client.zcard(keys.WORKERS) == 1


def test_what_is_no_sign_of_life_is_passed_over(rig):
    """Whoever may write there can write anything; health, doctor and metrics go on."""
    SignOfLife(keys.WORKERS, "celery@here").give()
    now_ms = rig.client.time()[0] * 1000
    for member in ("x", "nan a b c", ".. a b c", "9e99 a b c", b"\xff \xff \xff \xff", "30 a b"):
        rig.client.zadd(keys.WORKERS, {member: now_ms})
    for score in ("inf", "-inf", 1e300):
        rig.client.zadd(keys.WORKERS, {f"30 a b {score}": score})
    found = look(rig.client)
    assert found.names == ("celery@here",)
    assert found.since
    assert judge(settings.load()).workers == 1


def test_a_full_broker_takes_signs_of_life(own_broker, monkeypatch):
    """So nobody seems to be gone because of it, and who is gone is named; nor is anybody ended where a broker takes none."""
    monkeypatch.setenv("POSTBACKS_BROKER_URL", own_broker.url)
    settings.load.cache_clear()
    try:
        with own_broker.client() as client:
            client.config_set("maxmemory", "1")
            sign = SignOfLife(keys.BEATS, "beat@here")
            sign.give()
            assert look(client, keys.BEATS).names == ("beat@here",)
            full, *others = judge(settings.load()).faults
            assert "is full" in full
            assert others[1:] == ["No worker has been heard of: start one (celery -A postbacks worker)."]
            said = CliRunner().invoke(main, ["doctor"], prog_name="postbacks").stdout
            assert ("no-worker" in said, "no-beat" in said) == (True, False)
            client.replicaof("127.0.0.1", "1")
            assert len(judge(settings.load()).faults) == 2
            sign.give()
        own_broker.kill()
        sign.give()
    finally:
        settings.load.cache_clear()
