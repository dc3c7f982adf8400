"""``postbacks account secret``: signing secrets of accounts, and the key that encrypts them."""

from __future__ import annotations

import click

from postbacks.cli.accounts import account as account
from postbacks.cli.base import Command, Group, say, why_option
from postbacks.operate.overlap import OVERLAP
from postbacks.printable import printable


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Parse a number of seconds, or a number with a unit; return seconds."""
    from postbacks.errors import InvalidAccount
    from postbacks.operate.overlap import read_overlap

    try:
        return read_overlap(value)
    except InvalidAccount as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.group(cls=Group, examples=("postbacks account secret rotate acme",))
def secret() -> None:
    """Manage the secrets that sign an account's postbacks.

    They are stored encrypted in the broker, with the first key of POSTBACKS_SECRET_KEY. Workers need the key, too.
    """


@secret.command(
    cls=Command,
    examples=("postbacks account secret rotate acme", "postbacks account secret rotate acme --overlap 7d"),
)
@click.argument("name", metavar="ACCOUNT")
@click.option(
    "--overlap",
    "overlap_s",
    default=OVERLAP,
    metavar="DURATION",
    callback=_duration,
    show_default=True,
    help="How long the older secrets go on signing beside the new one; 0 ends them at once.",
)
@why_option
def rotate(name: str, overlap_s: int, why: str) -> None:
    """Give an account a new secret, and print it.

    The secret is shown this once. During the overlap each POST has a signature of every secret, so that the receiver can
    change to the new one without a gap; afterwards the new one alone signs.
    """
    from postbacks.errors import UnknownAccount
    from postbacks.ledger.record import iso
    from postbacks.operate.accounts import rotate_secret

    try:
        account, secret = rotate_secret(name, overlap_s, why=why)
    except UnknownAccount as error:
        raise click.ClickException(str(error)) from None
    click.echo(secret)
    say(f"This is the secret of {account.name} from now on.")
    say("Give it to the receiver's developers; it is not shown again.")
    ends_ms = sorted(secret.expires_ms for secret in account.secrets if secret.expires_ms is not None)
    if ends_ms:
        before = "The secret" if len(ends_ms) == 1 else f"The {len(ends_ms)} secrets"
        say(f"{before} before it sign{'s' if len(ends_ms) == 1 else ''} beside it until {iso(ends_ms[-1])}.")


@secret.command("new-key", cls=Command, examples=("postbacks account secret new-key",))
def new_key() -> None:
    """Print a new key for POSTBACKS_SECRET_KEY."""
    from postbacks.accounts.secrets import new_key

    click.echo(new_key())


@secret.command(cls=Command, examples=("postbacks account secret reseal",))
@why_option
def reseal(why: str) -> None:
    """Encrypt the secrets of all accounts anew, with the first key.

    To change the key: put a new one in front of POSTBACKS_SECRET_KEY (new,old), for the workers and wherever secrets are
    set; run this; then take the old one out.

    A secret encrypted for one account does not decrypt in another's row. One that 0.1.0 has encrypted does, until this
    is run.
    """
    from postbacks.operate.accounts import reseal_secrets

    resealed = reseal_secrets(why=why)
    counts = f"{resealed.secrets} secrets and {resealed.client_keys} client keys"
    if resealed.authorizations:
        counts = (
            f"{resealed.secrets} secrets, {resealed.client_keys} client keys and "
            f"{resealed.authorizations} Authorization headers"
        )
    say(f"Sealed anew with the first key: {counts}.")
    if resealed.unreadable:
        raise click.ClickException(
            "Not sealed anew, since this version cannot read their rows: "
            f"{printable(', '.join(resealed.unreadable))}. Keep the keys that they are sealed with."
        )


@secret.command(cls=Command, examples=("postbacks account secret remove acme",))
@click.argument("name", metavar="ACCOUNT")
@why_option
def remove(name: str, why: str) -> None:
    """Remove an account's secrets: its postbacks are not signed any more."""
    from postbacks.errors import UnknownAccount
    from postbacks.operate.accounts import remove_secrets

    try:
        account = remove_secrets(name, why=why)
    except UnknownAccount as error:
        raise click.ClickException(str(error)) from None
    say(f"The postbacks of {account.name} are not signed any more.")


account.add_command(secret)
