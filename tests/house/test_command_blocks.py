"""Every block of every page, of what ``up`` prints and of every ``--help``: run as it stands, or it is said why not.

``block_tables`` has a row for each block that its language alone does not say how to check; a block of commands
without a row fails the suite. Most are typed into a terminal. What needs Docker, pip's index or a place of its own on
the disk is listed with what is tried instead.
"""

from __future__ import annotations

import ast
import importlib
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from block_checks import RECEIVE, UP, Check, in_its_language, meanwhile, named_instead, run_python, types
from block_tables import BEFORE, CHECKS
from block_tables.start import EXPORT, SET_ACME
from click.testing import CliRunner
from command_blocks import PAGES, ROOT, Block, Machine, blocks_of, examples_of

from postbacks.accounts import secrets
from postbacks.cli import main

#: Pages that come first: what they start, and the account that they set, is used by the others.
FIRST = ("docs/quickstart.md", "README.md", "docs/receiving.md")


@contextmanager
def machine_with_up(folder: Path, **exported: str):
    """A machine on which the pages' first terminal runs."""
    with Machine(folder) as machine:
        machine.exported = exported
        machine.start(UP).wait_for("Ctrl-C stops all of it.")
        yield machine


def checks_of(blocks: list[Block], rows: dict[str, Check]) -> list[Check]:
    """Return what checks each block: its row of the page's table, the page's for its language, or that of the language."""
    checks = [
        rows.get(block.first_line) or rows.get(f"```{block.language}") or in_its_language.get(block.language)
        for block in blocks
    ]
    unknown = [block.first_line for block, check in zip(blocks, checks, strict=True) if check is None]
    assert unknown == [], f"say in tests/block_tables how these blocks of {blocks[0].page} are checked"
    assert (
        rows.keys() - {name for block in blocks for name in (block.first_line, f"```{block.language}")}
        == set()
    )
    return checks


def run(machine: Machine, blocks: list[Block], rows: dict[str, Check]) -> None:
    """Check each block, in the order of the page."""
    for block, check in zip(blocks, checks_of(blocks, rows), strict=True):
        check(machine, block)


def blocks_of_page(page: str) -> list[Block]:
    """The blocks of a page of the repository."""
    return blocks_of(page, (ROOT / page).read_text())


def printed_without_dev() -> str:
    """Return the output of ``postbacks up`` without ``--dev``, of a broker like the machine's."""
    broker = SimpleNamespace(url=EXPORT.partition("=")[2])
    up = importlib.import_module("postbacks.cli.up")
    no_web = up._Web(None, "", "none")
    stack = SimpleNamespace(workers=[], beats=[], recorders=[], webs=[])
    command = click.Command(
        "up",
        callback=lambda: up._say_ready(broker, Path("data"), stack, {}, "", "none", no_web, as_json=False),
    )
    return CliRunner().invoke(command, catch_exceptions=False).output


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_has_its_check(page):
    checks_of(blocks_of_page(page), CHECKS.get(page, {}))


def run_helps(machine: Machine) -> None:
    """Type the examples of every help: several at a time, but for those that others depend on."""

    def late(block: Block) -> tuple[bool, bool, bool]:
        """The others need the page's receiver, and the account as it is; the last ones need an account."""
        changes = re.search(r"account (set|pause|resume|remove) ", block.text)
        return (
            block.text.startswith(RECEIVE),
            changes is not None,
            changes is not None and changes[1] == "remove",
        )

    examples = sorted(examples_of(main), key=late)
    assert CHECKS["help"].keys() <= {block.text for block in examples}
    for block in {block.text: block for block in examples}.values():
        in_order = (
            re.search(r"account (set|pause|resume|remove|secret) |>", block.text)
            or block.text in CHECKS["help"]
        )
        if any(late(block)):
            machine.join()
        check = CHECKS["help"].get(block.text, types())
        (check if in_order else meanwhile(check))(machine, block)
    machine.join()
    completion = re.search(r'eval "\$\(.*\)"', " ".join(main.help.split()))[0]
    types()(machine, Block("postbacks --help", "", completion))


def test_every_page_what_up_prints_and_every_help_work_as_they_stand(tmp_path):
    """Type all on one machine: a command need not load what one before it has loaded."""
    # The key is as docs/settings.md has it for whoever signs. Nobody waits for a resend as long as the page says.
    exported = {"POSTBACKS_SECRET_KEY": secrets.new_key(), "POSTBACKS_RETRY_COUNTDOWN_S": "1"}
    with machine_with_up(tmp_path, **exported) as machine:
        machine.fork_commands()
        printed = re.sub(r":[0-9a-f]{48}@", ":PASSWORD@", machine.stayers["postbacks up"].printed)
        for page in FIRST:
            run(machine, blocks_of_page(page), CHECKS[page])
        run(machine, blocks_of(UP, printed), CHECKS[UP])
        run(machine, blocks_of("postbacks up", printed_without_dev()), CHECKS["postbacks up"])
        types(
            before="cp event.json events.jsonl\n"
            f"{SET_ACME} --off SMS_MO\n"
            "! postbacks send acme event.json --id order-16 --wait 20"  # so that there is one to send again
        )(machine, Block("", "", SET_ACME))
        for page in PAGES:
            if page not in FIRST:
                run(machine, blocks_of_page(page), CHECKS.get(page, {}))
        restored = f"{SET_ACME}\npostbacks account secret remove acme\npostbacks account export accounts.yaml"
        types()(machine, Block("", "", restored))
        run_python(machine, BEFORE)
        run_helps(machine)
        assert machine.stayers["postbacks up"].stop() == 0


def test_a_block_that_nobody_has_said_how_to_check_fails(tmp_path):
    (block,) = blocks_of("README.md", "Try:\n\n    postbacks frobnicate\n\nThat is all.")
    with Machine(tmp_path) as machine:
        with pytest.raises(AssertionError, match="say in tests/block_tables"):
            run(machine, [block], {})
        with pytest.raises(AssertionError, match="No such command 'frobnicate'"):
            run(machine, [block], {block.first_line: types()})


def test_blocks_are_found_fenced_and_indented_and_never_inside_a_paragraph():
    page = "Text\n    goes on\n\n    a b  # c\n    d\n\n    e\n\nText\n```python\nf\n\n    g\n```\n    h\n"
    assert [(block.language, block.text) for block in blocks_of("page", page)] == [
        ("", "a b  # c\nd\n\ne"),
        ("python", "f\n\n    g"),
    ]


@pytest.mark.parametrize("test", sorted(named_instead))
def test_a_test_that_a_row_names_exists(test):
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_row_is_of_a_page_that_there_is():
    assert CHECKS.keys() - {*PAGES, UP, "postbacks up", "help"} == set()
    assert BEFORE.keys() <= set(PAGES)


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("json", '{"a": 1}', "{a: 1}"),
        ("yaml", "a: [1]", "a: [1"),
        ("toml", "a = 1", "a = b"),
        ("ini", "[Service]\nA=%i", "A=1"),
        ("xml", "<A/>", "<A>"),
        ("text", "well: no command", "Then:\npostbacks up"),
        ("console", "", "$ postbacks up\nready"),
    ],
)
def test_a_block_that_is_no_command_is_checked_by_its_language(language, good, bad):
    check = in_its_language[language]
    if good:
        check(None, Block("page", language, good))
    with pytest.raises(Exception):  # noqa: B017, PT011 - each format has an error of its own
        check(None, Block("page", language, bad))


def test_python_of_a_page_runs_in_order_after_what_its_reader_has(tmp_path):
    with Machine(tmp_path) as machine:
        page = "```python\nb = a + 1\n```\nand\n```python\nassert b == 2\n```\n"
        run(machine, blocks_of("docs/page.md", page), {})
        run_python(machine, {"docs/page.md": "a = 1"})
        run(machine, blocks_of("docs/other.md", "```python\nb\n```\n"), {})
        with pytest.raises(AssertionError, match=r"docs/other.md, Python block 1"):
            run_python(machine, {"docs/page.md": "a = 1"})
