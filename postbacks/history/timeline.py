"""Story of a message: everything that happened to it in time order over all its postbacks, and what has not come.

The postbacks of a message share its TRACKINGID. What became of its content before (stored, encoded) has its MMSID alone.
Nothing else ties events to a message: what its number did later (a message of its own, an opt-out) is told apart, by
account and number, for ``AFTERWARDS_MS`` and as a guess of the reader's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, text

from postbacks.broker import client as broker
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue import EVENTS
from postbacks.catalogue.successors import SUCCESSORS
from postbacks.errors import BrokerError, UnknownPostback
from postbacks.history import copies, facts, schema, values
from postbacks.history.engine import reader
from postbacks.history.slots import first_of_hour
from postbacks.history.transactions import reading
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.reasons import reason_of
from postbacks.ledger.record import iso
from postbacks.ledger.states import FINAL_STATES
from postbacks.printable import quoted
from postbacks.privacy.tags import NUMBER, TEXT, kind_of, tag_of_person

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis
    from sqlalchemy import Connection, Engine

    from postbacks.catalogue.successors import Successors
    from postbacks.history.copies import Copy
    from postbacks.ledger.record import Record
    from postbacks.privacy import Masker

#: Postbacks of a message that are told; an MMSID may have been sent to many.
POSTBACKS_MAX: Final = 200
#: Time after its last postback for which is told what a message's number did.
AFTERWARDS_MS: Final = 3 * 86_400_000
#: Postbacks of it that are told.
AFTERWARDS_MAX: Final = 20
#: Messages of an MMSID whose receipts without an MMSID are looked for.
_MESSAGES_MAX: Final = 50
#: Origins of what somebody does at a phone.
_ORIGINS_OF_PHONES: Final = ("SMS_MO", "MMS_MO", "SUB")
#: Tags that say what happened, the most telling first.
_TELLING: Final = ("TEXT", "STATUS", "STATUSDETAILS", "SOURCE")
#: Characters of a text that is told.
_TEXT_MAX: Final = 60

_BY_VALUE: Final = text(
    "SELECT p.row_id FROM slots s CROSS JOIN business_values v CROSS JOIN postbacks p"
    " WHERE v.slot = s.slot AND v.hash = :hash AND p.row_id = v.row_id ORDER BY p.accepted_ms, p.row_id LIMIT :most"
)
_AFTERWARDS: Final = text(
    "SELECT p.row_id FROM slots s CROSS JOIN business_values v CROSS JOIN postbacks p JOIN codes c ON c.id = p.code"
    " WHERE s.slot BETWEEN :first AND :last AND v.slot = s.slot AND v.hash = :hash AND p.row_id = v.row_id"
    " AND p.accepted_ms BETWEEN :since AND :until AND p.account = (SELECT id FROM accounts WHERE name = :account)"
    " AND c.origin IN :origins ORDER BY p.accepted_ms, p.row_id LIMIT :most"
).bindparams(bindparam("origins", expanding=True))


class Moment(NamedTuple):
    """Moment of a story. Times are ms since the epoch on the broker's clock.

    Attributes:
        at_ms: when.
        what: ``accepted``, ``post``, ``ended``, ``due`` (the next POST of an unfinished one), or ``now`` (its state).
        code: of the event.
        words: what happened.
        id: of the postback.
        created_ms: when the postback was accepted: an id may have several acceptances.
    """

    at_ms: int
    what: str
    code: str
    words: str
    id: str
    created_ms: int

    def to_public_dict(self) -> dict[str, Any]:
        """Return the moment as ``postbacks story --json`` prints it."""
        return {
            "at": iso(self.at_ms),
            "what": self.what,
            "code": self.code,
            "words": self.words,
            "id": self.id,
            "created": iso(self.created_ms),
        }


class Awaited(NamedTuple):
    """Event that is awaited after another one, and has not come.

    Attributes:
        name: noun for it.
        after: code of the event.
        codes: any of them would do.
        since_ms: when the event was accepted.
        until_ms: when it should have come.
        for_ms: how long it has been awaited.
        id: of the event's postback.
    """

    name: str
    after: str
    codes: tuple[str, ...]
    since_ms: int
    until_ms: int
    for_ms: int
    id: str

    @property
    def is_missing(self) -> bool:
        """True where it should have come by now."""
        return self.since_ms + self.for_ms > self.until_ms

    def to_public_dict(self) -> dict[str, Any]:
        """Return it as ``postbacks story --json`` prints it."""
        return {
            "name": self.name, "after": self.after, "codes": list(self.codes), "since": iso(self.since_ms),
            "until": iso(self.until_ms), "missing": self.is_missing, "id": self.id,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Story of one account's message.

    Attributes:
        account: the account's name.
        tracking_ids: of the message; several where the story is an MMSID's.
        mms_ids: of the message.
        number: the phone's; empty where it is not known, or where there are several.
        postbacks: records of its postbacks, in the order of their acceptance.
        moments: everything that happened, in time order.
        awaited: what has not come.
        afterwards: what the phone's number did later in this account, as moments.
        more: True where there are more than ``POSTBACKS_MAX`` postbacks: these are the first.
        more_afterwards: True where the number did more than ``AFTERWARDS_MAX`` things.
    """

    account: str
    tracking_ids: tuple[str, ...]
    mms_ids: tuple[str, ...]
    number: str
    postbacks: tuple[Record, ...]
    moments: tuple[Moment, ...]
    awaited: tuple[Awaited, ...]
    afterwards: tuple[Moment, ...]
    more: bool
    more_afterwards: bool

    def to_public_dict(self) -> dict[str, Any]:
        """Return the story as ``postbacks story --json`` prints it, a line a message."""
        return {
            "account": self.account,
            "tracking_ids": list(self.tracking_ids),
            "mms_ids": list(self.mms_ids),
            "number": self.number or None,
            "postbacks": [record.to_public_dict() for record in self.postbacks],
            "moments": [moment.to_public_dict() for moment in self.moments],
            "awaited": [awaited.to_public_dict() for awaited in self.awaited],
            "afterwards": [moment.to_public_dict() for moment in self.afterwards],
            "more": self.more,
            "more_afterwards": self.more_afterwards,
        }


class Story(NamedTuple):
    """Answer to what happened to a message.

    Attributes:
        value: what was asked for.
        kind: what it is: ``id``, ``tracking_id`` or ``mms_id``.
        messages: one an account that has it.
        recorded_ms: until when history had read the broker's changes; None where it never has.
        read_ms: the broker's time at which states of unfinished postbacks were read; None where it could not be asked.
    """

    value: str
    kind: str
    messages: tuple[Message, ...]
    recorded_ms: int | None
    read_ms: int | None


class _Told(NamedTuple):
    """Copy of a postback, with the tags of its document."""

    copy: Copy
    tags: dict[str, str]
    is_masked: bool = False

    @property
    def record(self) -> Record:
        return self.copy.record

    def masked(self, mask: Masker) -> _Told:
        """Return it without what is personal."""
        tags = {tag: mask.value(tag, value) for tag, value in self.tags.items()}
        return _Told(self.copy._replace(record=self.record.masked(mask)), tags, is_masked=True)


def story(
    value: str,
    *,
    account: str | None = None,
    client: redis.Redis | None = None,
    engine: Engine | None = None,
    mask: Masker | None = None,
) -> Story:
    """Tell what happened to a message.

    Args:
        value: a postback's id, else a TRACKINGID or an MMSID.
        account: of this account alone.
        client: of the broker that knows the states of unfinished postbacks; without it the one of the settings.
        engine: of the history; without it the one of the settings.
        mask: for what is personal; without it the story has it all.

    Raises:
        UnknownPostback: history has no such postback.
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    with reading(engine or reader()) as connection:
        kind, found, more = _find(connection, value, account)
        recorded_ms = facts.number(connection, facts.RECORDED_MS)
        if not found:
            whose = f" of account {account}" if account else ""
            raise UnknownPostback(
                f"The history has no postback{whose} with the id, TRACKINGID or MMSID {quoted(value)}; it has recorded "
                f"until {iso(recorded_ms) or 'now nothing'}."
            )
        found, read_ms = _live(client, found)
        present_ms = read_ms or int(time() * 1000)
        by_account: defaultdict[str, list[_Told]] = defaultdict(list)
        for told in found:
            by_account[told.record.account].append(told)
        messages = tuple(
            _message(connection, name, postbacks, present_ms, mask, more=more)
            for name, postbacks in sorted(by_account.items())
        )
    return Story(value, kind, messages, recorded_ms, read_ms)


# -- which postbacks a message has --------------------------------------------------------------------


def _find(connection: Connection, value: str, account: str | None) -> tuple[str, list[_Told], bool]:
    """Find the postbacks of a message; return what the value is, them in time order, and whether there are more."""

    def is_asked_for(told: _Told) -> bool:
        return account in {None, told.record.account}

    def by_value(kind: str, tag: str, wanted: str) -> list[_Told]:
        parameters = {"hash": values.hash_of(kind, wanted), "most": POSTBACKS_MAX + 1}
        rows = connection.execute(_BY_VALUE, parameters).scalars().all()
        # a document that is pruned cannot be looked at; two values have one hash once in 10^12 searches
        return [
            told
            for told in _read(connection, rows)
            if told.tags.get(tag, wanted) == wanted and is_asked_for(told)
        ]

    rows = copies.rows_of(connection, value)
    of_id = [told for told in _read(connection, rows) if is_asked_for(told)]
    if of_id:
        tags = of_id[0].tags
        kind, account = "id", of_id[0].record.account
        tracking_id, mms_id = tags.get("TRACKINGID", ""), tags.get("MMSID", "")
    else:
        kind, tracking_id, mms_id = "", value, value
    found = {told.copy.row_id: told for told in of_id}
    of_message = by_value("tracking_id", "TRACKINGID", tracking_id) if tracking_id else []
    of_content = by_value("mms_id", "MMSID", mms_id) if mms_id and not (of_id and tracking_id) else []
    kind = kind or ("tracking_id" if of_message else "mms_id")
    found |= {told.copy.row_id: told for told in (*of_message, *of_content)}
    # Receipts of links have the TRACKINGID alone, and what became of the content has the MMSID alone.
    for other in _names(of_content, "TRACKINGID")[:_MESSAGES_MAX]:
        found |= {told.copy.row_id: told for told in by_value("tracking_id", "TRACKINGID", other)}
    for other in _names(of_message, "MMSID")[:_MESSAGES_MAX]:
        found |= {
            told.copy.row_id: told
            for told in by_value("mms_id", "MMSID", other)
            if "TRACKINGID" not in told.tags
            and told.record.account in {first.record.account for first in of_message}
        }
    in_order = sorted(found.values(), key=lambda told: (told.record.created_ms, told.copy.row_id))
    return kind, in_order[:POSTBACKS_MAX], len(in_order) > POSTBACKS_MAX


def _names(postbacks: Iterable[_Told], tag: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(told.tags[tag] for told in postbacks if tag in told.tags))


def _read(connection: Connection, row_ids: Sequence[int]) -> list[_Told]:
    return [_Told(copy, values.read_tags(copy.record.xml)) for copy in copies.read_rows(connection, row_ids)]


def _live(client: redis.Redis | None, postbacks: list[_Told]) -> tuple[list[_Told], int | None]:
    """Read from the broker the records of what is not at its end; return all, and the broker's time of the reading."""
    is_open = [told.record.id for told in postbacks if told.copy.is_open]
    try:
        client = client or broker.client()
        with broker_errors():
            read_ms = now_ms(client)
        records = Ledger(client).find_many(is_open)
    except BrokerError:
        return postbacks, None
    live = []
    for told in postbacks:
        record = records.get(told.record.id) if told.copy.is_open else None
        if record is not None and record.created_ms == told.record.created_ms:
            attempts = {attempt.number: attempt for attempt in (*told.record.attempts, *record.attempts)}
            in_order = tuple(attempts[number] for number in sorted(attempts))
            resends = tuple(sorted({*told.record.resends, *record.resends}))
            copy = told.copy._replace(record=replace(record, attempts=in_order, resends=resends))
            live.append(told._replace(copy=copy))
        else:
            live.append(told)
    return live, read_ms


# -- what happened to them ---------------------------------------------------------------------------


def _message(
    connection: Connection,
    account: str,
    postbacks: list[_Told],
    present_ms: int,
    mask: Masker | None,
    *,
    more: bool,
) -> Message:
    numbers = dict.fromkeys(number for told in postbacks if (number := _number(told)))
    number = next(iter(numbers)) if len(numbers) == 1 else ""
    afterwards = _afterwards(connection, account, number, postbacks) if number else []
    if mask is not None:
        # Only now: what belongs together is found by the values themselves.
        number = mask.value("number", number)
        postbacks = [told.masked(mask) for told in postbacks]
        afterwards = [told.masked(mask) for told in afterwards]
    return Message(
        account=account,
        tracking_ids=_names(postbacks, "TRACKINGID"),
        mms_ids=_names(postbacks, "MMSID"),
        number=number,
        postbacks=tuple(told.record for told in postbacks),
        moments=tuple(sorted(_moments(postbacks, present_ms), key=lambda moment: moment.at_ms)),
        awaited=tuple(_awaited(postbacks, present_ms)),
        afterwards=tuple(_accepted(told) for told in afterwards[:AFTERWARDS_MAX]),
        more=more,
        more_afterwards=len(afterwards) > AFTERWARDS_MAX,
    )


def _number(told: _Told) -> str:
    """Return the number of the phone that an event is about."""
    tag = tag_of_person(told.record.origin)
    return told.tags.get(tag, "") if kind_of(tag) == NUMBER else ""


def _afterwards(connection: Connection, account: str, number: str, postbacks: list[_Told]) -> list[_Told]:
    since_ms = postbacks[0].record.created_ms
    until_ms = postbacks[-1].record.created_ms + AFTERWARDS_MS
    rows = connection.execute(
        _AFTERWARDS,
        {
            "hash": values.hash_of("number", number), "account": account, "origins": _ORIGINS_OF_PHONES,
            "since": since_ms, "until": until_ms, "first": first_of_hour(since_ms),
            "last": until_ms // schema.SLOT_MS, "most": AFTERWARDS_MAX + len(postbacks) + 1,
        },
    ).scalars().all()  # fmt: skip
    told_already = {told.copy.row_id for told in postbacks}
    others = _read(connection, [row_id for row_id in rows if row_id not in told_already])
    return [told for told in others if not told.tags or _number(told) == number]


def _accepted(told: _Told) -> Moment:
    record = told.record
    event = EVENTS.get((record.origin, record.code))
    words = event.meaning if event else "an event of a newer version" if record.group else "no postback"
    telling = [
        words_of_tag if told.is_masked and kind_of(tag) == TEXT else f'"{words_of_tag}"'
        for tag in _TELLING
        if (words_of_tag := _shortened(told.tags.get(tag, "")))
    ]
    if telling:
        words += f": {', '.join(telling)}"
    return _moment(record, record.created_ms, "accepted", words)


def _moment(record: Record, at_ms: int, what: str, words: str) -> Moment:
    return Moment(at_ms, what, record.code, words, record.id, record.created_ms)


def _shortened(words: str) -> str:
    return words if len(words) <= _TEXT_MAX else f"{words[: _TEXT_MAX - 1]}…"


def _moments(postbacks: list[_Told], present_ms: int) -> Iterable[Moment]:
    for told in postbacks:
        record = told.record
        yield _accepted(told)
        pruned = told.copy.begun - len(record.attempts)
        for attempt in record.attempts:
            answer = f"{attempt.status} after" if attempt.status else f"{attempt.outcome} after"
            words = f"POST {attempt.number}: {answer} {attempt.elapsed_ms:,} ms"
            if attempt.outcome != "delivered" and attempt.detail:
                words += f", {attempt.detail}"
            if attempt.excerpt:
                words += f' "{_shortened(attempt.excerpt)}"'
            yield _moment(record, attempt.at_ms, "post", words)
        for resend in record.resends:
            words = f"sent again by {resend.by or 'somebody'}" + (f", job {resend.job}" if resend.job else "")
            yield _moment(record, resend.at_ms, "resent", words)
        if record.state not in FINAL_STATES:
            yield _unfinished(record, present_ms)
        elif record.state != "delivered":
            reason = reason_of(record)
            words = f"{record.state}: {reason}" if reason else record.state
            yield _moment(record, record.ended_ms or record.created_ms, "ended", words)
        elif pruned > 0:
            words = f"delivered; {pruned} of its {told.copy.begun} POSTs are pruned"
            yield _moment(record, record.ended_ms or record.created_ms, "ended", words)


def _unfinished(record: Record, present_ms: int) -> Moment:
    if record.next_ms is not None:
        return _moment(record, record.next_ms, "due", "parked; the next POST is due")
    words = {
        "waiting": "waits for its POST",
        "held": "waits for its POST",
        "sending": "its POST is open",
        "parked": "parked; when it is due cannot be asked",
    }.get(record.state, "its record has left the broker before its end was recorded")
    return _moment(record, present_ms, "now", words)


def _awaited(postbacks: list[_Told], present_ms: int) -> Iterable[Awaited]:
    """Yield what is awaited after events of a message and has not come, in their order."""
    for told in postbacks:
        record = told.record
        successors = SUCCESSORS.get((record.origin, record.code))
        if successors is None or any(_follows(told, other, successors) for other in postbacks):
            continue
        until_ms = record.created_ms + successors.within_s * 1000
        for_ms = max(0, present_ms - record.created_ms)
        yield Awaited(
            successors.name, record.code, successors.codes, record.created_ms, until_ms, for_ms, record.id
        )


def _follows(told: _Told, other: _Told, successors: Successors) -> bool:
    """Tell whether an event is what is awaited after another one; where a document is pruned, in doubt it is."""
    if other.record.origin != told.record.origin or other.record.code not in successors.codes:
        return False
    shared = "TRACKINGID" if "TRACKINGID" in told.tags else "MMSID"
    return not told.tags or not other.tags or told.tags.get(shared) == other.tags.get(shared)
