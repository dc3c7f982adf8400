"""``postbacks forget``: erase what identifies a person."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from postbacks.cli.base import Command, confirm, counted, json_option, print_json, say
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.operate.forget import Count, Receipt

#: What is done in each phase, for whoever waits.
_PHASE_WORDS: Final = {
    "ledger": "the broker's records and messages are searched",
    "history": "the history's rows are erased",
    "check": "the broker is searched once more",
    "files": "the files are written anew",
}


@click.command(
    cls=Command,
    examples=(
        'postbacks forget --number "+1 (555) 231-0137" --dry-run',
        'postbacks forget --number 15552310137 --why "letter of 24 November"',
        "postbacks forget --email ann@example.com --now --yes --json",
    ),
)
@click.option(
    "--number", metavar="N", help="The person's phone number, with the country's code; - reads it from stdin."
)
@click.option("--email", metavar="E", help="The person's e-mail address; - reads it from stdin.")
@click.option("--now", is_flag=True, help="Cancel what is still to be delivered, and do not wait for it.")
@click.option("--why", metavar="TEXT", default="", help="Why, for the journal.")
@click.option("--dry-run", is_flag=True, help="Count, and erase nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(
    *, number: str | None, email: str | None, now: bool, why: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Forget a person: erase what identifies the person from the broker and the history.

    Every postback whose tags FROM, TO or MOBILE (or EMAIL) have the value, in any spelling, loses its document, its URL, its
    index of values and what receivers answered. Its id, account, event, state, times and digest stay; it cannot be sent again.
    Then the broker's files and the history's database are written anew, and the command ends with a receipt.

    What is still to be delivered is delivered first, for 24 hours at most; the rest is cancelled then, and of paused accounts at
    once. The process that runs history does the work: Ctrl-C ends the waiting alone, and the same command waits again. What is
    accepted after the request is not meant.
    """
    from postbacks.errors import InvalidQuery
    from postbacks.operate import forget as operate

    number, email = _from_stdin(number), _from_stdin(email)
    try:
        name = operate.pseudonym(number=number, email=email)
    except InvalidQuery as error:
        raise click.UsageError(str(error)) from None
    if dry_run or not yes:
        found = operate.count(number=number, email=email)
        if dry_run and as_json:
            print_json({"pseudonym": name, **found.to_public_dict()})
        _say_count(name, found, now=now)
        if dry_run:
            return
        confirm(f"Forget {name}?")
    request = operate.forget(number=number, email=email, now=now, why=why)
    try:
        receipt = operate.wait(request, _Progress())
    except KeyboardInterrupt:
        say(
            f"\nRequest {request} goes on, in the process that runs history; the same command waits for it again."
            if operate.goes_on()
            else f"\nRequest {request} has stopped half-way: the same command goes on with it."
        )
        raise
    if as_json:
        print_json(receipt.to_public_dict())
    else:
        _print_receipt(receipt)


def _from_stdin(value: str | None) -> str | None:
    return sys.stdin.readline().strip() if value == "-" else value


def _say_count(name: str, found: Count, *, now: bool) -> None:
    """Say what would be done, and how much of it."""
    if not (found.records or found.messages or found.rows):
        whole = "the whole address" if "@" in name else "the whole number, with its country's code"
        say(f"Nothing is found of {name}. Is it {whole}?")
    else:
        say(f"{name} is named by")
        say(f"  {counted(found.records, 'record')} of the broker{_waiting_words(found)}")
        say(f"  {counted(found.messages, 'message')} that wait{'s' * (found.messages == 1)} to be taken in")
        if found.rows is not None:
            say(f"  {counted(found.rows, 'row')} of the history")
        say(
            "Their documents, URLs, indexes and answers are erased, and none of them can be sent again; ids, accounts, events, "
            "states and times stay."
        )
    if found.waiting or found.messages:
        say(
            "What is still to be delivered is cancelled."
            if now
            else "What is still to be delivered is delivered first, for 24 hours at most, and cancelled then, of paused accounts at "
            "once; --now cancels all of it at once."
        )
    if found.database_bytes is None:
        say("Then the broker's files are written anew. Deliveries go on meanwhile.")
    else:
        say(
            f"Then the broker's files and the history's database ({_size(found.database_bytes)}) are written anew. Deliveries go "
            "on meanwhile; the recorder waits."
        )


def _waiting_words(found: Count) -> str:
    if not found.waiting:
        return ""
    verb = "is" if found.waiting == 1 else "are"
    paused = f", {found.paused:,} of a paused account" if found.paused else ""
    return f", of which {found.waiting:,} {verb} still to be delivered{paused}"


class _Progress:
    """Progress of a request: each step once, and how many are still to be delivered whenever that changes."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, receipt: Receipt) -> None:
        words = _PHASE_WORDS.get(receipt.phase, "")
        if receipt.waiting:
            words = f"{counted(receipt.waiting, 'postback')} still to be delivered"
        if words and words != self._said:
            self._said = words
            say(f"  {words} …")


def _print_receipt(receipt: Receipt) -> None:
    from postbacks.ledger.record import iso

    lines = {
        "forgotten": receipt.pseudonym,
        "request": f"{receipt.request}, by {receipt.by} at {iso(receipt.requested_ms)}, ended {iso(receipt.ended_ms)}",
        "why": receipt.why,
        "broker": f"{counted(receipt.records, 'record')} erased, {counted(receipt.cancelled, 'postback')} of them cancelled; "
        f"{counted(receipt.answers, 'answer')} emptied; {counted(receipt.messages, 'message')} taken out of the queue",
        "history": f"{counted(receipt.rows, 'row')} erased, with {counted(receipt.documents, 'document')} and "
        f"{counted(receipt.values, 'entry', 'entries')} of the index",
        "append-only": receipt.append_only,
        "snapshot": receipt.snapshot,
        "database": receipt.database or "there is no history",
        "not reached": f"\n{'':14}".join(receipt.not_reached),
    }
    for label, value in lines.items():
        if value:
            click.echo(f"{label:14}" + "\n".join(printable(line) for line in value.split("\n")))


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6)):,} MB"
