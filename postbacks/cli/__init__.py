"""The ``postbacks`` command: one module a family of commands, and what they share.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 what was asked about failed, 2 wrong use or a
broker that cannot be used. Each error is one sentence, made here and nowhere else.
"""

from __future__ import annotations

import click

from postbacks.cli.accounts import account
from postbacks.cli.base import Main
from postbacks.cli.catalogue import codes, example, schema
from postbacks.cli.demo import demo
from postbacks.cli.doctor import doctor
from postbacks.cli.ledger import cancel, list_, show
from postbacks.cli.monitor import health, metrics
from postbacks.cli.ping import ping
from postbacks.cli.receive import receive
from postbacks.cli.resend import resend
from postbacks.cli.secrets import secret
from postbacks.cli.send import render, send
from postbacks.cli.up import up
from postbacks.cli.verify import verify


@click.group(
    cls=Main,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "postbacks demo",
        "postbacks up --dev",
        "postbacks receive",
        "postbacks account set acme --url http://127.0.0.1:8080/",
        "postbacks example SMS_MO N211 | postbacks send acme - --wait 10",
    ),
)
@click.version_option(package_name="postbacks", prog_name="postbacks")
def main() -> None:
    """Tell customers' servers what happened in their messaging account.

    The broker is POSTBACKS_BROKER_URL (redis://127.0.0.1:6379/0 where it is not set); every other setting is a
    POSTBACKS_… variable too. Data goes to stdout, all else to stderr; --json prints one JSON object a line.

    Exit codes: 0 done; 1 what was asked about failed; 2 wrong use, or a broker that cannot be used.

    Completion: put  eval "$(_POSTBACKS_COMPLETE=bash_source postbacks)"  into ~/.bashrc; for zsh and fish write
    zsh_source and fish_source.
    """


for _command in (
    demo, up, account, send, render, show, list_, resend, cancel, codes, example, schema, receive,
    ping, verify, doctor, health, metrics,
):  # fmt: skip
    main.add_command(_command)
account.add_command(secret)
