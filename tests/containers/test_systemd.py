"""deploy/systemd: units that systemd reads, hardened, and of one mind with docker-compose.yml.

``test_containers.py`` runs the commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from containers.compose_file import RAW
from containers.unit_files import COMMON, FOLDER, SERVICES, kind_of, read, service

from postbacks.settings import load

ENV = {"postbacks.env": {"POSTBACKS_BROKER_URL": "redis://:secret@redis:6379/0"}}
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"),
    reason="systemd-analyze is not installed",
)


def analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Have systemd-analyze read the units, with commands that are here in the place of those in /opt."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for path in folder.glob("*.service"):
        here = f"{Path(sys.executable).parent}/"
        path.write_text(path.read_text().replace("/opt/postbacks/bin/", here).replace("celery ", "python "))
    env = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{folder}:"}
    return subprocess.run(["systemd-analyze", *words], env=env, capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_reads_each_unit_and_finds_no_fault(tmp_path):
    """Names, values and sections are known; instances as they are enabled."""
    units = [str(tmp_path / name.replace("@.", "@1.")) for name in (*SERVICES, "postbacks.target")]
    done = analyze(tmp_path, "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_a_mistake(tmp_path):
    """The test above can fail."""
    spoilt = tmp_path / "postbacks-spoilt.service"
    spoilt.write_text("[Service]\nExecStart=/bin/true\nRestartSeconds=2\n")
    done = analyze(tmp_path, "verify", "--man=no", str(spoilt))
    assert "RestartSeconds" in done.stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_may_do_little(tmp_path, name):
    """By systemd's own measure, whose drop-in counts: 10 is a unit without any protection."""
    unit = name.replace("@.", "@1.")
    done = analyze(tmp_path, "security", "--offline=true", "--threshold=20", str(tmp_path / unit))
    assert done.returncode == 0, done.stdout[-200:]


def test_each_service_of_compose_has_a_unit_with_its_command():
    """Word for word, but for the number in a worker's name and for addresses: no container keeps strangers out here."""
    commands = {kind_of(name): service(name, ENV)["argv"] for name in SERVICES}
    assert commands.keys() == RAW["services"].keys() - {"redis", "postgres", "prometheus"}
    for kind, argv in commands.items():
        expected = [
            word.replace("worker@", "worker1@").replace("0.0.0.0", "127.0.0.1")
            for word in RAW["services"][kind]["command"]
        ]
        assert [argv[0].removeprefix("/opt/postbacks/bin/"), *argv[1:]] == expected


def test_each_unit_comes_up_again_and_has_the_time_to_finish():
    """Units differ in their command, its check and open files alone; the drop-in has the rest."""
    common = read(COMMON)
    assert common["Service.Restart"] == ["always"]
    assert common["Unit.StartLimitIntervalSec"] == ["0"]
    assert common["Service.KillMode"] == ["mixed"]
    assert common["Service.User"] == ["postbacks"]
    assert int(common["Service.TimeoutStopSec"][0]) == 35 > load().stop_within_s + 5
    own = {"Unit.Description", "Service.ExecStart", "Install.WantedBy"}
    more = {
        "worker": {"Service.LimitNOFILE"},
        "flower": {"Service.ExecStartPre"},
        "web": {"Service.ExecStartPre"},
    }
    for name in SERVICES:
        assert read(name).keys() == own | more.get(kind_of(name), set())
        assert read(name)["Install.WantedBy"] == ["postbacks.target"]
    assert read("postbacks-worker@.service")["Service.LimitNOFILE"] == ["65536"]
    assert (FOLDER / "postbacks.target").read_text().count("WantedBy=multi-user.target") == 1


def test_a_kind_has_a_file_of_its_own_for_what_the_others_need_not_know():
    """The key of secrets for workers, the history's database for the recorder; without that file nothing is missing."""
    files = ENV | {
        "postbacks-worker.env": {"POSTBACKS_SECRET_KEY": "k"},
        "postbacks-history.env": {"POSTBACKS_HISTORY_URL": "postgresql://h"},
        "postbacks-web.env": {"POSTBACKS_WEB_TOKEN": "t"},
    }
    names = {
        kind_of(name): {key for key in service(name, files)["env"] if key.startswith("POSTBACKS_")}
        for name in SERVICES
    }
    url = "POSTBACKS_BROKER_URL"
    assert names == {
        "worker": {url, "POSTBACKS_SECRET_KEY"}, "history": {url, "POSTBACKS_HISTORY_URL"},
        "web": {url, "POSTBACKS_WEB_TOKEN"}, "beat": {url}, "metrics": {url}, "flower": {url},
    }  # fmt: skip
    with pytest.raises(KeyError):
        service("postbacks-metrics.service", {})


def test_flower_does_not_start_without_a_password():
    """Systemd runs this before it, and starts nothing where it fails."""
    (check,) = read("postbacks-flower.service")["Service.ExecStartPre"]
    argv = shlex.split(check.replace("$$", "$"))
    done = subprocess.run(argv, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(
        "Set FLOWER_BASIC_AUTH=user:password in /etc/postbacks/postbacks-flower.env", done.stderr
    )
    assert subprocess.run(argv, env={"FLOWER_BASIC_AUTH": "me:secret"}, check=False).returncode == 0


def test_the_dashboard_does_not_start_without_a_login():
    """On loopback it would run without one, with all rights for whoever reaches it; a token, users or a proxy will do."""
    (check,) = read("postbacks-web.service")["Service.ExecStartPre"]
    argv = shlex.split(check.replace("$$", "$"))
    done = subprocess.run(argv, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Set POSTBACKS_WEB_TOKEN or POSTBACKS_WEB_USERS in /etc/postbacks/postbacks-web.env" in done.stderr
    for name in ("POSTBACKS_WEB_TOKEN", "POSTBACKS_WEB_USERS", "POSTBACKS_WEB_PROXY_HEADER"):
        assert subprocess.run(argv, env={name: "x"}, check=False).returncode == 0
