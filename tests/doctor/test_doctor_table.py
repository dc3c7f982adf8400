"""Table of the checks beside its page, and the scripts of the doctor beside their headers."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from postbacks.doctor import CHECKS


def test_the_documentation_lists_exactly_the_checks_of_the_table():
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (wrong|note) \| (.+?) \| (.*?) \|$", text, re.MULTILINE)
    assert rows == [(check.name, check.level, check.looks_at, check.fix or "no") for check in CHECKS]


@pytest.mark.parametrize(
    "path", [path for path in files("postbacks.doctor").iterdir() if path.name.endswith(".lua")], ids=str
)
def test_a_script_of_the_doctor_uses_the_arguments_that_its_header_names(path):
    text = path.read_text()
    header = re.match(r"(?:--.*\n)+", text).group()
    body = text[len(header) :]
    assert header.startswith(f"-- {path.name.removesuffix('.lua')}: ")
    assert "-- Returns " in header
    named = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", header)}
    rest = [int(number) for number in re.findall(r"ARGV\[(\d+)\.\.\]", header)]
    assert {int(number) for number in re.findall(r"ARGV\[(\d+)\]", body)} == named
    assert all(re.search(rf"= {first}(?: \+ extra)?, ", body) for first in rest)
    assert "postbacks:" not in body
