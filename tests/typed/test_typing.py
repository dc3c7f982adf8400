"""Applications that check their types find a wrong call before it runs: with mypy, and with Pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import short_and_long

ROOT = Path(__file__).parents[2]
SAMPLE = Path(__file__).with_name("sample.py")

#: An error that a checker reports: the file's name, the line, the words.
Fault = tuple[str, int, str]


def output(*command: str) -> str:
    """Return the output of a checker of this environment; it may have found errors, but must have run."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def mypy(*paths: str) -> Iterator[Fault]:
    """The errors that strict mypy reports; of those in packages an application sees none."""
    alone = ("--config-file=", "--follow-imports=silent", "--ignore-missing-imports", "--no-pretty")
    # A cache of its own: the repository's is for other options, and each run would throw the other's away.
    printed = output("mypy", "--strict", *alone, "--cache-dir=.mypy_cache/applications", *paths)
    assert re.search(r"checked 2 source files|in 2 source files", printed), printed
    for path, line, text in re.findall(r"(?m)^([^:]+):(\d+): error: (.*)$", printed):
        yield Path(path).name, int(line), text


def pyright(*paths: str) -> Iterator[Fault]:
    """The errors that Pyright reports."""
    printed = json.loads(output("pyright", "--outputjson", "--pythonpath", sys.executable, *paths))
    assert printed["summary"]["filesAnalyzed"] == 2
    for fault in printed["generalDiagnostics"]:
        if fault["severity"] == "error":
            yield Path(fault["file"]).name, fault["range"]["start"]["line"] + 1, fault["message"]


@pytest.mark.parametrize("checker", short_and_long(mypy, pyright))
def test_a_checker_reports_each_wrong_call_and_no_right_one(checker, tmp_path):
    """The sample says which of its lines are wrong; the README's first call is right as it stands there."""
    readme = tmp_path / "readme.py"
    readme.write_text(re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1])
    lines = SAMPLE.read_text().splitlines()
    wrong = {("sample.py", number) for number, line in enumerate(lines, start=1) if line.endswith("# error")}
    assert len(wrong) > 20
    reported = {(name, line): text for name, line, text in checker(str(SAMPLE), str(readme))}
    assert {place: text for place, text in reported.items() if place not in wrong} == {}
    assert wrong - reported.keys() == set()
