"""What ``postbacks demo`` sends where, what has to come of it, and the check that it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any, Final

from postbacks.catalogue import EVENTS, Event, parse_event, table
from postbacks.catalogue.xml import read, render
from postbacks.cli.examples import example
from postbacks.errors import InvalidEvent
from postbacks.ledger.states import FINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.devtools.receiver import Received
    from postbacks.ledger.record import Record

#: Seconds to a resend, instead of the promise's 300.
COUNTDOWN_S: Final = 1.0
#: POSTs of a postback that never arrives. The promise: 1 and at most 5 resends.
POSTS: Final = 6
#: Seconds that the slow receiver takes.
SLOW_S: Final = 1.5

#: The path of each of an account's URLs, and what the table calls it.
PATHS: Final = {"url": "/postbacks", "mo_url": "/mo", "pass_url": "/pass"}
_URL_WORDS: Final = {"/postbacks": "Postback URL", "/mo": "MO URL", "/pass": "Pass URL"}

_OK: Final = ("delivered", 200)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of URL: one account, one receiver.

    Attributes:
        account: the account's name.
        words: what the URL does.
        attempts: outcome and status of every attempt that has to be made.
        urls: the URLs that the account has; where one is missing, the Postback URL serves.
    """

    account: str
    words: str
    attempts: tuple[tuple[str, int | None], ...]
    urls: tuple[str, ...]

    @property
    def state(self) -> str:
        """The state that a postback has to end in."""
        return "delivered" if self.attempts[-1] == _OK else "dead"

    def path(self, group: str) -> str:
        """Where a postback of this group has to arrive."""
        own = {"mo": "mo_url", "pass": "pass_url"}.get(group, "url")
        return PATHS[own if own in self.urls else "url"]


OK = Kind("demo-ok", "answers 200", (_OK,), ("url", "mo_url", "pass_url"))
TWICE = Kind(
    "demo-fails-twice",
    "500 twice, then 200",
    (("status", 500), ("status", 500), _OK),
    ("url", "mo_url", "pass_url"),
)
SLOW = Kind("demo-slow", f"200 after {SLOW_S:g} s", (_OK,), ("url",))
NO_CONTENT = Kind("demo-204", "answers 204", (("status", 204),) * POSTS, ("url",))
DEAD_PORT = Kind("demo-dead-port", "dead port", (("refused", None),) * POSTS, ("url",))
KINDS: Final = (OK, TWICE, SLOW, NO_CONTENT, DEAD_PORT)


@dataclass(slots=True)
class Journey:
    """One postback of the demo.

    Attributes:
        kind: where it goes.
        tags: what was sent, tag by tag.
        event: the same, checked.
        postback_id: its id, once sent.
        sent_ms: when ``delay()`` returned, ms since the epoch.
        record: its record, as it was last seen.
    """

    kind: Kind
    tags: dict[str, Any]
    event: Event
    postback_id: str = ""
    sent_ms: int = 0
    record: Record | None = field(default=None)

    @property
    def name(self) -> str:
        """The event, for people."""
        return f"{self.event.origin} {self.event.code}"

    @property
    def url_words(self) -> str:
        """The URL kind, for people."""
        return f"{_URL_WORDS[self.kind.path(self.event.group)]}, {self.kind.words}"

    @property
    def outcome_words(self) -> str:
        """What became of it and, of a dead one, why."""
        if self.record is None:
            return "not taken in"
        last = self.record.attempts[-1] if self.record.attempts else None
        if last is None or last.outcome == self.record.state:
            return self.record.state
        return f"{self.record.state} ({last.outcome if last.status is None else last.status})"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.record is not None and self.record.state in FINAL_STATES

    @property
    def took_s(self) -> float | None:
        """Seconds from ``delay()`` to its end."""
        if self.record is None or self.record.ended_ms is None:
            return None
        return max(0, self.record.ended_ms - self.sent_ms) / 1000


def journeys() -> list[Journey]:
    """Return one postback of every row, over the kinds in turn, and two more for the dead port.

    So every row arrives somewhere, where its tags can be looked at.
    """
    kinds = cycle((OK, TWICE, SLOW, NO_CONTENT))
    planned = [(next(kinds), EVENTS[row.origin, row.code]) for row in table()]
    planned += [(DEAD_PORT, EVENTS["SUB", "N301"]), (DEAD_PORT, EVENTS["SMS_MT", "N202"])]
    return [Journey(kind, tags := example(event), parse_event(tags)) for kind, event in planned]


def faults(journey: Journey, received: Sequence[Received], celery_state: str) -> list[str]:
    """Return everything about a journey that is not as it has to be, a sentence each."""
    record, kind = journey.record, journey.kind
    if record is None or not journey.ended:
        return [f"has not ended in time ({record.state if record else 'not taken in'})"]
    found: list[str] = []

    def expect(what: str, wanted: object, got: object) -> None:
        if wanted != got:
            found.append(f"{what} is {got!r}, not {wanted!r}")

    expect("state", kind.state, record.state)
    expect("AsyncResult.state", "SUCCESS" if kind.state == "delivered" else "FAILURE", celery_state)
    expect("attempts", list(kind.attempts), [(each.outcome, each.status) for each in record.attempts])
    if kind is DEAD_PORT:
        expect("number of POSTs received", 0, len(received))
        return found
    expect("Postback-Attempt", list(range(1, len(kind.attempts) + 1)), [each.attempt for each in received])
    for each in received:
        found += _request_faults(journey, each)
    for before, after in pairwise(received):
        spacing_s = after.monotonic_s - before.monotonic_s
        if spacing_s < COUNTDOWN_S * 0.95:
            found.append(
                f"attempt {after.attempt} came {spacing_s:.2f} s after the one before, not {COUNTDOWN_S:g} s"
            )
    return found


def _request_faults(journey: Journey, each: Received) -> list[str]:
    """Look at one POST: where it came, as what, and whether its tags are those that were sent."""
    found: list[str] = []
    wanted = {
        "method": ("POST", each.method),
        "path": (journey.kind.path(journey.event.group), each.path),
        "Content-Type": ("application/xml; charset=utf-8", each.headers.get("content-type")),
    }
    for what, (right, got) in wanted.items():
        if right != got:
            found.append(f"{what} of attempt {each.attempt} is {got!r}, not {right!r}")
    try:
        tags = read(each.body)
    except InvalidEvent as error:
        return [*found, f"attempt {each.attempt}: {error}"]
    found += [
        f"{tag} of attempt {each.attempt} is {tags.get(tag)!r}, not {journey.tags.get(tag)!r}"
        for tag in dict.fromkeys([*journey.tags, *tags])
        if journey.tags.get(tag) != tags.get(tag)
    ]
    if list(journey.tags) != list(tags):
        found.append(
            f"the tags of attempt {each.attempt} are not in the catalogue's order: {', '.join(tags)}"
        )
    if each.body != render(journey.event):
        found.append(f"the bytes of attempt {each.attempt} are not those of postbacks render")
    return found
