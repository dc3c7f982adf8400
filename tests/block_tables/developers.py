"""docs/sending.md, docs/testing.md, docs/receiving.md and the examples."""

from __future__ import annotations

import shutil

from block_checks import (
    UP,
    Check,
    elsewhere,
    is_up,
    stays,
    types,
)
from command_blocks import ROOT, Block, Machine

from block_tables.help import VERIFY
from block_tables.start import SET_ACME

RECEIVING = "tests/house/test_receiving_page.py::"
EXAMPLES_OF_RECEIVING = elsewhere(
    "code of a receiver, no command", RECEIVING + "test_the_examples_know_ours_from_others"
)
SHOWN_BY_RECEIVING = elsewhere(
    "what arrives, no command", RECEIVING + "test_the_document_and_the_headers_of_the_page_are_what_is_sent"
)

VENV = "python3 -m venv .venv"
PIP = elsewhere("pip asks its index", "tests/examples/test_examples.py::test_the_tests_of_an_example_pass")
RUNS_ALREADY = elsewhere("the page for receivers has started it")


def in_example(name: str, *, fill: dict[str, str] | None = None, says: str = "") -> Check:
    """Type a block in a copy of an example's folder; what it leaves running ends with it, and curl waits for that."""

    def check(machine: Machine, block: Block) -> None:
        made = shutil.ignore_patterns(".venv", "__pycache__", "*.db", "*.sqlite3", "postbacks-data")
        shutil.copytree(ROOT / "examples" / name, machine.folder / name, ignore=made, dirs_exist_ok=True)
        before = (
            f"cd {name}\n"
            "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
            'curl() { command curl --silent --fail --retry 120 --retry-delay 1 --retry-connrefused "$@"; }'
        )
        types(before=before, fill=fill, says=says)(machine, block)

    return check


CHECKS: dict[str, dict[str, Check]] = {
    "docs/receiving.md": {
        "POST /postbacks HTTP/1.1": SHOWN_BY_RECEIVING,
        "<?xml version='1.0' encoding='UTF-8'?>": SHOWN_BY_RECEIVING,
        "from standardwebhooks import Webhook, WebhookVerificationError": EXAMPLES_OF_RECEIVING,
        "const crypto = require('node:crypto');": EXAMPLES_OF_RECEIVING,
        "secret='whsec_cG9zdGJhY2tzIHRlc3QgdmVjdG9yLCAzMiBieXRlcyE='": elsewhere(
            "wants a receiver to answer",
            RECEIVING + "test_the_shell_lines_send_a_post_with_a_valid_signature",
        ),
        "postbacks receive --port 8080 --forward-to http://127.0.0.1:3000/postbacks": elsewhere(
            "wants a server of one's own",
            "tests/cli/test_cli_processes.py::test_receive_forwards_and_shows_both_sides_and_ends_though_a_server_hangs",
        ),
        "postbacks verify --secret whsec_… < request": elsewhere(
            "wants a secret and a signed request", VERIFY
        ),
        UP: is_up,
        "postbacks receive --port 8080": stays("Receiving on http://127.0.0.1:8080/"),
        SET_ACME: types(says="delivered after 1 attempt"),
        "postbacks ping https://acme.example/postbacks": types(
            fill={"https://acme.example": "http://127.0.0.1:8080"}, says="Delivered: answered 200"
        ),
        "postbacks ping acme": types(says="Delivered: answered 200"),
        "postbacks account secret rotate acme --overlap 24h": types(says="whsec_"),
    },
    "docs/sending.md": {
        "pip install postbacks": elsewhere(
            "pip asks its index", "tests/house/test_installing.py::test_what_the_pages_install_is_an_extra"
        ),
        "export POSTBACKS_BROKER_URL=redis://:PASSWORD@broker.example:6379/0": types(),
        UP: is_up,
        '{"id": "7c0e1f3a-…", "task": "postbacks.send_postback", "args": ["acme", {"ORIGIN": "SUB", …}], "kwargs": {}}': elsewhere(
            "an outline", "tests/queue/test_message.py::test_a_message_of_protocol_1_is_read"
        ),
        "```python": elsewhere(
            "wants Django and databases",
            "tests/client/test_sending_page.py::test_every_block_of_python_runs_in_the_order_of_the_page",
        ),
    },
    "docs/testing.md": {
        "```python": elsewhere(
            "a project of its own", "tests/testing/test_testing_page.py::test_the_project_of_the_page_passes"
        ),
    },
    "examples/django/README.md": {
        VENV: PIP,
        "python manage.py migrate": in_example(
            "django", fill={"POSTBACKS_ACCOUNTS=inbox.account_store:CustomerAccounts postbacks up --dev": ""}
        ),
        "postbacks receive": RUNS_ALREADY,
        "python manage.py runserver &": in_example("django", says="0 sent."),
    },
    "examples/fastapi/README.md": {
        VENV: PIP,
        UP: is_up,
        "postbacks receive": RUNS_ALREADY,
        SET_ACME: in_example("fastapi"),
    },
    "examples/flask/README.md": {
        VENV: PIP,
        UP: is_up,
        "postbacks receive": RUNS_ALREADY,
        SET_ACME: in_example("flask"),
    },
    "examples/receivers/README.md": {
        "```sh": elsewhere(
            "wants another key of secrets",
            "tests/receivers/test_receivers.py::test_a_reader_follows_the_page_to_a_stored_postback",
        ),
        "```nginx": elsewhere("wants nginx"),
    },
}
