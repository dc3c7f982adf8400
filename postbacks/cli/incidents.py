"""``postbacks incidents`` and ``postbacks incident``: what stands wrong, and who wants no notices of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from postbacks.cli.base import Command, Group, add_row, json_option, make_table, print_json, print_table, say
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.operate.incidents import Incident


@click.command(
    "incidents",
    cls=Command,
    examples=("postbacks incidents", "postbacks incidents --open", "postbacks incidents --open --json"),
)
@click.option("--open", "open_only", is_flag=True, help="Only those that are open.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="The newest so many."
)
@json_option
def incidents(*, open_only: bool, limit: int, as_json: bool) -> None:
    """List incidents: receivers that fail, ticks that are late, and what else stands wrong.

    The process that runs history finds them and keeps them in its database. Those that are open come first.

    Exit codes: 0, whatever is open; 2 the history cannot be read.
    """
    from postbacks.operate import all_incidents

    found = all_incidents(open_only=open_only, limit=limit)
    if as_json:
        for incident in found:
            print_json(incident.to_public_dict())
        return
    if not found:
        say("No incident is open." if open_only else "There was no incident yet.")
        return
    table = make_table("id", "state", "opened", "what", "why", right=("id",))
    for incident in found:
        opened = _time(incident.course.opened_ms)
        add_row(table, str(incident.id), _state(incident), opened, incident.title, incident.sentence)
    print_table(table)
    if any(incident.resend for incident in found):
        say("`postbacks incident show ID` has the command that sends again what died.")


@click.group("incident", cls=Group, examples=("postbacks incident show 17",))
def incident() -> None:
    """Show one incident, and mute it."""


@incident.command(cls=Command, examples=("postbacks incident show 17", "postbacks incident show 17 --json"))
@click.argument("number", metavar="ID", type=click.IntRange(1))
@json_option
def show(number: int, as_json: bool) -> None:
    """Show an incident: what stands, what to do, what was told of it, and how what died is sent again."""
    from postbacks.operate import read_incident
    from postbacks.operate.incidents.store import NOTICE_WORDS

    found, notices = read_incident(number)
    if as_json:
        print_json(found.to_public_dict() | {"notices": [notice.to_public_dict() for notice in notices]})
        return
    for label, words in _lines(found):
        click.echo(f"{label:11}{printable(words)}")
    for notice in notices:
        fault = f", {notice.fault}" if notice.fault else ""
        tries = f" after {notice.attempts} attempts" if notice.attempts > 1 else ""
        words = f"{_time(notice.at_ms)}  {notice.change.replace('_', ' ')}: {NOTICE_WORDS.get(notice.state, notice.state)}"
        click.echo(f"{'notice':11}{printable(f'{words}{tries}{fault}')}")


@incident.command(
    cls=Command,
    examples=("postbacks incident mute 17 --until tomorrow --reason 'they know, ticket 812'",),
)
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.option(
    "--until",
    metavar="T",
    required=True,
    help="When it is told again: 2h (from now), 18:00, tomorrow, a date or an ISO time.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; whoever looks at the incident sees it.")
def mute(number: int, until: str, reason: str) -> None:
    """Let nothing be told of an incident until a time.

    It goes on, and is kept. What is withheld meanwhile is told behind it, where the incident is still open.
    """
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.history.times import ahead, shown, to_ms
    from postbacks.operate import mute_incident

    def broker_ms() -> int:
        with broker_errors():
            return now_ms(client())

    end = ahead(until, broker_ms)
    muted = mute_incident(number, until_ms=to_ms(end), reason=reason)
    ended = "" if muted.is_open else " It has ended; should it come back within the hour, that is not told."
    say(f"Nothing is told of incident {number} ({muted.title}) until {shown(end)}.{ended}")


@incident.command(cls=Command, examples=("postbacks incident unmute 17",))
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.option("--why", default="", metavar="TEXT", help="Why; the journal has it.")
def unmute(number: int, why: str) -> None:
    """Let an incident be told again."""
    from postbacks.operate import unmute_incident

    unmuted = unmute_incident(number, why=why)
    say(f"Incident {number} ({unmuted.title}) is told again.")


def _lines(found: Incident) -> list[tuple[str, str]]:
    from postbacks.operate.incidents import words

    lines = [
        ("incident", f"{found.id}, {_state(found)}"),
        ("what", found.title),
        ("why", found.sentence),
    ]
    if found.advice:
        lines.append(("to do", found.advice))
    if found.since_ms is not None:
        lines.append(("since", _time(found.since_ms)))
    lines.append(("opened", _time(found.course.opened_ms)))
    if found.course.times_back:
        lines.append(
            ("came back", f"{found.course.times_back} times since it first opened at {_time(found.first_ms)}")
        )
    if found.course.ended_ms is not None:
        lines.append(("ended", _time(found.course.ended_ms)))
    else:
        lines.append(("ends", words.quiet(found.course)))
    if found.accounts:
        total = int(found.figures.get("accounts", len(found.accounts)))
        more = f" and {total - len(found.accounts):,} more" if total > len(found.accounts) else ""
        lines.append(("accounts", ", ".join(found.accounts) + more))
    if found.part_of is not None:
        lines.append(("part of", f"incident {found.part_of}"))
    if found.muted_until_ms is not None:
        reason = f": {found.mute_reason}" if found.mute_reason else ""
        lines.append(("muted", f"until {_time(found.muted_until_ms)} by {found.muted_by}{reason}"))
    return lines


def _state(found: Incident) -> str:
    from time import time

    state = found.state(int(time() * 1000))
    return f"{state}, quiet" if found.is_open and found.course.quiet_ms else state


def _time(ms: int) -> str:
    from postbacks.history.times import of_ms, shown

    return shown(of_ms(ms // 1000 * 1000))
