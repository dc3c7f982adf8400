"""A postback's record as Python values.

The record is one hash. Scripts write its fields: schema, state, account, group, origin, code, url,
endpoint, xml, created_ms, sequence, attempts (POSTs begun), failures (attempts that count against
the resends), bytes, digest (``ledger/digest.py``), and where they apply next_ms, sent_ms, ended_ms, reason, cancel,
raw, in_lane (``queue/cancel.lua``), own (whose its URL is: ``queue/accept.lua``), ready_ms (since when its first POST could
have begun, where that is not created_ms: the end of the caller's countdown, a resend by hand, or where ticks were missing
the last one), stays (``queue/retire.lua``), first_id (the id that it came with, which another postback has), stub (only its
id, account, code, time and digest are kept), units (what it counts against its account's limit, where that is more than
one), and one ``attempt:N`` a POST (JSON).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from postbacks.urls import redacted

#: Version of the layout of records; every record carries it.
SCHEMA: Final = 1
#: What a record and its place in an index take in the broker beside its XML, URL and raw message:
#: MEMORY USAGE of a delivered one on Valkey 9.1 (tests/integration/test_moves.py holds it to the fact).
OVERHEAD_BYTES: Final = 1100
#: The same of a stub, all in all.
STUB_BYTES: Final = 600
#: Characters of a reason that a record keeps: it may quote what somebody sent.
MAX_REASON: Final = 2000
#: Characters of an attempt's detail that a record keeps.
MAX_DETAIL: Final = 500


def shortened(text: str, most: int) -> str:
    """Cut a text that has more than so many characters, and say how many it had."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def id_text(value: Any) -> Any:
    """Turn a UUID, which programs have ids as, into its text; anything else stays as it is."""
    return str(value) if isinstance(value, UUID) else value


@lru_cache(maxsize=4096)
def iso(ms: int | None) -> str | None:
    """A time of the broker's clock (ms since the epoch) as ISO 8601 UTC with milliseconds."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Attempt(NamedTuple):
    """One POST of a postback and what came of it.

    Attributes:
        number: 1 for the first POST.
        at_ms: when it began, on the broker's clock.
        outcome: one of ``delivery.outcomes.OUTCOMES``, or ``unknown``.
        status: HTTP status, where an answer came.
        elapsed_ms: from the begin of the POST to its outcome.
        detail: the outcome in words, without secrets.
        excerpt: the first bytes of a failed answer's body, as text.
        shared: a connection that was tried for another postback of the endpoint stood for this one.
    """

    number: int
    at_ms: int
    outcome: str
    status: int | None = None
    elapsed_ms: int = 0
    detail: str = ""
    excerpt: str = ""
    shared: bool = False

    def to_json(self) -> str:
        """As the record keeps it; what is empty is left out."""
        if self.outcome == "delivered" and self.status and not (self.detail or self.excerpt or self.shared):
            # Nearly all are; json takes ten times as long.
            elapsed = f', "elapsed_ms": {self.elapsed_ms}' if self.elapsed_ms else ""
            return (
                f'{{"number": {self.number}, "at_ms": {self.at_ms}, "outcome": "delivered", '
                f'"status": {self.status}{elapsed}}}'
            )
        always = {"number": self.number, "at_ms": self.at_ms, "outcome": self.outcome}
        rest = {
            "status": self.status,
            "elapsed_ms": self.elapsed_ms,
            "detail": shortened(self.detail, MAX_DETAIL),
            "excerpt": self.excerpt,
            "shared": self.shared,
        }
        return json.dumps(always | {name: value for name, value in rest.items() if value}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Attempt:
        """As ``to_json`` wrote it; fields of a newer version are left out."""
        data = json.loads(text)
        return cls(**{name: data[name] for name in cls._fields if name in data})

    def to_public_dict(self) -> dict[str, Any]:
        """As ``postbacks show --json`` prints it."""
        shown: dict[str, Any] = {
            "number": self.number,
            "at": iso(self.at_ms),
            "outcome": self.outcome,
            "status": self.status,
            "elapsed_ms": self.elapsed_ms,
        }
        if self.detail:
            shown["detail"] = self.detail
        if self.excerpt:
            shown["excerpt"] = self.excerpt
        if self.shared:
            shown["shared"] = True
        return shown


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger knows of a postback. Times are ms since the epoch on the broker's clock."""

    id: str
    state: str
    account: str
    group: str
    origin: str
    code: str
    url: str
    xml: bytes
    created_ms: int
    sequence: int
    reason: str
    attempts: tuple[Attempt, ...]
    failures: int
    next_ms: int | None
    ended_ms: int | None
    raw: bytes | None
    #: None in a record of version 0.1.0.
    digest: bytes | None = None
    #: The id that it came with, where that is another postback's.
    first_id: str = ""
    #: Whether its URL came with the call.
    own_url: bool = False
    #: Whether its document was not kept, as its account's dead took too much.
    is_stub: bool = False

    @classmethod
    def from_hash(cls, postback_id: str, fields: dict[bytes, bytes]) -> Record:
        """Build one from the hash as redis-py returns it (bytes)."""
        text = {
            name.decode(): value.decode("utf-8", "replace")
            for name, value in fields.items()
            if name not in {b"xml", b"raw", b"digest"}
        }
        attempts = sorted(
            (Attempt.from_json(value) for name, value in text.items() if name.startswith("attempt:")),
            key=lambda attempt: attempt.number,
        )
        return cls(
            id=postback_id,
            state=text["state"],
            account=text.get("account", ""),
            group=text.get("group", ""),
            origin=text.get("origin", ""),
            code=text.get("code", ""),
            url=text.get("url", ""),
            xml=fields.get(b"xml", b""),
            created_ms=int(text.get("created_ms", 0)),
            sequence=int(text.get("sequence", 0)),
            reason=text.get("reason", ""),
            attempts=tuple(attempts),
            failures=int(text.get("failures", 0)),
            next_ms=int(float(text["next_ms"])) if "next_ms" in text else None,
            ended_ms=int(float(text["ended_ms"])) if "ended_ms" in text else None,
            raw=fields.get(b"raw"),
            digest=fields.get(b"digest"),
            first_id=text.get("first_id", ""),
            own_url=text.get("own", "0") != "0",
            is_stub="stub" in text,
        )

    @property
    def ended_by_attempt(self) -> bool:
        """Whether its last attempt is why it has ended, and not what became of it afterwards (an origin switched off)."""
        return bool(self.attempts) and self.reason in {"", "poison", self.attempts[-1].outcome}

    def to_public_dict(self) -> dict[str, Any]:
        """As ``postbacks show --json`` prints it: no password of a URL, no raw message."""
        return {
            "id": self.id,
            "account": self.account,
            "group": self.group,
            "origin": self.origin,
            "code": self.code,
            "url": redacted(self.url) if self.url else None,
            "state": self.state,
            "reason": self.reason or None,
            "sequence": self.sequence,
            "created": iso(self.created_ms),
            "attempts": [attempt.to_public_dict() for attempt in self.attempts],
            "next_at": iso(self.next_ms),
        }
