"""Ways to check a block of a page: type it, run it, parse it, or name what is tried instead.

A block without a row in its page's table is checked by its language: ``in_its_language`` says how. Commands have no
such rule: nothing is typed that nobody has thought about.
"""

from __future__ import annotations

import configparser
import itertools
import json
import re
import shlex
import signal
import tomllib
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from xml.etree import ElementTree as ET

import click
import pytest
import yaml
from command_blocks import ROOT, Block, Machine

from benchmarks import screens
from postbacks.cli import main

Check = Callable[[Machine, Block], None]

#: A line that is typed.
COMMAND = r"^(?:\$ )?(?:postbacks|celery|docker|pip|curl|export|make|python|kubectl|systemctl|redis-cli) "

RECEIVE = "postbacks receive"
UP = "postbacks up --dev"
#: Tests that ``elsewhere`` names.
named_instead: set[str] = set()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def types(*, before: str = "", fill: dict[str, str] | None = None, code: int = 0, says: str = "") -> Check:
    """Type the block into a terminal.

    Args:
        before: lines that are typed first, for what the reader has.
        fill: words of the page -> what the reader knows and the page cannot.
        code: exit code of the last line.
        says: what is printed then, among other things.
    """

    def check(machine: Machine, block: Block) -> None:
        text = f"{before}\n{block.text}"
        for placeholder, value in (fill or {}).items():
            assert placeholder in text
            text = text.replace(placeholder, value)
        done = machine.type(text)
        assert done.returncode == code, f"{block}\n{done.stdout}\n{done.stderr}"
        assert says in done.stdout + done.stderr
        assert "Traceback" not in done.stderr

    return check


def with_password(check: Check) -> Check:
    """Check the block with the password of the machine's broker in it."""

    def filled(machine: Machine, block: Block) -> None:
        password = (machine.folder / "postbacks-data" / "broker.password").read_text().strip()
        check(machine, replace(block, text=block.text.replace("PASSWORD", password)))

    return filled


def meanwhile(check: Check) -> Check:
    """Check the block while the next ones are checked: what waits for a resend, or depends on no other."""
    return lambda machine, block: machine.begin(check, machine, block)


def stays(says: str) -> Check:
    """Type a command that stays into a terminal of its own, and leave it there."""

    def check(machine: Machine, block: Block) -> None:
        machine.start(block.text).wait_for(says)

    return check


def ends_with_ctrl_c(says: str) -> Check:
    """Type a command that stays, and press Ctrl-C when it is ready."""

    def check(machine: Machine, block: Block) -> None:
        stayer = machine.start(block.text)
        stayer.wait_for(says)
        assert stayer.stop() == 0
        machine.stayers.pop(" ".join(block.text.split()[:2]))

    return check


def follows(machine: Machine, block: Block) -> None:
    """Type a command that goes on with what comes, on the machine's broker, and press Ctrl-C."""
    stayer = machine.start(block.text, exports=exports_of(machine))
    stayer.wait_for("Ctrl-C ends it.")
    assert stayer.stop() == 0
    machine.stayers.pop(" ".join(block.text.split()[:2]))


def is_up(machine: Machine, block: Block) -> None:
    """The machine's ``up`` was started by this very line."""
    assert block.text == UP
    assert "Ctrl-C stops all of it." in machine.stayers[UP.removesuffix(" --dev")].printed


def elsewhere(why: str, *tests: str) -> Check:
    """Name the tests that try it, and why it is not typed; its options and arguments exist all the same."""
    assert why
    named_instead.update(tests)
    return parses


def parses(machine: Machine, block: Block) -> None:
    """Have each command of ours read its arguments, and nothing more."""
    with chdir(machine.folder):
        for part in re.split(r"[|\n]", block.text.replace("…", "")):
            if not part.strip().startswith("postbacks "):
                continue
            command, words = main, shlex.split(re.split(r"[<>#]", part)[0])[1:]
            while isinstance(command, click.Group):
                command, words = command.commands[words[0]], words[1:]
            command.make_context("postbacks", words).close()


def makes(machine: Machine, block: Block) -> None:
    """Find each target in the Makefile: it makes an environment with pip first, then runs what is tested anyway.

    Tests that a line runs by themselves exist.
    """
    del machine
    makefile = (ROOT / "Makefile").read_text()
    for line in block.text.splitlines():
        match shlex.split(line, comments=True):
            case ["make", target, *assignments]:
                assert re.search(rf"^{target}: ", makefile, re.MULTILINE), target
                for name in (assignment.partition("=")[0] for assignment in assignments):
                    assert f"$({name})" in makefile, name
            case [".venv/bin/python", "-m", "pytest", "-q", path]:
                assert (ROOT / path).exists()
            case _:
                pytest.fail(f"say how {line!r} is checked")
    assert "@$(BIN)/postbacks demo\n" in makefile


def runs(machine: Machine, block: Block) -> None:
    """Run the block in a Python of its own."""
    (machine.folder / "page.py").write_text(block.text)
    done = machine.type("python page.py")
    assert done.returncode == 0, done.stderr


def is_printed(machine: Machine, block: Block) -> None:
    """Compare the block with what the receiver has printed, the clock aside."""

    def without_clock(text: str) -> str:
        return re.sub(r"^\d\d:\d\d:\d\d\.\d{3}", "", text, flags=re.MULTILINE)

    assert without_clock(block.text) in without_clock(machine.stayers[RECEIVE].printed)


def exports_of(machine: Machine) -> str:
    """Return the lines that ``up`` has printed for other terminals: of its broker and of its history."""
    exports = re.findall(r"^\s*(export .*)$", machine.stayers["postbacks up"].printed, re.MULTILINE)
    return "\n".join(exports)


def serves(machine: Machine, block: Block) -> None:
    """Type each line, a process that stays, into a terminal of its own; stop all as a service manager does."""
    exports = exports_of(machine)
    ready = {"worker": " ready.", "beat": "beat: Starting...", "flower": "Connected to redis"}
    started = {}
    for line in block.text.splitlines():
        kind = line.split()[3]
        # Several celery commands stay at a time: each is known by its kind.
        machine.stayers.pop("celery -A", None)
        started[kind] = machine.start(line, exports=exports)
    machine.stayers.pop("celery -A")
    try:
        assert started.keys() == ready.keys()
        for kind, words in ready.items():
            started[kind].wait_for(words)
    finally:
        codes = {kind: stayer.stop(signal.SIGTERM) for kind, stayer in started.items()}
    assert codes["worker"] == codes["beat"] == 0


def composes(machine: Machine, block: Block) -> None:
    """Check commands of Docker Compose without Docker: services and files exist, ours are typed into a terminal.

    What the services run is tried word for word by tests/containers/test_containers.py.
    """
    lines = re.sub(r"'[^']*'", lambda quoted: quoted[0].replace("\n", " "), block.text).splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        match words:
            case ["cp", source, ".env"]:
                assert (machine.folder / source).exists()
            case ["docker", "compose", "up", *options]:
                assert set(options) <= {"-d", "--build", "--wait", "--scale", "worker=4"}
            case ["docker", "compose", "stop", service]:
                assert service in COMPOSE
            case ["docker", "compose", "exec", "history", "postbacks", *words]:
                # It has a database that the machine has not; tests/containers runs commands there.
                names = itertools.takewhile(str.isidentifier, words)
                done = machine.type(shlex.join(["postbacks", *names, "--help"]))
                assert done.returncode == 0, done.stderr
            case ["docker", "compose", "exec", "postgres", program, *_]:
                assert program == "psql"
            case ["docker", "compose", "exec", service, "postbacks", *_]:
                assert service in COMPOSE
                done = machine.type(line.partition(service)[2])
                assert done.returncode == 0, done.stderr
            case [assignment] if "=" in assignment:
                assert f"\n{assignment.partition('=')[0]}=" in (machine.folder / ".env.example").read_text()
            case _:
                pytest.fail(f"say how {line!r} is checked")


def is_output(machine: Machine, block: Block) -> None:
    """Find no command in what a command prints, or in a picture: it is typed nowhere."""
    del machine
    assert not re.search(COMMAND, block.text, re.MULTILINE), f"{block.first_line}: no text, but commands"


def is_screen(machine: Machine, block: Block) -> None:
    """Find the block among those that ``make screens`` takes from a terminal; its commands read their arguments."""
    assert f"{block.text}\n" in screens.blocks().values(), (
        "give it the name of a screen, or a row in its table"
    )
    commands = re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)
    assert commands
    parses(machine, replace(block, text="\n".join(commands)))


def parsed_by(parse: Callable[[str], object]) -> Check:
    """Parse a file by its format."""
    return lambda machine, block: parse(block.text) and None


def runs_with_its_page(machine: Machine, block: Block) -> None:
    """Leave the block to ``run_python``: it may use what the blocks before it on its page have made."""
    machine.python.setdefault(block.page, []).append(block.text)


def run_python(machine: Machine, before: dict[str, str]) -> None:
    """Run the Python of all pages in one process, a page's blocks one after the other in a namespace of its own.

    Args:
        before: page -> Python that runs first, for what its reader has by then.
    """
    programs = {page: [before.get(page, ""), *texts] for page, texts in machine.python.items()}
    (machine.folder / "pages.json").write_text(json.dumps(programs))
    (machine.folder / "pages.py").write_text(
        "import json\n"
        "for page, texts in json.load(open('pages.json')).items():\n"
        "    scope = {'__name__': page}\n"
        "    for number, text in enumerate(texts):\n"
        "        exec(compile(text, f'{page}, Python block {number}', 'exec'), scope)\n"
    )
    done = machine.type("python pages.py")
    assert done.returncode == 0, done.stderr


#: What a block is whose page's table has no row for it.
in_its_language: dict[str, Check] = {
    "text": is_output,
    "console": is_screen,
    "json": parsed_by(json.loads),
    "yaml": parsed_by(lambda text: list(yaml.safe_load_all(text))),
    "toml": parsed_by(tomllib.loads),
    "ini": parsed_by(
        lambda text: configparser.ConfigParser(strict=False, interpolation=None).read_string(text)
    ),
    "xml": parsed_by(ET.fromstring),
    "python": runs_with_its_page,
}
