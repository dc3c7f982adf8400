"""The ``postbacks`` command: a module for each family of commands.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed, 2 wrong use or a broker that cannot be
used. ``base.py`` turns each error into one sentence.
"""

from __future__ import annotations

import click

from postbacks.cli.base import Main

#: Commands in the order of the help, each with its module and attribute.
COMMANDS = {
    "demo": "demo:demo",
    "up": "up:up",
    "account": "account_file:account",
    "send": "send:send",
    "render": "send:render",
    "show": "ledger:show",
    "list": "search:list_",
    "story": "story:story",
    "stats": "stats:stats",
    "resend": "resend:resend",
    "cancel": "cancel:cancel",
    "jobs": "jobs:jobs",
    "job": "jobs:job",
    "drop": "drop:drop",
    "journal": "journal:journal",
    "forget": "forget:forget",
    "codes": "catalogue:codes",
    "example": "catalogue:example",
    "schema": "catalogue:schema",
    "receive": "receive:receive",
    "ping": "ping:ping",
    "verify": "verify:verify",
    "doctor": "doctor:doctor",
    "health": "monitor:health",
    "metrics": "monitor:metrics",
    "web": "web_links:web",
    "history": "history:history",
    "incidents": "incidents:incidents",
    "incident": "incidents:incident",
}


@click.group(
    cls=Main,
    locations=COMMANDS,
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

    Settings are variables of the environment, all POSTBACKS_…; the broker is POSTBACKS_BROKER_URL, by default
    redis://127.0.0.1:6379/0. Data goes to stdout, all else to stderr; --json prints one JSON object a line.

    Exit codes: 0 done; 1 it failed, or the answer is no; 2 wrong use, or a broker that cannot be used.

    Completion: put  eval "$(_POSTBACKS_COMPLETE=bash_source postbacks)"  into ~/.bashrc; for zsh and fish write
    zsh_source and fish_source.
    """
