"""docs/receiving.md: its examples are run on what a real receiver got; its commands in test_command_blocks.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import examples
from helpers import environment, set_account

from postbacks import send_postback
from postbacks.accounts import secrets
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.cli import main
from postbacks.devtools.receiver import Receiver

PAGE = (Path(__file__).parents[2] / "docs" / "receiving.md").read_text()
EVENT = examples()["SMS_MO", "N211"]


def block(language):
    """The code of the page in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def python_says(headers, body, secret):
    """The page's Python."""
    names = {}
    exec(block("python"), names)
    return names["is_ours"](headers, body, secret)


def node_says(headers, body, secret):
    """The page's JavaScript."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    given = json.dumps([headers, body.decode("latin-1"), secret])
    script = (
        f"{block('javascript')}\n"
        "const [headers, body, secret] = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        "console.log(isOurs(headers, Buffer.from(body, 'latin1'), secret));"
    )
    done = subprocess.run(
        [node, "-e", script], input=given, text=True, capture_output=True, timeout=20, check=False
    )
    assert done.stderr == ""
    return done.stdout == "true\n"


@pytest.mark.parametrize("says", [python_says, node_says])
def test_the_examples_know_ours_from_others(rig, says):
    with Receiver() as receiver, environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        set_account("acme", url=receiver.url())
        old, new = (
            CliRunner().invoke(main, ["account", "secret", "rotate", "acme"]).stdout.strip() for _ in range(2)
        )
        send_postback.delay("acme", EVENT)
        rig.tick()
        rig.deliver()
        (received,) = receiver.received
    headers, body = received.headers, received.body
    assert says(headers, body, old)
    assert says(headers, body, new)
    assert not says(headers, body, secrets.new_secret())
    assert not says(headers, body + b" ", new)
    assert not says({**headers, "webhook-timestamp": "1383648069"}, body, new)
    assert not says({**headers, "webhook-signature": "v1,AAAA v2,x nonsense"}, body, new)
    assert not says({name: headers[name] for name in headers if name != "webhook-signature"}, body, new)


def test_the_document_and_the_headers_of_the_page_are_what_is_sent(rig):
    document = render(parse_event(EVENT))
    assert block("xml").rstrip("\n").encode() == document
    with Receiver() as receiver, environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        set_account("acme", url=receiver.url())
        CliRunner().invoke(main, ["account", "secret", "rotate", "acme"])
        send_postback.delay("acme", EVENT)
        rig.tick()
        rig.deliver()
        (received,) = receiver.received
    lines = [line.partition(": ") for line in block("http").splitlines()[1:] if line]
    shown = {name.lower(): value for name, _, value in lines}
    assert shown.keys() == received.headers.keys() - {"accept"}
    assert shown["content-length"] == str(len(document))
    assert shown["content-type"] == received.headers["content-type"]
