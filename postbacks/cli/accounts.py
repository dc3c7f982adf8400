"""``postbacks account``: where each account's postbacks go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from postbacks.cli import arguments
from postbacks.cli.base import (
    Command,
    Group,
    add_row,
    confirm,
    grid,
    json_option,
    note,
    print_json,
    print_table,
    seconds,
)
from postbacks.cli.older import refuse_move_beside_older, refuse_older, refuse_removal_beside_older
from postbacks.printable import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from postbacks.accounts import Account

#: What ``account set`` sets, and what a listing calls it.
_LABELS = {"url": "Postback URL", "mo_url": "MO URL", "pass_url": "Pass URL", "off": "switched off"}
#: What ``--drop`` takes, and the fields that it empties.
_DROPS = {
    "connect-timeout": ("connect_timeout_s",),
    "answer-timeout": ("answer_timeout_s",),
    "headers": ("headers", "authorization"),
    "ca-bundle": ("ca_bundle",),
    "client-cert": ("client_cert", "client_key"),
    "pins": ("pinned_keys",),
    "weight": ("weight",),
    "rate": ("rate",),
    "max-transfers": ("max_transfers",),
}


@click.group(cls=Group, examples=("postbacks account set acme --url https://acme.example/postbacks",))
def account() -> None:
    """Set, show, list and remove accounts: where their postbacks go."""


def _limit(name: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        name, f"{name[2:].replace('-', '_')}_s", type=float, metavar="S", callback=seconds, help=what
    )


def _file(name: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=click.File("rb"), metavar="FILE", callback=arguments.file, help=what)


def _url(name: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, metavar="URL", callback=arguments.text, help=what)


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
@_url("--url", "The Postback URL. User and password in it become basic auth.")
@_url("--mo-url", "For SMS_MO and MMS_MO, instead of the Postback URL.")
@_url("--pass-url", "For GENERATE_PASS, instead of the Postback URL.")
@click.option(
    "--off", multiple=True, metavar="ORIGIN", help="Switch an origin off, or ALL; may be given again."
)
@_limit("--connect-timeout", "Seconds to connect, 60 at most, instead of POSTBACKS_CONNECT_TIMEOUT_S.")
@_limit("--answer-timeout", "Seconds for the answer, 60 at most, instead of POSTBACKS_ANSWER_TIMEOUT_S.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    callback=arguments.texts,
    help="Add a header to every POST; may be given again. 'NAME:' takes it off. Authorization is encrypted in the store.",
)
@_file("--ca-bundle", "PEM certificates to trust instead of the system's.")
@_file("--client-cert", "PEM client certificate, for mutual TLS.")
@_file("--client-key", "PEM private key of it; encrypted in the store.")
@click.option(
    "--pin",
    "pinned_keys",
    multiple=True,
    metavar="sha256//…",
    help="The only public key that the server may have; may be given again.",
)
@click.option(
    "--weight", type=float, metavar="N", help="Turns it gets where others get one, while both wait."
)
@click.option(
    "--rate", metavar="N/s", help="POSTs a second (50/s) or a minute (30/min) at most, over all workers."
)
@click.option(
    "--max-transfers",
    type=int,
    metavar="N",
    help="POSTs open at a time at most, over all groups and workers.",
)
@click.option(
    "--drop",
    multiple=True,
    type=click.Choice(list(_DROPS)),
    help="Go back to the default; may be given again.",
)
def set_(
    name: str,
    off: tuple[str, ...],
    headers: tuple[str, ...],
    client_cert: BinaryIO | None,
    client_key: BinaryIO | None,
    ca_bundle: BinaryIO | None,
    drop: tuple[str, ...],
    **plain_options: Any,
) -> None:
    """Set an account's URLs, limits, pace, headers and TLS.

    A URL with a password, and headers, may stand in a file (@FILE, a header a line) or on standard input (-), so that
    no list of processes shows them.

    URLs and --off are a whole: where any of them is given, one that is not given here the account does not have any
    more. --off ALL alone says that the account wants nothing, and leaves its URLs. Everything else, secrets among it,
    stays as it is unless it is given here or dropped.
    """
    from postbacks.accounts import Account, build_account, redis_accounts
    from postbacks.broker.fitness import check
    from postbacks.catalogue import ORIGINS
    from postbacks.url_policy import check_urls, worker_policies

    given: dict[str, Any] = {key: value for key, value in plain_options.items() if value}
    given |= {
        key: value
        for key in ("connect_timeout_s", "answer_timeout_s", "weight", "rate", "max_transfers")
        if (value := plain_options[key]) is not None
    }
    lines = _headers(headers)
    authorization = _take_authorization(lines)
    given |= _tls(name, ca_bundle, client_cert, client_key)
    wants_nothing = "ALL" in off
    if off:
        given["off"] = frozenset(ORIGINS) if wants_nothing else frozenset(off)
    whole = not given.keys().isdisjoint(_LABELS)
    if (whole and not wants_nothing and given.keys().isdisjoint({"url", "mo_url", "pass_url"})) or not (
        given or lines or drop or authorization is not None
    ):
        raise _no_url()
    asked = build_account(
        name,
        **given,
        headers={header: value for header, value in lines.items() if value},
        authorization=authorization or None,
    )
    if authorization is not None:
        given["authorization"] = _sealed_authorization(authorization, name)
    if "client_key" in given:
        refuse_older("would not open the client key: the account's postbacks would wait")
    if whole and not (wants_nothing and asked.url is asked.mo_url is asked.pass_url is None):
        given |= {key: getattr(asked, key) for key in _LABELS}
    dropped = {
        key: Account.model_fields[key].get_default(call_default_factory=True)
        for one in drop
        for key in _DROPS[one]
    }
    before: Account | None = None
    differences: list[str] = []

    def edit(found: Account | None, _now_ms: int) -> Account:
        nonlocal before, differences
        before = found
        if found is None and not whole:
            raise _no_url()
        if found is not None and found.unreadable:
            if not whole:
                found.check_readable()
            found = None
        base = found or Account(name=asked.name)
        kept = {} if "headers" in drop else _without(base.headers, lines)
        changed = base.model_copy(update={**dropped, **given, "headers": {**kept, **asked.headers}})
        # Anew as a whole: each of its headers may be right, and all of them too many.
        account = build_account(**{key: getattr(changed, key) for key in Account.model_fields})
        if found is not None and not found.unreadable:
            refuse_move_beside_older(found, account)
        differences = check_urls(account.urls(), policies)
        return account

    for warning in check():
        note(f"Warning: {warning}")
    policies = worker_policies()
    now = redis_accounts().change(asked.name, edit)
    for difference in differences:
        note(f"Warning: {difference}")
    publish(now.name, now)
    if before is None:
        note(f"Account {now.name} is set.")
        return
    note(f"Account {now.name} is {'replaced' if whole else 'changed'}.")
    if before.unreadable:
        note(
            "Its stored row could not be read: secrets, headers and all else that is not given here are gone."
        )
    _note_what_is_gone(before.to_public_dict(), now.to_public_dict())


def publish(name: str, now: Account | None) -> None:
    """Let an account's change be in force at once, for what waits as well."""
    from postbacks.broker.client import client
    from postbacks.queue import routes
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import load

    scripts, keep_ms = Scripts(client()), int(load().account_removed_keep_s * 1000)
    routes.publish(scripts, [name], {} if now is None else {name: now}, keep_ms=keep_ms)
    if (
        now is None
    ):  # it was there: what version 0.1.0 has accepted for it waits, though no row says where it went
        routes.stop(scripts, [name], keep_ms=keep_ms)


def _no_url() -> click.UsageError:
    return click.UsageError("An account needs a URL: give --url (or --mo-url, --pass-url).")


def _headers(lines: tuple[str, ...]) -> dict[str, str]:
    """The headers by name; an empty value takes one off."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            # Not repeated: in a file it may be a secret that stands there alone.
            raise click.UsageError("--header: a line has no colon: write 'NAME: VALUE'.")
        # Spaces around it alone: a line's end in a header is to be refused, and not taken off.
        headers[name] = value.strip(" \t")
    return headers


def _take_authorization(lines: dict[str, str]) -> str | None:
    """Take the Authorization header out of the others: its value, empty to take it off; None where it is not given."""
    names = [name for name in lines if name.lower() == "authorization"]
    if len(names) > 1:
        raise click.UsageError("The header 'authorization' stands twice.")
    return lines.pop(names[0]) if names else None


def _sealed_authorization(text: str, account: str) -> str | None:
    """Seal the value of an Authorization header for an account's row; None for an empty one."""
    from postbacks.accounts.secrets import encrypt

    if not text:
        return None
    sealed = encrypt(text, account, "authorization")
    refuse_older("would send without the header Authorization")
    return sealed


def _without(headers: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    taken = {name.lower() for name in names}
    return {name: value for name, value in headers.items() if name.lower() not in taken}


def _tls(
    account: str, ca_bundle: BinaryIO | None, client_cert: BinaryIO | None, client_key: BinaryIO | None
) -> dict[str, str]:
    """Return the files' texts, checked; the private key sealed for the account's row."""
    if (client_cert is None) != (client_key is None):
        raise click.UsageError("--client-cert and --client-key belong together: give both.")
    if ca_bundle is None and client_cert is None:
        return {}
    from postbacks.accounts.secrets import encrypt
    from postbacks.cli.pem import certificates, private_key

    given = {} if ca_bundle is None else {"ca_bundle": certificates(ca_bundle, "--ca-bundle")}
    if client_cert is not None and client_key is not None:
        given["client_cert"] = certificates(client_cert, "--client-cert")
        key = private_key(client_key, "--client-key", given["client_cert"])
        given["client_key"] = encrypt(key, account, "client_key")
    return given


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
    """Show an account, without passwords and secrets."""
    from postbacks.accounts import store

    found = store().get_many([name]).get(name)
    if found is None:
        raise no_account(name)
    found.check_readable()
    if as_json:
        print_json(found.to_public_dict())
        return
    lines = {"account": plain(found.name), **{_LABELS[key]: value for key, value in _urls(found).items()}}
    for label, value in {**lines, **_extras(found)}.items():
        click.echo(f"{label:16} {plain(value)}")


def _extras(found: Account) -> dict[str, str]:
    """What else an account has of its own, in words."""
    from postbacks.ledger.record import iso

    lines: dict[str, str] = {}
    for label, limit_s in (("to connect", found.connect_timeout_s), ("to answer", found.answer_timeout_s)):
        if limit_s is not None:
            lines[label] = f"{limit_s:g} s"
    if found.weight != 1:
        lines["weight"] = f"{found.weight:g}"
    if found.rate:
        lines["rate"] = found.rate
    if found.max_transfers:
        lines["open at most"] = f"{found.max_transfers} POSTs"
    if found.headers:
        lines["headers"] = plain(", ".join(sorted(found.headers)))
    if found.authorization:
        lines["Authorization"] = "yes, not shown"
    if found.secrets:
        ends = [f"one more until {iso(secret.expires_ms)}" for secret in found.secrets if secret.expires_ms]
        lines["signed"] = ", ".join(["yes", *ends])
    own = {"own CA bundle": found.ca_bundle, "client certificate": found.client_cert}
    tls = [label for label, value in own.items() if value]
    if tls:
        lines["TLS"] = ", ".join(tls)
    if found.pinned_keys:
        lines["pinned keys"] = plain(" ".join(found.pinned_keys))
    return lines


def _urls(found: Account) -> dict[str, str]:
    shown = found.to_public_dict()
    return {key: plain(", ".join(shown[key]) if key == "off" else shown[key] or "") or "-" for key in _LABELS}


@account.command("list", cls=Command, examples=("postbacks account list", "postbacks account list --json"))
@json_option
def list_(as_json: bool) -> None:
    """List all accounts, without passwords and secrets."""
    from postbacks.accounts import redis_accounts

    found = redis_accounts().all()
    if as_json:
        for each in found:
            print_json(each.to_public_dict())
        return
    if not found:
        note("There is no account yet: postbacks account set NAME --url https://…")
        return
    table = grid("account", *_LABELS.values())
    for each in found:
        add_row(table, each.name, *_urls(each).values())
    print_table(table)
    if unreadable := [each.name for each in found if each.unreadable]:
        note(f"Their rows cannot be read (postbacks account show says why): {plain(', '.join(unreadable))}.")


@account.command(cls=Command, examples=("postbacks account remove acme",))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, *, yes: bool) -> None:
    """Remove an account. What waits for it stands still, and is dead after POSTBACKS_ACCOUNT_REMOVED_KEEP_S.

    Until then it goes on as if nothing had been once the account is set again. Events that come meanwhile are dead
    (unknown_account); `postbacks resend` sends dead ones again. An account that wants nothing is better kept:
    `postbacks account set NAME --off ALL`.
    """
    from postbacks.accounts import redis_accounts

    accounts = redis_accounts()
    account = accounts.get(name)
    if account is not None and not account.unreadable:
        refuse_removal_beside_older(account)
    if not yes:
        if account is None:
            raise no_account(name)
        note(_what_it_has(name))
        confirm(f"Remove account {name}?")
    if not accounts.remove(name):
        raise no_account(name)
    publish(name, None)
    note(f"Account {name} is removed.")


def _what_it_has(name: str) -> str:
    """Say what an account has that is not delivered."""
    from postbacks.broker.client import client
    from postbacks.ledger.ledger import Ledger

    ledger = Ledger(client())
    counts = ledger.open_of(name)
    dead = len(ledger.dead(account=name))
    return (
        f"Account {name}: {counts.waiting:,} wait, {counts.elsewhere:,} are being sent or wait for a resend, "
        f"{dead:,} are dead."
    )


def no_account(name: str) -> click.ClickException:
    """The error of a command about an account that is not there."""
    return click.ClickException(f"There is no account {plain(name)!r}; postbacks account list shows all.")
