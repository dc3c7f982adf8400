"""Every command of docker-compose.yml, of deploy/kubernetes and of deploy/systemd, run word for word as a process that is
confined like its container.

What an engine would do, ``container.py`` does with the kernel's namespaces: a read-only root, the service's
volumes and tmpfs, its environment and nothing else, another user (nobody) without capabilities. Where the suite
is not run by root it cannot become another user: then the services run as the one who runs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import production_page
import pytest

HERE = Path(__file__).parent


def play(what: str) -> dict[str, Any]:
    """Observations of ``scenario.py``; "all" has pods and units as well."""
    as_root = os.geteuid() == 0
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *([] if as_root else ["--map-root-user"]),
            sys.executable, str(HERE / "scenario.py"), "root" if as_root else "user", what,
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{HERE.parent}:{HERE}"},
        capture_output=True, text=True, check=False, timeout=480,
    )  # fmt: skip
    assert done.returncode == 0, f"see the log (without namespaces: run as root):\n{done.stderr}"
    return json.loads(done.stdout)


def check_redis_keeps_everything_evicts_nothing_and_shows_its_password_to_nobody(seen):
    """Asked over a connection; its process title has no arguments left."""
    assert seen["redis"]["config"] == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory": str(1024**3),
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": "4096",
        "hash-max-listpack-entries": "64",
    }
    assert "correcthorse" not in seen["redis"]["cmdline"]
    assert seen["redis"]["refuses without password"]


def check_every_process_is_another_user_without_rights_and_can_write_to_its_tmp_alone(seen):
    """As the kernel says; where the suite is not run by root, the user is its own."""
    for name, rights in seen["confined"].items():
        assert rights["no_new_privs"] == "1", name
        if os.geteuid() == 0:
            assert rights == {"uid": 65534, "caps": 0, "no_new_privs": "1"}, name
    written = seen["write"]
    assert written.pop("/tmp")["code"] == 0
    assert all("Read-only file system" in one["out"] for one in written.values()), written


def check_three_workers_share_the_load(seen):
    """Each makes some of the POSTs (3% at least) by its own figures, and none is made twice.

    No more: one loop alone would have made all of them within two tenths of a second, and on a machine whose other core
    is busy the first one to be woken is far ahead.
    """
    share = seen["share"]
    assert share["sent"] == share["arrived"] == share["received"] == sum(share["posts"])
    assert all(posts / share["sent"] >= 0.03 for posts in share["posts"]), share


def check_what_a_killed_worker_held_is_delivered_by_the_others(seen):
    """SIGKILL in the midst of its POSTs: nothing is missing, and only what it had open arrives again."""
    killed = seen["killed"]
    assert killed["held"] > 0
    assert killed["missing"] == 0
    assert killed["again"] <= killed["held"]


def check_flower_asks_for_its_password_and_its_health_check_passes(seen):
    """Pages and API alike; the health check needs none."""
    flower = seen["flower"]
    assert flower.pop("check") == {"code": 0, "out": ""}
    assert flower == {"page without": 401, "api without": 401, "wrong": 401, "right": 200}


def check_the_dashboard_asks_for_its_token_and_its_health_check_passes(seen):
    """A stranger is sent to the login; who has the token sees that the history is on PostgreSQL."""
    web = seen["web"]
    assert web.pop("check") == {"code": 0, "out": ""}
    assert web == {"without": [303, "/login?next=%2F"], "wrong": 401, "with": [200, True]}


def check_the_metrics_are_served_and_their_health_check_passes(seen):
    """The whole system's figures, on the port that Prometheus asks."""
    assert seen["metrics"]["check"] == {"code": 0, "out": ""}
    (delivered,) = seen["metrics"]["delivered"]
    assert float(delivered) >= seen["share"]["sent"]


def check_the_history_is_recorded_and_another_recorder_goes_on(seen):
    """Every postback that was sent, in PostgreSQL; the health check passes; a worker's container knows no database."""
    history = seen["history"]
    assert history["before"] == history["sent"]
    assert history["stopped"]["code"] == 0
    assert history["after"] == history["before"] + history["more"]
    assert history["holder"].startswith("history-2:")
    assert history["check"]["code"] == 0, history["check"]
    assert seen["metrics"]["history"] == ["1.0"]
    assert json.loads(history["in a worker"]["out"])["database"] is None


def check_the_health_check_says_whether_the_system_is_well(seen):
    """0 while all run; 1 and one line once all have stopped."""
    assert seen["well"]["code"] == 0, seen["well"]
    assert seen["not well"]["code"] == 1
    assert len(seen["not well"]["out"].splitlines()) == 1


def check_a_command_can_be_run_in_a_workers_container(seen):
    """`docker compose exec worker postbacks account list` shows the accounts."""
    assert seen["accounts"]["code"] == 0
    assert "customer39" in seen["accounts"]["out"]


def check_each_ends_at_a_sigterm_within_its_grace_and_has_written_no_trace(seen):
    """Exit code 0; the names of the workers differ; no log has a traceback or a setting that is none."""
    assert {name: one["code"] for name, one in seen["stopped"].items()} == dict.fromkeys(seen["stopped"], 0)
    for name, log in seen["logs"].items():
        assert not re.search("Traceback|settings.unknown|broker.unsafe|DuplicateNodename", log), log
        assert name.startswith(("worker", "beat", "flower", "redis", "metrics", "web", "history", "postgres"))
        assert not re.search("elephantine|correcthorse|stapled", log), name
    workers = [
        name for name in seen["logs"] if name.startswith("worker")
    ]  # one was killed, whichever held most
    assert len(workers) >= 2
    assert all(f"worker@{name}" in seen["logs"][name] for name in workers)


def check_each_line_of_the_checklist_says_what_it_must(seen):
    """docs/production.md, as it stands; line 5 where Prometheus is installed."""
    lines = production_page.lines()
    assert [line.number for line in lines] == list(range(1, 13))
    for line in lines:
        output = seen["checklist"][str(line.number)]
        if line.number == 5 and not shutil.which("prometheus"):
            continue
        if line.number == 10 and int(output) == seen["open files"] < 65536:
            continue  # the suite may not raise the machine's limit
        assert line.is_met_by(output), f"{line.number}: {output}"


def check_every_pod_and_unit_does_its_work_and_ends_in_order(seen):
    """Each probe of Kubernetes passes, and the system is well with what runs: the play waits for that.

    A pod's command is the first process of its own, as nothing is put before it.
    """
    elsewhere = seen["elsewhere"]
    pages = ["startupProbe", "readinessProbe", "livenessProbe"]
    assert elsewhere["probes"] == {
        "worker": pages,
        "history": ["readinessProbe"],
        "web": pages,
        "flower": pages,
        "metrics": pages,
    }
    assert elsewhere["received"] == 1
    assert elsewhere["flower"] == elsewhere["flower of the unit"] == [401, 200]
    assert elsewhere["web"] == elsewhere["web of the unit"] == seen["web"]
    names = {
        f"{kind}-{number}"
        for kind in ("worker", "beat", "history", "web", "flower", "metrics")
        for number in (1, 2)
    }
    assert elsewhere["stopped"] == dict.fromkeys(names, 0)
    assert not elsewhere["is alive afterwards"]
    for name, rights in elsewhere["confined"].items():
        uid = 10001 if name.endswith("-1") else 65534
        if os.geteuid() == 0:
            assert rights == {"uid": uid, "caps": 0, "no_new_privs": "1"}, name
    for name, log in elsewhere["logs"].items():
        assert not re.search(
            "Traceback|settings.unknown|broker.unsafe|elephantine|correcthorse|stapled", log
        ), (
            name,
            log,
        )


def judge_compose(seen: dict[str, Any]) -> None:
    """Check what compose's commands did."""
    check_redis_keeps_everything_evicts_nothing_and_shows_its_password_to_nobody(seen)
    check_every_process_is_another_user_without_rights_and_can_write_to_its_tmp_alone(seen)
    check_three_workers_share_the_load(seen)
    check_what_a_killed_worker_held_is_delivered_by_the_others(seen)
    check_flower_asks_for_its_password_and_its_health_check_passes(seen)
    check_the_dashboard_asks_for_its_token_and_its_health_check_passes(seen)
    check_the_metrics_are_served_and_their_health_check_passes(seen)
    check_the_history_is_recorded_and_another_recorder_goes_on(seen)
    check_the_health_check_says_whether_the_system_is_well(seen)
    check_a_command_can_be_run_in_a_workers_container(seen)
    check_each_ends_at_a_sigterm_within_its_grace_and_has_written_no_trace(seen)
    check_each_line_of_the_checklist_says_what_it_must(seen)


def test_every_command_of_the_compose_file_does_its_work_confined_like_a_container():
    """The play runs once, as it starts two dozen processes; every function above judges what it saw."""
    judge_compose(play("compose"))


@pytest.mark.long
def test_every_command_of_the_pods_and_units_does_its_work_beside_them():
    """The same play with ten processes more; tests/containers compares their commands with compose's in any case."""
    seen = play("all")
    judge_compose(seen)
    check_every_pod_and_unit_does_its_work_and_ends_in_order(seen)
