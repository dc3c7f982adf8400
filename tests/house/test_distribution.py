"""Wheel and sdist: what is in them, the same bytes wherever they are built, and a demo from the wheel alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from postbacks.catalogue import table
from postbacks.version import VERSION

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Times that the files of two checkouts may have; the archives show neither.
TIMES_S = (1_000_000_000, 1_500_000_000)
COMMIT_S = 1_700_000_000
#: Folders and files of a checkout that its sdist has.
SOURCES = (
    "postbacks",
    "tests",
    "docs",
    "benchmarks",
    "crash",
    "deploy",
    "examples",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "docker-compose.yml",
)
MINORS = (11, 12, 13, 14)


@dataclass(frozen=True)
class Archives:
    """Wheel and sdist of one build."""

    wheel: Path
    sdist: Path


def build(checkout: Path, time_s: int, folder: Path) -> Archives:
    """Build both archives from a copy of a checkout whose files are of this time; the wheel comes from the sdist."""
    copy, out = folder / f"copy-{time_s}", folder / f"dist-{time_s}"
    shutil.copytree(checkout, copy, symlinks=True)
    for path in copy.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (time_s, time_s))
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(COMMIT_S)},
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    shutil.rmtree(copy)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Archives(wheel, sdist)


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command far from the checkout, with these variables of the environment added."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Archives, Archives]:
    """Archives of two checkouts that differ in the times of their files."""
    folder = tmp_path_factory.mktemp("archives")
    junk = shutil.ignore_patterns(".*cache", ".hypothesis", ".venv", ".git", "__pycache__", "build", "dist")
    # Copied once, as another test may write into this checkout meanwhile.
    checkout = shutil.copytree(ROOT, folder / "checkout", ignore=junk, symlinks=True)
    first, second = (build(checkout, time_s, folder) for time_s in TIMES_S)
    return first, second


def pythons() -> list[str]:
    """Find an interpreter for each version that is here; the suite's own first."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {own: sys.executable}
    for minor in MINORS:
        name = f"python3.{minor}"
        installed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        if path := shutil.which(name) if not installed else str(installed[-1]):
            found.setdefault(f"3.{minor}", path)
    return list(found.values())


def test_the_version_stands_in_one_place():
    """pyproject.toml has it; the package reads it from its metadata, and the changelog's first section is of it."""
    assert PROJECT["version"] == VERSION
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert sections[0] == VERSION
    written = [
        path
        for path in (ROOT / "postbacks").rglob("*.py")
        if re.search(
            rf"version\w*\s*(?::[^=]*)?=\s*[\"']{re.escape(VERSION)}", path.read_text(), re.IGNORECASE
        )
    ]
    assert written == []


def test_the_archives_are_the_same_bytes_wherever_they_are_built(archives):
    """Times of the files, folder and hour of the build leave no trace."""
    first, second = archives
    assert first.wheel.read_bytes() == second.wheel.read_bytes()
    assert first.sdist.read_bytes() == second.sdist.read_bytes()


def test_the_wheel_has_the_package_and_nothing_else(archives):
    """All modules and scripts, the mark of types, the licence; no tests."""
    with zipfile.ZipFile(archives[0].wheel) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"postbacks-{VERSION}.dist-info/METADATA").decode()
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "postbacks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if not name.startswith(f"postbacks-{VERSION}.dist-info/")} == package
    assert {"postbacks/py.typed", "postbacks/queue/accept.lua"} <= package
    assert f"postbacks-{VERSION}.dist-info/licenses/LICENSE" in names
    assert f"\nVersion: {VERSION}\n" in metadata


def test_the_sdist_has_what_its_suite_needs(archives):
    """Tests, pages, examples and deployment, but nothing that a build or a run has left."""
    with tarfile.open(archives[0].sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert set(SOURCES) <= tops
    assert not tops & {".venv", ".git", "dist", "build", ".mypy_cache", ".hypothesis"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_an_index_takes_the_archives(archives):
    """Their metadata are whole, and the README can be drawn."""
    subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", archives[0].wheel, archives[0].sdist],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def check_demo(postbacks: Path, tmp_path: Path) -> None:
    """Run the demo far from the checkout, whatever the environment says: each row is right, and nothing is left behind."""
    temporary, away = tmp_path / "tmp", tmp_path / "away"
    temporary.mkdir()
    away.mkdir()
    hostile = {
        "POSTBACKS_MAX_RESENDS": "1",
        "POSTBACKS_BROKER_URL": "redis://127.0.0.1:1/0",
        "TMPDIR": str(temporary),
    }
    began_s = time.monotonic()
    done = run(postbacks, "demo", "--json", cwd=away, **hostile)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_s < 200
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(row["origin"], row["code"]) for row in rows} == {(row.origin, row.code) for row in table()}
    assert all(row["right"] for row in rows)
    assert {row["attempts"] for row in rows} == {1, 3, 6}
    assert "every tag arrived as it was sent" in done.stderr
    assert list(temporary.iterdir()) == []


def check_dashboard(postbacks: Path) -> None:
    """Start the dashboard, without a broker: a page and each file that it asks for are there."""
    nowhere = os.environ | {"POSTBACKS_BROKER_URL": "redis://127.0.0.1:1/0"}
    command = [postbacks, "web", "--port", "0"]
    with subprocess.Popen(command, env=nowhere, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = re.search(r"http://\S+/", process.stderr.readline())[0]
            page = requests.get(url, timeout=60)
            assert page.status_code == 200
            files = re.findall(r'(?:href|src)="/(static/[^"]+)"', page.text)
            assert len(files) > 3
            assert {
                name: requests.get(url + name, timeout=60).status_code for name in files
            } == dict.fromkeys(files, 200)
        finally:
            process.terminate()


def test_the_demo_runs_whatever_the_environment_says(tmp_path):
    check_demo(Path(sys.executable).with_name("postbacks"), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("python", pythons())
def test_demo_and_dashboard_run_from_the_wheel_in_an_empty_environment(archives, tmp_path, python):
    """The wheel names all that it needs."""
    environment = tmp_path / "environment"
    assert run(python, "-m", "venv", "--without-pip", environment, cwd=tmp_path).returncode == 0
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install")
    options = ("--quiet", "--no-compile", "--only-binary", ":all:")
    done = run(*pip, *options, f"{archives[0].wheel}[local,web]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_demo(environment / "bin" / "postbacks", tmp_path)
    check_dashboard(environment / "bin" / "postbacks")
