"""Things that the tests of signatures share: an event, a sealing key, and the command."""

from __future__ import annotations

from click.testing import CliRunner
from events import examples

from postbacks.accounts import secrets
from postbacks.cli import main

EVENT = examples()["SMS_MO", "N211"]
KEY = secrets.new_key()


def call(*args, text=""):
    """Call the command in this process."""
    return CliRunner().invoke(main, args, input=text, prog_name="postbacks")


def rotate(*args):
    """A new secret of acme."""
    shown = call("account", "secret", "rotate", "acme", *args)
    assert shown.exit_code == 0, shown.output
    return shown.stdout.strip()


def signatures(received):
    """Count the signatures of a request."""
    return len(received.headers["webhook-signature"].split(" "))
