"""``postbacks account secret``: what signs an account's postbacks, and the key that keeps it secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from postbacks.cli.accounts import account, no_account, publish
from postbacks.cli.base import Command, Group, note
from postbacks.cli.older import refuse_older
from postbacks.printable import plain

if TYPE_CHECKING:
    from postbacks.accounts import Account

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")
_LONGEST_S: Final = 90 * 86_400


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Seconds, or a number with a unit."""
    found = _DURATION.fullmatch(value)
    length_s = int(found[1]) * _UNITS[found[2] or "s"] if found else _LONGEST_S + 1
    if length_s > _LONGEST_S:
        raise click.BadParameter(
            f"{value!r} is no duration: 0, 90s, 30m, 24h or 7d, at most 90d.", ctx, param
        )
    return length_s


@click.group(cls=Group, examples=("postbacks account secret rotate acme",))
def secret() -> None:
    """Make and change what signs an account's postbacks.

    Secrets lie encrypted in the broker, with the first key of POSTBACKS_SECRET_KEY; workers need the key too.
    """


@secret.command(
    cls=Command,
    examples=("postbacks account secret rotate acme", "postbacks account secret rotate acme --overlap 7d"),
)
@click.argument("name", metavar="ACCOUNT")
@click.option(
    "--overlap",
    "overlap_s",
    default="24h",
    metavar="DURATION",
    callback=_duration,
    show_default=True,
    help="How long the secrets before it go on signing beside it; 0 ends them at once.",
)
def rotate(name: str, overlap_s: int) -> None:
    """Give an account a new secret, and print it.

    It is shown this once. During the overlap each POST has a signature of every secret, so that the receiver can
    change over without a gap; later only the new one signs.
    """
    from postbacks.accounts import redis_accounts
    from postbacks.accounts import secrets as vault
    from postbacks.ledger.record import iso

    fresh = vault.new_secret()
    sealed = vault.encrypt(fresh, name, "secret")
    refuse_older("would not open the secret: the account's postbacks would wait")

    def edit(found: Account | None, now_ms: int) -> Account:
        if found is None:
            raise no_account(name)
        found.check_readable()
        return found.rotated(sealed, now_ms, overlap_s * 1000)

    now = redis_accounts().change(name, edit)
    publish(now.name, now)
    click.echo(fresh)
    note(f"This is the secret of {now.name} from now on.")
    note("Give it to the receiver's developers; it is not shown again.")
    ends = sorted(one.expires_ms for one in now.secrets if one.expires_ms is not None)
    if ends:
        before = "The secret" if len(ends) == 1 else f"The {len(ends)} secrets"
        note(f"{before} before it sign{'s' if len(ends) == 1 else ''} beside it until {iso(ends[-1])}.")


@secret.command("new-key", cls=Command, examples=("postbacks account secret new-key",))
def new_key() -> None:
    """Print a fresh key for POSTBACKS_SECRET_KEY."""
    from postbacks.accounts import secrets as vault

    click.echo(vault.new_key())


@secret.command(cls=Command, examples=("postbacks account secret reseal",))
def reseal() -> None:
    """Encrypt all secrets anew, with the first key, each for its account alone.

    What is encrypted for one account does not open in another's row. What 0.1.0 encrypted does, until this is called.

    The way to change the key: put a new one in front of POSTBACKS_SECRET_KEY (new,old), for whoever sets secrets and
    for the workers; call this; then take the old one out.
    """
    from postbacks.accounts import redis_accounts
    from postbacks.errors import BadSetting

    accounts = redis_accounts()
    secrets = keys = headers = 0
    unreadable: list[str] = []
    refuse_older("would not open what is sealed anew: all that it sends for these accounts would wait")

    def edit(found: Account | None, _now_ms: int) -> Account:
        if found is None:  # removed since it was listed
            raise no_account(one.name)
        return found.resealed()

    for one in accounts.all():
        if one.unreadable:
            unreadable.append(one.name)
            continue
        if not one.secrets and one.client_key is None and one.authorization is None:
            continue
        try:
            sealed = accounts.change(one.name, edit)
        except BadSetting as error:
            raise BadSetting(f"Account {one.name}: {error}") from None
        except click.ClickException:
            continue
        secrets += len(sealed.secrets)
        keys += sealed.client_key is not None
        headers += sealed.authorization is not None
    counts = f"{secrets} secrets and {keys} client keys"
    if headers:
        counts = f"{secrets} secrets, {keys} client keys and {headers} Authorization headers"
    note(f"Sealed anew with the first key: {counts}.")
    if unreadable:
        raise click.ClickException(
            f"Not sealed anew, since this version cannot read their rows: {plain(', '.join(unreadable))}. "
            "Keep the keys that they are sealed with."
        )


@secret.command(cls=Command, examples=("postbacks account secret remove acme",))
@click.argument("name", metavar="ACCOUNT")
def remove(name: str) -> None:
    """Take an account's secrets away.

    Its postbacks are not signed any more.
    """
    from postbacks.accounts import redis_accounts

    def edit(found: Account | None, _now_ms: int) -> Account:
        if found is None:
            raise no_account(name)
        if not found.secrets:
            raise click.ClickException(f"Account {found.name} has no secret.")
        return found.model_copy(update={"secrets": ()})

    now = redis_accounts().change(name, edit)
    publish(now.name, now)
    note(f"The postbacks of {now.name} are not signed any more.")


account.add_command(secret)
