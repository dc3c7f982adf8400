"""Every command that README, receiving.md, install.md, operating.md, ``up`` and every ``--help`` show, run as it stands.

``CHECKS`` says of each block how it is checked; a block that is not in it fails the suite. Most are typed into a
terminal. What needs Docker, pip's index or a place of its own on the disk is listed with what is tried instead.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import deploy_checks
import pytest
import yaml
from click.testing import CliRunner
from command_blocks import ROOT, Block, Machine, blocks_of, examples_of

from postbacks.accounts import secrets
from postbacks.cli import main

Check = Callable[[Machine, Block], None]

PAGES = ("README.md", "docs/receiving.md", "docs/install.md", "docs/operating.md")
RECEIVE = "postbacks receive"
EXPORT = "export POSTBACKS_BROKER_URL=redis://:PASSWORD@127.0.0.1:6379/0"
SET_ACME = "postbacks account set acme --url http://127.0.0.1:8080/"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


# -- how a block is checked ------------------------------------------------------------------------


def types(*, fill: dict[str, str] | None = None, code: int = 0, says: str = "") -> Check:
    """Type the block into a terminal; ``fill`` is what its reader knows and the page cannot."""

    def check(machine: Machine, block: Block) -> None:
        text = block.text
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

    def check(machine: Machine, block: Block) -> None:
        parses(machine, block)
        for test in tests:
            path, _, name = test.partition("::")
            tree = ast.parse((ROOT / path).read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    return check


def parses(machine: Machine, block: Block) -> None:
    """Have each command of ours read its arguments, and nothing more."""
    with chdir(machine.folder):
        for part in re.split(r"[|\n]", block.text):
            if not part.strip().startswith("postbacks "):
                continue
            command, words = main, shlex.split(re.split(r"[<>#]", part)[0])[1:]
            while isinstance(command, click.Group):
                command, words = command.commands[words[0]], words[1:]
            command.make_context("postbacks", words).close()


def makes(machine: Machine, block: Block) -> None:
    """Find each target in the Makefile: it makes an environment with pip first, then runs what is tested anyway."""
    del machine
    makefile = (ROOT / "Makefile").read_text()
    for line in block.text.splitlines():
        target = shlex.split(line, comments=True)[1]
        assert re.search(rf"^{target}: ", makefile, re.MULTILINE), target
    assert "@$(BIN)/postbacks demo\n" in makefile


def python(machine: Machine, block: Block) -> None:
    """Run the page's Python."""
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


def is_no_command(machine: Machine, block: Block) -> None:
    """Find no command in a picture or a message."""
    del machine
    assert not re.search(r"^(?:\$ )?(?:postbacks|celery|docker|pip|curl|export) ", block.text, re.MULTILINE)


# -- the table -------------------------------------------------------------------------------------

UP = "postbacks up --dev"
DEMO = "tests/cli/test_cli_processes.py::test_the_demo_ends_well_whatever_the_environment_says_and_leaves_nothing_behind"
HISTORY_RUN = "tests/history/test_history_command.py::test_a_signal_ends_a_recorder_in_order"
VERIFY = "tests/signatures/test_verify.py::test_verify_finds_a_request_ours_in_every_form_that_it_comes_in"
RECEIVING = "tests/house/test_receiving_page.py::"
EXAMPLES_OF_RECEIVING = elsewhere(
    "code of a receiver, no command", RECEIVING + "test_the_examples_know_ours_from_others"
)
SHOWN_BY_RECEIVING = elsewhere(
    "what arrives, no command", RECEIVING + "test_the_document_and_the_headers_of_the_page_are_what_is_sent"
)
ID = "7c0e1f3a-…"

#: By page and first line. Of a help, lines that are not here are typed as they stand and succeed.
CHECKS: dict[str, dict[str, Check]] = {
    "README.md": {
        "make demo": makes,
        "python3 -m venv .venv": elsewhere(
            "pip asks its index", "tests/house/test_installing.py::test_what_the_pages_install_is_an_extra"
        ),
        UP: is_up,
        "postbacks receive --fail-first 2": stays("answers 500 to the first 2 POSTs"),
        SET_ACME: types(says="order-17 delivered after 3 attempts"),
        "14:05:06.090  SMS_MO N211  attempt 3  POST /  answered 200": is_printed,
        "from datetime import UTC, datetime": meanwhile(python),
        "cp .env.example .env": composes,
        "celery -A postbacks worker --loglevel=INFO --without-mingle --without-gossip": serves,
        "postbacks health": types(),
        "make help": makes,
    },
    "docs/receiving.md": {
        "POST /postbacks HTTP/1.1": SHOWN_BY_RECEIVING,
        "<?xml version='1.0' encoding='UTF-8'?>": SHOWN_BY_RECEIVING,
        "from standardwebhooks import Webhook, WebhookVerificationError": EXAMPLES_OF_RECEIVING,
        "const crypto = require('node:crypto');": EXAMPLES_OF_RECEIVING,
        "secret='whsec_cG9zdGJhY2tzIHRlc3QgdmVjdG9yLCAzMiBieXRlcyE='": elsewhere(
            "wants a receiver to answer",
            RECEIVING + "test_the_shell_lines_send_a_post_with_a_valid_signature",
        ),
        "postbacks verify --secret whsec_… < request": elsewhere(
            "wants a secret and a signed request", VERIFY
        ),
        UP: is_up,
        "postbacks receive --port 8080": stays("Receiving on http://127.0.0.1:8080/"),
        SET_ACME: types(says="delivered after 1 attempt"),
        "postbacks receive --port 8080 --forward-to http://127.0.0.1:3000/postbacks": elsewhere(
            "wants a server of one's own",
            "tests/cli/test_cli_processes.py::test_receive_forwards_and_shows_both_sides_and_ends_though_a_server_hangs",
        ),
        "postbacks ping https://acme.example/postbacks": types(
            fill={"https://acme.example": "http://127.0.0.1:8080"}, says="Delivered: answered 200"
        ),
        "postbacks ping acme": types(says="Delivered: answered 200"),
        "postbacks account secret rotate acme --overlap 24h": types(says="whsec_"),
    },
    "docs/install.md": {
        "cp .env.example .env": composes,
        "REDIS_PASSWORD=…": deploy_checks.is_head_of_external_redis,
        "docker build -t registry.example/postbacks:0.2.0 . && docker push registry.example/postbacks:0.2.0": deploy_checks.prepares_a_cluster,
        "# deploy/mine/kustomization.yaml": deploy_checks.builds,
        "kubectl create namespace postbacks": deploy_checks.clusters,
        r"{ printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: postbacks}\nspec:\n'": deploy_checks.makes_a_rule,
        "sudo useradd --system --home-dir /srv/postbacks --shell /usr/sbin/nologin postbacks": deploy_checks.installs_units,
        "sudo systemctl enable --now postbacks.target postbacks-worker@{1..4} postbacks-beat@{1..2}": deploy_checks.enables_units,
        "sudo systemd-run --quiet --pipe --wait --uid=postbacks -p EnvironmentFile=/etc/postbacks/postbacks.env -p EnvironmentFile=-/etc/postbacks/postbacks-worker.env /opt/postbacks/bin/postbacks health": deploy_checks.runs_beside_the_units,
        "appendonly yes": deploy_checks.is_configuration_of_redis,
    },
    "docs/operating.md": {
        "applications                                                            customers' servers": is_no_command,
        "docker compose exec history postbacks history status": composes,
        "docker compose up -d --scale worker=4": composes,
        "postbacks drop --dead --account acme --older 7d --dry-run": types(says="No such postback is dead."),
        "postback      fa676d81-83f8-41c6-9a02-47f7aeedfd5a": is_no_command,
        "Error: The ledger has no postback 49558902-2c96-4148-9ee2-21171e1c652d: it is not taken in yet; it waits in Celery's": is_no_command,
        "docker compose stop worker": composes,
    },
    UP: {
        "postbacks receive --port 8080": stays("Receiving on http://127.0.0.1:8080/"),
        EXPORT: with_password(types(says="delivered after 1 attempt")),
    },
    "postbacks up": {
        EXPORT: with_password(
            types(fill={"https://YOUR-SERVER": "http://127.0.0.1:8080"}, says="delivered after 1 attempt")
        ),
    },
    "help": {
        UP: is_up,
        "postbacks up --port 6380 --data /var/lib/postbacks --workers 2": elsewhere(
            "writes into the system's directories",
            "tests/cli/test_cli_processes.py::test_up_serves_from_an_empty_directory_and_ctrl_c_leaves_no_process_behind",
        ),
        "postbacks demo": elsewhere("tried at length", DEMO),
        "postbacks demo --json": elsewhere("tried at length", DEMO),
        "postbacks receive": stays("Receiving on http://127.0.0.1:8080/ (answers 200)"),
        "postbacks receive --port 9000 --fail-first 2": ends_with_ctrl_c(
            "Receiving on http://127.0.0.1:9000/"
        ),
        "postbacks receive --status 503 --delay 0.5 --json": ends_with_ctrl_c("(answers 503, 0.5 s later)"),
        "postbacks receive --forward-to http://127.0.0.1:3000/postbacks": ends_with_ctrl_c(
            "answers as http://127.0.0.1:3000/postbacks does"
        ),
        "postbacks receive --json | postbacks verify --secret whsec_…": elsewhere(
            "wants a signed POST", VERIFY
        ),
        "postbacks verify --secret whsec_… < request": elsewhere(
            "wants a secret and a signed request", VERIFY
        ),
        "postbacks metrics": ends_with_ctrl_c("Metrics are at http://127.0.0.1:9464/metrics"),
        "postbacks metrics --port 9464 --host 0.0.0.0": ends_with_ctrl_c("http://0.0.0.0:9464/metrics"),
        f"postbacks show {ID}": types(fill={ID: "order-17"}, says="delivered"),
        f"postbacks show {ID} --json": types(fill={ID: "order-17"}, says='"state": "delivered"'),
        f"postbacks show {ID} --curl --reveal --why 'ticket 4711'": types(
            fill={ID: "order-17"}, says="--data-binary @-"
        ),
        # Of what is delivered neither can be done, and it is said; test_cli_stack.py has those that are dead.
        f"postbacks resend {ID}": types(
            fill={ID: "order-17"}, code=1, says="only a dead or skipped one can be sent again"
        ),
        # A call of another example, which goes to a name that nobody has, may have died by now: it would be asked about.
        "postbacks resend --all-dead --account acme": types(fill={"--account acme": "--account acme --yes"}),
        # Nobody is there to be asked.
        "postbacks resend --account acme --dead --code N202 --why 'their gateway was down'": types(
            fill={"--account acme": "--account acme --yes"}
        ),
        "postbacks cancel --account acme --state parked --why 'they have the list by mail'": types(
            fill={"--account acme": "--account acme --yes"}
        ),
        "postbacks job show 7c0e1f3a": types(code=1, says="There is no job"),
        **{
            line: elsewhere("nobody has such a job", f"tests/cli/test_cli_jobs.py::{test}")
            for line, test in (
                (
                    "postbacks job show 7c0e1f3a --json",
                    "test_a_job_is_paused_and_stopped_and_says_what_is_left",
                ),
                ("postbacks job pause 7c0e1f3a", "test_a_job_is_paused_and_stopped_and_says_what_is_left"),
                (
                    "postbacks job resume 7c0e1f3a",
                    "test_a_part_whose_receiver_fails_pauses_and_goes_on_when_it_is_asked",
                ),
                ("postbacks job stop 7c0e1f3a", "test_a_job_is_paused_and_stopped_and_says_what_is_left"),
            )
        },
        "postbacks incident show 17": types(code=1, says="There is no incident 17"),
        **{
            line: elsewhere("nobody has such an incident", f"tests/operate/test_incident_commands.py::{test}")
            for line, test in (
                (
                    "postbacks incident show 17 --json",
                    "test_incidents_are_listed_and_shown_with_what_to_do_and_what_was_told",
                ),
                (
                    "postbacks incident mute 17 --until tomorrow --reason 'they know, ticket 812'",
                    "test_a_mute_is_written_with_its_reason_and_its_end_and_taken_back",
                ),
                (
                    "postbacks incident unmute 17",
                    "test_a_mute_is_written_with_its_reason_and_its_end_and_taken_back",
                ),
            )
        },
        # Nobody has sent such a message; tests/history/test_insight_cli.py has those that are told.
        "postbacks story 4711": types(code=1, says="TRACKINGID or MMSID '4711'"),
        f"postbacks story {ID}": types(fill={ID: "order-18"}, code=1, says="TRACKINGID or MMSID 'order-18'"),
        "postbacks story 4711 --account acme --json": types(code=1, says="no postback of account acme"),
        # In this order: the one reads what the other writes. Nobody is there to be asked.
        "postbacks account export accounts.yaml": types(says="written to accounts.yaml"),
        "postbacks account apply accounts.yaml --why 'ticket 812'": types(
            fill={"accounts.yaml": "accounts.yaml --yes"}
        ),
        "postbacks story 4711 --reveal --why 'ticket 812'": types(code=1, says="TRACKINGID or MMSID '4711'"),
        # Nobody is there to be asked.
        "postbacks account remove acme": types(code=2, says="say --yes"),
        'postbacks forget --number 15552310137 --why "letter of 24 November"': types(
            code=2, says="say --yes"
        ),
        f"postbacks cancel {ID}": types(fill={ID: "order-17"}, code=1, says="delivered"),
        "postbacks account set acme --url @url.txt --header @headers.txt": types(
            fill={
                "@url.txt": "@<(echo http://127.0.0.1:8080/)",
                "@headers.txt": "@<(echo 'X-Team: messaging')",
            }
        ),
        "postbacks list --account acme --follow": follows,
        # No server has that name, here or anywhere.
        "postbacks ping https://acme.example/postbacks --json": types(code=1, says='"delivered": false'),
        "POSTBACKS_HISTORY_URL=sqlite:///history.db postbacks history run": elsewhere(
            "tried at length", HISTORY_RUN
        ),
        "postbacks history run": elsewhere("tried at length", HISTORY_RUN),
        "postbacks history status": types(says="on, recorder "),
        # The recorder of `up` would turn the feed on again.
        "postbacks history off": types(code=2, says="say --yes"),
        # Only beside a worker that serves its own page, as in docker-compose.yml.
        "postbacks health --worker": types(code=2, says="POSTBACKS_METRICS_PORT"),
        "postbacks render - < event.json | xmllint --format -": types(
            fill={} if shutil.which("xmllint") else {"| xmllint --format -": ""}, says="<POSTBACK>"
        ),
    },
}


# -- the tests -------------------------------------------------------------------------------------


@contextmanager
def machine_with_up(folder: Path, **exported: str):
    """A machine on which the pages' first terminal runs."""
    with Machine(folder) as machine:
        machine.exported = exported
        machine.start(UP).wait_for("Ctrl-C stops all of it.")
        yield machine


def run(machine: Machine, blocks: list[Block], checks: dict[str, Check]) -> None:
    """Check each block by its row of the table, in the order of the page, and find no row without a block."""
    unknown = [block.first_line for block in blocks if block.first_line not in checks]
    assert unknown == [], f"say in CHECKS how these blocks of {blocks[0].page} are checked"
    assert checks.keys() - {block.first_line for block in blocks} == set()
    for block in blocks:
        checks[block.first_line](machine, block)


def blocks_of_page(page: str) -> list[Block]:
    """The blocks of a page of the repository."""
    return blocks_of(page, (ROOT / page).read_text())


def printed_without_dev() -> str:
    """Return the output of ``postbacks up`` without ``--dev``, of a broker like the machine's."""
    broker = SimpleNamespace(url=EXPORT.partition("=")[2])
    up = importlib.import_module("postbacks.cli.up")
    no_web = up._Web(None, "", "none")
    stack = SimpleNamespace(workers=[], beats=[], recorders=[])
    command = click.Command(
        "up",
        callback=lambda: up._say_ready(broker, Path("data"), stack, {}, "", "none", no_web, as_json=False),
    )
    return CliRunner().invoke(command).output


def test_the_readme_and_what_up_prints_work_as_they_stand(tmp_path):
    with machine_with_up(tmp_path) as machine:
        printed = re.sub(r":[0-9a-f]{48}@", ":PASSWORD@", machine.stayers["postbacks up"].printed)
        run(machine, blocks_of_page("README.md"), CHECKS["README.md"])
        run(machine, blocks_of(UP, printed), CHECKS[UP])
        machine.join()
        assert machine.stayers["postbacks up"].stop() == 0


def test_the_pages_for_receivers_and_operators_and_every_help_work_as_they_stand(tmp_path):
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
    # As docs/settings.md has it for whoever signs.
    with machine_with_up(tmp_path, POSTBACKS_SECRET_KEY=secrets.new_key()) as machine:
        for page in ("docs/receiving.md", "docs/install.md", "docs/operating.md"):
            run(machine, blocks_of_page(page), CHECKS[page])
        run(machine, blocks_of("postbacks up", printed_without_dev()), CHECKS["postbacks up"])
        # The README's commands and those of the pages were processes of their own; the many examples need not be.
        machine.fork_commands()
        done = machine.type(
            f"{SET_ACME}\npostbacks account secret remove acme\n"
            "postbacks example SMS_MO N211 > event.json; cp event.json events.jsonl\n"
            "postbacks send acme event.json --id order-17 --wait 20"
        )
        assert done.returncode == 0, done.stderr
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


def test_a_block_that_nobody_has_said_how_to_check_fails(tmp_path):
    (block,) = blocks_of("README.md", "Try:\n\n    postbacks frobnicate\n\nThat is all.")
    with Machine(tmp_path) as machine:
        with pytest.raises(AssertionError, match="say in CHECKS"):
            run(machine, [block], {})
        with pytest.raises(AssertionError, match="No such command 'frobnicate'"):
            run(machine, [block], {block.first_line: types()})


def test_blocks_are_found_fenced_and_indented_and_never_inside_a_paragraph():
    page = "Text\n    goes on\n\n    a b  # c\n    d\n\n    e\n\nText\n```python\nf\n\n    g\n```\n    h\n"
    assert [(block.language, block.text) for block in blocks_of("page", page)] == [
        ("", "a b  # c\nd\n\ne"),
        ("python", "f\n\n    g"),
    ]
