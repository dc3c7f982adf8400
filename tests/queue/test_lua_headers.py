"""The Lua scripts against their own headers."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from postbacks import keys
from postbacks.queue import counter_names, scripts
from postbacks.queue.rows import (
    AcceptRow,
    AttemptRow,
    Begun,
    BegunRow,
    ClaimRow,
    CommittedRow,
    EndedRow,
    HeldRow,
    PutBackRow,
)

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
    for first in open_ended:  # walked by a loop that starts there
        assert re.search(rf"(?:= |WIDTH, FIRST = \d+, ){first}\b|#ARGV, {first}, -1", body), (name, first)
        used.add(first)
    assert named == used


@pytest.mark.parametrize("name", MOVES)
def test_a_script_says_what_it_returns_and_what_is_atomic(name):
    """The header is named after its script and has a line on the result, and one on what nobody sees half done."""
    header, _ = header_and_body(name)
    assert header.startswith(f"-- {name}: ")
    assert "\n-- Returns " in header
    assert "\n-- Atomic: " in header


@pytest.mark.parametrize("name", MOVES)
def test_every_script_has_a_method_and_every_method_a_script(name):
    """Called by its name, never by a built one."""
    assert callable(getattr(scripts.Scripts, name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_the_keys_that_its_header_names_and_no_others(name):
    """By the names of their constants in keys.py."""
    header, body = header_and_body(name)
    named = re.findall(r"[A-Z_]+", " ".join(re.findall(r"^-- KEYS (.*)$", header, re.MULTILINE)))
    code = re.sub(r"'[^'\n]*'|--.*", "", body)
    assert sorted(named) == sorted(set(re.findall(r"\b[A-Z][A-Z_]*\b", code)) & keys.by_name().keys())


@pytest.mark.parametrize("name", MOVES)
def test_a_script_is_called_with_the_keys_that_its_first_line_names(name):
    """The nth name stands for the nth key, a tuple of keys for a table of them."""
    script = scripts.assemble(name)
    names, values = re.search(r"^local ([A-Z_, ]+) = (.*)$", script.text, re.MULTILINE).groups()
    places = re.findall(r"\{[^}]*\}|KEYS\[\d+\]", values)
    assert len(places) == len(names.split(", "))
    for constant, place in zip(names.split(", "), places, strict=True):
        numbers = [int(number) for number in re.findall(r"\d+", place)]
        key = keys.by_name()[constant]
        assert [script.keys[number - 1] for number in numbers] == (
            [key] if isinstance(key, str) else list(key)
        )
    code = re.sub(r"--.*", "", script.text)
    assert len(re.findall(r"KEYS\[", code)) == len(script.keys)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_body_names_no_key_of_its_own(name):
    """Keys come from keys.py: no script writes one down."""
    _, body = header_and_body(name)
    assert "postbacks:" not in body


@pytest.mark.parametrize(
    ("name", "row"), [("accept", AcceptRow), ("commit", AttemptRow), ("put_back", PutBackRow)]
)
def test_a_row_has_the_fields_that_the_header_of_its_script_lists(name, row):
    """In the order of the header, as many as the script walks by."""
    header, body = header_and_body(name)
    listed = re.search(
        rf"an? {row.__name__}(?: each)? \(rows\.py\): ((?:.|\n--   )+?)\n-- (?:ARGV|Returns)", header
    )[1]
    fields = re.sub(r"\([^)]*\)|--", "", listed).split(",")
    assert row._fields == tuple(field.strip() for field in fields)
    assert re.search(r"WIDTH, FIRST = (\d+),", body)[1] == str(len(row._fields))


@pytest.mark.parametrize(
    ("name", "listed", "row"),
    [
        ("claim", "begun:", ClaimRow),
        ("claim", "held:", HeldRow),
        ("claim", "ended:", EndedRow),
        ("begin", "rows:", BegunRow),
        ("commit", "Returns", CommittedRow),
        ("begin", "Returns", Begun),
    ],
)
def test_a_row_that_a_script_returns_has_the_fields_that_its_header_lists(name, listed, row):
    """In the order of the header."""
    header, _ = header_and_body(name)
    text = re.search(rf"^-- +{listed}[^{{]*\{{([^}}]*)\}}", header, re.MULTILINE)[1]
    assert re.findall(r"\w+", text) == list(row._fields)


@pytest.mark.parametrize(("name", "row"), [("accept", AcceptRow), ("put_back", PutBackRow)])
def test_a_script_unpacks_the_fields_of_its_row_in_their_order(name, row):
    """Each local of the script bears the name of the field that it holds."""
    _, body = header_and_body(name)
    if name == "put_back":  # its part does it, for jobs as well
        _, body = header_and_body("_resend")
    unpacked = re.search(r"local ([\w,\s]+?) =\s+unpack\((?:ARGV, \w+, \w+ \+ WIDTH - 1|row)\)", body).group(
        1
    )
    assert re.findall(r"\w+", unpacked) == list(row._fields)


def test_every_counter_of_a_script_has_a_name_that_the_metrics_know():
    """Each total that a script adds to under a written name stands in counter_names.py, or begins with a name there."""
    bodies = "".join(header_and_body(name)[1] for name in SCRIPTS)
    counted = set(re.findall(r"TOTALS, '([\w:]+)'", bodies))
    names = {value for value in vars(counter_names).values() if isinstance(value, str)}
    prefixes = tuple(name for name in names if name.endswith(":"))
    assert len(counted) > 10
    assert [name for name in counted if name not in names and not name.startswith(prefixes)] == []
