"""CONTRIBUTING.md is followed to the letter: the code that it adds as an example travels, and its paths exist."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from helpers import set_account
from pages import cells

from postbacks import catalogue, send_postback
from postbacks.catalogue import EVENTS, table, values
from postbacks.catalogue.base import Event, _registry
from postbacks.cli.examples import example

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PATHS = sorted(
    set(re.findall(r"(?:`| -q )((?:postbacks|tests|docs|crash|benchmarks)/[\w/.]*|[A-Z]+\.md)\b", PAGE))
)


def block(kind: str, section: str) -> str:
    """Return the first block of a kind in a section of the page."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return textwrap.dedent(re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1])


@pytest.fixture
def added():
    """Class of the page's example, in the catalogue while the test runs."""
    before = dict(_registry)
    scope = {"Event": Event, **{name: getattr(values, name) for name in dir(values) if name[0].isupper()}}
    exec(compile(block("python", "Add a code"), "CONTRIBUTING.md", "exec", dont_inherit=True), scope)
    (key,) = _registry.keys() - before.keys()
    yield _registry[key]
    del _registry[key]


def test_a_code_that_is_added_as_the_page_says_travels(added, rig, receiver):
    """The class alone: it is parsed, rendered in the order of its tags, delivered, and stands in the table."""
    origin, code, meaning, tags = cells(block("text", "Add a code"))
    assert (added.origin, added.code, added.meaning) == (origin, code, meaning)
    assert [str(tag) for tag in added.tags] == tags.split(", ")
    assert (origin, code) in {(row.origin, row.code) for row in table()}

    set_account("acme", url=receiver.url())
    mapping = example(added)
    postback_id = send_postback.delay("acme", mapping).id
    rig.tick()
    assert rig.deliver() == 1
    assert rig.record(postback_id).state == "delivered"
    document = ET.fromstring(receiver.received[0].body)
    assert {child.tag: child.text for child in document} == mapping
    assert [child.tag for child in document][2:] == [tag.rstrip("?") for tag in tags.split(", ")]


def test_the_example_is_no_code_that_there_is():
    """Whoever copies it would get a TypeError, and the page would be wrong."""
    origin, code, *_ = cells(block("text", "Add a code"))
    assert (origin, code) not in EVENTS
    assert not hasattr(catalogue, "SubscriptionPaused")


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_the_page_names_exists(path):
    """A file that has moved is named where it is now."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "section",
    [
        "Change the retry rule",
        "Add a code",
        "Add a setting",
        "Add a Lua move",
        "Add a page, or a block to one",
    ],
)
def test_each_way_to_change_something_takes_five_lines(section):
    """Five steps, numbered."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_every_room_of_the_package_is_on_the_page():
    """A new folder of postbacks/ asks for its row."""
    rooms = {path.name for path in (ROOT / "postbacks").iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"`{room}/`" not in PAGE} == set()
