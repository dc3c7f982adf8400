"""``postbacks send`` and ``render``: send the events of a file, or print one as XML."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from postbacks.cli import arguments
from postbacks.cli.base import Command, json_option, print_json, say, seconds
from postbacks.cli.ledger import reason_words, write_document
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.catalogue import Event
    from postbacks.ledger.record import Record

#: Seconds between two reads of the ledger during ``--wait``.
_POLL_EVERY_S: Final = 0.1

_file = click.argument("file", type=click.File("rb"), callback=arguments.file)


@click.command(
    cls=Command,
    examples=("postbacks render event.json", "postbacks render - < event.json | xmllint --format -"),
)
@_file
def render(file: BinaryIO) -> None:
    """Print an event's XML document.

    FILE holds one event as JSON; - is stdin. The bytes are those that are POSTed. On a terminal, control characters
    appear as &#x…;.
    """
    from postbacks.catalogue.xml import render as rendered
    from postbacks.cli.events import read_events

    events = read_events(file)
    if len(events) > 1:
        raise click.UsageError(f"One event is one document; this file holds {len(events)} events.")
    write_document(rendered(events[0]))


@click.command(
    cls=Command,
    examples=(
        "postbacks example SMS_MO N211 > event.json",
        "postbacks send acme event.json",
        "postbacks send acme events.jsonl --wait 30",
        "postbacks example SMS_MO N211 | postbacks send acme - --url https://acme.example/test",
    ),
)
@click.argument("account")
@_file
@click.option(
    "--url",
    callback=arguments.text,
    metavar="URL",
    help=f"Send to this URL instead of the account's; the account need not exist. {arguments.HOW}",
)
@click.option(
    "--id",
    "postback_id",
    metavar="ID",
    help="Id of the postback; an id that is sent again stays one postback.",
)
@click.option(
    "--wait",
    "wait_s",
    metavar="S",
    type=float,
    callback=seconds,
    help="Wait up to so many seconds; exit 0 only if all are delivered.",
)
@json_option
def send(
    account: str,
    file: BinaryIO,
    url: str | None,
    postback_id: str | None,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Send events and print their ids, one a line.

    FILE holds one JSON object, JSON lines or a JSON array; - is stdin. All events are checked before the first is sent.
    """
    from postbacks.cli.events import read_events

    events = read_events(file)
    _check_id(postback_id, events)
    _check_account(account, events, url)
    ids = _send(account, events, url, postback_id)
    if not as_json:
        for sent_id in ids:
            click.echo(sent_id)
    if wait_s is None:
        if as_json:
            for sent_id in ids:
                print_json({"id": sent_id, "state": "waiting"})
        return
    records = _wait(ids, wait_s)
    for sent_id in ids:
        _report(sent_id, records.get(sent_id), as_json=as_json)
    delivered = sum(record is not None and record.state == "delivered" for record in records.values())
    if delivered < len(ids):
        within = (
            "" if all(record and record.ended_ms for record in records.values()) else f" within {wait_s:g} s"
        )
        hint = "" if any(records.values()) else " None has been taken in: is a worker running, and a beat?"
        raise click.ClickException(f"{delivered} of {len(ids)} delivered{within}.{hint}")


def _check_id(postback_id: str | None, events: Sequence[Event]) -> None:
    from postbacks.names import is_id

    if postback_id is None:
        return
    if not is_id(postback_id):
        raise click.UsageError(
            f"--id {printable(postback_id)[:60]!r} cannot be an id: 1 to 255 printable ASCII characters, no spaces."
        )
    if len(events) > 1:
        raise click.UsageError(f"--id is the id of one postback; this file holds {len(events)} events.")


def _check_account(name: str, events: Sequence[Event], url: str | None) -> None:
    """Refuse an unknown account; warn of postbacks that will not be sent."""
    from postbacks.accounts import UNREADABLE, find_account
    from postbacks.accounts.routing import end_words, reason_words, route
    from postbacks.errors import UnknownAccount
    from postbacks.names import check_name
    from postbacks.urls import check_url

    check_name(name)
    if url is not None:
        check_url(url)
    account = find_account(name)
    if account is None and url is None:
        raise UnknownAccount(
            f"There is no account {name!r}: make it (postbacks account set {name} --url https://…) or give --url."
        )
    if account is not None and account.unreadable and url is not None:
        words = reason_words(UNREADABLE, "", f"account {name}")
        say(f"Warning: {words}: its postbacks wait for that.")
    for origin, group in dict.fromkeys((event.origin, event.group) for event in events):
        reason = route(account, origin, group, url)[1]
        if reason:
            words = reason_words(reason, origin, f"account {name}")
            say(f"Warning: {words}: its postbacks will be {end_words(reason)}.")


def _send(account: str, events: Sequence[Event], url: str | None, postback_id: str | None) -> list[str]:
    from postbacks import send_postback, send_postbacks
    from postbacks.broker.client import client
    from postbacks.broker.fitness import check
    from postbacks.ledger.ledger import Ledger

    for warning in check():
        say(f"Warning: {warning}")
    logging.getLogger("postbacks.client.sending").setLevel(logging.ERROR)  # it says the same
    if postback_id is None:
        return send_postbacks(account, events, url=url)
    record = Ledger(client()).find(postback_id)
    if record is not None:
        say(
            f"Postback {postback_id} is known already ({record.state}): the same id is one postback, sent once."
        )
    send_postback.apply_async((account, events[0]), {} if url is None else {"url": url}, task_id=postback_id)
    return [postback_id]


def _wait(ids: Sequence[str], wait_s: float) -> dict[str, Record | None]:
    """Wait until all postbacks have ended, or the time is over; return the record of each id."""
    from postbacks.broker.client import client
    from postbacks.ledger.ledger import Ledger
    from postbacks.ledger.states import FINAL_STATES

    ledger = Ledger(client())
    records: dict[str, Record | None] = dict.fromkeys(ids)
    pending = list(ids)
    deadline_s = time.monotonic() + wait_s
    while True:
        is_late = time.monotonic() >= deadline_s  # asked first, so that the last read is after the deadline
        records |= ledger.find_many(pending)
        pending = [
            postback_id
            for postback_id in pending
            if (record := records[postback_id]) is None or record.state not in FINAL_STATES
        ]
        if not pending or is_late:
            return records
        time.sleep(_POLL_EVERY_S)


def _report(postback_id: str, record: Record | None, *, as_json: bool) -> None:
    from postbacks.ledger.record import iso

    last = record.attempts[-1] if record is not None and record.attempts else None
    if as_json:
        print_json(
            {
                "id": postback_id,
                "state": record.state if record else "waiting",
                "attempts": len(record.attempts) if record else 0,
                "outcome": last.outcome if last else None,
                "status": last.status if last else None,
            }
        )
        return
    words = "not taken in yet"
    if record is not None:
        words = record.state
        if last is not None:
            words += f" after {len(record.attempts)} attempt{'s' if len(record.attempts) > 1 else ''}"
        if record.state != "delivered" and (why := reason_words(record)):
            words += f": {why}"
        if record.next_ms is not None:
            words += f"; sent again at {iso(record.next_ms)}"
    say(f"{postback_id} {words}")
