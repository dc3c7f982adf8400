"""Celery's command line under postbacks: refuses options, and reads no variables of the environment."""

from __future__ import annotations

import os
import sys
from typing import Final

import click
from click.core import ParameterSource

from postbacks.errors import BadSetting

#: Options of ``celery`` itself that postbacks cannot take: each as it is written, and what to do instead.
REFUSED: Final = {
    "broker": (
        "-b (--broker)",
        "the broker is POSTBACKS_BROKER_URL, for the programs that send as well: set that",
    ),
    "result_backend": (
        "--result-backend",
        "results are read from the ledger on the broker (POSTBACKS_BROKER_URL): leave it out",
    ),
    "loader": (
        "--loader",
        "the configuration is celeryconfig.py of the working directory, or the module of --config: leave it out",
    ),
}
#: Variables that configure any Celery app, beside those of each command's options.
_OF_ANY_APP: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_LOADER",
    "CELERY_CONFIG_MODULE",
)
#: Variables that a worker leaves to its children, though not with every configuration; they may be a parent's.
_OF_CHILDREN: Final = ("CELERY_LOG_REDIRECT", "CELERY_LOG_REDIRECT_LEVEL")


def celery_context() -> click.Context | None:
    """Return the context of the ``celery`` command that this process runs; None if it runs another program."""
    context = click.get_current_context(silent=True)
    module = sys.modules.get("celery.bin.celery")
    if context is None or module is None or context.find_root().command is not module.celery:
        return None
    return context.find_root()


def check_options(context: click.Context) -> str:
    """Refuse options that postbacks cannot take; return the module that ``--config`` names on the command line, or "".

    Raises:
        BadSetting: names the option or variable and what to do instead.
    """
    for name, (option, advice) in REFUSED.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise BadSetting(f"celery {option} is not for postbacks: {advice}.")
    if context.get_parameter_source("workdir") is ParameterSource.ENVIRONMENT:
        # Celery has gone there already, and another celeryconfig.py may be there.
        raise BadSetting(
            f"CELERY_WORKDIR={os.environ.get('CELERY_WORKDIR')!r} would choose the configuration: "
            "unset it, or give the directory with --workdir."
        )
    if context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
        return str(context.params["config"])
    return ""


def ignore_environment(context: click.Context) -> list[str]:
    """Let no variable set an option of the command that follows; return those that are set and not read."""
    names = {name for name in _OF_ANY_APP if name in os.environ}
    if context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
        names.discard("CELERY_CONFIG_MODULE")  # Celery itself has written it
    prefix, command = context.auto_envvar_prefix, context.invoked_subcommand
    if prefix and command and isinstance(context.command, click.Group):
        options = getattr(context.command.get_command(context, command), "params", ())
        automatic = {f"{prefix}_{command}_{option.name}".upper() for option in options}
        names |= automatic & os.environ.keys()
    for name in _OF_CHILDREN:
        os.environ.pop(name, None)
    # A command's context takes its prefix from here, and is made after this.
    context.auto_envvar_prefix = None
    return sorted(names)


def keep_flower_local(context: click.Context) -> None:
    """Let Flower listen on this machine alone where nobody says otherwise.

    Mirrors the default of ``flower.options``; differs in the address. Flower's own is all interfaces, where whoever
    reaches the port can revoke postbacks and stop workers without a password. ``FLOWER_ADDRESS``, Flower's command line
    and its configuration file are read after this, and win.
    """
    if context.invoked_subcommand == "flower":
        from tornado.options import options  # noqa: PLC0415 - comes with Flower, an extra

        options.address = "127.0.0.1"
