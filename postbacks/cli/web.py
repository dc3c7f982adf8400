"""``postbacks web``: the dashboard, and its users."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from postbacks.cli.base import (
    Command,
    Group,
    add_row,
    json_option,
    make_table,
    print_json,
    print_table,
    say,
    stop_signals,
)
from postbacks.settings import WEB_ROLES

#: Nothing else is known there.
DEFAULT_PORT = 8910

_file_option = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the users; without it POSTBACKS_WEB_USERS.",
)


@click.group(
    "web",
    cls=Group,
    invoke_without_command=True,
    examples=(
        "postbacks web",
        "postbacks web user add ann --role admin --file users",
        "POSTBACKS_WEB_USERS=users POSTBACKS_WEB_HOSTS=postbacks.example postbacks web --host 0.0.0.0",
    ),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--fd", type=click.IntRange(0), hidden=True, help="Socket that listens already.")
@click.pass_context
def web(ctx: click.Context, host: str, port: int, fd: int | None) -> None:
    """Serve the dashboard, until Ctrl-C.

    It shows how it is, what has become of each postback and why, and what to do. On this machine's own address it runs
    without a login, and whoever can open it has all rights. On any other one it wants POSTBACKS_WEB_USERS,
    POSTBACKS_WEB_TOKEN, or a proxy that says who asks.
    """
    if ctx.invoked_subcommand is not None:
        return
    from postbacks.logs import write_to_stderr
    from postbacks.settings import load
    from postbacks.web.app import NO_LOGIN
    from postbacks.web.config import Config
    from postbacks.web.server import WebServer

    stop_signals()
    settings = load()
    config = Config(settings, host, port)
    server = WebServer(config, fd)
    write_to_stderr(settings.log)
    if settings.log == "json":
        server.log_address()
    else:
        say(f"The dashboard is at {server.url}. Ctrl-C ends it.")
        if not config.has_login:
            say(NO_LOGIN)
    try:
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()


@web.group("user", cls=Group, examples=("postbacks web user add ann --role support --file users",))
def user() -> None:
    """Users who log in to the dashboard by name and password."""


@user.command(
    cls=Command,
    examples=(
        "postbacks web user add ann --role support --file users",
        "pass postbacks/ann | postbacks web user add ann --role admin",
        "postbacks web user add ann --role admin --no-password",
    ),
)
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice(WEB_ROLES),
    help="viewer looks; support reveals and resends up to 100; operator starts jobs, pauses and cancels; admin changes "
    "accounts and forgets persons.",
)
@click.option("--no-password", is_flag=True, help="Give a role to somebody whom a proxy names; no login.")
@_file_option
def add(name: str, role: str, *, no_password: bool, path: Path | None) -> None:
    """Add a user, or give a known one another role and password.

    The password is asked for, or read from standard input. The file keeps a hash of it (scrypt). A web process that runs
    takes the change at once, and the user's sessions end.
    """
    from postbacks.operate.identity import MAX_USER
    from postbacks.web.security import passwords, users

    path = _path(path)
    if not users.is_name(name):
        raise click.UsageError(
            f"A name has 1 to {MAX_USER} printable characters, no colon, and no # at its begin."
        )
    of_file = "" if no_password else passwords.hashed(_password())
    is_new = users.write(path, name, role, of_file)
    say(f"{name} is {'added to' if is_new else 'changed in'} {path}, with the role {role}.")


@user.command(cls=Command, examples=("postbacks web user remove ann --file users",))
@click.argument("name")
@_file_option
def remove(name: str, path: Path | None) -> None:
    """Take a user out; their sessions end at once."""
    from postbacks.web.security import users

    path = _path(path)
    if not users.remove(path, name):
        raise click.ClickException(f"{path} has no user {name!r}; `postbacks web user list` shows all.")
    say(f"{name} is taken out of {path}.")


@user.command("list", cls=Command, examples=("postbacks web user list --file users",))
@_file_option
@json_option
def list_(path: Path | None, *, as_json: bool) -> None:
    """List the users, with their roles."""
    from postbacks.web.security import users

    found = users.read(_path(path)).values()
    if as_json:
        for each in found:
            print_json({"name": each.name, "role": each.role, "password": bool(each.hash)})
        return
    table = make_table("name", "role", "logs in by")
    for each in found:
        add_row(table, each.name, each.role, "password" if each.hash else "the proxy alone")
    print_table(table)


def _path(path: Path | None) -> Path:
    """Return the file that is meant."""
    from postbacks.settings import load

    if path is None and not load().web_users:
        raise click.UsageError("Which file? Give --file FILE, or set POSTBACKS_WEB_USERS.")
    return path or Path(load().web_users)


def _password() -> str:
    """Ask for a password, twice, or read it from standard input where that is no terminal."""
    from postbacks.web.security.passwords import LONGEST, SHORTEST

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not SHORTEST <= len(password) <= LONGEST:
        raise click.UsageError(f"A password has {SHORTEST} to {LONGEST:,} characters.")
    return str(password)
