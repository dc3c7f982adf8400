"""Filters of a query: checked, then resolved into the small numbers that stand for names in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from sqlalchemy import text

from postbacks.catalogue import EVENTS, ORIGINS
from postbacks.errors import InvalidAccount, InvalidQuery, InvalidUrl
from postbacks.history import schema, values
from postbacks.history.engine import reader
from postbacks.history.query import LIMIT_MAX
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.ledger.record import iso
from postbacks.names import check_name
from postbacks.printable import quoted
from postbacks.privacy.spelling import canonical
from postbacks.urls import read_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Engine

    from postbacks.history.query import Query

#: States that the broker alone knows: history has each of them as waiting or parked.
LIVE_STATES: Final = frozenset({states.WAITING, states.HELD, states.SENDING, states.PARKED})
#: States that a query may name.
STATES: Final = (*schema.STATES, states.HELD, states.SENDING)
GROUPS: Final = tuple(dict.fromkeys(ORIGINS.values()))
#: Digits that a phone number has at least: short codes have three to six.
MIN_DIGITS: Final = 3
#: Filters by business value, the rarest kind first: a search goes over the first that is given.
VALUE_FILTERS: Final = ("tracking_id", "mms_id", "serial_number", "sub_id", "email", "number")
#: Ends without a delivery.
_UNDELIVERED: Final = frozenset({states.DEAD, states.SKIPPED, states.CANCELLED})
_STATUSES: Final = range(100, 600)
#: Integers that both databases take.
_INTEGERS: Final = range(2**63)

_ACCOUNT: Final = "SELECT id FROM accounts WHERE name = :name"
_ENDPOINTS: Final = "SELECT id FROM endpoints WHERE host = :host"
_KNOWN_NAMES: Final = {
    "account": "SELECT name FROM accounts WHERE name <> '' ORDER BY name LIMIT :most",
    "host": "SELECT DISTINCT host FROM endpoints WHERE host <> '' ORDER BY host LIMIT :most",
}
_OF_ACCOUNT: Final = " AND id IN (SELECT endpoint FROM account_endpoints WHERE account = :account)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Filters in the numbers of the database; None stands for any.

    Attributes:
        codes: numbers of the events.
        endpoints: numbers of the host's endpoints.
        state: number of a state; of a live one, the number that history has it by.
        live: the live state that is asked for; empty for none.
        opt_outs: opt-outs alone.
        undelivered: those alone that are not delivered.
        hashes: of the business values, the rarest kind first.
        nothing: the filter whose name the database does not have, so that nothing is found; empty otherwise.
    """

    account: int | None
    codes: tuple[int, ...] | None
    endpoints: tuple[int, ...] | None
    state: int | None
    live: str
    outcome: int | None
    status: int | None
    reason: str | None
    attempts: int | None
    slower_than_ms: int | None
    opt_outs: bool
    undelivered: bool
    since_ms: int | None
    until_ms: int | None
    hashes: tuple[int, ...]
    nothing: str


def check(query: Query) -> None:
    """Check what can be checked of a query without the database.

    Raises:
        InvalidQuery: a filter that nothing can have, or filters that exclude each other; says what to try.
    """
    _known("state", query.state, STATES)
    _known("outcome", query.outcome, schema.OUTCOMES)
    _known("group", query.group, GROUPS)
    if query.account:
        try:
            check_name(query.account)
        except InvalidAccount as error:
            raise InvalidQuery(str(error)) from None
    if query.status is not None and query.status not in _STATUSES:
        raise InvalidQuery(f"{quoted(query.status)} is no HTTP status; give one from 100 to 599.")
    if query.limit not in range(1, LIMIT_MAX + 1):
        raise InvalidQuery(
            f"A limit of {quoted(query.limit)} cannot be; give one from 1 to {LIMIT_MAX:,}, and go on with the page's cursor."
        )
    _check_numbers(query)
    _check_values(query)
    _check_exclusions(query)


def _check_numbers(query: Query) -> None:
    for name in ("attempts", "slower_than_ms", "since_ms", "until_ms"):
        number = getattr(query, name)
        if number is not None and number not in _INTEGERS:
            raise InvalidQuery(f"{quoted(number)} cannot be {name}; give a whole number from 0 on.")
    since_ms, until_ms = query.since_ms, query.until_ms
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise InvalidQuery(
            f"Nothing is accepted since {_time(since_ms)} and before {_time(until_ms)}; exchange the two times."
        )


def _time(ms: int) -> str:
    try:
        return str(iso(ms))
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def _check_values(query: Query) -> None:
    for name in (*VALUE_FILTERS, "host", "reason"):
        if getattr(query, name) == "":
            raise InvalidQuery(f"An empty {name} is in no postback; give its text, or leave the filter out.")
    if query.number is not None:
        digits = canonical("number", query.number)
        if not (digits.isascii() and digits.isdigit() and len(digits) >= MIN_DIGITS):
            raise InvalidQuery(
                f"{quoted(query.number)} is no phone number; give its {MIN_DIGITS} digits or more, such as +1 555 231 0137."
            )
    if query.email is not None and "@" not in query.email:
        raise InvalidQuery(
            f"{quoted(query.email)} is no e-mail address; give it whole, such as ann@example.com."
        )
    if query.host is not None:
        _host(query.host)


def _host(host: str) -> str:
    """Return a host in the form that endpoints have it in."""
    bare = host.strip()
    is_ipv6 = bare.count(":") > 1 and "[" not in bare and "/" not in bare
    try:
        url = read_url(bare if "://" in bare else f"http://[{bare}]/" if is_ipv6 else f"http://{bare}/")
    except InvalidUrl:
        raise InvalidQuery(
            f"{quoted(host)} is no host; give its name alone, without scheme, port and path, such as hooks.example.com."
        ) from None
    if "://" in bare or url.port != 80 or url.target != "/" or url.userinfo:
        raise InvalidQuery(f"{quoted(host)} is more than a host; give {url.host} alone.")
    return url.host


def _check_exclusions(query: Query) -> None:
    state, outcome, status = query.state, query.outcome, query.status
    if query.group and query.origin and ORIGINS.get(query.origin, query.group) != query.group:
        _exclude(
            f"group {query.group}",
            f"origin {query.origin}",
            f"origin {query.origin} is of group {ORIGINS[query.origin]}",
        )
    if state == states.DELIVERED:
        if outcome not in {None, "delivered"}:
            _exclude("state delivered", f"outcome {outcome}", "a delivered postback has outcome delivered")
        if status not in {None, 200}:
            _exclude("state delivered", f"status {status}", "only status 200 is a delivery")
        if query.reason is not None:
            _exclude("state delivered", f"reason {query.reason}", "a reason says why it was not delivered")
    if state in _UNDELIVERED and outcome == "delivered":
        _exclude(f"state {state}", "outcome delivered", "what has outcome delivered has state delivered")
    if query.undelivered and state == states.DELIVERED:
        _exclude("undelivered", "state delivered", "what is delivered is not undelivered")
    if outcome == "delivered" and status not in {None, 200}:
        _exclude("outcome delivered", f"status {status}", "only status 200 is a delivery")
    if outcome == "status" and status == 200:
        _exclude("outcome status", "status 200", "status 200 has outcome delivered")
    if query.attempts == 0:
        for name, value in (
            ("state delivered", state == states.DELIVERED),
            (f"outcome {outcome}", outcome is not None),
            (f"status {status}", status is not None),
            (f"an answer after more than {query.slower_than_ms} ms", query.slower_than_ms is not None),
        ):
            if value:
                _exclude("attempts 0", name, "without a POST there is no answer")


def _exclude(first: str, second: str, why: str) -> NoReturn:
    raise InvalidQuery(f"No postback has {first} and {second}: {why}; leave one of the two out.")


def _known(name: str, value: str | None, known: Iterable[str]) -> None:
    """Refuse a value that is none of the known ones, and suggest the nearest."""
    names = [*known]
    if value is None or value in names:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - needed only where a query is wrong

    of_any_case = {word.lower(): word for word in names}
    matches = get_close_matches(str(value).lower(), of_any_case, n=1)
    nearest = f" Did you mean {of_any_case[matches[0]]}?" if matches else ""
    raise InvalidQuery(f"There is no {name} {quoted(value)}.{nearest} Known: {', '.join(names)}.")


def resolve(connection: Connection, query: Query) -> Filters:
    """Resolve a query's names into the numbers of the database.

    Raises:
        InvalidQuery: as ``check``; an event that neither the catalogue nor the database has, too.
    """
    check(query)
    codes = _codes(connection, query)
    endpoints = account = None
    if query.account is not None:
        account = next(iter(_ids(connection, _ACCOUNT, name=query.account)), -1)
    if query.host is not None:
        of_account = "" if account is None else _OF_ACCOUNT
        endpoints = _ids(connection, _ENDPOINTS + of_account, host=_host(query.host), account=account)
    live = query.state if query.state in LIVE_STATES else ""
    missing = {"account": account == -1, "code": codes == (), "host": endpoints == ()}
    return Filters(
        account=account,
        codes=codes,
        endpoints=endpoints,
        state=None if query.state is None else schema.STATES.get(query.state, schema.STATES[states.WAITING]),
        live=live or "",
        outcome=None if query.outcome is None else schema.OUTCOMES[query.outcome],
        status=query.status,
        reason=query.reason,
        attempts=query.attempts,
        slower_than_ms=query.slower_than_ms,
        opt_outs=query.opt_outs,
        undelivered=query.undelivered,
        since_ms=query.since_ms,
        until_ms=query.until_ms,
        hashes=tuple(
            values.hash_of(kind, value)
            for kind in VALUE_FILTERS
            if (value := getattr(query, kind)) is not None
        ),
        nothing=next((name for name, is_missing in missing.items() if is_missing), ""),
    )


def _ids(connection: Connection, statement: str, **parameters: object) -> tuple[int, ...]:
    return tuple(connection.execute(text(statement), parameters).scalars())


def _codes(connection: Connection, query: Query) -> tuple[int, ...] | None:
    """Find the events of origin, code and group: those of the catalogue, and those that a newer version has written."""
    if query.origin is None and query.code is None and query.group is None:
        return None
    rows = connection.execute(text("SELECT id, origin, code, group_name FROM codes ORDER BY id")).all()
    events = {(row.origin, row.code, row.group_name) for row in rows}
    events |= {(origin, code, ORIGINS[origin]) for origin, code in EVENTS}
    _known("origin", query.origin, [*dict.fromkeys([*ORIGINS, *sorted({event[0] for event in events})])])
    _known("code", query.code, sorted({event[1] for event in events}))

    def fits(origin: str, code: str, group: str) -> bool:
        return query.origin in {None, origin} and query.code in {None, code} and query.group in {None, group}

    if not any(fits(*event) for event in events):
        origins = sorted({event[0] for event in events if event[1] == query.code})
        other = f"origin {query.origin}" if query.origin is not None else f"group {query.group}"
        _exclude(f"code {query.code}", other, f"code {query.code} is of origin {' and '.join(origins)}")
    return tuple(row.id for row in rows if fits(row.origin, row.code, row.group_name))


def known_names(most: int, *, engine: Engine | None = None) -> dict[str, list[str]]:
    """Read names that the filters ``account`` and ``host`` find something by, at most so many of each.

    Raises:
        HistoryOff, HistoryError: as ``search``.
    """
    with reading(engine or reader()) as connection:
        return {
            name: list(connection.execute(text(statement), {"most": most}).scalars())
            for name, statement in _KNOWN_NAMES.items()
        }
