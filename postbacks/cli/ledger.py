"""``postbacks show`` and ``cancel``: look at a postback, and cancel it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import (
    Command,
    add_row,
    check_id,
    json_option,
    make_table,
    print_json,
    print_table,
    say,
)
from postbacks.printable import document_text, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.errors import UnknownPostback
    from postbacks.ledger.ledger import Claim, Ledger
    from postbacks.ledger.record import Record
    from postbacks.monitor.causes import Cause, Explanation


def _ledger() -> Ledger:
    from postbacks.broker.client import client
    from postbacks.ledger.ledger import Ledger

    return Ledger(client())


def reason_words(record: Record) -> str:
    """Say in words why a postback has not been delivered, as a terminal may show it."""
    from postbacks.ledger.reasons import reason_of

    return printable(reason_of(record))


@click.command(cls=Command, examples=("postbacks show 7c0e1f3a-…", "postbacks show 7c0e1f3a-… --json"))
@click.argument("postback_id", metavar="ID", callback=check_id)
@click.option(
    "--xml",
    "as_xml",
    is_flag=True,
    help="Print the XML document instead: byte for byte, on a terminal with &#x…; for what it would obey.",
)
@json_option
def show(postback_id: str, as_xml: bool, as_json: bool) -> None:
    """Show a postback's state, why it has not been sent, and every attempt.

    The line "why" says what an unfinished postback waits for, with figures. With --json, "why" lists the causes: name,
    sentence and figures of each.
    """
    from postbacks.broker.client import client
    from postbacks.monitor.causes import explain
    from postbacks.settings import load

    if as_xml:
        with_document = _ledger().get(postback_id)
        if with_document.is_stub:
            raise click.ClickException(
                f"Postback {postback_id} has no document: {reason_words(with_document)}."
            )
        write_document(with_document.xml)
        return
    explanation = explain(client(), postback_id, load())
    record = explanation.record
    if as_json:
        fields = {"id": postback_id, "state": None} if record is None else record.to_public_dict()
        claim = explanation.claim.to_public_dict() if explanation.claim else None
        print_json(fields | {"claim": claim, "why": [cause.to_public_dict() for cause in explanation.causes]})
    if record is None:
        raise _unknown(postback_id, explanation)
    if not as_json:
        _print_record(record, explanation.claim, explanation.causes)


def _unknown(postback_id: str, explanation: Explanation) -> UnknownPostback:
    """Say of an id that the ledger does not have what is known: its message, or how many were looked at for it."""
    from postbacks.errors import UnknownPostback

    clauses = [cause.sentence for cause in explanation.causes]
    looked_at, messages = explanation.looked_at
    if {cause.name for cause in explanation.causes} & {"in_queue", "in_intake"}:
        words = "it is not taken in yet"
    else:
        words = (
            "it is not taken in yet (is a worker running?), was dropped after its retention, or never existed"
        )
        if messages:
            clauses.insert(
                0, f"{messages:,} messages wait to be taken in, and it is none of the {looked_at:,} looked at"
            )
    return UnknownPostback(f"The ledger has no postback {postback_id}: {'; '.join([words, *clauses])}.")


def write_document(document: bytes) -> None:
    """Write a document to stdout, not a byte more; a terminal gets it without what it would obey, and a line's end."""
    if sys.stdout.isatty():
        click.echo(document_text(document))
        return
    out = sys.stdout.buffer
    out.write(document)
    out.flush()


#: Causes that the lines "open" and "held" say.
_SAID_OF_CLAIM: Final = frozenset({"open", "held", "lease_over"})


def _print_record(record: Record, claim: Claim | None, causes: Sequence[Cause]) -> None:
    fields = record.to_public_dict()
    ended = record.state in {"dead", "skipped", "cancelled"}
    reason = reason_words(record) if ended else ""
    lines = {
        "postback": record.id,
        "state": click.style(printable(record.state), bold=True) + (f": {reason}" if reason else ""),
        "why": f"\n{'':14}".join(
            printable(cause.sentence) for cause in causes if cause.name not in _SAID_OF_CLAIM
        ),
        "event": f"{record.origin} {record.code}".strip(),
        "account": f"{record.account} (group {record.group}, sequence {record.sequence})"
        if record.account
        else "",
        "URL": fields["url"] or "",
        "accepted": fields["created"],
        "next attempt": fields["next_at"] or "",
        "open" if claim and claim.attempt else "held": _claim_words(claim) if claim else "",
    }
    for label, value in lines.items():
        if value:
            click.echo(f"{label:14}{value if label in {'state', 'why'} else printable(value)}")
    if not record.attempts:
        return
    click.echo()
    table = make_table("#", "at", "outcome", "status", "took", "in words", right=("#", "status", "took"))
    for attempt in fields["attempts"]:
        add_row(table, *_attempt_cells(attempt))
    print_table(table)


def _claim_words(claim: Claim) -> str:
    """Say who has a postback, and since when its attempt is open."""
    fields = claim.to_public_dict()
    words = ""
    if claim.attempt is not None:
        words = f"attempt {claim.attempt} since {fields['since']} ({fields['for_s']:.1f} s), "
    words += f"worker {fields['worker'] or 'of an older version'}, loop {fields['loop'][:12]}"
    late_s = (claim.now_ms - claim.ends_ms) / 1000
    if not claim.ends_ms:
        words += "; its process has died, and another loop takes it over"
    elif late_s > 0:
        words += f"; its lease ran out {late_s:.1f} s ago, and another loop takes it over"
    return words


def _attempt_cells(attempt: dict[str, Any]) -> tuple[object, ...]:
    words = attempt.get("detail", "")
    if attempt.get("excerpt"):
        words += f" {attempt['excerpt']!r}"
    if attempt.get("shared"):
        words += " (one connection was tried for several postbacks)"
    status = "" if attempt["status"] is None else attempt["status"]
    return (
        attempt["number"],
        attempt["at"],
        attempt["outcome"],
        status,
        f"{attempt['elapsed_ms']} ms",
        words.strip(),
    )


@click.command(cls=Command, examples=("postbacks cancel 7c0e1f3a-…",))
@click.argument("postback_id", metavar="ID", callback=check_id)
def cancel(postback_id: str) -> None:
    """Cancel a postback that waits or is parked."""
    from postbacks.ledger import states
    from postbacks.queue.actions import cancel as cancel_postback

    record = _ledger().find(postback_id)
    state = cancel_postback(postback_id)
    if record is None:
        say(
            f"The ledger has no postback {postback_id} yet; it is not sent should it be taken in within a day."
        )
    elif state == "cancelled":
        say(f"Postback {postback_id} is cancelled.")
    elif state == states.SENDING and _ledger().get(postback_id).state == states.HELD:
        say(f"Postback {postback_id} is held by a worker, which does not send it any more.")
    elif state == states.SENDING:
        raise click.ClickException(
            f"Postback {postback_id} is being sent at this moment; should that fail, it is not sent again."
        )
    else:
        raise click.ClickException(f"Postback {postback_id} is {state} already.")
