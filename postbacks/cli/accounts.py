"""``postbacks account``: where each account's postbacks go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from postbacks.cli.base import (
    Command,
    Group,
    add_row,
    grid,
    json_option,
    note,
    plain,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from postbacks.accounts import Account

#: What ``account set`` sets, and what a listing calls it.
_LABELS = {"url": "Postback URL", "mo_url": "MO URL", "pass_url": "Pass URL", "off": "switched off"}


@click.group(cls=Group, examples=("postbacks account set acme --url https://acme.example/postbacks",))
def account() -> None:
    """Set, show, list and remove accounts: where their postbacks go."""


@account.command(
    "set",
    cls=Command,
    examples=(
        "postbacks account set acme --url https://acme.example/postbacks",
        "postbacks account set acme --url https://acme.example/all --mo-url https://acme.example/mo --off SMS_MT",
    ),
)
@click.argument("name")
@click.option("--url", help="The Postback URL. User and password in it become basic auth.")
@click.option("--mo-url", help="For SMS_MO and MMS_MO, instead of the Postback URL.")
@click.option("--pass-url", help="For GENERATE_PASS, instead of the Postback URL.")
@click.option("--off", multiple=True, metavar="ORIGIN", help="Switch an origin off; may be given again.")
def set_(name: str, url: str | None, mo_url: str | None, pass_url: str | None, off: tuple[str, ...]) -> None:
    """Set an account's URLs and origins, as a whole: one that is not given here it does not have any more."""
    if not (url or mo_url or pass_url):
        raise click.UsageError("An account needs a URL: give --url (or --mo-url, --pass-url).")
    from postbacks.accounts import make_account, redis_accounts
    from postbacks.broker import check

    given = make_account(name, url=url, mo_url=mo_url, pass_url=pass_url, off=frozenset(off))
    accounts = redis_accounts()
    for warning in check():
        note(f"Warning: {warning}")
    before = accounts.get(given.name)
    if before is None:
        accounts.set(given)
        note(f"Account {given.name} is set.")
        return
    accounts.set(before.model_copy(update={key: getattr(given, key) for key in _LABELS}))
    note(f"Account {given.name} is replaced.")
    _note_what_is_gone(before.shown(), given.shown())


def _note_what_is_gone(before: dict[str, Any], now: dict[str, Any]) -> None:
    gone = [
        f"{_LABELS[key]} {plain(before[key])}"
        for key in ("url", "mo_url", "pass_url")
        if before[key] and not now[key]
    ]
    if gone:
        note(f"No longer set: {', '.join(gone)}.")
    if on := sorted(set(before["off"]) - set(now["off"])):
        note(f"Switched on again: {', '.join(on)}.")


@account.command(cls=Command, examples=("postbacks account show acme", "postbacks account show acme --json"))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show an account, without passwords."""
    from postbacks.accounts import store

    found = store().get_many([name]).get(name)
    if found is None:
        raise _no_account(name)
    if as_json:
        print_json(found.shown())
        return
    lines = {"account": plain(found.name), **{_LABELS[key]: value for key, value in _urls(found).items()}}
    for key, value in found.shown().items():
        if key not in {"name", *_LABELS} and value:
            lines[key.replace("_", " ")] = plain(value if isinstance(value, str) else json.dumps(value))
    for label, value in lines.items():
        click.echo(f"{label:16} {value}")


def _urls(found: Account) -> dict[str, str]:
    shown = found.shown()
    return {key: plain(", ".join(shown[key]) if key == "off" else shown[key] or "") or "-" for key in _LABELS}


@account.command("list", cls=Command, examples=("postbacks account list", "postbacks account list --json"))
@json_option
def list_(as_json: bool) -> None:
    """List all accounts, without passwords."""
    from postbacks.accounts import redis_accounts

    found = redis_accounts().all()
    if as_json:
        for each in found:
            print_json(each.shown())
        return
    if not found:
        note("There is no account yet: postbacks account set NAME --url https://…")
        return
    table = grid("account", *_LABELS.values())
    for each in found:
        add_row(table, each.name, *_urls(each).values())
    print_table(table)


@account.command(cls=Command, examples=("postbacks account remove acme",))
@click.argument("name")
def remove(name: str) -> None:
    """Remove an account. What is on its way still goes out; later postbacks of it are skipped."""
    from postbacks.accounts import redis_accounts

    if not redis_accounts().remove(name):
        raise _no_account(name)
    note(f"Account {name} is removed.")


def _no_account(name: str) -> click.ClickException:
    return click.ClickException(f"There is no account {plain(name)!r}; postbacks account list shows all.")
