"""Life of a postback: the states that it has been in, and their diagram as SVG."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from markupsafe import Markup

from postbacks.ledger import states
from postbacks.web.charts import course
from postbacks.web.render import lasting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from postbacks.ledger.record import Attempt, Record

#: Size of the diagram and of a state in it, in the diagram's own units.
_WIDTH: Final = 720
_HEIGHT: Final = 250
_WIDE: Final = 150
_HIGH: Final = 50
#: State -> its upper left corner.
_PLACES: Final = {
    states.WAITING: (10, 100),
    states.SENDING: (270, 100),
    states.PARKED: (270, 190),
    states.DELIVERED: (560, 10),
    states.DEAD: (560, 70),
    states.SKIPPED: (560, 130),
    states.CANCELLED: (560, 190),
}
#: Ways between states (``ledger/states.py``) -> their line.
_WAYS: Final = {
    (states.WAITING, states.SENDING): "M160 125 L268 125",
    (states.SENDING, states.DELIVERED): "M420 112 L558 40",
    (states.SENDING, states.DEAD): "M420 122 L558 95",
    (states.SENDING, states.PARKED): "M345 150 L345 188",
    (states.SENDING, states.CANCELLED): "M420 138 L558 205",
    (states.PARKED, states.WAITING): "M270 215 L85 215 L85 152",
    (states.PARKED, states.DEAD): "M420 205 L500 120 L558 102",
    (states.PARKED, states.CANCELLED): "M420 220 L558 220",
    (states.WAITING, states.SKIPPED): "M85 100 L85 82 L450 82 L510 150 L558 155",
    (states.WAITING, states.DEAD): "M85 100 L85 82 L520 82 L558 90",
    (states.WAITING, states.CANCELLED): "M85 152 L85 242 L540 242 L558 232",
    (states.DEAD, states.WAITING): "M635 68 L635 64 L40 64 L40 98",
    (states.SKIPPED, states.WAITING): "M712 155 L716 155 L716 4 L40 4 L40 98",
    (states.DELIVERED, states.WAITING): "M560 30 L60 30 L60 98",
    (states.CANCELLED, states.WAITING): "M635 240 L635 247 L20 247 L20 152",
}
#: Ways that are drawn where nobody has gone them: the usual ones.
_USUAL: Final = tuple(_WAYS)[:6]


class Step(NamedTuple):
    """Step of a life.

    Attributes:
        state: that it came into; one that is held waits.
        at_ms: when; ms since the epoch on the broker's clock.
    """

    state: str
    at_ms: int


class Post(NamedTuple):
    """Attempt, with the wait before it.

    Attributes:
        attempt: as the record has it.
        waited_ms: from the acceptance, the end of the attempt before or a resend to its begin.
        is_resent: True where it is the first after a resend by somebody's order.
        chart: of its phases; empty where they are not known.
    """

    attempt: Attempt
    waited_ms: int
    is_resent: bool
    chart: Markup = Markup("")


def steps_of(record: Record) -> list[Step]:
    """Return the states that a postback has been in, in order, as its attempts and resends tell them."""
    steps = [Step(states.WAITING, record.created_ms)]
    posts = sorted(record.attempts, key=lambda attempt: attempt.number)
    resends = list(record.resends)
    for place, attempt in enumerate(posts):
        while resends and resends[0].attempts < attempt.number:
            _resend(steps, resends.pop(0).at_ms)
        if steps[-1].state == states.PARKED:
            steps.append(Step(states.WAITING, attempt.at_ms))
        steps.append(Step(states.SENDING, attempt.at_ms))
        ended_ms = attempt.at_ms + attempt.elapsed_ms
        if attempt.outcome == "delivered":
            steps.append(Step(states.DELIVERED, ended_ms))
        elif place < len(posts) - 1:
            is_resent = bool(resends) and resends[0].attempts < posts[place + 1].number
            steps.append(Step(states.DEAD if is_resent else states.PARKED, ended_ms))
        elif not resends and record.state in states.FINAL_STATES:
            steps.append(Step(record.state, record.ended_ms or ended_ms))
        else:
            steps.append(Step(states.DEAD if resends else states.PARKED, ended_ms))
    for resend in resends:
        _resend(steps, resend.at_ms)
    now = states.WAITING if record.state == states.HELD else record.state
    if now != steps[-1].state:
        steps.append(Step(now, record.ended_ms or steps[-1].at_ms))
    return steps


def _resend(steps: list[Step], at_ms: int) -> None:
    """Add a resend; what it was sent again from is a state that no attempt tells of."""
    if steps[-1].state == states.WAITING:
        steps.append(Step(states.DEAD, steps[-1].at_ms))
    steps.append(Step(states.WAITING, at_ms))


def posts_of(record: Record) -> list[Post]:
    """Return the attempts of a postback with how long each was waited for."""
    posts, free_ms = [], record.created_ms
    longest_ms = max((attempt.elapsed_ms for attempt in record.attempts), default=0)
    for attempt in sorted(record.attempts, key=lambda attempt: attempt.number):
        resent_ms = max(
            (resend.at_ms for resend in record.resends if resend.attempts == attempt.number - 1), default=None
        )
        since_ms = free_ms if resent_ms is None else max(free_ms, resent_ms)
        chart = course(attempt.phases, longest_ms) if attempt.phases else Markup("")
        posts.append(Post(attempt, max(0, attempt.at_ms - since_ms), resent_ms is not None, chart))
        free_ms = attempt.at_ms + attempt.elapsed_ms
    return posts


def diagram(
    steps: Sequence[Step],
    now_ms: int,
    clock: Callable[[int], str],
    names: Mapping[str, str] = MappingProxyType({}),
) -> Markup:
    """Draw the states and the ways between them; those that were gone stand out, with times.

    Args:
        steps: of the life.
        now_ms: until when the latest state has lasted, unless it is final.
        clock: puts a time into words.
        names: state -> its other name, where it has one.
    """
    gone = Counter(pair for pair in pairwise(step.state for step in steps))
    times, lasted, first = Counter[str](), Counter[str](), dict[str, int]()
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        times[step.state] += 1
        first[step.state] = step.at_ms
        until_ms = now_ms if following is None else following.at_ms
        lasted[step.state] += max(0, until_ms - step.at_ms)
    latest = steps[-1].state
    places = _PLACES if latest in _PLACES else {**_PLACES, latest: _PLACES[states.SKIPPED]}
    if latest not in _PLACES:
        del places[states.SKIPPED]
    ways = [way for way in _WAYS if way not in gone and way in _USUAL] + [way for way in _WAYS if way in gone]
    shapes = [_way(way, gone[way], names) for way in ways]
    for state, place in places.items():
        words = ""
        if state in times:
            is_end = state == latest and state in states.FINAL_STATES
            stay = clock(first[state]) if is_end else lasting(lasted[state])
            words = stay if times[state] == 1 else f"{times[state]} times, {stay}"
        shapes.append(_state(state, names.get(state, state), place, words, is_latest=state == latest))
    told = ", then ".join(
        f"{names.get(step.state, step.state)} at {clock(step.at_ms)}" for step in steps[-30:]
    )
    return Markup(
        '<svg class="life" role="img" aria-label="{}" viewBox="0 0 {} {}">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>{}</svg>'
    ).format(f"Its states: {told}.", _WIDTH, _HEIGHT, Markup("").join(shapes))


def _way(way: tuple[str, str], times: int, names: Mapping[str, str]) -> Markup:
    title = f"{names.get(way[0], way[0])} to {names.get(way[1], way[1])}" + (
        f", {times} times" if times > 1 else ""
    )
    mark = "way gone" if times else "way"
    return Markup('<path class="{}" d="{}" marker-end="url(#arrow)"><title>{}</title></path>').format(
        mark, _WAYS[way], title
    )


def _state(state: str, name: str, place: tuple[int, int], words: str, *, is_latest: bool) -> Markup:
    x, y = place
    mark = "node" + (" been" if words else "") + (f" now is-{state}" if is_latest else "")
    return Markup(
        '<g class="{}"><rect x="{}" y="{}" width="{}" height="{}" rx="7"/>'
        '<text class="name" x="{}" y="{}">{}</text><text x="{}" y="{}">{}</text></g>'
    ).format(
        mark,
        x,
        y,
        _WIDE,
        _HIGH,
        x + _WIDE // 2,
        y + (21 if words else 30),
        name,
        x + _WIDE // 2,
        y + 40,
        words,
    )
