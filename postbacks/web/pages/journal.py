"""Page of the journal: who did what, when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.routing import Route

from postbacks.errors import InvalidQuery
from postbacks.history.times import window
from postbacks.operate import journal_entries
from postbacks.operate.journal_words import details_words
from postbacks.web.addresses import path_to
from postbacks.web.asking import broker_ms
from postbacks.web.filterbar import id_of
from postbacks.web.reading import in_thread
from postbacks.web.render import render, url
from postbacks.web.security.roles import needs
from postbacks.web.zones import in_zone, zone_of

if TYPE_CHECKING:
    from datetime import tzinfo

    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.ledger.journal import Entry

#: Entries of a page.
LIMIT: Final = 100
#: Filters of the page, in its address.
FILTERS: Final = ("account", "by", "action", "since", "until")


class Row(NamedTuple):
    """Entry with its details in words, and the address of what it was done to; empty where that has none."""

    entry: Entry
    details: str
    address: str


@needs("viewer")
async def page(request: Request) -> Response:
    """Show the journal, the newest entry first."""
    filters = {name: request.query_params.get(name, "").strip() for name in FILTERS}
    entries = await in_thread(
        request, read, filters, zone_of(request), before=request.query_params.get("before", "")
    )
    older = ""
    if len(entries) > LIMIT:
        entries = entries[:LIMIT]
        # An entry of the same millisecond may come twice; none is left out.
        older = url("/journal", **filters, before=entries[-1].at_ms + 1)
    rows = [Row(entry, details_words(entry.details), _address(entry)) for entry in entries]
    return render(request, "journal.html", rows=rows, filters=filters, older=older)


def _address(entry: Entry) -> str:
    """Return the address of what an action was done to."""
    subject, family = entry.subject, entry.action.partition(".")[0]
    if not subject:
        return ""
    if family in {"account", "secret"}:
        return path_to("accounts", subject)
    if family == "incident" and subject.isdecimal():
        return path_to("incidents", subject)
    if family == "job" or (family in {"resend", "cancel"} and "filters" in entry.details):
        return path_to("jobs", subject)
    return path_to("postbacks", subject) if id_of(subject) else ""


def read(filters: dict[str, str], zone: tzinfo, *, before: str = "") -> list[Entry]:
    """Read one entry more than a page has.

    Args:
        filters: as they were typed.
        zone: of times that name none.
        before: ms before which entries are read, of a page behind the first one.
    """
    if before and not before.isdecimal():
        raise InvalidQuery("That is no place in the journal: begin with its first page.")

    since, until = (in_zone(filters[name], zone) or None for name in ("since", "until"))
    span = window(since, until, broker_ms)
    until_ms = int(before[:15]) if before else span.until_ms
    names = {name: filters[name] for name in ("account", "by", "action")}
    return journal_entries(since_ms=span.since_ms, until_ms=until_ms, limit=LIMIT + 1, **names)


routes = [Route("/journal", page)]
