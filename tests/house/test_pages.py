"""Pages: what they name exists, their lines wrap, and the rooms of architecture.md are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pages import anchors, cells
from test_structure import ROOMS

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for glob in ("*.md", "docs/*.md", "examples/*.md", "examples/*/*.md")
    for path in sorted(ROOT.glob(glob))
]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
#: Folders that a path on a page may begin at; a script alone is one of the moves.
FOLDERS = (ROOT, ROOT / "postbacks", ROOT / "postbacks" / "queue", ROOT / "docs")
WIDTH = 120


def table_of(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table of a page whose first heading begins so."""
    lines = page.split(f"\n| {heading}")[1].split("\n\n", maxsplit=1)[0].splitlines()
    return [cells(line) for line in lines[2:]]


def rooms_of(page: str) -> list[str]:
    """Return the modules and folders that a page's table of rooms names, in its order, as test_structure.py does."""
    return [
        "postbacks" if path == "__init__.py" else f"postbacks.{path.removesuffix('/').removesuffix('.py')}"
        for room, _ in table_of(page, "room ")
        for path in re.findall(r"`([\w./]+)`", room)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_that_a_page_names_exists(page):
    """From the root, from postbacks/, from docs/ or beside the page: whoever reads finds the file at once."""
    text, folders = page.read_text(), (*FOLDERS, page.parent)
    paths = set(re.findall(r"`([\w./-]+\.(?:py|lua|md))(?:::\w+)?`", text))
    assert {path for path in paths if not any((folder / path).exists() for folder in folders)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_another_page_leads_somewhere(page):
    """File and heading; what has a scheme is somebody else's page."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "benchmarks.md"], ids=lambda page: page.name
)
def test_lines_of_a_page_wrap(page):
    """Tables, blocks of code, single long words and the page that ``make bench`` writes excepted."""
    long, is_code = [], False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        text = line.strip()
        if line.startswith("```"):
            is_code = not is_code
        elif is_code or line.startswith("    ") or text.startswith("|") or " " not in text:
            continue
        elif len(line) > WIDTH:
            long.append(f"{page.name}:{number}: {len(line)} characters")
    assert long == []


def test_the_rooms_stand_in_the_order_of_their_imports():
    """Each module or folder of postbacks/ once, from the top down; CONTRIBUTING.md has some of them."""
    rooms = [room for room in ROOMS if room.count(".") < 2]
    assert rooms_of(ARCHITECTURE) == rooms
    short = rooms_of((ROOT / "CONTRIBUTING.md").read_text())
    assert short == [room for room in rooms if room in short]


def test_each_step_of_the_way_begins_where_the_page_says():
    """The table below the picture names files, and functions or methods that these have."""
    steps = table_of(ARCHITECTURE, "step | room ")
    assert [row[0].split()[0] for row in steps] == ["1", "2", "3", "4", "5"]
    for _, room, where in steps:
        named = re.findall(r"`([\w/]+\.py)`, `(\w+)(?:\.(\w+))?`", where)
        assert len(named) == where.count(".py`"), where
        for path, name, method in named:
            assert path.startswith(tuple(re.findall(r"`([\w./]+)`", room))), path
            tree = ast.parse((ROOT / "postbacks" / path).read_text())
            tops = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            assert name in tops, path
            methods = {node.name for node in ast.walk(tops[name]) if isinstance(node, ast.FunctionDef)}
            assert not method or method in methods, path


def test_a_tick_takes_the_steps_that_the_page_lists():
    """The scripts that tick and intake call; two others only mark where the intake is."""
    scripts = re.findall(r"`(\w+)\.lua`", "".join(row[1] for row in table_of(ARCHITECTURE, "step | script ")))
    sources = "".join(
        (ROOT / "postbacks" / "queue" / f"{name}.py").read_text() for name in ("tick", "intake")
    )
    called = set(re.findall(r"_scripts\.(\w+)\(", sources)) - {"accept_alone", "end_intake"}
    assert sorted(scripts) == sorted(called)
