"""``postbacks show``: look at a postback."""

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
from postbacks.cli.reveal import reveal_options
from postbacks.printable import document_text, printable

if TYPE_CHECKING:
    from postbacks.history.copies import Copy
    from postbacks.ledger.ledger import Claim
    from postbacks.ledger.record import Attempt, Record
    from postbacks.operate.lookup import Found


def reason_words(record: Record, *, reveal: bool = False) -> str:
    """Say in words why a postback has not been delivered, as a terminal may show it."""
    from postbacks.ledger.reasons import reason_of

    return printable(reason_of(record, reveal=reveal))


@click.command(
    cls=Command,
    examples=(
        "postbacks show 7c0e1f3a-…",
        "postbacks show 7c0e1f3a-… --json",
        "postbacks show 7c0e1f3a-… --curl --reveal --why 'ticket 4711'",
    ),
)
@click.argument("postback_id", metavar="ID", callback=check_id)
@click.option(
    "--xml",
    "as_xml",
    is_flag=True,
    help="Print the XML document instead, with --reveal: byte for byte, on a terminal with &#x…; for what it would obey.",
)
@click.option(
    "--curl",
    "as_curl",
    is_flag=True,
    help="Print a command that repeats the POST instead, with --reveal: the same bytes, without secrets, which a comment names.",
)
@json_option
@reveal_options
def show(postback_id: str, *, as_xml: bool, as_curl: bool, as_json: bool, reveal: str | None) -> None:
    """Show a postback's state, why it has not been sent, its document, and every attempt.

    Numbers, e-mail addresses and texts are masked (docs/privacy.md); --reveal shows them.

    One that has left the broker is shown from the history. The line "why" says what an unfinished postback waits for, with
    figures. With --json, "why" lists the causes: name, sentence and figures of each.
    """
    from postbacks.errors import UnknownPostback
    from postbacks.ledger.reasons import forgotten_words
    from postbacks.operate.lookup import look_up

    if as_xml + as_curl + as_json > 1:
        raise click.UsageError("--xml, --curl and --json exclude each other: give one of them.")
    if (as_xml or as_curl) and reveal is None:
        option = "--xml" if as_xml else "--curl"
        raise click.UsageError(
            f"{option} prints numbers, addresses and texts unmasked: add --reveal --why TEXT, which is written to the "
            "journal. Without it `postbacks show` has the document masked."
        )
    found = look_up(postback_id, reveal=reveal)
    if found.trouble:
        say(f"{found.trouble} What follows is the history's.")
    record = found.record
    if as_json:
        print_json(_public_dict(postback_id, found, is_masked=reveal is None))
    if record is None:
        raise UnknownPostback(found.unknown)
    if as_xml or as_curl:
        words = forgotten_words(record) or (
            found.copy.no_document if found.copy else "" if record.xml else reason_words(record)
        )
        if words:
            raise click.ClickException(f"Postback {record.id} has no document: {words}.")
    if as_xml:
        write_document(record.xml)
    elif as_curl:
        click.echo(_curl_command(record, broker_is_away=bool(found.trouble)))
    elif not as_json:
        _print_found(record, found, is_masked=reveal is None)


def _curl_command(record: Record, *, broker_is_away: bool) -> str:
    from postbacks.accounts import find_account
    from postbacks.errors import BrokerError
    from postbacks.operate.curl import curl_command
    from postbacks.settings import load

    try:
        account = find_account(record.account)
    except BrokerError:
        if not broker_is_away:
            raise
        account = None
    return curl_command(record, account, load())


def _public_dict(postback_id: str, found: Found, *, is_masked: bool) -> dict[str, Any]:
    """Return a postback as ``--json`` prints it, with where it was found and the other acceptances of its id."""
    from postbacks.ledger.record import iso

    record, explanation = found.record, found.explanation
    claim = explanation.claim.to_public_dict() if explanation and explanation.claim else None
    causes = explanation.causes if explanation else ()
    others = [{"accepted": iso(copy.record.created_ms), "state": copy.record.state} for copy in found.others]
    fields = {"id": postback_id, "state": None} if record is None else record.to_public_dict()
    return fields | {
        "document": record.xml.decode("utf-8", "replace") or None if record else None,
        "masked": is_masked,
        "claim": claim,
        "why": [cause.to_public_dict() for cause in causes],
        "source": "history" if found.copy else "broker" if record else None,
        "recorded_until": iso(found.recorded_ms),
        "other_acceptances": others,
    }


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


def _print_found(record: Record, found: Found, *, is_masked: bool) -> None:
    copy, explanation = found.copy, found.explanation
    fields = record.to_public_dict()
    ended = record.state in {"dead", "skipped", "cancelled"}
    reason = reason_words(record, reveal=not is_masked) if ended else ""
    claim = explanation.claim if explanation else None
    causes = explanation.causes if explanation else ()
    lines = {
        "postback": record.id,
        "state": click.style(printable(record.state), bold=True) + (f": {reason}" if reason else ""),
        "why": f"\n{'':14}".join(
            printable(cause.sentence) for cause in causes if cause.name not in _SAID_OF_CLAIM
        ),
        "event": f"{record.origin} {record.code}{' (opt-out)' * record.is_opt_out}".strip(),
        "account": f"{record.account} (group {record.group}, sequence {record.sequence})"
        if record.account
        else "",
        "URL": fields["url"] or "",
        "accepted": fields["created"],
        "next attempt": fields["next_at"] or "",
        "open" if claim and claim.attempt else "held": _claim_words(claim) if claim else "",
        "forgotten": f"{fields['forgotten']}: its document and the answers to it are erased"
        if fields["forgotten"]
        else "",
        "found in": _words_of_copy(copy, found.recorded_ms) if copy else "",
        "sent again": f"\n{'':14}".join(map(_resend_words, fields.get("resends", ()))),
        "also accepted": ", ".join(
            f"{copy.record.to_public_dict()['created']} ({copy.record.state})" for copy in found.others
        ),
    }
    for label, value in lines.items():
        if value:
            click.echo(f"{label:14}{value if label in {'state', 'why', 'sent again'} else printable(value)}")
    _print_document(record.xml, is_masked=is_masked)
    if not record.attempts:
        return
    click.echo()
    table = make_table("#", "at", "outcome", "status", "took", "in words", right=("#", "status", "took"))
    for attempt in record.attempts:
        add_row(table, *_attempt_cells(attempt))
    print_table(table)


def _print_document(document: bytes, *, is_masked: bool) -> None:
    """Print a document's tags and values, a line each."""
    from postbacks.privacy.masker import elements

    if not document:
        return
    click.echo()
    click.echo("document      " + ("masked; --reveal --why TEXT shows it" if is_masked else "revealed"))
    for tag, value in elements(document):
        click.echo(f"  {printable(tag):<16}{printable(value)}".rstrip())


def _words_of_copy(copy: Copy, recorded_ms: int | None) -> str:
    """Say that a postback comes from the history, and what of it has been pruned there."""
    from postbacks.ledger.record import iso

    words = f"history, recorded until {iso(recorded_ms) or 'no time that is known'}"
    pruned = copy.begun - len(copy.record.attempts)
    if pruned > 0 and not copy.is_open:
        words += f"; {pruned} of its {copy.begun} attempts are pruned"
    return f"{words}; {copy.no_document}" if copy.no_document and not copy.record.forgotten_ms else words


def _resend_words(resend: dict[str, Any]) -> str:
    """Say who sent a postback again, and by which job."""
    words = (
        f"{resend['at']} by {printable(resend['by'] or 'somebody')}, after {resend['after_attempts']} POSTs"
    )
    return f"{words}, job {resend['job']}" if resend["job"] else words


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


def _attempt_cells(attempt: Attempt) -> tuple[object, ...]:
    from postbacks.ledger.record import iso

    words = attempt.detail
    if attempt.excerpt:
        words += f" {attempt.excerpt!r}"
    if attempt.shared:
        words += " (one connection was tried for several postbacks)"
    if attempt.course:
        words += f" ({attempt.course})"
    return (
        attempt.number,
        iso(attempt.at_ms),
        attempt.outcome,
        "" if attempt.status is None else attempt.status,
        f"{attempt.elapsed_ms} ms",
        words.strip(),
    )
