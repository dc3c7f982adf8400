"""Evidence of a receiver's incident: its first failure, its latest POSTs, an answer of it, and what keeps its oldest postback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.broker.client import client
from postbacks.history import copies, tries
from postbacks.history.engine import reader
from postbacks.history.transactions import reading
from postbacks.monitor.causes import explain
from postbacks.operate.incidents.receivers import KIND
from postbacks.privacy import masker
from postbacks.retry import countdown_ms

if TYPE_CHECKING:
    from postbacks.history.tries import Try
    from postbacks.ledger.record import Attempt
    from postbacks.operate.incidents.store import Incident
    from postbacks.settings import Settings

#: POSTs that are shown beside each other.
TRIES_MAX: Final = 120
#: Accounts whose POSTs are looked at.
ACCOUNTS_MAX: Final = 5
#: Time before an incident, and behind its end, whose POSTs are shown too.
_AROUND_MS: Final = 600_000


class Sample(NamedTuple):
    """Failed attempt, as its receiver has answered it, without what is personal."""

    postback_id: str
    attempt: Attempt


class Evidence(NamedTuple):
    """Evidence of an incident.

    Attributes:
        first: its first failed POST; None where the history has none.
        tries: its latest POSTs, and those before it, the oldest first.
        sample: the latest failed one, with its answer; None where none failed.
        oldest_id: the oldest postback that has not ended; None where none waits.
        causes: why that one has not been sent, a clause each.
    """

    first: Try | None = None
    tries: tuple[Try, ...] = ()
    sample: Sample | None = None
    oldest_id: str | None = None
    causes: tuple[str, ...] = ()


def evidence(incident: Incident, settings: Settings) -> Evidence:
    """Gather the evidence of an incident; of one that is no receiver's there is none.

    Raises:
        BrokerError: the broker cannot be asked.
        HistoryError: the database cannot be used.
    """
    if incident.kind != KIND:
        return Evidence()
    since_ms = incident.since_ms or incident.first_ms
    life_ms = (settings.max_resends + 1) * countdown_ms(settings)
    until_ms = (incident.course.ended_ms or incident.course.looked_ms) + _AROUND_MS
    with reading(reader()) as connection:
        place = tries.place_of(connection, incident.subject, incident.accounts[:ACCOUNTS_MAX])
        if place is None:
            return Evidence()
        from_ms = since_ms - life_ms
        first = tries.first_failed(connection, place, from_ms, since_ms, until_ms)
        shown = tries.latest(connection, place, from_ms - _AROUND_MS, until_ms, TRIES_MAX)
        failed = next((one for one in reversed(shown) if not one.is_delivered), first)
        records = copies.read_rows(connection, [failed.row_id]) if failed else ()
        oldest_id = tries.oldest_open(connection, place) if incident.is_open else None
    sample = None
    if failed is not None and records:
        record = records[0].record.masked(masker(settings=settings))
        attempt = next((one for one in record.attempts if one.number == failed.number), None)
        sample = attempt and Sample(record.id, attempt)
    explanation = explain(client(), oldest_id, settings) if oldest_id else None
    causes = tuple(cause.sentence for cause in explanation.causes) if explanation else ()
    return Evidence(first, tuple(shown), sample, oldest_id if causes else None, causes)
