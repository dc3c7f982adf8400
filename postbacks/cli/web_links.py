"""``postbacks web link``: links by which customers see the postbacks of their account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from postbacks.cli.base import (
    Command,
    add_row,
    json_option,
    make_table,
    print_json,
    print_table,
    say,
    why_option,
)
from postbacks.cli.web import DEFAULT_PORT
from postbacks.cli.web import web as web

if TYPE_CHECKING:
    from postbacks.operate import Link

#: Value of ``--revoke`` without an id.
_ALL = "all"


def _address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Check an address of the dashboard as its setting is checked."""
    from postbacks.settings import Settings

    try:
        return None if value is None else Settings(web_url=value).web_url
    except ValueError:
        raise click.BadParameter(
            "give a scheme, a host and perhaps a port: https://postbacks.example."
        ) from None


@web.command(
    cls=Command,
    examples=(
        "postbacks web link acme",
        "postbacks web link acme --days 30 --resend --why 'they asked for it'",
        "postbacks web link --list",
        "postbacks web link acme --revoke",
        "postbacks web link acme --revoke 1f9a03c2",
    ),
)
@click.argument("name", required=False)
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    default=7,
    show_default=True,
    help="Days after which the link ends by itself.",
)
@click.option("--resend", is_flag=True, help="Let it send again what was given up, up to 100 at a time.")
@click.option(
    "--url",
    metavar="ADDRESS",
    callback=_address,
    help=f"Address of the dashboard; without it POSTBACKS_WEB_URL, else http://127.0.0.1:{DEFAULT_PORT}.",
)
@click.option("--list", "as_list", is_flag=True, help="Show the open links, of one account or of all.")
@click.option(
    "--revoke",
    metavar="[ID]",
    is_flag=False,
    flag_value=_ALL,
    help="Withdraw the account's link of this id, or all that it has.",
)
@why_option
@json_option
def link(
    name: str | None, days: int, *, resend: bool, url: str | None, as_list: bool, revoke: str | None, why: str, as_json: bool
) -> None:  # fmt: skip
    """Make a link for a customer: one account's postbacks, masked, without a login.

    Whoever has the link sees how the account's receiver does, its postbacks, and the history of its URL, and can send it a
    test; nothing of other accounts. It is shown once: by `--list` its id alone. It ends after its days, when it is
    withdrawn (in force within seconds), and with the account.
    """
    if as_list and revoke is not None:
        raise click.UsageError("Either --list or --revoke.")
    if as_list:
        _list(name or "", as_json=as_json)
        return
    if name is None:
        raise click.UsageError("Which account? postbacks web link NAME; --list shows the links of all.")
    if revoke is not None:
        _revoke(name, "" if revoke == _ALL else revoke, why, as_json=as_json)
        return
    from postbacks.operate import make_link
    from postbacks.settings import load
    from postbacks.web.security.key import Signers
    from postbacks.web.security.links import Links

    settings = load()
    base = url or settings.web_url or f"http://127.0.0.1:{DEFAULT_PORT}"
    links = Links(settings, Signers(settings))
    made = make_link(name, days=days, may_resend=resend, why=why)
    address = links.address(made, base)
    if as_json:
        print_json({**made.to_public_dict(), "url": address})
        return
    click.echo(address)
    also = ", and may send again what was given up" if resend else "; nothing can be sent again with it"
    say(
        f"Until {_moment(made.ends_ms)} whoever has this sees the postbacks of {made.account}, masked, can send its receiver a "
        f"test{also}. It is not shown again. postbacks web link {made.account} --revoke {made.id} withdraws it."
    )


def _list(account: str, *, as_json: bool) -> None:
    from postbacks.operate import open_links

    links = open_links(account)
    if as_json:
        for each in links:
            print_json(each.to_public_dict())
        return
    if not links:
        say(f"{f'Account {account}' if account else 'No account'} has {'no' if account else 'an'} open link.")
        return
    table = make_table("id", "account", "by", "made", "ends", "may", "last used", whole=("id",))
    for each in links:
        may = "look, resend" if each.may_resend else "look"
        used = _moment(each.used_ms) if each.used_ms else "never"
        add_row(
            table, each.id, each.account, each.by, _moment(each.made_ms), _moment(each.ends_ms), may, used
        )
    print_table(table)


def _revoke(account: str, link_id: str, why: str, *, as_json: bool) -> None:
    from postbacks.operate import withdraw_links

    withdrawn: list[Link] = withdraw_links(account, link_id, why=why)
    if as_json:
        for each in withdrawn:
            print_json({"id": each.id, "account": each.account, "withdrawn": True})
        return
    number = f"{len(withdrawn)} link{'' if len(withdrawn) == 1 else 's'}" if withdrawn else "No link"
    say(f"{number} of {account} {'is' if len(withdrawn) <= 1 else 'are'} withdrawn.")


def _moment(ms: int) -> str:
    from postbacks.history.times import of_ms, shown

    return shown(of_ms(ms // 1000 * 1000))
