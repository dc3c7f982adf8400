"""``postbacks codes``, ``example`` and ``schema``: the catalogue, for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from postbacks.cli.base import Command, add_row, json_option, make_table, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable


def _complete(number: int) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Make the shell completion of ORIGIN (0), or of CODE (1) after an ORIGIN."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from postbacks.catalogue import EVENTS

        origin = ctx.params.get("origin")
        rows = [row for row in EVENTS if number == 0 or row[0] == origin]
        return [word for word in dict.fromkeys(row[number] for row in rows) if word.startswith(incomplete)]

    return complete


@click.command(cls=Command, examples=("postbacks codes", "postbacks codes --json | grep SMS_MO"))
@json_option
def codes(as_json: bool) -> None:
    """Print the catalogue of events.

    Each row is an event with its tags in document order. A tag with ? is optional; a tag with + may stand more than once.
    """
    from postbacks.catalogue import table

    if as_json:
        for row in table():
            print_json(row._asdict())
        return
    rows = make_table(
        "ORIGIN", "CODE", "group", "event type", "meaning", "tags", whole=("ORIGIN", "CODE", "event type")
    )
    for row in table():
        add_row(rows, row.origin, row.code, row.group, row.name, row.meaning, " ".join(row.tags))
    print_table(rows)


@click.command(
    cls=Command,
    examples=("postbacks example SMS_MO N211", "postbacks example SMS_MO N211 | postbacks send acme -"),
)
@click.argument("origin", shell_complete=_complete(0))
@click.argument("code", shell_complete=_complete(1))
def example(origin: str, code: str) -> None:
    """Print an example event as JSON, for send and render."""
    from postbacks.catalogue import event_type
    from postbacks.cli.examples import example as example_of

    click.echo(json.dumps(example_of(event_type(origin, code)), ensure_ascii=False, indent=2))


@click.command(
    cls=Command, examples=("postbacks schema > postbacks.rng", "postbacks schema SMS_MO N211 > sms.xsd")
)
@click.argument("origin", required=False, shell_complete=_complete(0))
@click.argument("code", required=False, shell_complete=_complete(1))
def schema(origin: str | None, code: str | None) -> None:
    """Print the schema of the XML documents.

    It is a RELAX NG schema of the whole catalogue or, with ORIGIN and CODE, an XSD of that row.
    """
    from postbacks.catalogue.schemas import relax_ng, xsd

    if origin is None:
        click.echo(relax_ng(), nl=False)
    elif code is None:
        raise click.UsageError(f"A row has an ORIGIN and a CODE: postbacks schema {origin} CODE.")
    else:
        click.echo(xsd(origin, code), nl=False)
