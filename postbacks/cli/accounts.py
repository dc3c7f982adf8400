"""``postbacks account``: set, show, list and remove accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from postbacks.cli import arguments
from postbacks.cli.base import (
    Command,
    Group,
    add_row,
    confirm,
    json_option,
    make_table,
    print_json,
    print_table,
    say,
    seconds,
    why_option,
)
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from postbacks.accounts import Account

#: Fields of an account that a listing has a column for, and its heading.
_LABELS = {"url": "Postback URL", "mo_url": "MO URL", "pass_url": "Pass URL", "off": "switched off"}
#: Values of ``--drop``, and the field that each sends back to its default.
_DROPS = {
    "connect-timeout": "connect_timeout_s",
    "answer-timeout": "answer_timeout_s",
    "headers": "headers",
    "ca-bundle": "ca_bundle",
    "client-cert": "client_cert",
    "pins": "pinned_keys",
    "weight": "weight",
    "rate": "rate",
    "max-transfers": "max_transfers",
}


@click.group(cls=Group, examples=("postbacks account set acme --url https://acme.example/postbacks",))
def account() -> None:
    """Set, show, list and remove accounts: where postbacks go, and how."""


def _limit(name: str, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        name, f"{name[2:].replace('-', '_')}_s", type=float, metavar="S", callback=seconds, help=words
    )


def _file(name: str, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=click.File("rb"), metavar="FILE", callback=arguments.pem, help=words)


def _url(name: str, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, metavar="URL", callback=arguments.text, help=words)


@account.command(
    "set",
    cls=Command,
    examples=(
        "postbacks account set acme --url https://acme.example/postbacks",
        "postbacks account set acme --url https://acme.example/all --mo-url https://acme.example/mo --off SMS_MT",
        "postbacks account set acme --answer-timeout 5 --header 'X-Team: messaging'",
        "postbacks account set acme --url @url.txt --header @headers.txt",
        "postbacks account set acme --rate 50/s --max-transfers 4 --weight 3",
        "postbacks account set quiet --off ALL",
    ),
)
@click.argument("name")
@_url("--url", "The Postback URL. A user and password in it are sent as basic authentication.")
@_url("--mo-url", "URL for SMS_MO and MMS_MO; without it, the Postback URL.")
@_url("--pass-url", "URL for GENERATE_PASS; without it, the Postback URL.")
@click.option(
    "--off", multiple=True, metavar="ORIGIN", help="Switch an origin off, or ALL of them. Can be repeated."
)
@_limit("--connect-timeout", "Seconds to connect, at most 60, instead of POSTBACKS_CONNECT_TIMEOUT_S.")
@_limit("--answer-timeout", "Seconds for the answer, at most 60, instead of POSTBACKS_ANSWER_TIMEOUT_S.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    callback=arguments.texts,
    help="Add a header to every POST; 'NAME:' takes it off. Authorization is encrypted in the store. Can be repeated.",
)
@_file("--ca-bundle", "PEM certificates to trust instead of the system's.")
@_file("--client-cert", "PEM client certificate, for mutual TLS.")
@_file("--client-key", "PEM private key of the client certificate; encrypted in the store.")
@click.option(
    "--pin",
    "pinned_keys",
    multiple=True,
    metavar="sha256//…",
    help="Send only to servers with this public key. Can be repeated.",
)
@click.option(
    "--weight", type=float, metavar="N", help="Turns for each turn of another account, while both wait."
)
@click.option(
    "--rate", metavar="N/s", help="Most POSTs a second (50/s) or minute (30/min), over all workers."
)
@click.option(
    "--max-transfers",
    type=int,
    metavar="N",
    help="Most POSTs open at a time, over all groups and workers.",
)
@click.option(
    "--drop",
    multiple=True,
    type=click.Choice(list(_DROPS)),
    help="Set a value back to its default. Can be repeated.",
)
@why_option
def set_(
    name: str,
    why: str,
    off: tuple[str, ...],
    headers: tuple[str, ...],
    drop: tuple[str, ...],
    url: str | None,
    mo_url: str | None,
    pass_url: str | None,
    **settings: Any,
) -> None:
    """Set an account's URLs, limits, pace, headers and TLS.

    URLs and --off are set together: give one of them, and those that you do not give are taken away. --off ALL alone
    leaves the URLs: the account wants nothing for now. Everything else, secrets among it, stays as it is unless you give
    it or drop it.

    A URL with a password, and headers, can stand in a file (@FILE, a header a line) or come from standard input (-), so
    that no list of processes shows them.
    """
    from postbacks.accounts.edit import AccountChange
    from postbacks.operate.accounts import set_account

    change = AccountChange(
        name,
        url=url or None,
        mo_url=mo_url or None,
        pass_url=pass_url or None,
        off=frozenset(off),
        headers=_headers(headers),
        drop=frozenset(_DROPS[value] for value in drop),
        **settings,
    )
    before, account, warnings = set_account(change, why=why)
    for warning in warnings:
        say(f"Warning: {warning}")
    if before is None:
        say(f"Account {account.name} is set.")
        return
    say(f"Account {account.name} is {'replaced' if change.replaces_routing else 'changed'}.")
    if before.unreadable:
        say(
            "Its stored row could not be read: secrets, headers and all else that is not given here are gone."
        )
    _say_what_is_gone(before.to_public_dict(), account.to_public_dict())


def _headers(lines: tuple[str, ...]) -> dict[str, str]:
    """Parse lines ``NAME: VALUE``; an empty value takes the header off."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            # The line is not quoted: in a file it may be a secret that stands there alone.
            raise click.UsageError("--header: a line has no colon: write 'NAME: VALUE'.")
        # Spaces and tabs alone are stripped: a line end in a value is to be refused, and not taken off.
        headers[name] = value.strip(" \t")
    return headers


def _say_what_is_gone(before: dict[str, Any], after: dict[str, Any]) -> None:
    gone = [
        f"{_LABELS[key]} {printable(before[key])}"
        for key in ("url", "mo_url", "pass_url")
        if before[key] and not after[key]
    ]
    if gone:
        say(f"No longer set: {', '.join(gone)}.")
    if on := sorted(set(before["off"]) - set(after["off"])):
        say(f"Switched on again: {', '.join(on)}.")


@account.command(cls=Command, examples=("postbacks account show acme", "postbacks account show acme --json"))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show an account, without passwords and secrets; of one that is paused why, until when, and what waits."""
    from postbacks.accounts import store
    from postbacks.cli.pauses import pause_words
    from postbacks.operate import paused_accounts

    account = store().get_many([name]).get(name)
    pause = paused_accounts(names=[name]).get(name)
    if account is None:
        raise click.ClickException(
            f"There is no account {printable(name)!r}; postbacks account list shows all."
        )
    account.check_readable()
    if as_json:
        print_json(account.to_public_dict() | {"paused": pause and pause.to_public_dict()})
        return
    lines = {
        "account": printable(account.name),
        **{_LABELS[key]: value for key, value in _urls(account).items()},
    }
    if pause is not None:
        lines["paused"] = pause_words(pause)
    for label, value in {**lines, **_extras(account)}.items():
        click.echo(f"{label:16} {printable(value)}")


def _extras(account: Account) -> dict[str, str]:
    """Return labels and words of an account's own limits, pace, headers and TLS."""
    from postbacks.ledger.record import iso

    lines: dict[str, str] = {}
    for label, limit_s in (
        ("to connect", account.connect_timeout_s),
        ("to answer", account.answer_timeout_s),
    ):
        if limit_s is not None:
            lines[label] = f"{limit_s:g} s"
    if account.weight != 1:
        lines["weight"] = f"{account.weight:g}"
    if account.rate:
        lines["rate"] = account.rate
    if account.max_transfers:
        lines["open at most"] = f"{account.max_transfers} POSTs"
    if account.headers:
        lines["headers"] = printable(", ".join(sorted(account.headers)))
    if account.authorization:
        lines["Authorization"] = "yes, not shown"
    if account.secrets:
        ends = [f"one more until {iso(secret.expires_ms)}" for secret in account.secrets if secret.expires_ms]
        lines["signed"] = ", ".join(["yes", *ends])
    files = {"own CA bundle": account.ca_bundle, "client certificate": account.client_cert}
    tls = [label for label, text in files.items() if text]
    if tls:
        lines["TLS"] = ", ".join(tls)
    if account.pinned_keys:
        lines["pinned keys"] = printable(" ".join(account.pinned_keys))
    return lines


def _urls(account: Account) -> dict[str, str]:
    values = account.to_public_dict() | {"off": ", ".join(sorted(account.off))}
    return {name: printable(values[name] or "") or "-" for name in _LABELS}


@account.command(
    "list",
    cls=Command,
    examples=("postbacks account list", "postbacks account list --paused", "postbacks account list --json"),
)
@click.option("--paused", is_flag=True, help="Only those that are paused, whoever keeps the accounts.")
@json_option
def list_(*, paused: bool, as_json: bool) -> None:
    """List all accounts, without passwords and secrets, and which are paused."""
    from postbacks.accounts import redis_accounts
    from postbacks.operate import paused_accounts

    if paused:
        _list_paused(as_json=as_json)
        return
    accounts, pauses = redis_accounts().all(), paused_accounts()
    if as_json:
        for account in accounts:
            pause = pauses.get(account.name)
            print_json(account.to_public_dict() | {"paused": pause and pause.to_public_dict()})
        return
    if not accounts:
        say("There is no account yet: postbacks account set NAME --url https://…")
        return
    table = make_table("account", *_LABELS.values())
    for account in accounts:
        add_row(table, account.name, *_urls(account).values())
    print_table(table)
    if pauses:
        say(f"Paused (postbacks account list --paused says more): {printable(', '.join(sorted(pauses)))}.")
    if unreadable := [account.name for account in accounts if account.unreadable]:
        say(
            f"Their rows cannot be read (postbacks account show says why): {printable(', '.join(unreadable))}."
        )


def _list_paused(*, as_json: bool) -> None:
    from postbacks.history.times import of_ms, shown
    from postbacks.operate import paused_accounts

    pauses = sorted(paused_accounts().values())
    if as_json:
        for pause in pauses:
            print_json({"name": pause.account, "paused": pause.to_public_dict()})
        return
    if not pauses:
        say("No account is paused.")
        return
    table = make_table(
        "account", "paused since", "until", "by", "reason", "waiting", "oldest", right=("waiting",)
    )
    for pause in pauses:
        since, until, oldest = (
            "-" if ms is None else shown(of_ms(ms // 1000 * 1000))
            for ms in (pause.since_ms, pause.until_ms, pause.oldest_ms)
        )
        add_row(table, pause.account, since, until, pause.by, pause.reason, f"{pause.waiting:,}", oldest)
    print_table(table)


@account.command(cls=Command, examples=("postbacks account remove acme",))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@why_option
def remove(name: str, *, yes: bool, why: str) -> None:
    """Remove an account.

    Its postbacks that wait stand still for POSTBACKS_ACCOUNT_REMOVED_KEEP_S (an hour), and go on if the account is set
    again by then; afterwards they are dead. Events that come meanwhile are dead at once (unknown_account). `postbacks
    resend` sends dead postbacks again.

    Keep an account that wants nothing for a while: `postbacks account set NAME --off ALL`.
    """
    from postbacks.errors import UnknownAccount
    from postbacks.operate.accounts import check_removal, remove_account

    try:
        if not yes:
            check_removal(name)
            say(_what_it_has(name))
            confirm(f"Remove account {name}?")
        remove_account(name, why=why)
    except UnknownAccount as error:
        raise click.ClickException(str(error)) from None
    say(f"Account {name} is removed.")


def _what_it_has(name: str) -> str:
    """Count in words an account's postbacks that are not delivered; say of one that is paused what becomes of the pause."""
    from postbacks.broker.client import client
    from postbacks.ledger.ledger import Ledger
    from postbacks.operate import paused_accounts

    ledger = Ledger(client())
    counts = ledger.open_of(name)
    dead = len(ledger.dead(account=name))
    paused = (
        " It is paused, and stays so if it is set again in time." if paused_accounts(names=[name]) else ""
    )
    return (
        f"Account {name}: {counts.waiting:,} wait, {counts.elsewhere:,} are being sent or wait for a resend, "
        f"{dead:,} are dead.{paused}"
    )
