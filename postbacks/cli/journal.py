"""``postbacks journal``: who did what, when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from postbacks.cli.base import Command, add_row, json_option, make_table, print_json, print_table, say

if TYPE_CHECKING:
    from postbacks.ledger.journal import Entry


@click.command(
    cls=Command,
    examples=(
        "postbacks journal",
        "postbacks journal --account acme --since 7d",
        "postbacks journal --by ann --action resend --json",
    ),
)
@click.option("--since", metavar="TIME", help="Only from then on: 2h, 14:00, yesterday, 2026-11-28.")
@click.option("--until", metavar="TIME", help="Only before then.")
@click.option("--account", default="", metavar="NAME", help="Only what was done to this account.")
@click.option("--by", default="", metavar="USER", help="Only what this user did.")
@click.option(
    "--action",
    default="",
    metavar="WORD",
    help="Only this action, or this family of them: account.set, account, resend.",
)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many."
)
@json_option
def journal(
    since: str | None, until: str | None, account: str, by: str, action: str, limit: int, as_json: bool
) -> None:
    """Show who did what, when and why; the newest first.

    Changes of accounts and secrets, resends, cancels, pauses, reveals, forgets and repairs, by whom: POSTBACKS_USER,
    or else the login of the system. Entries stand in the history's database.
    """
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.history.times import window
    from postbacks.operate.journal import entries

    def asked_ms() -> int:
        with broker_errors():
            return now_ms(client())

    span = window(since, until, asked_ms)
    if words := span.words():
        say(f"Asked for: {words}.")
    found = entries(
        since_ms=span.since_ms, until_ms=span.until_ms, account=account, by=by, action=action, limit=limit
    )
    if as_json:
        for entry in found:
            print_json(_public(entry))
    elif found:
        _print(found)
    if not found:
        say("The journal has no such entry.")
    elif len(found) == limit:
        say(f"These are the newest {limit:,}; --limit shows more.")


def _print(entries: list[Entry]) -> None:
    from postbacks.history.times import of_ms, shown
    from postbacks.operate.journal_words import details_words

    table = make_table("when", "who", "what", "to what", "details", "why", whole=("when",))
    for entry in entries:
        when = shown(of_ms(entry.at_ms // 1000 * 1000))
        add_row(table, when, entry.by, entry.action, entry.subject, details_words(entry.details), entry.why)
    print_table(table)


def _public(entry: Entry) -> dict[str, Any]:
    from postbacks.ledger.record import iso

    return {"at": iso(entry.at_ms), **entry._asdict()}
