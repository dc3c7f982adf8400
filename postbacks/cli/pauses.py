"""``postbacks account pause`` and ``resume``: let an account stand still, and go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from postbacks.cli.base import Command, say
from postbacks.cli.secrets import account as account
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.queue.pauses import Pause


@account.command(
    cls=Command,
    examples=(
        "postbacks account pause acme",
        "postbacks account pause acme --until 18:00 --reason 'they move their servers'",
        "postbacks account pause acme --until 2h",
    ),
)
@click.argument("name")
@click.option(
    "--until",
    metavar="T",
    help="When the pause ends by itself: 2h (from now), 18:00, tomorrow, a date or an ISO time.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; whoever looks at the account sees it.")
def pause(name: str, until: str | None, reason: str) -> None:
    """Let an account stand still: nothing more of it is sent until it is resumed.

    In force for all workers within a second; what is being sent is finished. Its postbacks wait in their order, resends
    that fall due join them, and new events are accepted up to the account's backlog limit
    (POSTBACKS_MAX_WAITING_PER_ACCOUNT). None of it dies of the pause, and neither its number nor its age makes
    `postbacks health` complain.

    Of an account that is paused already the end and the reason are changed. The end goes by the broker's clock.
    """
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.errors import UnknownAccount
    from postbacks.history.times import ahead, shown, to_ms
    from postbacks.operate import pause_account

    def broker_ms() -> int:
        with broker_errors():
            return now_ms(client())

    end = None if until is None else ahead(until, broker_ms)
    try:
        pause = pause_account(name, until_ms=None if end is None else to_ms(end), reason=reason)
    except UnknownAccount as error:
        raise click.ClickException(str(error)) from None
    when = "" if end is None else f" until {shown(end)}"
    say(
        f"Account {pause.account} is paused{when}: {_waiting_words(pause)}. "
        f"postbacks account resume {pause.account} lets it go on{'' if end is None else ' before'}."
    )


@account.command(cls=Command, examples=("postbacks account resume acme",))
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="Why; the journal has it.")
def resume(name: str, why: str) -> None:
    """Let a paused account go on: what waits is sent, in its order."""
    from postbacks.errors import UnknownAccount
    from postbacks.operate import resume_account

    try:
        ended = resume_account(name, why=why)
    except UnknownAccount as error:
        raise click.ClickException(str(error)) from None
    if ended is None:
        say(f"Account {name} is not paused.")
        return
    say(f"Account {ended.account} goes on: {_waiting_words(ended)}.")


def _waiting_words(pause: Pause) -> str:
    from postbacks.history.times import of_ms, shown

    if pause.oldest_ms is None:
        return "nothing of it waits"
    verb = "waits" if pause.waiting == 1 else "wait"
    return f"{pause.waiting:,} {verb}, the oldest since {shown(of_ms(pause.oldest_ms // 1000 * 1000))}"


def pause_words(pause: Pause) -> str:
    """Say since when an account is paused, by whom, until when and why, and what waits."""
    from postbacks.history.times import of_ms, shown

    words = f"since {shown(of_ms(pause.since_ms // 1000 * 1000))}"
    if pause.by:
        words += f" by {pause.by}"
    if pause.until_ms is not None:
        words += f", until {shown(of_ms(pause.until_ms))}"
    if pause.reason:
        words += f" ({pause.reason})"
    return printable(f"{words}; {_waiting_words(pause)}")
