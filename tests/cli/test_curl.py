"""``postbacks show --curl``: the command repeats the POST byte for byte in a real shell, and has no secret."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from click.testing import CliRunner
from events import MO
from helpers import environment, set_account

from postbacks import send_postback
from postbacks.accounts.secrets import encrypt, new_secret
from postbacks.cli import main
from postbacks.devtools.receiver import Receiver

#: Text with all that a shell, curl or a terminal would obey.
ODD = "it's $HOME `id` \"q\" \\n \\0101 %s {a,b} [1-3] !x <&> \r line 1\nline 2\t\x85\u202e\x1b… 😀 @/etc/passwd '"


def curl_of(postback_id: str) -> str:
    shown = CliRunner().invoke(main, ["show", postback_id, "--curl", "--reveal", "--why", "a test"])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


@pytest.mark.parametrize("text", ["STOP", ODD], ids=["plain", "odd"])
def test_a_shell_prints_the_document_byte_for_byte_and_a_terminal_obeys_nothing_of_it(rig, text):
    set_account("acme", url="http://127.0.0.1:9999/")
    postback_id = send_postback.delay("acme", MO | {"TEXT": text}).id
    rig.tick()
    command = curl_of(postback_id)
    assert all(c.isprintable() or c == "\n" for c in command)
    printed = command.rpartition(" |\n  curl ")[0]
    done = subprocess.run(["sh", "-c", printed], check=True, timeout=60, capture_output=True)
    assert done.stdout == rig.record(postback_id).xml


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl, which the command is for, is not installed")
@pytest.mark.parametrize("text", ["STOP", ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_command_repeats_the_post_with_the_same_headers_and_bytes(rig, shell, text):
    with Receiver() as receiver:
        set_account("acme", url=receiver.url("/in"))
        postback_id = send_postback.apply_async(
            ("acme", MO | {"TEXT": text}), task_id="a'b;$(touch${IFS}x)"
        ).id
        rig.tick()
        rig.deliver()
        command = curl_of(postback_id)
        subprocess.run([shell, "-c", command], check=True, timeout=60, capture_output=True, env=os.environ)
        sent, repeated = receiver.received
    assert repeated.body == sent.body
    assert (repeated.path, repeated.headers) == (sent.path, sent.headers)


def test_secrets_are_left_out_and_named(rig):
    from postbacks.accounts.secrets import new_key

    with Receiver() as receiver, environment(POSTBACKS_SECRET_KEY=new_key()):
        secret = new_secret()
        set_account(
            "acme",
            url=receiver.url("/in?token=t0psecret&x=1").replace("//", "//user:pa55@"),
            headers={"X-Api-Key": "k3y"},
            secrets=({"value": encrypt(secret, "acme", "secret")},),
        )
        postback_id = send_postback.delay("acme", MO).id
        rig.tick()
        command = curl_of(postback_id)
    for hidden in ("t0psecret", "pa55", "user:", "k3y", secret):
        assert hidden not in command
    assert (
        "# Left out, as they may be secret: the user of the URL, the query of the URL (token=…&x=…), the signature "
        "(webhook-id, webhook-timestamp, webhook-signature), X-Api-Key."
    ) in command
    assert f"{receiver.url('/in')}\n" in command
