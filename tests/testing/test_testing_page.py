"""docs/testing.md: its blocks are a project whose tests pass, in one process or in two of xdist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_blocks import blocks_of
from helpers import short_and_long
from test_plugin import run_pytest

import postbacks.testing
from postbacks.testing.outbox import CapturedPostback

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()


@pytest.mark.parametrize(
    "options", short_and_long([], ["-p", "xdist", "-n2", "--dist=loadgroup"]), ids=" ".join
)
def test_the_project_of_the_page_passes(tmp_path, options):
    """As it is pasted, and in two processes of xdist with the page's line; the stack is without the run's settings."""
    write_project(tmp_path)
    if "-n2" in options:
        (line,) = re.findall(r"`(pytestmark = [^`]+)`", PAGE)
        with (tmp_path / "test_whole_way.py").open("a") as file:
            file.write(f"\nimport pytest\n\n{line}\n")
    tests = sum(len(re.findall(r"(?m)^ *def test_", path.read_text())) for path in tmp_path.glob("test_*.py"))
    ambient = {"POSTBACKS_ACCOUNTS": "nowhere:store", "POSTBACKS_WAIT_REPLICAS": "1"}
    done = run_pytest(tmp_path, *options, "--strict-config", "--strict-markers", **ambient)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert f"{tests} passed" in done.stdout
    assert tests == 9


def write_project(folder: Path) -> None:
    """Write each block of the page into the file that its first line names."""
    for block in blocks_of("testing.md", PAGE):
        if block.language == "ini":
            (folder / "pytest.ini").write_text(block.text)
        if block.language == "python":
            name = re.fullmatch(r"# (\w+\.py)", block.first_line)[1]
            with (folder / name).open("a") as file:
                file.write(block.text + "\n")


def test_unittest_is_not_guarded_and_sends_nothing_where_set_up_captures(tmp_path):
    """With a broker that pytest's guard would refuse."""
    write_project(tmp_path)
    broker = {"POSTBACKS_BROKER_URL": "redis://broker.example/0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest", "test_unittest"],
        cwd=tmp_path, env=os.environ | broker, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


def test_the_page_lists_what_a_record_has():
    """Fields and properties, each in the table."""
    table = PAGE.split("A record has:")[1].split("\n\n")[1]
    listed = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == {name for name in dir(CapturedPostback) if not name.startswith("_")}


@pytest.mark.parametrize("name", postbacks.testing.__all__)
def test_every_public_name_can_be_imported(name):
    """Each is loaded with its module, and a misspelt one is refused."""
    assert getattr(postbacks.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'captured_postback'"):
        _ = postbacks.testing.captured_postback
