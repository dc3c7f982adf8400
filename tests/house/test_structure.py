"""The house: imports go one way, and pycurl lives in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import postbacks

ROOT = Path(postbacks.__file__).parent

#: From the top down; a module may import what stands below its room, or in it.
ROOMS = [
    "postbacks.celery",
    "postbacks.cli",
    "postbacks.web",
    "postbacks.testing",
    "postbacks",
    "postbacks.worker.examiner",
    "postbacks.tasks",
    "postbacks.worker",
    "postbacks.operate",
    "postbacks.doctor",
    "postbacks.monitor",
    "postbacks.ping",
    "postbacks.history",
    "postbacks.celeryext.logs",
    "postbacks.client",
    "postbacks.app",
    "postbacks.celeryext",
    "postbacks.delivery",
    "postbacks.transport",
    "postbacks.queue",
    "postbacks.flower_events",
    "postbacks.ledger",
    "postbacks.privacy",
    "postbacks.accounts",
    "postbacks.devtools",
    "postbacks.names",
    "postbacks.catalogue",
    "postbacks.broker",
    "postbacks.logs",
    "postbacks.guard",
    "postbacks.urls",
    "postbacks.retry",  # a rule that needs the settings alone; it is given the task
    "postbacks.settings",
    "postbacks.broker.sentinel",
    "postbacks.broker.url",
    "postbacks.keys",
    "postbacks.killpoints",
    "postbacks.errors",
    "postbacks.printable",
    "postbacks.version",
]

#: Words that a first line may not begin with: it would name nothing.
VAGUE = re.compile(r"(What|Whether|It|Its|These|Those|One|How|None|Which|Who|Where)\b", re.ASCII)

MODULES = sorted(path for path in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """Dotted name of a module's file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> int:
    """Number of the room that a module belongs to: the longest name that it begins with."""
    rooms = [
        room for room in ROOMS if module == room or (room != "postbacks" and module.startswith(room + "."))
    ]
    assert rooms, f"{module} has no room: give it one here and in docs/architecture.md"
    return ROOMS.index(max(rooms, key=len))


def imports_of(path: Path) -> set[str]:
    """List what a module imports of postbacks, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "postbacks"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "postbacks":
            for alias in node.names:
                inner = ROOT.parent / Path(*node.module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_stands_below_it(path):
    """Imports go one way, top to bottom."""
    own = room_of(name_of(path))
    upwards = {name for name in imports_of(path) if room_of(name) < own}
    assert upwards == set()


def test_transport_alone_speaks_pycurl():
    """Nothing but postbacks/transport imports pycurl."""
    speakers = {name_of(path) for path in MODULES if "import pycurl" in path.read_text()}
    assert speakers
    assert all(name.startswith("postbacks.transport.") for name in speakers)


@pytest.mark.parametrize("path", [*MODULES, *ROOT.rglob("*.lua")], ids=lambda path: path.name)
def test_a_file_is_as_long_as_its_concept(path):
    """600 lines ask for a second file."""
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize("folder", ["postbacks", "tests", "crash", "benchmarks", "examples"])
def test_no_docstring_begins_with_a_pronoun_or_a_question(folder):
    """The first line names its object: a verb in the imperative, or a noun of the glossary."""
    texts = {path: path.read_text() for path in sorted((ROOT.parent / folder).rglob("*.py"))}
    assert texts
    vague = [
        f"{path.relative_to(ROOT.parent)}:{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]}"
        for path, text in texts.items()
        if re.search(rf"[\"']\s*{VAGUE.pattern}", text)  # parsing them all takes six seconds
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if (docstring := ast.get_docstring(node)) and VAGUE.match(docstring)
    ]
    assert vague == []


def test_each_module_of_the_overrides_says_what_it_mirrors_or_is_named_by_its_room():
    """The room's docstring promises it, and says why the others are there."""
    folder = ROOT / "celeryext"
    named = set(re.findall(r"``(\w+)``", ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))))
    assert named == {path.stem for path in folder.glob("*.py") if "mirrors" not in path.read_text().lower()}


def test_few_modules_stand_beside_the_rooms():
    """Tables and small tools; whatever is more has a room."""
    beside = [path.name for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    assert len(beside) <= 15, beside
