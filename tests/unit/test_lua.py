"""The Lua scripts against their own headers."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from postbacks.queue import scripts
from postbacks.queue.rows import AttemptRow

SCRIPTS = sorted(path.name[:-4] for path in files("postbacks.queue").iterdir() if path.name.endswith(".lua"))
MOVES = [name for name in SCRIPTS if not name.startswith("_")]


def header_and_body(name: str) -> tuple[str, str]:
    """A script's leading comment and what follows it."""
    text = (files("postbacks.queue") / f"{name}.lua").read_text()
    header = re.match(r"(?:--.*\n)+", text)
    assert header, f"{name}.lua begins with no header"
    return header.group(), text[header.end() :]


@pytest.mark.parametrize("name", MOVES)
def test_a_script_uses_the_arguments_that_its_header_names_and_no_others(name):
    """Every ARGV[n] of the body stands in the header and the other way round."""
    header, body = header_and_body(name)
    named = set(re.findall(r"ARGV\[(\d+)", header))
    used = set(re.findall(r"ARGV\[(\d+)\]", body))
    open_ended = re.findall(r"ARGV\[(\d+)\.\.\]", header)
    if open_ended:  # walked by a loop that starts there
        first = open_ended[0]
        assert re.search(rf"(?:= |WIDTH, FIRST = \d+, ){first}\b|#ARGV, {first}, -1", body), (name, first)
        used.add(first)
    assert named == used


@pytest.mark.parametrize("name", MOVES)
def test_a_script_says_what_it_returns(name):
    """The header is named after its script and has a line on the result."""
    header, _ = header_and_body(name)
    assert header.startswith(f"-- {name}: ")
    assert "-- Returns " in header


@pytest.mark.parametrize("name", MOVES)
def test_every_script_has_a_method_and_every_method_a_script(name):
    """Called by its name, never by a built one."""
    assert callable(getattr(scripts.Scripts, name))


def test_the_shared_part_unpacks_exactly_the_keys_that_are_passed():
    """KEYS in _shared.lua and in scripts.py have the same number."""
    shared = (files("postbacks.queue") / "_shared.lua").read_text()
    numbers = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", shared)}
    assert numbers == set(range(1, len(scripts.KEYS) + 1))


@pytest.mark.parametrize("name", MOVES)
def test_a_body_names_no_key_of_its_own(name):
    """Keys come from keys.py: no script writes one down."""
    _, body = header_and_body(name)
    assert "postbacks:" not in body


@pytest.mark.parametrize(("name", "row"), [("commit", AttemptRow)])
def test_a_row_has_the_fields_that_the_header_of_its_script_lists(name, row):
    """In the order of the header, as many as the script walks by."""
    header, body = header_and_body(name)
    listed = re.search(r"ARGV\[\d+\.\.\] \w+ a postback: ((?:.*\n)+?)-- (?:KEYS|ARGV|Returns)", header)
    fields = re.sub(r"\([^)]*\)|--", "", listed[1]).split(",")
    assert row._fields == tuple(field.strip() for field in fields)
    assert re.search(r"WIDTH, FIRST = (\d+),", body)[1] == str(len(row._fields))
