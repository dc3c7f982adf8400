"""The pages of the examples: what they tell the reader to type leads from a request to the customer's server."""

from __future__ import annotations

import shutil

import pytest
from command_blocks import ROOT, Machine, blocks_of

#: What the receiver prints of each example's postback.
POSTBACKS = {
    "django": "SMS_MO N211  attempt 1",
    "fastapi": "SUB N301  attempt 1",
    "flask": "SMS_MT N202  attempt 1",
}
HAS_ANSWERED = "curl -s -o /dev/null --retry 60 --retry-delay 1 --retry-connrefused http://127.0.0.1:8000/"


@pytest.mark.long
@pytest.mark.parametrize("example", POSTBACKS)
def test_the_commands_of_a_page_lead_to_the_customers_server(tmp_path, example):
    """All but those that make the environment, in a copy of the example; what stays gets a terminal of its own."""
    folder = ROOT / "examples" / example
    left_behind = shutil.ignore_patterns("__pycache__", ".*", "*.db", "*.sqlite3", "postbacks-data")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, ignore=left_behind)
    environment, up, receive, send = blocks_of(example, (folder / "README.md").read_text())
    assert "pip install -e '../..[local]' -r requirements.txt" in environment.text
    server, is_in_background, commands = send.text.partition(" &\n")
    assert is_in_background
    *before, server = server.splitlines()
    with Machine(tmp_path) as machine:
        stack = machine.start(up.text)
        machine.stayers = {"postbacks up": stack}
        stack.wait_for("Ctrl-C stops all of it.")
        receiver = machine.start(receive.text)
        succeeds(machine, "\n".join(before))
        exports = "\n".join(line for line in stack.printed.splitlines() if "export " in line)
        machine.start(server, exports=exports)
        succeeds(machine, HAS_ANSWERED)
        succeeds(machine, commands)
        receiver.wait_for(POSTBACKS[example])
        assert "answered 200" in receiver.printed


def succeeds(machine: Machine, text: str) -> None:
    """Type lines, which must succeed."""
    done = machine.type(text)
    assert done.returncode == 0, done.stdout + done.stderr
