"""Record of a postback as Python values.

A record is one hash. Scripts write its fields: schema, state, account, group, origin, code, url, endpoint, xml, created_ms,
sequence, attempts, failures, bytes, digest and own; where they apply the others; and one ``attempt:N`` (JSON) for each
POST that has ended, the *note* of that attempt.

==========================  ==========================================================================================
``state``                   as ``states.py`` names it, but for ``held``, which no record says
``attempts``                POSTs begun: the number of the latest
``failures``                attempts that count against the resends
``digest``                  ``ledger/digest.py``
``own``                     whose its URL is (``queue/accept.lua``)
``sent_ms``                 when its latest POST began
``next_ms``                 when it is due, while it is parked
``ready_ms``                since when its first POST could have begun, where that is not ``created_ms``: the end of the
                            caller's countdown, a resend by hand, or the last tick before some were missing
``ended_ms``, ``reason``    when and why it has ended; ``reason`` also why it was put off without an attempt
``cancel``                  revoked while a loop had it
``in_lane``                 revoked deep in its lane (``queue/cancel.lua``)
``raw``                     message as it came, of what is no postback
``first_id``                id that it came with, which another postback has
``stub``                    of a dead one whose document was not kept
``opt_out``                 of an opt-out (``catalogue/opt_outs.py``); what version 0.1.0 accepted has none
``forgotten``               when it was erased, as a person was to be forgotten (``queue/erase.lua``)
``units``                   what it counts against its account's limit, where that is more than one
``resent:N``                note of a resend by hand that came after N POSTs, ``Resend`` as JSON (``queue/_resend.lua``)
``suspicion``               in the quarantine ``few`` or ``alone``; ``alone_deaths`` and ``alone_lapses`` count what came
                            of it there (``queue/reap.lua``)
``stays``                   ``queue/retire.lua``
==========================  ==========================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from postbacks.ledger.phases import Phases, words_of
from postbacks.urls import redacted

if TYPE_CHECKING:
    from postbacks.privacy import Masker

#: Version of the layout of records; every record carries it.
SCHEMA: Final = 1
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
    """Return a time of the broker's clock (ms since the epoch) as ISO 8601 UTC with milliseconds."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Attempt(NamedTuple):
    """POST of a postback and what came of it.

    Attributes:
        number: 1 for the first POST.
        at_ms: when it began, on the broker's clock.
        outcome: one of ``transport.outcomes.OUTCOMES``, or ``unknown``.
        status: HTTP status, where an answer came.
        elapsed_ms: from the begin of the POST to its outcome.
        detail: the outcome in words, without secrets.
        excerpt: the first bytes of a failed answer's body, as text.
        shared: no connection was tried for it: the time-out of another postback's at its endpoint counts for it too.
        phases: of the POST; None where nothing was tried, and in a note of version 0.1.0.
        address: address that it went to; empty where phases are None, and through a proxy.
    """

    number: int
    at_ms: int
    outcome: str
    status: int | None = None
    elapsed_ms: int = 0
    detail: str = ""
    excerpt: str = ""
    shared: bool = False
    phases: Phases | None = None
    address: str = ""

    def to_json(self) -> str:
        """Return the attempt as its note in the record; what is empty is left out."""
        if self.outcome == "delivered" and self.status and not (self.detail or self.excerpt or self.shared):
            # Nearly all attempts are like this one, and json takes ten times as long.
            more = f', "elapsed_ms": {self.elapsed_ms}' if self.elapsed_ms else ""
            if self.phases is not None:
                more += f', "phases": "{self.phases.packed}"'
                more += f', "address": "{self.address}"' if self.address else ""
            return (
                f'{{"number": {self.number}, "at_ms": {self.at_ms}, "outcome": "delivered", '
                f'"status": {self.status}{more}}}'
            )
        always = {"number": self.number, "at_ms": self.at_ms, "outcome": self.outcome}
        rest = {
            "status": self.status,
            "elapsed_ms": self.elapsed_ms,
            "detail": shortened(self.detail, MAX_DETAIL),
            "excerpt": self.excerpt,
            "shared": self.shared,
            "phases": self.phases.packed if self.phases else "",
            "address": self.address,
        }
        return json.dumps(always | {name: value for name, value in rest.items() if value}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Attempt:
        """Build an attempt from its note; fields of a newer version are left out."""
        data = json.loads(text)
        if "phases" in data:
            data["phases"] = Phases.unpack(data["phases"])
        return cls(**{name: data[name] for name in cls._fields if name in data})

    @property
    def course(self) -> str:
        """Phases and address in words; empty where neither is known."""
        return words_of(self.phases, self.address)

    def masked(self, mask: Masker, document: bytes) -> Attempt:
        """Return the attempt without what is personal; the receiver may have repeated the document that it got."""
        if not (self.detail or self.excerpt):
            return self
        return self._replace(detail=mask.words(self.detail), excerpt=mask.answer(self.excerpt, document))

    def to_public_dict(self) -> dict[str, Any]:
        """Return the attempt as ``postbacks show --json`` prints it."""
        attempt: dict[str, Any] = {
            "number": self.number,
            "at": iso(self.at_ms),
            "outcome": self.outcome,
            "status": self.status,
            "elapsed_ms": self.elapsed_ms,
        }
        if self.detail:
            attempt["detail"] = self.detail
        if self.excerpt:
            attempt["excerpt"] = self.excerpt
        if self.shared:
            attempt["shared"] = True
        if self.phases:
            attempt["phases"] = self.phases.gone_through
        if self.address:
            attempt["address"] = self.address
        return attempt


class Resend(NamedTuple):
    """Resend of a postback by somebody's order.

    Attributes:
        attempts: POSTs begun before.
        at_ms: when, on the broker's clock.
        by: who; empty where that is not known.
        job: by which job; empty for none.
    """

    attempts: int
    at_ms: int
    by: str
    job: str

    @classmethod
    def from_json(cls, attempts: int, text: str | bytes) -> Resend:
        """Build a resend from its note."""
        data = json.loads(text)
        return cls(attempts, int(data["at_ms"]), str(data.get("by", "")), str(data.get("job", "")))

    def to_public_dict(self) -> dict[str, Any]:
        """Return the resend as ``postbacks show --json`` prints it."""
        return {
            "after_attempts": self.attempts,
            "at": iso(self.at_ms),
            "by": self.by or None,
            "job": self.job or None,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """Record of one postback. Times are ms since the epoch on the broker's clock.

    Attributes:
        state: one of ``states.STATES``, or ``held``.
        attempts: those that have a note.
        failures: of the attempts those that count against the resends.
        digest: None in a record of version 0.1.0.
        first_id: id that it came with, where that is another postback's.
        own_url: its URL came with the call.
        is_stub: its document was not kept, as its account's dead took too much.
        resends: by somebody's order, in order.
        is_opt_out: by it a person takes back a consent; False in a record of version 0.1.0.
        forgotten_ms: when it was erased, as a person was to be forgotten; None where it was not.
    """

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
    digest: bytes | None = None
    first_id: str = ""
    own_url: bool = False
    is_stub: bool = False
    resends: tuple[Resend, ...] = ()
    is_opt_out: bool = False
    forgotten_ms: int | None = None

    @classmethod
    def from_hash(cls, postback_id: str, fields: dict[bytes, bytes]) -> Record:
        """Build a record from its hash as redis-py returns it (bytes)."""
        from postbacks.ledger import states  # noqa: PLC0415 - a health check reads no records

        text = {
            name.decode(): value.decode("utf-8", "replace")
            for name, value in fields.items()
            if name not in {b"xml", b"raw", b"digest"}
        }
        attempts = sorted(
            (Attempt.from_json(value) for name, value in text.items() if name.startswith("attempt:")),
            key=lambda attempt: attempt.number,
        )
        noted = {attempt.number for attempt in attempts}
        return cls(
            id=postback_id,
            state=states.reported(text["state"], int(text.get("attempts", 0)), noted),
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
            resends=tuple(
                sorted(
                    Resend.from_json(int(name[7:]), value)
                    for name, value in text.items()
                    if name.startswith("resent:")
                )
            ),
            is_opt_out="opt_out" in text,
            forgotten_ms=int(float(text["forgotten"])) if "forgotten" in text else None,
        )

    @property
    def ended_by_attempt(self) -> bool:
        """True where the last attempt is why the postback has ended, and nothing that came after it (an origin switched off)."""
        return bool(self.attempts) and self.reason in {"", "poison", self.attempts[-1].outcome}

    def masked(self, mask: Masker) -> Record:
        """Return the record without what is personal, for people to look at: it cannot be sent."""
        return replace(
            self,
            url=mask.url(self.url, is_own=self.own_url) if self.url else "",
            xml=mask.document(self.xml).encode(),
            reason=mask.reason(self.reason),
            attempts=tuple(attempt.masked(mask, self.xml) for attempt in self.attempts),
            raw=None if self.raw is None else b"",
        )

    def to_public_dict(self) -> dict[str, Any]:
        """Return the record as ``postbacks show --json`` prints it: no password of a URL, no raw message."""
        return {
            "id": self.id,
            "account": self.account,
            "group": self.group,
            "origin": self.origin,
            "code": self.code,
            "opt_out": self.is_opt_out,
            "url": redacted(self.url) if self.url else None,
            "state": self.state,
            "reason": self.reason or None,
            "sequence": self.sequence,
            "created": iso(self.created_ms),
            "attempts": [attempt.to_public_dict() for attempt in self.attempts],
            **({"resends": [resend.to_public_dict() for resend in self.resends]} if self.resends else {}),
            "next_at": iso(self.next_ms),
            "forgotten": iso(self.forgotten_ms),
        }
