"""The house: imports go one way, and pycurl lives in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import postbacks

ROOT = Path(postbacks.__file__).parent

#: From top to bottom; a module may import what stands below it, or beside it in its own place.
FLOORS = [
    "postbacks.celery",
    "postbacks.celery_logs",
    "postbacks.cli",
    "postbacks",
    "postbacks.examiner",
    "postbacks.tasks",
    "postbacks.results",
    "postbacks.worker",
    "postbacks.relief",
    "postbacks.beat",
    "postbacks.consumer",
    "postbacks.doctor",
    "postbacks.monitor",
    "postbacks.control",
    "postbacks.app",
    "postbacks.celeryext",
    "postbacks.delivery",
    "postbacks.queue",
    "postbacks.taskevents",
    "postbacks.ledger",
    "postbacks.routing",
    "postbacks.accounts",
    "postbacks.rates",
    "postbacks.vault",
    "postbacks.receiver",
    "postbacks.schemas",
    "postbacks.xml",
    "postbacks.catalogue",
    "postbacks.local",
    "postbacks.valkey",
    "postbacks.logs",
    "postbacks.extra_headers",
    "postbacks.url_policy",
    "postbacks.guard",
    "postbacks.urls",
    "postbacks.broker",
    "postbacks.settings",
    "postbacks.sentinel",
    "postbacks.broker_url",
    "postbacks.keys",
    "postbacks.faults",
    "postbacks.errors",
    "postbacks.printable",
    "postbacks.version",
]

MODULES = sorted(path for path in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """Dotted name of a module's file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    """The floor that a module belongs to."""
    places = [
        place
        for place in FLOORS
        if module == place or (place != "postbacks" and module.startswith(place + "."))
    ]
    assert places, f"{module} has no floor: give it one here and in docs/architecture.md"
    return FLOORS.index(places[0])


def imports_of(path: Path) -> set[str]:
    """What a module imports of postbacks, wherever the import stands."""
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
    """One direction of imports, top to bottom."""
    own = floor_of(name_of(path))
    upwards = {name for name in imports_of(path) if floor_of(name) < own}
    assert upwards == set()


def test_pycurl_is_spoken_in_delivery_alone():
    """Nothing but postbacks/delivery imports pycurl."""
    speakers = {name_of(path) for path in MODULES if "import pycurl" in path.read_text()}
    assert speakers
    assert all(name.startswith("postbacks.delivery.") for name in speakers)


@pytest.mark.parametrize("path", [*MODULES, *ROOT.rglob("*.lua")], ids=lambda path: path.name)
def test_a_file_stays_a_size_that_one_can_read(path):
    """About 400 lines; more asks for a second file."""
    assert len(path.read_text().splitlines()) <= 600
