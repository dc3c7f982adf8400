"""Pages of claims are as good as their tests: each line names one, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import postbacks
from postbacks.app import app

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("security.md", "reliability.md")}
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "".join(PAGES.values()))))
HEADINGS = (
    "| what may be tried |", "| where |", "| fault |", "| what is done |", "| what grows |", "| of one account |",
)  # fmt: skip


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_the_page_names_exists(path, name):
    """The file has a function of that name."""
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("page", "least"), [("security.md", 40), ("reliability.md", 20)])
def test_every_line_of_the_pages_tables_names_a_test(page, least):
    """No claim without one."""
    rows = [
        line for line in PAGES[page].splitlines() if line.startswith("| ") and not line.startswith("| ---")
    ]
    claims = [row for row in rows if not row.startswith(HEADINGS)]
    assert len(claims) >= least
    assert [row for row in claims if not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_test_is_named_in_another_form(page):
    """So that none escapes the check."""
    assert PAGES[page].count("::test_") == len(re.findall(r"`tests/[\w/]+\.py::\w+`", PAGES[page]))


def test_json_is_the_only_serializer_and_nothing_unpickles():
    """Neither in the configuration nor by an import or a call anywhere in the package."""
    assert (app.conf.task_serializer, app.conf.result_serializer) == ("json", "json")
    assert list(app.conf.accept_content) == list(app.conf.result_accept_content) == ["json"]
    for path in Path(postbacks.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if not re.search(r"pickle|marshal|shelve|dill|eval|exec", text):
            continue
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"pickle", "marshal", "shelve", "dill"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
