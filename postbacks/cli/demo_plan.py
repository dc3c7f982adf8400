"""The plan of ``postbacks demo``: postbacks, their receivers, and the check of their outcomes."""

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
#: POSTs of a postback that never arrives: the promise is 1 and at most 5 resends.
POSTS: Final = 6
#: Seconds that the slow receiver takes.
SLOW_S: Final = 1.5

#: Paths of an account's URLs, and their names in the table.
PATHS: Final = {"url": "/postbacks", "mo_url": "/mo", "pass_url": "/pass"}
_URL_WORDS: Final = {"/postbacks": "Postback URL", "/mo": "MO URL", "/pass": "Pass URL"}

_OK: Final = ("delivered", 200)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of URL, with an account and a receiver of its own.

    Attributes:
        account: the account's name.
        words: behaviour of the receiver.
        attempts: outcome and status of every attempt that must be made.
        urls: names of the URLs that the account has; where one is missing, the Postback URL serves.
    """

    account: str
    words: str
    attempts: tuple[tuple[str, int | None], ...]
    urls: tuple[str, ...]

    @property
    def state(self) -> str:
        """State that a postback must end in."""
        return "delivered" if self.attempts[-1] == _OK else "dead"

    def path(self, group: str) -> str:
        """Return the path at which a postback of this group must arrive."""
        name = {"mo": "mo_url", "pass": "pass_url"}.get(group, "url")
        return PATHS[name if name in self.urls else "url"]


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
    """A postback of the demo, on its way to one kind of URL.

    Attributes:
        kind: the kind of URL that it goes to.
        tags: values that were sent, by tag.
        event: the event of these tags, checked.
        postback_id: its id, once sent.
        sent_ms: time at which ``delay()`` returned, ms since the epoch.
        record: its record, as last read.
    """

    kind: Kind
    tags: dict[str, Any]
    event: Event
    postback_id: str = ""
    sent_ms: int = 0
    record: Record | None = field(default=None)

    @property
    def name(self) -> str:
        """Name of the event, for people."""
        return f"{self.event.origin} {self.event.code}"

    @property
    def url_words(self) -> str:
        """Name of the URL and its kind, for people."""
        return f"{_URL_WORDS[self.kind.path(self.event.group)]}, {self.kind.words}"

    @property
    def outcome_words(self) -> str:
        """State and, of a dead postback, the reason, for people."""
        if self.record is None:
            return "not taken in"
        last = self.record.attempts[-1] if self.record.attempts else None
        if last is None or last.outcome == self.record.state:
            return self.record.state
        return f"{self.record.state} ({last.outcome if last.status is None else last.status})"

    @property
    def ended(self) -> bool:
        """True if its state is final."""
        return self.record is not None and self.record.state in FINAL_STATES

    @property
    def took_s(self) -> float | None:
        """Seconds from ``delay()`` to its end; None before."""
        if self.record is None or self.record.ended_ms is None:
            return None
        return max(0, self.record.ended_ms - self.sent_ms) / 1000


def journeys() -> list[Journey]:
    """Plan a postback of every row, to the kinds of URL in turn, and two more to the dead port.

    So every row arrives at a receiver, where its tags are checked.
    """
    kinds = cycle((OK, TWICE, SLOW, NO_CONTENT))
    planned = [(next(kinds), EVENTS[row.origin, row.code]) for row in table()]
    planned += [(DEAD_PORT, EVENTS["SUB", "N301"]), (DEAD_PORT, EVENTS["SMS_MT", "N202"])]
    return [Journey(kind, tags := example(event), parse_event(tags)) for kind, event in planned]


def problems_of(journey: Journey, received: Sequence[Received], celery_state: str) -> list[str]:
    """Compare a journey with its plan; return a sentence for each difference."""
    record, kind = journey.record, journey.kind
    if record is None or not journey.ended:
        return [f"has not ended in time ({record.state if record else 'not taken in'})"]
    problems: list[str] = []

    def compare(name: str, expected: object, actual: object) -> None:
        if actual != expected:
            problems.append(f"{name} is {actual!r}, not {expected!r}")

    compare("state", kind.state, record.state)
    compare("AsyncResult.state", "SUCCESS" if kind.state == "delivered" else "FAILURE", celery_state)
    attempts = [(attempt.outcome, attempt.status) for attempt in record.attempts]
    compare("attempts", list(kind.attempts), attempts)
    if kind is DEAD_PORT:
        compare("number of POSTs received", 0, len(received))
        return problems
    numbers = [request.attempt for request in received]
    compare("Postback-Attempt", list(range(1, len(kind.attempts) + 1)), numbers)
    for request in received:
        problems += _request_problems(journey, request)
    for before, after in pairwise(received):
        spacing_s = after.monotonic_s - before.monotonic_s
        if spacing_s < COUNTDOWN_S * 0.95:
            problems.append(
                f"attempt {after.attempt} came {spacing_s:.2f} s after the one before, not {COUNTDOWN_S:g} s"
            )
    return problems


def _request_problems(journey: Journey, request: Received) -> list[str]:
    """Compare a request with what was sent: its method, path and type, its tags, its bytes."""
    problems: list[str] = []
    compared = {
        "method": ("POST", request.method),
        "path": (journey.kind.path(journey.event.group), request.path),
        "Content-Type": ("application/xml; charset=utf-8", request.headers.get("content-type")),
    }
    for name, (expected, actual) in compared.items():
        if actual != expected:
            problems.append(f"{name} of attempt {request.attempt} is {actual!r}, not {expected!r}")
    try:
        tags = read(request.body)
    except InvalidEvent as error:
        return [*problems, f"attempt {request.attempt}: {error}"]
    problems += [
        f"{tag} of attempt {request.attempt} is {tags.get(tag)!r}, not {journey.tags.get(tag)!r}"
        for tag in dict.fromkeys([*journey.tags, *tags])
        if journey.tags.get(tag) != tags.get(tag)
    ]
    if list(journey.tags) != list(tags):
        problems.append(
            f"the tags of attempt {request.attempt} are not in the catalogue's order: {', '.join(tags)}"
        )
    if request.body != render(journey.event):
        problems.append(f"the bytes of attempt {request.attempt} are not those of postbacks render")
    return problems
