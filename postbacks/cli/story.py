"""``postbacks story``: everything that happened to one message, in time order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from postbacks.cli.base import Command, json_option, print_json, say
from postbacks.cli.reveal import reveal_options
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.history.timeline import Awaited, Message, Moment

#: Colours of what a line tells.
_COLOURS = {"ended": "yellow", "due": "cyan", "now": "cyan"}


@click.command(
    cls=Command,
    examples=(
        "postbacks story 4711",
        "postbacks story 7c0e1f3a-…",
        "postbacks story 4711 --account acme --json",
        "postbacks story 4711 --reveal --why 'ticket 812'",
    ),
)
@click.argument("value", metavar="TRACKINGID|MMSID|ID")
@click.option("--account", metavar="NAME", help="Of this account's message alone.")
@json_option
@reveal_options
def story(value: str, *, account: str | None, as_json: bool, reveal: str | None) -> None:
    """Tell what happened to a message, over all its postbacks.

    Give a TRACKINGID, an MMSID, or the id of any of its postbacks, which comes first where a value is both. Each POST
    stands with what the receiver said, and what should have come by now is named (docs/catalogue.md, Successors). What
    the phone's number did in the three days after it stands apart: it may be about something else.

    Numbers, e-mail addresses and texts are masked (docs/privacy.md); --reveal shows them.

    With --json a line an account that has it.
    """
    from postbacks.cli.search import say_recorded
    from postbacks.ledger.states import FINAL_STATES
    from postbacks.operate.story import story as tell

    told = tell(value, account=account, reveal=reveal)
    for number, message in enumerate(told.messages):
        if as_json:
            print_json(message.to_public_dict())
            continue
        if number:
            click.echo()
        _print_message(message)
    if len(told.messages) > 1:
        names = ", ".join(message.account for message in told.messages)
        say(f"{len(told.messages)} accounts have it ({names}): --account NAME tells of one.")
    unfinished = any(
        record.state not in FINAL_STATES for message in told.messages for record in message.postbacks
    )
    say_recorded(told.recorded_ms, told.read_ms if unfinished else None, unfinished=unfinished)


def _print_message(message: Message) -> None:
    from postbacks.history.times import of_ms

    names = [f"TRACKINGID {name}" for name in message.tracking_ids[:3]]
    names += [f"MMSID {name}" for name in message.mms_ids[:3]]
    if message.number:
        names.append(f"number {message.number}")
    title = ", ".join([f"Account {message.account}" if message.account else "No account", *names])
    click.echo(click.style(printable(title), bold=True))
    numbers = {
        (record.id, record.created_ms): number for number, record in enumerate(message.postbacks, start=1)
    }
    for number, record in enumerate(message.postbacks, start=1):
        event = f"{record.origin} {record.code}".strip()
        click.echo(f"  {number}  {printable(f'{event:<13} {record.state:<9} {record.id}')}")
    if message.more:
        click.echo("  … and more, which are not shown: give a TRACKINGID.")
    zone = of_ms(message.moments[0].at_ms).isoformat()[-6:]
    click.echo(f"\nWhat happened (times in {zone})")
    _print_moments(message.moments, numbers, zone)
    for awaited in message.awaited:
        click.echo(_awaited_line(awaited, numbers[awaited.id, awaited.since_ms]))
    if message.afterwards:
        click.echo(f"\nAfterwards from {printable(message.number)}, which may be about something else")
        _print_moments(message.afterwards, {}, zone)
        if message.more_afterwards:
            click.echo("  … and more, which are not shown: see postbacks list --number.")


def _print_moments(moments: Iterable[Moment], numbers: dict[tuple[str, int], int], zone: str) -> None:
    """Print moments, a line each, under the days on which they were; clocks that are put back or forward begin one anew."""
    from postbacks.history.times import of_ms

    day = ""
    for moment in moments:
        at = of_ms(moment.at_ms)
        offset = at.isoformat()[-6:]
        heading = f"{at:%Y-%m-%d}" if offset == zone else f"{at:%Y-%m-%d} (times in {offset})"
        if heading != day:
            day = heading
            click.echo(f"  {day}")
        is_event = moment.what == "accepted"
        number = numbers.get((moment.id, moment.created_ms))
        name = f"{number} " if number else ""
        code = click.style(f"{moment.code or '?':<5}", bold=is_event)
        words = click.style(
            ("" if is_event else "  ") + printable(moment.words), fg=_COLOURS.get(moment.what)
        )
        click.echo(f"    {at:%H:%M:%S}.{at.microsecond // 1000:03}  {name}{code} {words}".rstrip())


def _awaited_line(awaited: Awaited, number: int) -> str:
    from postbacks.history.times import length

    codes = " or ".join((", ".join(awaited.codes[:-1]), awaited.codes[-1]))
    within = length(awaited.until_ms - awaited.since_ms)
    if awaited.is_missing:
        words = f"no {awaited.name} ({codes}) {length(awaited.for_ms)} after {awaited.after}, usual within {within}"
        return click.style(f"    missing       {number} {words}", fg="red")
    return (
        f"    awaited       {number} a {awaited.name} ({codes}), usual within {within} after {awaited.after}"
    )
