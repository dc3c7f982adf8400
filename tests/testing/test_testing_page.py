"""docs/testing.md: its blocks are a project whose tests pass, in one process or in two of xdist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_blocks import blocks_of
from helpers import short_and_long
from test_plugin import run_pytest

import postbacks.testing
from postbacks.testing.outbox import CapturedPostback

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


@pytest.mark.parametrize(
    "options", short_and_long(["-p", "xdist"], ["-p", "xdist", "-n2", "--dist=loadgroup"]), ids=" ".join
)
def test_the_project_of_the_page_passes(tmp_path, options):
    """Each block stands in the file that its first line names; the stack is started once, without the run's settings."""
    for block in blocks_of("testing.md", PAGE):
        if block.language == "ini":
            (tmp_path / "pytest.ini").write_text(block.text)
        if block.language == "python":
            name = re.fullmatch(r"# (\w+\.py)", block.first_line)[1]
            with (tmp_path / name).open("a") as file:
                file.write(block.text + "\n")
    tests = sum(len(re.findall(r"(?m)^ *def test_", path.read_text())) for path in tmp_path.glob("test_*.py"))
    ambient = {"POSTBACKS_ACCOUNTS": "nowhere:store", "POSTBACKS_WAIT_REPLICAS": "1"}
    done = run_pytest(tmp_path, *options, "--strict-config", **ambient)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert f"{tests} passed" in done.stdout
    assert tests == 8


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
