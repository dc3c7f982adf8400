"""Pages: each leads to the others, what they name exists, their lines wrap; the rooms of architecture.md are the code's."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import command_blocks
import pytest
from pages import anchors, cells
from test_structure import ROOMS

from benchmarks import demo_picture

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / page for page in command_blocks.PAGES]
DOCS = [page for page in PAGES if page.parent.name == "docs"]
#: Second line of each page of docs/, but of the two that it leads to.
LEADS = "[All pages](README.md) · [Glossary](glossary.md)"
#: Where code and deployments name pages: in errors, helps, comments and runbooks.
NAMING = [
    path
    for folder in ("postbacks", "deploy", "examples", "benchmarks", "crash", ".github")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix
    in {".py", ".lua", ".yml", ".yaml", ".json", ".sh", ".service", ".conf", ".env", ".example"}
]
NAMING += [
    *ROOT.glob("*.py"),
    *ROOT.glob("*.yml"),
    *ROOT.glob("*.toml"),
    *(ROOT / name for name in ("Makefile", "Dockerfile", ".env.example")),
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


def leads_nowhere(target: str, page: Path, folder: Path) -> bool:
    """Return whether a link of a page has no file, or no heading, at its end; paths begin at the folder."""
    path, _, anchor = target.partition("#")
    file = folder / path if path else page
    return not file.exists() or (anchor != "" and anchor not in anchors(file.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=command_blocks.PAGES)
def test_a_link_to_another_page_leads_somewhere(page):
    """File and heading, pictures too; what has a scheme is somebody else's page."""
    text = page.read_text()
    targets = [
        *re.findall(r"\]\(([^)\s]+)\)", text),
        *re.findall(r"<(?:img|source)[^>]* src\w*=\"([^\"]+)", text),
    ]
    own = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in own if leads_nowhere(target, page, page.parent)] == []


def test_a_page_that_code_names_has_the_heading():
    """``docs/settings.md#tls`` in an error, a help, a comment or a runbook; ``docs/settings.md (Rights on the broker)``."""
    named = {
        (
            path,
            f"{page}#{re.sub(r'[^a-z0-9-]', '', heading.lower().replace(' ', '-'))}"
            if heading
            else page + anchor,
        )
        for path in NAMING
        for page, anchor, heading in re.findall(
            r"(docs/[\w-]+\.md)(#[\w-]+)?(?:\s\(([A-Z][^():]+)\))?", path.read_text()
        )
    }
    assert len(named) > 40
    broken = [
        (str(path.relative_to(ROOT)), target) for path, target in named if leads_nowhere(target, path, ROOT)
    ]
    assert broken == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_each_page_leads_to_all_pages_and_to_the_glossary(page):
    if page.name not in {"README.md", "glossary.md"}:
        assert page.read_text().splitlines()[1:4] == ["", LEADS, ""]


def test_the_index_has_each_page_once():
    lines = (ROOT / "docs" / "README.md").read_text().splitlines()
    listed = re.findall(r"(?m)^\* \[[\w ]+\]\(([\w-]+\.md)\): ", "\n".join(lines))
    assert sorted(listed) == sorted(page.name for page in DOCS if page.name != "README.md")


def test_the_glossary_has_twelve_words_that_its_pages_use():
    words = [row[0].strip("*") for row in table_of((ROOT / "docs" / "glossary.md").read_text(), "word ")]
    assert len(words) == 12
    for word in words:
        using = [page for page in DOCS if re.search(rf"\b{word}s?\b", page.read_text())]
        assert len(using) > 12, word


def test_the_readme_fits_a_screen_or_two_and_names_tests_that_there_are():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 80
    assert len(re.findall(r"\]\(tests/\w+/test_\w+\.py\)", text)) >= 6


def test_the_picture_of_the_readme_is_the_demos_and_fetches_nothing():
    """Lines of a terminal become text of the picture, in their colours; no font comes from elsewhere."""
    sentence = "All 12 outcomes are right, and every tag arrived as it was sent (15 s in all)."
    rows = [f"SUB N3{number:02d}   \x1b[32mdelivered\x1b[0m   ✓" for number in range(20)]
    made = demo_picture.draw([*demo_picture.chosen("\n".join(["event", "───", *rows])), sentence])
    stored = (ROOT / "docs" / "demo.svg").read_text()
    for picture in (made, stored):
        shown = "".join(ET.fromstring(picture).itertext()).replace("\xa0", " ")
        assert "SUB N301" in shown
        assert "outcomes are right, and every tag arrived as it was sent" in shown
        assert re.search(r"@font-face|url\((?!#)|@import|<script|href=", picture) is None
    assert "9 more" in "".join(ET.fromstring(made).itertext()).replace("\xa0", " ")


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


@pytest.mark.parametrize("page", PAGES, ids=command_blocks.PAGES)
def test_a_table_is_whole(page):
    """Each row is one line and has the cells of its head: a row that wraps is drawn as two, and the rest of it is no row."""
    broken, columns = [], 0
    text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), page.read_text(), flags=re.DOTALL)
    for number, line in enumerate(text.splitlines(), start=1):
        row = line.strip().replace(r"\|", "")
        if not row.startswith("|"):
            is_rest = columns and row.endswith("|")
            columns = 0
        else:
            is_rest = not row.endswith("|") or row.count("|") != (columns or row.count("|"))
            columns = row.count("|")
        if is_rest:
            broken.append(f"{page.name}:{number}")
    assert broken == []


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
