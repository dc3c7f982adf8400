"""Journal on its way: who did what, when and why, as it waits in the broker.

An entry waits in a stream of its own beside the feed of the history. The recorder copies it to the database; where the feed is
off a tick writes it to the log. The feed itself drops its oldest entries where it is too long, as a resync finds those
postbacks again; an entry of the journal is nowhere else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker import lua
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.ledger.record import iso
from postbacks.printable import printable

if TYPE_CHECKING:
    import redis

#: Entries that may wait: about 5 MB, 50 MB at the very most.
MAX_WAITING: Final = 10_000
#: Replies of ``append``: a recorder comes for the entry, none does, or too many wait.
RECORDED, LOGGED, REFUSED = 1, 0, -1
#: Fields of an entry as it is written, but for its time; a newer version's others are left out.
_TYPES: Final = {"id": str, "by": str, "action": str, "subject": str, "why": str, "details": dict}


class Entry(NamedTuple):
    """Entry of the journal. Its texts are printable.

    Attributes:
        id: its own, by which it is known where it is read twice.
        at_ms: the broker's clock when it was written; 0 before.
        by: who did it.
        action: what was done, a word such as ``account.set``.
        subject: what it was done to; may be empty.
        why: the reason that was given; may be empty.
        details: what else is known, no secret among it.
    """

    id: str
    at_ms: int
    by: str
    action: str
    subject: str = ""
    why: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    def to_log(self) -> dict[str, Any]:
        """Return the fields of the log event ``journal.entry``."""
        details = json.dumps(self.details, ensure_ascii=False) if self.details else None
        return {
            "at": iso(self.at_ms) if self.at_ms else None,
            "by": self.by,
            "action": self.action,
            "subject": self.subject or None,
            "why": self.why or None,
            "details": details,
            "entry": self.id,
        }


def append(client: redis.Redis, entry: Entry) -> int:
    """Add an entry; return ``RECORDED``, ``LOGGED`` or ``REFUSED``. A full broker takes it too.

    Raises:
        BrokerError: the broker cannot be used.
    """
    script = lua.load("history/_clock", "ledger/journal", when_full=True)
    fields = {name: value for name, value in entry._asdict().items() if name != "at_ms" and value}
    with broker_errors():
        return int(
            client.eval(script.text, len(script.keys), *script.keys, 0, json.dumps(fields), MAX_WAITING)
        )


def waiting(client: redis.Redis, at_most: int) -> list[tuple[str, Entry]]:
    """Read the oldest entries that wait, each with its id in the stream.

    Raises:
        BrokerError: the broker cannot be used.
    """
    with broker_errors():
        rows: Any = client.xrange(keys.JOURNAL, count=at_most)
    return [(text(place), _entry(text(place), fields)) for place, fields in rows]


def drop(client: redis.Redis, through: str) -> None:
    """Drop the entries up to this one, by its id in the stream, as they are copied.

    Raises:
        BrokerError: the broker cannot be used.
    """
    ms, _, number = through.partition("-")
    with broker_errors():
        client.xtrim(keys.JOURNAL, minid=f"{ms}-{int(number) + 1}", approximate=False)


def _entry(place: str, fields: dict[bytes, bytes]) -> Entry:
    """Read an entry; one that cannot be read becomes an entry that says so, and keeps none behind it back."""
    written = fields.get(b"entry", b"{}")
    try:
        known = {name: value for name, value in json.loads(written).items() if name in _TYPES}
        if {*_TYPES} - known.keys() - {"subject", "why", "details"} or any(
            not isinstance(value, _TYPES[name]) for name, value in known.items()
        ):
            return _unreadable(place, written)
        return Entry(at_ms=int(fields[b"at_ms"]), **known)
    except (ValueError, AttributeError, KeyError):
        return _unreadable(place, written)


def _unreadable(place: str, written: bytes) -> Entry:
    words = printable(written.decode("utf-8", "replace"))[:300]
    at_ms = int(place.partition("-")[0])
    return Entry(f"unreadable-{place}", at_ms, "unknown", "unreadable", details={"entry": words})
